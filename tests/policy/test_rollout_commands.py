"""What people may say to a rollout, in every state; and what is refused."""

import pytest

from policy.errors import Refused
from policy.rollout.machine import (
    Phase,
    abort,
    advance,
    approve,
    desired_versions,
    desired_weights,
    pause,
    promote_now,
    reject,
    resume,
)
from tests.policy.worlds import (
    Behaviour,
    begin,
    in_phase,
    make_plan,
    phases,
    run,
    seconds,
    until,
    walked,
    world,
)

SIGNED = ("ann", "the dashboard looks odd", seconds(5))
ENDS = (Phase.DONE, Phase.ROLLED_BACK)
UNDER_WAY = [phase for phase in Phase if phase not in ENDS]
BEFORE_100 = [
    p for p in UNDER_WAY if p not in (Phase.PROMOTING, Phase.WATCHING, Phase.ROLLING_BACK)
]
COMMANDS = (abort, promote_now, pause, resume, approve, reject)
ALLOWED = {
    abort: UNDER_WAY,
    promote_now: [*BEFORE_100, Phase.PROMOTING, Phase.WATCHING],
    pause: BEFORE_100,
    resume: UNDER_WAY,
    approve: [Phase.AWAITING_APPROVAL],
    reject: [Phase.AWAITING_APPROVAL],
}


@pytest.mark.parametrize("phase", UNDER_WAY)
def test_an_abort_brings_stable_back_from_every_state(phase):
    aborted = abort(in_phase(phase), *SIGNED)
    assert aborted.phase is Phase.ROLLING_BACK
    assert desired_weights(aborted) == {"v1": 100}
    assert desired_versions(aborted)[0] == "v1"
    if phase is not Phase.ROLLING_BACK:
        assert (aborted.by, aborted.reason) == (
            "ann",
            "aborted by ann: the dashboard looks odd",
        )
    assert run(world(), aborted)[-1].phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("phase", [p for p in UNDER_WAY if p is not Phase.ROLLING_BACK])
def test_a_rollback_cannot_be_aborted(phase):
    """Aborted, it would end on the version that it was to get rid of."""
    back = in_phase(phase, rollback=True)
    with pytest.raises(Refused, match="expected a rollout that is not itself a rollback"):
        abort(back, *SIGNED)


def test_an_abort_of_a_rollback_that_failed_already_changes_nothing():
    back = in_phase(Phase.ROLLING_BACK, rollback=True)
    assert abort(back, *SIGNED) is back


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("phase", list(Phase))
def test_a_command_applies_or_is_refused_and_changes_nothing(command, phase):
    rollout = in_phase(phase)
    if phase in ALLOWED[command]:
        command(rollout, *SIGNED)
    else:
        with pytest.raises(Refused, match=rf"its state is {phase}; expected .*rollout is unch"):
            command(rollout, *SIGNED)


@pytest.mark.parametrize("command", [abort, promote_now, pause, resume])
@pytest.mark.parametrize("phase", BEFORE_100)
def test_a_repeated_command_changes_nothing_more(command, phase):
    once = command(in_phase(phase), *SIGNED)
    assert command(once, "bob", "again", seconds(9)) is once


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("by", "why"), [("", "why"), ("ann", ""), ("  ", "why")])
def test_who_and_why_are_needed(command, by, why):
    with pytest.raises(Refused, match="(who|why) has 0 characters"):
        command(in_phase(Phase.AWAITING_APPROVAL), by, why, seconds(5))


def test_a_person_says_yes_before_100_percent_and_the_version_is_judged_there():
    a_world = world()
    waiting = until(Phase.AWAITING_APPROVAL, a_world, make_plan(approval=True))
    assert desired_weights(waiting) == {"v1": 50, "v2": 50}
    approved = approve(waiting, "ann", "looks good", seconds(a_world.at_s))
    assert (approved.phase, desired_weights(approved)) == (Phase.STEP, {"v2": 100})
    assert approved.reason == "approved by ann: looks good"
    records = run(a_world, approved)
    assert phases(records) == ["step", "promoting", "watching", "done"]


@pytest.mark.parametrize(
    ("strategy", "weights", "share"),
    [("blue-green", (0, 100), {"v1": 100}), ("immediate", (100,), {"v1": 100})],
)
def test_approval_comes_before_any_traffic_where_there_is_but_one_step(
    strategy, weights, share
):
    plan = make_plan(approval=True, strategy=strategy, weights=weights)
    waiting = until(Phase.AWAITING_APPROVAL, world(), plan)
    assert desired_weights(waiting) == share
    assert desired_weights(approve(waiting, *SIGNED)) == {"v2": 100}


