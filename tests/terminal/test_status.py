"""Status ends with 1 and one clear line for whatever is not well."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from deployments import Part, Server, command, ledger
from deployments.ledger_head import head_path, remember_head
from deployments.local.stack.health import STOPPED
from flows.terminal import status
from flows.terminal.problem import Commands
from policy.errors import StoreError
from policy.records import RolloutChanged, Told
from policy.rollout.record import Phase
from tasks.rollout.controller import drive
from tasks.rollout.lead import Lead, last_look, lock_path
from tests.places.memory_endpoint import MemoryServer
from tests.terminal.conftest import STRANGER


def look(world):
    """What status finds."""
    return status.collect(world.config, world.place, Commands(str(world.file)))


def problem(world, part):
    """What is wrong with this part, and what to do."""
    found = look(world)
    assert not found["healthy"]
    (told,) = [f"{p['what']}; to do: {p['do']}" for p in found["problems"] if p["part"] == part]
    return told


def parts(world):
    """What is not well, what endangers clients first."""
    return [(problem["endangers"], problem["part"]) for problem in look(world)["problems"]]


def told(world):
    """People were told of everything."""
    for untold in world.state.untold:
        world.write(Told(what=untold.what, channel=""))


def test_all_is_well_where_a_version_serves(serving, capsys):
    assert serving.ask("status") == 0
    said = capsys.readouterr().out
    assert "production (production)  answers  stable: v1" in said
    assert f"   100 %  v1  ready  signed by {serving.key[:12]}\n" in said
    assert "  way back        none: no version served before\n" in said
    assert re.search(r"  last rollout: v1 done \S+ \S+ ago: ", said)
    assert "parts     1 running, 0 not\n" in said
    assert said.endswith("chain intact\nhealthy\n")


def test_json_can_be_parsed_well_or_not(serving, capsys):
    assert serving.ask("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["healthy"]
    serving.parts.append(Part("worker", "down", "it is down; to do: make up"))
    assert serving.ask("status", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [
        {
            "part": "worker",
            "what": "it is down",
            "do": f"make up CONFIG={serving.file}",
            "endangers": "nobody yet",
        }
    ]


def test_an_unfinished_rollout_that_nobody_looks_at(walking):
    assert look(walking)["healthy"]
    walking.cloud.pass_time(30)
    line = problem(walking, "endpoint production: rollout of v2")
    told = "it is step, and nobody has looked at it for 30.5 s; to do: make up"
    assert line.startswith(told)
    assert f'; or: .venv/bin/python -m flows abort --why "…" {walking.file}' in line
    assert parts(walking)[0][0] == "clients"


def test_a_reconciler_that_runs_may_be_busy_for_a_minute(walking):
    walking.parts.append(Part("reconciler", "running, pid 7"))
    walking.cloud.pass_time(55)
    assert look(walking)["healthy"]
    walking.cloud.pass_time(10)
    line = problem(walking, "endpoint production: rollout of v2")
    log = walking.scratch / "logs/reconciler.log"
    assert f"to do: tail {log}  # the reconciler runs: what keeps it?; or: " in line
    assert "make up" not in line


def test_a_reconciler_that_does_not_run_is_not_waited_for(walking):
    walking.parts.append(Part("reconciler", "exited", "it is down; to do: make up"))
    walking.cloud.pass_time(30)
    line = problem(walking, "endpoint production: rollout of v2")
    assert "  # starts the reconciler; or: " in line


def test_an_endpoint_that_is_down_with_the_whole_stack_is_no_problem_of_its_own(serving):
    down = "the stack is stopped; to do: make up"
    serving.cloud.lie("observe", "before", "no answer", times=2)
    serving.parts[:] = [
        Part("supervisord", "down", down, "clients"),
        Part("endpoint staging", STOPPED),
        Part("endpoint production", STOPPED),
    ]
    assert parts(serving) == [("clients", "supervisord")]


def test_an_unfinished_rollout_past_its_deadline_although_somebody_looks(walking):
    walking.cloud.pass_time(1000)
    lead = Lead(walking.scratch, "production", walking.place.clock)
    assert lead.take()
    lead.looked()
    line = problem(walking, "endpoint production: rollout of v2")
    assert "it has been step for 17 min, its deadline is 4 min: nobody drives it" in line


def test_a_request_that_nobody_takes_up_though_the_endpoint_is_free(walking):
    command.make(walking.place, walking.request("v3", "next"))
    assert "request" not in str(look(walking)["problems"])
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
    assert f'python -m flows rollback --why "…" {serving.file}' in line
    assert serving.ask("status") == 1
    assert "gets no traffic" not in capsys.readouterr().out


def test_a_server_with_traffic_that_is_not_ready(serving):
    serving.cloud.endpoints["production"].servers["v1"].ready = serving.cloud.time + 10**9
    line = problem(serving, "endpoint production: v1")
    assert line.startswith("its server is starting; it has 100 % of the requests")
    assert parts(serving) == [("clients", "endpoint production: v1")]


def test_a_version_whose_key_is_not_trusted_whatever_the_ledger_says(serving, capsys):
    serving.register("v4", key=STRANGER, signed_by=serving.key)
    serving.serve("v4")
    line = problem(serving, "endpoint production: v4")
    signer = STRANGER.public.fingerprint[:12]
    assert line.startswith(
        f"it could not be started again: release {serving.digest('v4')[:12]}"
    )
    assert f"signed by the key '{signer}', which is not trusted" in line
    assert "add its public half to signing.trusted" in line
    assert serving.ask("status") == 1
    assert "   100 %  v4  ready  NOT verified" in capsys.readouterr().out


def test_a_ledger_that_says_another_signer_than_the_signature(serving):
    serving.register("v4", signed_by="f" * 64)
    serving.serve("v4")
    told = f"its signature is by the key {serving.key[:12]}, the ledger says ffffffffffff"
    assert problem(serving, "endpoint production: v4").startswith(told)


def test_an_endpoint_and_a_ledger_that_do_not_answer_are_told_not_raised(serving):
    serving.cloud.lie("observe", "before", "no answer", times=2)
    assert "no answer" in problem(serving, "endpoint production")
    key = "ledger/00000002.json"
    serving.cloud.objects[key] = serving.cloud.objects[key].replace(b'"by"', b'"By"')
    found = look(serving)
    (told,) = [p["what"] for p in found["problems"] if p["part"] == "ledger"]
    assert "00000002.json" in told
    assert found["ledger"]["chain"] == "NOT readable"
    assert found["endpoints"][1]["way_back"] == "not known: the ledger cannot be read"
    assert [served["weight"] for served in found["endpoints"][1]["versions"]] == [100]


def test_a_ledger_that_was_longer_on_this_machine_is_told_until_somebody_wants_it_so(serving):
    root, number = serving.place.store.root, serving.state.number
    remember_head(serving.scratch, root, number)
    remember_head(serving.scratch, root, number - 1)
    assert look(serving)["healthy"]
    remember_head(serving.scratch, root, number + 66)
    found = look(serving)
    (told,) = [p for p in found["problems"] if p["part"] == "ledger"]
    assert told["what"] == (
        f"it was at record {number + 66}, and is at {number}: records are gone"
    )
    assert told["do"].endswith(f"only if it is to be as it is: rm {head_path(serving.scratch)}")
    head_path(serving.scratch).unlink()
    assert look(serving)["healthy"]


def test_the_time_of_the_last_look_is_kept_in_a_file_that_does_not_grow(world):
    lead = Lead(world.scratch, "production", world.place.clock)
    assert last_look(world.scratch, "production") is None
    assert lead.take()
    for _ in range(50):
        world.cloud.pass_time(1)
        lead.looked()
    assert last_look(world.scratch, "production") == world.place.clock.now()
    assert lock_path(world.scratch, "production").stat().st_size == 40
    assert lead.last_look() == world.place.clock.now()


def test_somebody_who_looks_is_no_problem_elsewhere_either(walking):
    production = walking.place.endpoint("production")
    seen = status._look(walking.config, walking.place, walking.place.health(), production)
    elsewhere = type(seen)(
        name=seen.name, observed=seen.observed, silent="", last_look=None, driven_here=False
    )
    now = walking.place.clock.now() + timedelta(seconds=60)
    assert [*status.problems(walking.state, elsewhere, now, Commands())] == []
    assert walking.rollout.phase is Phase.STEP
    assert Server("ready", "").state == "ready"


class TestWayBack:
    """Could a rollback succeed now? Only if the version that it would go to verifies."""

    @pytest.fixture
    def walked(self, serving):
        """v2 serves, v1 is the way back."""
        serving.serve("v2")
        return serving

    def test_the_version_that_a_rollback_would_go_to_is_told(self, walked):
        found = look(walked)
        assert found["healthy"]
        staging, production = found["endpoints"]
        assert (staging["rollback_to"], production["rollback_to"]) == (None, "v1")
        assert production["way_back"] == "v1, signed, whole"

    def test_one_that_cannot_be_is_told_with_the_endpoint(self, walked, capsys):
        del walked.cloud.objects[walked.stored("v1")[0]]
        assert walked.ask("status") == 1
        told = "  way back        v1, NOT possible: see the problems below\n"
        assert told in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["weights", "MANIFEST", "SIGNATURE"])
    @pytest.mark.parametrize("harm", ["gone", "changed"])
    def test_one_that_does_not_verify_is_no_way_back(self, walked, name, harm):
        (key,) = [key for key in walked.stored("v1") if key.endswith(name)]
        changed = walked.cloud.objects.pop(key).replace(b"1", b"2")  # also of the key's name
        walked.cloud.objects |= {key: changed} if harm == "changed" else {}
        line = problem(walked, "endpoint production: v1")
        told = f"a rollback to it would fail: release {walked.digest('v1')[:12]}"
        assert line.startswith(told)
        assert name in line or "which is not trusted" in line
        assert "restore its release from a copy" in line or "signing.trusted" in line
        assert parts(walked) == [("rollbacks", "endpoint production: v1")]

    def test_one_by_a_key_that_is_not_trusted_any_more_is_no_way_back(self, serving):
        serving.register("v4", key=STRANGER)
        serving.serve("v4")
        serving.serve("v2")
        line = problem(serving, "endpoint production: v4")
        assert "a rollback to it would fail" in line
        assert "add its public half to signing.trusted" in line

    def test_during_a_rollout_the_way_back_is_stable(self, walking):
        del walking.cloud.objects[walking.stored("v1")[0]]
        line = problem(walking, "endpoint production: v1")
        assert line.startswith("a rollback to it would fail")

    def test_without_room_for_its_copy_there_is_no_way_back(self, walked, monkeypatch):
        few = type("Usage", (), {"free": 1_000_000})
        monkeypatch.setattr("shutil.disk_usage", lambda _folder: few)
        line = problem(walked, "endpoint production: v1")
        assert "it needs 50 MB in " in line
        assert ", 1 MB are free; to do: make room there" in line

    def test_a_store_that_does_not_answer_says_nothing_of_a_release(self, walked):
        """It answers for as long as the ledger is looked at: that takes four lists."""
        reads = []

        def hook(call, when):
            if (call, when) == ("list", "before") and (reads.append(call) or len(reads) > 4):
                raise StoreError("the network is away")

        walked.cloud.hook = hook
        assert parts(walked) == [("rollbacks", "store")]

    def test_a_key_file_that_is_gone_is_told_and_not_made_anew(self, walked):
        pem = walked.file.parent / "root/keys/release.pem"
        pem.unlink()
        line = problem(walked, "signing")
        assert line.startswith(f"no release can be verified: {pem} is not there")
        assert not pem.exists()

    def test_a_key_file_that_others_can_read_is_told(self, walked):
        pem = walked.file.parent / "root/keys/release.pem"
        pem.chmod(0o644)
        assert f"chmod 600 {pem}" in problem(walked, "signing")


class TestWhatServes:
    """Whether it is what the ledger says, to the digest."""

    def test_other_bytes_under_the_same_name(self, serving):
        server = serving.cloud.endpoints["production"].servers["v1"]
        server.digest = serving.digest("v2")
        wrong = look(serving)["problems"]
        told = f"it serves release {serving.digest('v2')[:12]}, the ledger says "
        assert wrong[0]["what"].startswith(told + serving.digest("v1")[:12])
        assert wrong[0]["endangers"] == "clients"

    def test_a_version_that_the_ledger_does_not_know(self, serving):
        servers = serving.cloud.endpoints["production"].servers
        servers["v9"] = replace(servers["v1"])
        line = problem(serving, "endpoint production: v9")
        assert line.startswith("it has a server, and the ledger knows no such version")

    def test_a_canary_s_failures_that_nobody_repairs(self, walking):
        assert look(walking)["healthy"]
        walking.cloud.endpoints["production"].fallback = None
        walking.cloud.pass_time(61)
        line = problem(walking, "endpoint production: fallback")
        assert line.startswith(
            "what a version fails to answer, nobody answers; the ledger wants v1"
        )

    def test_the_reconciler_gives_a_lost_fallback_back(self, walking):
        walking.cloud.endpoints["production"].fallback = None
        production = walking.place.endpoint("production")
        walking.drive_until(lambda: production.observe().fallback == "v1")

    def test_the_backup_of_a_watched_version_must_be_ready_without_weight_too(self, walking):
        walking.drive_until(lambda: walking.rollout.phase is Phase.WATCHING)
        servers = walking.cloud.endpoints["production"].servers
        servers["v1"].ready = walking.cloud.time + 10**9
        assert parts(walking) == [("rollbacks", "endpoint production: v1")]


class TestOlderBackup:
    """The store was brought back from a copy of before v2; v2 serves."""

    @pytest.fixture
    def restored(self, serving):
        before = dict(serving.cloud.objects)
        serving.serve("v2")
        serving.cloud.pass_time(300)
        serving.cloud.objects = before
        return serving

    def test_the_difference_is_told(self, restored):
        line = problem(restored, "endpoint production: weights")
        assert line.startswith("they are v2 100 %, the ledger wants v1 100 % since ")
        assert parts(restored)[0] == ("clients", "endpoint production: weights")

    def test_the_reconciler_goes_back_to_it_and_loses_no_request(self, restored):
        production = restored.cloud.endpoints["production"]
        assert "v1" not in production.servers
        told(restored)
        restored.drive_until(lambda: production.weights == {"v1": 100})
        assert restored.cloud.lost("production") == 0
        assert look(restored)["healthy"]


class TestLedger:
    def test_one_that_was_deleted_is_never_intact(self, serving, capsys):
        for key in [key for key in serving.cloud.objects if key.startswith("ledger")]:
            del serving.cloud.objects[key]
        line = problem(serving, "ledger")
        told = "it has no records, but production serves v1 100 %: it was deleted or emptied"
        assert line.startswith(told)
        assert "restore /cloud/ledger from a copy of the store" in line
        assert serving.ask("status") == 1
        said = capsys.readouterr().out
        assert "0 records, head 000000000000, NOT whole" in said
        assert "intact" not in said
        assert serving.ask("history") == 1
        said = capsys.readouterr()
        assert "it has no records, but releases lie in the store" in said.err
        assert "intact" not in said.out

    def test_nothing_takes_the_traffic_from_what_an_emptied_one_has_forgotten(
        self, serving, capsys
    ):
        for key in [key for key in serving.cloud.objects if key.startswith("ledger")]:
            del serving.cloud.objects[key]
        serving.register("v2")
        assert serving.ask("rollout", "v2", "--why", "a test", "--by", "ada") == 1
        said = capsys.readouterr().err
        assert "production serves v1 100 %, and the ledger knows of no rollout to it" in said
        assert serving.cloud.endpoints["production"].weights == {"v1": 100}

    def test_a_new_one_has_no_records_and_is_well(self, tmp_path, world, capsys):
        world.cloud.objects.clear()
        assert look(world)["healthy"]
        assert world.ask("history") == 0
        assert capsys.readouterr().out == "no records yet\n"

    def test_names_that_are_no_records_are_told_and_do_no_harm(self, serving, capsys):
        serving.cloud.objects["ledger/.DS_Store"] = b""
        assert serving.ask("status") == 0
        said = capsys.readouterr().out
        assert "note      ignored in the ledger's folder: ledger/.DS_Store\n" in said

    def test_a_last_record_that_was_cut_short_has_its_command(self, serving):
        key = f"ledger/{serving.state.number:08d}.json"
        serving.cloud.objects[key] = serving.cloud.objects[key][:100]
        line = problem(serving, "ledger")
        assert "was cut short after 100 bytes" in line
        mends = f".venv/bin/python -m flows repair-ledger {serving.file}"
        assert line.endswith(f"to do: {mends}")

    def test_a_broken_one_is_not_mended_by_make_up(self, serving):
        key = "ledger/00000002.json"
        serving.cloud.objects[key] = serving.cloud.objects[key].replace(b'"by"', b'"By"')
        line = problem(serving, "ledger")
        assert line.endswith(
            "to do: restore the record from a copy of the store; never edit records"
        )
        assert parts(serving)[0] == ("rollbacks", "ledger")

    def test_what_lies_in_the_next_record_s_place(self, serving):
        name = f"ledger/{serving.state.number + 1:08d}.json/notes"
        serving.cloud.objects[name] = b""
        line = problem(serving, "ledger")
        assert line.endswith(f"to do: mv /cloud/{name} /cloud/not-a-record")

    def test_a_record_from_the_future_is_told(self, serving):
        told(serving)
        serving.cloud.time -= 3600 * 10**6
        line = problem(serving, "clock")
        assert line.startswith("its last record was written 60 min from now: this clock, or ")

    def test_a_last_look_from_the_future_does_not_count_as_one(self, walking):
        walking.cloud.pass_time(3600)
        lead = Lead(walking.scratch, "production", walking.place.clock)
        assert lead.take()
        lead.looked()
        walking.cloud.time -= 3500 * 10**6
        line = problem(walking, "endpoint production: rollout of v2")
        assert "whether anybody looks is not known until then" in line


def test_problems_come_in_the_order_of_whom_they_harm(serving, capsys):
    serving.serve("v2")
    del serving.cloud.objects[serving.stored("v1")[0]]
    serving.parts.append(Part("worker", "down", "it is down; to do: make up"))
    serving.cloud.endpoints["production"].servers["v2"].ready = serving.cloud.time + 10**9
    assert [harms for harms, _ in parts(serving)] == ["clients", "rollbacks", "nobody yet"]
    assert serving.ask("status") == 1
    said = capsys.readouterr().out
    assert said.index("endangers clients") < said.index("endangers rollbacks")
    assert said.endswith("NOT healthy: see the problems above\n")


def test_commands_name_the_configuration_only_where_it_is_not_the_usual_one():
    usual, other = Commands(), Commands("my files/full.yaml")
    assert usual.make("up") == "make up"
    assert other.make("up") == "make up CONFIG='my files/full.yaml'"
    assert other.flows("status") == ".venv/bin/python -m flows status 'my files/full.yaml'"
    told = other.told("x", "it is down; to do: `make up`", "clients")
    assert (told.what, told.do) == ("it is down", "make up CONFIG='my files/full.yaml'")


@pytest.mark.parametrize("command", ["status", "history"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda world: world.file.write_text("root: ["), "error: "),
        (lambda world: world.file.unlink(), "error: "),
        (lambda world: world.cloud.lie("list", "before", "no network", times=9), "no network"),
    ],
    ids=["a broken configuration", "none", "a store that is away"],
)
def test_whatever_is_away_it_ends_with_1_and_a_clear_error(
    serving, capsys, spoil, told, command
):
    spoil(serving)
    assert serving.ask(command) == 1
    said = capsys.readouterr()
    assert told in said.out + said.err
    assert "Traceback" not in said.err


def test_wrong_usage_alone_ends_with_2(serving):
    with pytest.raises(SystemExit) as ended:
        serving.ask("status", "--colour")
    assert ended.value.code == 2


def test_status_while_a_rollout_writes_is_never_wrong(serving):
    """Between any two calls of the one who writes."""
    serving.serve("v2")
    command.make(serving.place, serving.request("v3", "walk"))
    seen = []

    def peek(state):
        seen.append(look(serving)["problems"])
        return state.endpoint("production").stable == "v3"

    drive(serving.place, "production", peek, by="a flow")
    assert len(seen) > 10
    assert all(not wrong or "nobody was told" in str(wrong) for wrong in seen)


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
