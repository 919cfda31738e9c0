"""Status ends with 1 and one clear line for whatever is not well."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from deployments import Part, Server, command, ledger
from flows.terminal import status
from policy.records import RolloutChanged, Told
from policy.rollout.record import Phase
from tasks.rollout.lead import Lead, last_look, lock_path
from tests.places.memory_endpoint import MemoryServer


def look(world):
    """What status finds, and the exit code of the command."""
    return status.collect(world.config, world.place)


def problem(world, part):
    found = look(world)
    assert not found["healthy"]
    return found["problems"][part]


def told(world):
    """People were told of everything."""
    for untold in world.state.untold:
        world.write(Told(what=untold.what, channel=""))


def test_all_is_well_where_a_version_serves(serving, capsys):
    assert serving.ask("status") == 0
    said = capsys.readouterr().out
    assert "production (production)  answers  stable: v1" in said
    assert f"   100 %  v1  ready  signed by {serving.key[:12]}\n" in said
    assert said.endswith("chain intact\nhealthy\n")


def test_json_can_be_parsed_well_or_not(serving, capsys):
    assert serving.ask("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["healthy"]
    serving.parts.append(Part("worker", "down", "it is down; to do: make up"))
    assert serving.ask("status", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == {"worker": "it is down; to do: make up"}


def test_an_unfinished_rollout_that_nobody_looks_at(walking):
    assert look(walking)["healthy"]
    walking.cloud.pass_time(30)
    line = problem(walking, "endpoint production: rollout of v2")
    assert line.startswith("it is step, and nobody has looked at it for 30.5 s; to do: make up")


def test_an_unfinished_rollout_past_its_deadline_although_somebody_looks(walking):
    walking.cloud.pass_time(1000)
    lead = Lead(walking.scratch, "production", walking.place.clock)
    assert lead.take()
    lead.looked()
    line = problem(walking, "endpoint production: rollout of v2")
    assert "it has been step for 17 min, its deadline is 4 min: nobody drives it" in line


def test_a_request_that_nobody_takes_up_though_the_endpoint_is_free(walking):
    command.make(walking.place, walking.request("v3", "next"))
    assert not [line for line in look(walking)["problems"] if "request" in str(line)]
    ended = walking.rollout.model_copy(update={"phase": Phase.ROLLED_BACK})
    event = RolloutChanged(rollout=ended)
    now = walking.place.clock.now
    ledger.append(walking.place.store, lambda _state: event, by="a test", now=now)
    walking.cloud.pass_time(61)
    line = problem(walking, "endpoint production: request")
    assert line.startswith("nobody takes up the request of ada (rollout v3); to do: make up")


def test_weights_that_are_not_what_the_ledger_wants(serving):
    serving.cloud.endpoints["production"].weights = {}
    assert look(serving)["healthy"], "an order takes a while to become real"
    serving.cloud.pass_time(61)
    line = problem(serving, "endpoint production: weights")
    assert line.startswith("they are nothing, the ledger wants v1 100 % since ")


def test_what_people_were_not_told_for_minutes(serving):
    assert look(serving)["healthy"], "the flow that drives is about to tell"
    serving.cloud.pass_time(240)
    rollout = serving.rollout.id
    assert "nobody was told for" in problem(serving, f"rollout {rollout}")
    told(serving)
    assert look(serving)["healthy"]


def test_a_stable_server_that_was_refused_is_told_with_its_share(serving, capsys):
    server = serving.cloud.endpoints["production"].servers["v1"]
    refused = MemoryServer(server.digest, server.life, 0, "its key is not trusted")
    serving.cloud.endpoints["production"].servers["v1"] = refused
    line = problem(serving, "endpoint production: v1")
    assert line.startswith(
        "its server is failed: its key is not trusted; it has 100 % of the requests; to do: "
    )
    assert "python -m flows rollback --why" in line
    assert serving.ask("status") == 1
    assert "gets no traffic" not in capsys.readouterr().out


def test_a_server_with_traffic_that_is_not_ready(serving):
    serving.cloud.endpoints["production"].servers["v1"].ready = serving.cloud.time + 10**9
    line = problem(serving, "endpoint production: v1")
    assert line.startswith("its server is starting; it has 100 % of the requests")


def test_a_version_whose_key_is_not_trusted(serving, capsys):
    serving.register("v4", signed_by="f" * 64)
    serving.serve("v4")
    assert "signed by ffffffffffff, which is not trusted" in problem(
        serving, "endpoint production: v4"
    )
    assert serving.ask("status") == 1
    assert "signed by ffffffffffff, NOT trusted" in capsys.readouterr().out


def test_an_endpoint_and_a_ledger_that_do_not_answer_are_told_not_raised(serving):
    serving.cloud.lie("observe", "before", "no answer", times=2)
    assert "no answer" in problem(serving, "endpoint production")
    key = "ledger/00000002.json"
    serving.cloud.objects[key] = serving.cloud.objects[key].replace(b'"by"', b'"By"')
    found = look(serving)
    assert "00000002.json" in found["problems"]["ledger"]
    assert [served["weight"] for served in found["endpoints"][1]["versions"]] == [100]


def test_the_time_of_the_last_look_is_kept_in_a_file_that_does_not_grow(world):
    lead = Lead(world.scratch, "production", world.place.clock)
    assert last_look(world.scratch, "production") is None
    assert lead.take()
    for _ in range(50):
        world.cloud.pass_time(1)
        lead.looked()
    assert last_look(world.scratch, "production") == world.place.clock.now()
    assert lock_path(world.scratch, "production").stat().st_size == 40
    world.cloud.pass_time(60)
    assert lead.unwatched_s(None, look_s=0.5) == 60


def test_somebody_who_looks_is_no_problem_elsewhere_either(walking):
    seen = status._look(walking.config, walking.place, walking.place.endpoint("production"))
    elsewhere = type(seen)(
        name=seen.name, observed=seen.observed, silent="", last_look=None, driven_here=False
    )
    now = walking.place.clock.now() + timedelta(seconds=60)
    assert dict(status.problems(walking.state, elsewhere, [walking.key], now)) == {}
    assert walking.rollout.phase is Phase.STEP
    assert Server("ready", "").state == "ready"


@pytest.mark.parametrize("words", ["status", "history", "--help"])
def test_a_reader_that_leaves_early_is_no_error(serving, tmp_path, words):
    """As `make status | head -0`, with a pipe that is closed before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    config = [] if words == "--help" else [str(serving.file)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows", words, *config],
            stdout=writing, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode == (1 if words == "status" else 0)
