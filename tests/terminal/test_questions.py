"""show, diff and plan; and programs that are started without their arguments."""

import subprocess
import sys

import pytest

from deployments.replay import Sent
from flows.terminal import demo, diff, plan
from policy.rollout.plans import plan_for
from tests.terminal.conftest import LINEAGE, STRANGER


def test_show_tells_all_of_a_version(walking, capsys):
    assert walking.ask("show", "v2") == 0
    said = capsys.readouterr().out
    assert said.startswith("v2  candidate\n")
    for part in (
        f"signed by   {walking.key[:12]}, trusted",
        "accuracy    90 % (colour 90 %)",
        "gate        accuracy 90 % >= 80 %",
        "data        generate://detail, sha256:cccccccccccc",
        "code        aaaaaaaaaaaa, commit bbbbbbbbbbbb, with changes that were not committed",
        "training    seed 7, at most 500 steps, run 4f2a",
        "packages    2, torch 2.13.0",
        "serves      10 % of production, ready",
        "production 0 % -> 10 %, step: ",
    ):
        assert part in said, part


def test_show_of_an_unknown_version_names_the_newest(world, capsys):
    assert world.ask("show", "v9") == 1
    assert "such as: v1, v2, v3" in capsys.readouterr().err


def test_show_tells_a_version_that_was_not_trained_here(world, capsys):
    world.register("v4", lineage={"copy_of": "v1"}, key=STRANGER)
    assert world.ask("show", "v4") == 0
    said = capsys.readouterr().out
    assert "made of     copy_of v1" in said
    signer = STRANGER.public.fingerprint[:12]
    assert f"no endpoint serves it: release {world.digest('v4')[:12]}: it is signed by" in said
    assert f"the key '{signer}', which is not trusted" in said
    assert "serves      nowhere" in said


def test_diff_tells_scores_settings_data_and_code(world, capsys):
    config = '{"model": {"learning_rate": 0.01}, "name": "local"}'
    other = {**LINEAGE, "config": config, "seed": "8", "model_code": "d" * 64}
    world.register("v4", accuracy=0.95, lineage=other)
    assert world.ask("diff", "v1", "v4") == 0
    assert capsys.readouterr().out.splitlines() == [
        "v1 -> v4",
        "  accuracy: 90 % -> 95 % (+5.00 points)",
        "  accuracy of colour: 90 % -> 95 % (+5.00 points)",
        "  code model_code: aaaaaaaaaaaa -> dddddddddddd",
        "  training seed: 7 -> 8",
        "  setting model.learning_rate: 0.004 -> 0.01",
    ]
    assert world.ask("diff", "v1", "v2") == 0
    assert "are the same" in capsys.readouterr().out


def test_diff_with_a_version_without_lineage_says_what_is_not_recorded(world):
    world.register("v4", lineage={})
    from deployments import ledger

    state = world.state
    pair = [ledger.registered(world.place.store, state, version) for version in ("v1", "v4")]
    assert "training seed: 7 -> not recorded" in [*diff.differences(*pair)]


def test_plan_tells_the_steps_and_the_time_at_todays_traffic(serving, capsys):
    assert serving.ask("plan") == 0
    said = capsys.readouterr().out
    assert "production (production): canary" in said
    assert "steps     10 % -> 30 % -> 50 % -> 100 %, each at least 7 s and 5 requests" in said
    assert "about 28 s of steps, at most " in said
    assert "(today's traffic 10 requests/s)" in said
    assert "staging (staging): immediate" in said


def test_plan_without_traffic_says_what_the_rollout_would_do(world):
    wanted = plan_for(world.config, "production")
    assert plan.requests_per_s(world.place, "production") == 0
    assert plan.timing(wanted, 0.0).startswith("time      unknown, at most ")
    assert plan.timing(wanted, None).endswith("it waits for traffic")
    replaying = wanted.model_copy(update={"little_traffic": "replay", "replay_per_s": 20})
    assert "about 28 s of steps" in plan.timing(replaying, 0.0)


def test_traffic_that_cannot_be_read_is_not_known(serving):
    serving.cloud.lie("read_counts", "before")
    assert plan.requests_per_s(serving.place, "production") is None


@pytest.mark.parametrize(
    "program", ["flows.rollout", "flows.rollback", "flows.reproduce", "flows.terminal.watch"]
)
def test_a_program_without_its_argument_tells_its_usage(program):
    done = subprocess.run([sys.executable, "-m", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"usage: python -m {program} [-h] " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_says_what_did_not_go_as_it_should():
    assert demo.wrongs("v2", "v2", Sent(sent=10), rolled_back=True) == []
    wrong = demo.wrongs("v1", "v2", Sent(sent=10, failed=1), rolled_back=False)
    assert wrong == [
        "v1 serves, expected v2",
        "the broken copy was promoted, expected that it is rolled back",
        "1 of 10 requests failed, expected none",
    ]


def test_the_demo_runs_on_a_laptop_only(world, tmp_path, capsys):
    from flows import __main__ as terminal
    from tests.policy.configurations import elsewhere

    file = tmp_path / "gcp.yaml"
    file.write_text(elsewhere("gcp"))
    assert terminal.main(["demo", str(file)]) == 1
    assert "the demo runs at the place 'local' only" in capsys.readouterr().err
