"""What people ask for in a terminal happens, and the exit code says whether it did."""

import subprocess
import sys

import pytest

from deployments import command
from flows.terminal.command import fulfil, longest, request_of
from policy.rollout.record import Phase
from tests.policy.worlds import Behaviour

WHY = ("--why", "customers complain", "--by", "ada")


def test_abort_of_a_canary_that_nobody_drives_moves_the_weights_back(walking, capsys):
    assert walking.ask("abort", *WHY) == 0
    assert walking.cloud.endpoints["production"].weights == {"v1": 100}
    assert walking.rollout.phase is Phase.ROLLED_BACK
    told = capsys.readouterr().out
    assert "rolling-back at 0 %: aborted by ada: customers complain" in told
    assert told.splitlines()[-1].startswith("production: abort came true: ")
    assert walking.cloud.lost("production") == 0


def test_a_rollout_is_told_state_by_state_and_ends_with_0_if_it_was_promoted(serving, capsys):
    assert serving.ask("rollout", "v2", *WHY) == 0
    told = capsys.readouterr().out
    for state in ("deploying at 0 %", "step at 10 %", "step at 50 %", "done at 100 %"):
        assert f"v2 on production: {state}" in told
    assert serving.cloud.endpoints["production"].weights == {"v2": 100}


def test_a_rollout_that_is_rolled_back_ends_with_1_and_says_why(serving, capsys):
    serving.cloud.behaviours["v2"] = Behaviour(errors=0.5)
    assert serving.ask("rollout", "v2", *WHY) == 1
    assert "error: rollout v2 did not come true: " in capsys.readouterr().err
    assert serving.cloud.endpoints["production"].weights == {"v1": 100}


def test_rollback_brings_the_version_before(serving, capsys):
    serving.serve("v2")
    assert serving.ask("rollback", *WHY) == 0
    assert serving.cloud.endpoints["production"].weights == {"v1": 100}
    assert "rollback came true" in capsys.readouterr().out


def test_a_version_that_serves_already_needs_nothing(serving, capsys):
    assert serving.ask("rollout", "v1", *WHY) == 0
    assert "v1 serves production already" in capsys.readouterr().out


def test_a_command_that_counts_at_once_says_so_and_that_nobody_looks(walking, capsys):
    walking.cloud.pass_time(60)
    assert walking.ask("pause", *WHY) == 0
    said = capsys.readouterr()
    assert "production: paused by ada: customers complain" in said.out
    assert (
        "warning: no process of this machine has looked at production for 60.5 s;" in said.err
    )


def test_a_request_may_be_left_to_whoever_drives(walking, capsys):
    assert walking.ask("abort", "--no-wait", *WHY) == 0
    assert "not waited for" in capsys.readouterr().out
    assert walking.rollout.phase is Phase.ROLLING_BACK


def test_what_is_not_decided_in_time_is_no_success(walking, capsys):
    walking.cloud.lie("observe", "before", times=200)
    assert walking.ask("abort", "--wait-s", "20", *WHY) == 1
    assert "abort is not decided after 20 s; the request stays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("abort", "--endpoint", "prod", *WHY), "['staging', 'production']"),
        (("abort", *WHY), "there is no rollout under way on production to abort"),
        (("rollback", *WHY), "production has no version before v1"),
        (("rollout", "v9", *WHY), "there is no version 'v9' in the ledger"),
    ],
)
def test_what_can_never_come_true_is_refused_and_nothing_is_written(
    serving, capsys, words, said
):
    before = serving.state.number
    assert serving.ask(*words) == 1
    assert said in capsys.readouterr().err
    assert serving.state.number == before


@pytest.mark.parametrize("words", [("--why", "caf\udcc3"), ("--why", "x", "--by", "\udcff")])
@pytest.mark.parametrize("kind", ["abort", "rollback"])
def test_half_a_character_is_refused_before_anything_is_written(walking, capsys, kind, words):
    before = walking.state.number
    with pytest.raises(SystemExit) as ended:
        walking.ask(kind, *words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "is only half a character" in said
    assert "export LANG=C.UTF-8" in said
    assert walking.state.number == before


@pytest.mark.parametrize("words", [("abort",), ("abort", "--why", " "), ("rollout",), ()])
def test_a_command_without_its_arguments_tells_its_usage(world, capsys, words):
    from flows import __main__ as terminal

    with pytest.raises(SystemExit) as ended:
        terminal.main(words)
    assert ended.value.code == 2
    assert "usage: python -m flows" in capsys.readouterr().err


def test_one_who_stops_waiting_leaves_the_request(walking, capsys):
    made = request_of(walking.config, "abort", "production", "ada", "enough")

    def interrupt(call, when):
        if call == "sleep":
            raise KeyboardInterrupt

    walking.cloud.hook = interrupt
    with pytest.raises(KeyboardInterrupt):
        fulfil(walking.config, walking.place, made, None)
    assert "the request stays" in capsys.readouterr().out
    assert walking.state.requests[made.id].request == made


def test_the_longest_wait_holds_every_deadline_of_the_plan(world):
    rollout = request_of(world.config, "rollout", "production", "ada", "why", "v1")
    abort = request_of(world.config, "abort", "production", "ada", "why")
    assert longest(abort) == 600
    assert longest(rollout) > 600 + 4 * 600


def test_requests_start_without_prefect():
    code = (
        "import sys, flows.__main__, flows.terminal.command, flows.terminal.status\n"
        "import flows.terminal.history, flows.terminal.show, flows.terminal.plan\n"
        "sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_same_request_made_by_another_process_waits_for_the_same_end(walking):
    first = request_of(walking.config, "abort", "production", "ada", "enough")
    command.make(walking.place, first)
    assert fulfil(walking.config, walking.place, first, None) == 0
    assert walking.state.requests[first.id].came_true