def test_nobody_answers_and_the_version_is_taken_back():
    last = run(world(), begin(make_plan(approval=True, deadlines__approval_s=40)))[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert last.reason.startswith("awaiting-approval for 41 s, limit 40 s; before that: err")


def test_a_no_takes_the_version_back():
    rejected = reject(in_phase(Phase.AWAITING_APPROVAL), *SIGNED)
    assert rejected.phase is Phase.ROLLING_BACK
    assert rejected.reason == "rejected by ann: the dashboard looks odd"


def test_a_version_that_turns_bad_while_it_waits_is_taken_back():
    a_world = world()
    waiting = until(Phase.AWAITING_APPROVAL, a_world, make_plan(approval=True))
    a_world.behaviours["v2"] = Behaviour(errors=0.6)
    last = run(a_world, waiting)[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert "errors" in last.reason
    assert (last.entered_at - waiting.entered_at).total_seconds() < 60


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.STEP, Phase.AWAITING_APPROVAL])
def test_promote_now_skips_what_is_left_to_analyse(phase):
    promoted = promote_now(in_phase(phase), *SIGNED)
    assert (promoted.phase, desired_weights(promoted)) == (Phase.PROMOTING, {"v2": 100})
    assert promoted.reason == "promoted at once by ann: the dashboard looks odd"


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DEPLOYING, Phase.SMOKE])
def test_promote_now_never_sends_traffic_to_what_is_not_ready_or_fails_its_smoke(phase):
    promoted = promote_now(in_phase(phase), *SIGNED)
    assert (promoted.phase, desired_weights(promoted)) == (phase, {"v1": 100})
    records = run(world(), promoted)
    assert walked(records) == [0, 100]
    assert Phase.STEP not in phases(records)
    assert records[-1].phase is Phase.DONE


def test_a_promoted_version_that_is_down_gets_no_traffic():
    down = in_phase(Phase.STEP, unready_since=seconds(1))
    promoted = promote_now(down, *SIGNED)
    assert desired_weights(promoted) == {"v1": 100}
    back = advance(promoted, world().look(promoted, at=seconds(10), ready=False))
    assert back.phase is Phase.ROLLING_BACK


def test_a_paused_rollout_keeps_its_weight_and_goes_on_with_a_new_window():
    a_world = world()
    step = until(Phase.STEP, a_world)
    paused = pause(step, "ann", "lunch", seconds(a_world.at_s))
    for _ in range(80):  # longer than the deadline of the step
        a_world.obey(paused)
        a_world.pass_time(1)
        paused = advance(paused, a_world.look(paused))
    assert (paused.phase, paused.step, paused.paused) == (Phase.STEP, 0, True)
    resumed = resume(paused, "ann", "back", seconds(a_world.at_s))
    assert resumed.window is None
    assert resumed.reason == "resumed by ann: back"
    assert run(a_world, resumed)[-1].phase is Phase.DONE


def test_a_paused_rollout_is_still_taken_back_when_it_fails():
    a_world = world()
    paused = pause(until(Phase.STEP, a_world), "ann", "lunch", seconds(a_world.at_s))
    a_world.behaviours["v2"] = Behaviour(errors=0.6)
    assert run(a_world, paused)[-1].phase is Phase.ROLLED_BACK


def test_a_pause_does_not_count_in_the_deadline_and_does_not_renew_it():
    paused = pause(in_phase(Phase.STEP), "ann", "lunch", seconds(50))
    resumed = resume(paused, "ann", "back", seconds(450))
    for at, phase in ((459, Phase.STEP), (461, Phase.ROLLING_BACK)):
        assert (
            advance(resumed, world().look(resumed, at=seconds(at), ready=True)).phase is phase
        )


def test_whoever_resumes_has_the_windows_without_a_verdict_tolerated_anew():
    paused = pause(in_phase(Phase.STEP, inconclusive=2, failures=1), *SIGNED)
    resumed = resume(paused, "ann", "traffic is coming", seconds(9))
    assert (resumed.inconclusive, resumed.failures) == (0, 1)


@pytest.mark.parametrize("command", [abort, promote_now, approve, reject])
def test_whoever_decides_ends_the_pause(command):
    paused = pause(in_phase(Phase.AWAITING_APPROVAL), *SIGNED)
    assert not command(paused, "bob", "decided", seconds(9)).paused


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DEPLOYING, Phase.SMOKE])
def test_promote_now_ends_a_pause_before_traffic(phase):
    assert not promote_now(pause(in_phase(phase), *SIGNED), *SIGNED).paused


def test_a_forgotten_pause_is_taken_back():
    paused = pause(in_phase(Phase.STEP), *SIGNED)
    after = advance(paused, world().look(paused, at=seconds(606), ready=True))
    assert after.reason == "paused for 601 s, limit 600 s"


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DEPLOYING, Phase.SMOKE])
def test_a_pause_holds_the_states_before_traffic(phase):
    paused = pause(in_phase(phase), *SIGNED)
    assert advance(paused, world().look(paused, at=seconds(9), ready=True)) is paused
