"""Counters that begin again, dip, come late or cannot be read; and hours without a look."""

from datetime import timedelta
from itertools import pairwise

import pytest

from policy.counts import Sample
from policy.evidence.limits import Fault, Verdict
from policy.rollout.machine import advance
from policy.rollout.observed import Missed, without
from policy.rollout.record import Phase, Rollout, desired_weights, finished, rows
from tests.policy.worlds import (
    Behaviour,
    begin,
    in_phase,
    make_plan,
    run,
    sample,
    seconds,
    world,
)

SPLIT, ALL = {"v1": 90, "v2": 10}, {"v2": 100}
GOOD = sample(40, labels=40), sample(360, labels=360)


def look(rollout, at_s, canary, stable=None, weights=None, ready=True, **changes):
    seen = {"at": seconds(at_s), "canary": canary, "stable": stable, "ready": ready}
    return world().look(rollout, weights=weights or SPLIT, **seen, **changes)


def opened(**changes):
    step = in_phase(Phase.STEP, **changes)
    return advance(step, look(step, 0, Sample(), Sample()))


# --- they begin again, or dip ------------------------------------------------------------


@pytest.mark.parametrize("who", ["canary", "stable"])
def test_counters_that_begin_again_above_where_they_were_are_found_by_their_epoch(who):
    seen = {"canary": sample(5, labels=5), "stable": sample(50, labels=50)}
    rollout = advance(opened(), look(opened(), 1, **seen))
    seen[who] = sample(900, 90, labels=800, epoch="2")
    after = advance(rollout, look(rollout, 2, **seen))
    assert after.reason == "the counters began again; the window starts anew"
    assert (after.window.start.at, after.evidence) == (seconds(2), rollout.evidence)


@pytest.mark.parametrize("who", [0, 1])
def test_a_dip_is_no_verdict_and_no_restart(who):
    rollout = in_phase(Phase.STEP)
    rollout = advance(rollout, look(rollout, 0, *GOOD))
    dip = list(GOOD)
    dip[who] = sample(30, 29, labels=1)
    for at_s in (3, 9):
        assert advance(rollout, look(rollout, at_s, *dip)) is rollout
    caught_up = advance(rollout, look(rollout, 11, sample(80, labels=80), sample(500)))
    assert caught_up.step == 1


def test_counters_that_stay_low_end_in_the_deadline():
    rollout = in_phase(Phase.STEP)
    rollout = advance(rollout, look(rollout, 0, *GOOD))
    for at_s in range(1, 62):
        rollout = advance(rollout, look(rollout, at_s, sample(3), sample(30)))
    assert rollout.fault is Fault.DEADLINE


def test_a_watch_goes_on_after_the_counters_began_again():
    watching = in_phase(Phase.WATCHING, step=2)
    watching = advance(watching, look(watching, 0, sample(500), None, ALL))
    anew = advance(watching, look(watching, 5, sample(3, 3, epoch="2"), None, ALL))
    assert anew.reason == "the counters began again; the watch goes on"
    assert anew.window.due == watching.window.due
    good = sample(60, 3, epoch="2")
    assert advance(anew, look(anew, 20, good, None, ALL)).phase is Phase.DONE


# --- they come late ----------------------------------------------------------------------


def test_a_window_opens_and_ends_on_the_time_until_which_the_counters_are_complete():
    rollout = in_phase(Phase.STEP, plan=make_plan(deadlines__step_s=600))
    for at_s, until_s in ((5, -115), (119, -1)):
        seen = look(rollout, at_s, *GOOD, counted_until=seconds(until_s))
        assert advance(rollout, seen) is rollout, "these are counters of the state before"
    rollout = advance(rollout, look(rollout, 121, *GOOD, counted_until=seconds(1)))
    assert (rollout.window.start.at, rollout.window.due) == (seconds(1), seconds(11))
    more = sample(80, labels=80), sample(720, labels=720)
    early = advance(rollout, look(rollout, 130, *more, counted_until=seconds(10)))
    assert early.last is None
    passed = advance(early, look(early, 131, *more, counted_until=seconds(11)))
    assert (passed.step, passed.last.at, passed.entered_at) == (1, seconds(11), seconds(131))


LATE = make_plan(deadlines__step_s=600, deadlines__watch_s=300)


@pytest.mark.parametrize(
    ("behaviour", "end"),
    [(Behaviour(), Phase.DONE), (Behaviour(errors=0.5), Phase.ROLLED_BACK)],
)
def test_metrics_two_minutes_late_lead_to_the_same_end(behaviour, end):
    records = run(world(behaviour, late_s=120), begin(LATE))
    assert records[-1].phase is end
    for before, after in pairwise(records):
        if before.window is None and after.window is not None:
            assert after.window.start.at >= after.entered_at
    took = [row.at - records[0].started_at for row in rows(records)]
    assert (records[-1].entered_at - records[0].started_at) - took[-1] >= timedelta(seconds=120)


def test_a_version_that_fails_is_found_out_as_soon_as_late_metrics_tell():
    last = run(world(Behaviour(errors=0.5), late_s=120), begin(LATE))[-1]
    assert (last.entered_at - last.started_at).total_seconds() < 120 + 120 + 15


# --- they cannot be read -----------------------------------------------------------------


@pytest.mark.parametrize("missed_s", [10, 11])
def test_one_missed_reading_when_a_window_is_due_blames_nobody(missed_s):
    rollout = advance(opened(), look(opened(), 5, *GOOD))
    missed = advance(rollout, look(rollout, missed_s, None, None))
    assert (missed.phase, missed.failures, missed.inconclusive) == (Phase.STEP, 0, 0)
    assert missed.last.verdict is Verdict.NO_DATA
    assert advance(missed, look(missed, missed_s + 1, None, None)) is missed, "one record"
    more = sample(60, labels=60), sample(500, labels=500)
    assert advance(missed, look(missed, missed_s + 2, *more)).step == 1


@pytest.mark.parametrize("missed_s", [0, 10, 20])
def test_one_missed_reading_in_the_watch_blames_nobody(missed_s):
    rollout = in_phase(Phase.WATCHING, step=2)
    for at_s in range(25):
        canary = None if at_s == missed_s else sample(500 + at_s * 50)
        if rollout.phase is Phase.WATCHING:
            rollout = advance(rollout, look(rollout, at_s, canary, None, ALL))
    assert rollout.phase is Phase.DONE


@pytest.mark.parametrize("from_s", [0, 7])
def test_metrics_away_for_good_end_in_the_watchs_deadline(from_s):
    rollout, written = in_phase(Phase.WATCHING, step=2), 0
    for at_s in range(52):
        canary = sample(500 + at_s * 50) if at_s < from_s else None
        after = advance(rollout, look(rollout, at_s, canary, None, ALL))
        written, rollout = written + (after is not rollout), after
    assert (rollout.phase, rollout.fault) == (Phase.ROLLING_BACK, Fault.WATCH)
    assert rollout.reason == (
        "watching for 51 s, limit 50 s; before that: no metrics for v2; the watch goes on"
    )
    assert written <= 3


# --- outages -----------------------------------------------------------------------------


def test_the_errors_of_an_outage_are_weighed():
    """It crashes, and 27 of the 30 requests that were on their way to it fail."""
    lenient = make_plan(limits__failure_limit=99, limits__error_rate_max=1.0)
    rollout = opened(plan=lenient)
    rollout = advance(rollout, look(rollout, 2, sample(4), sample(180), ready=False))
    assert (rollout.unready_since, desired_weights(rollout)) == (seconds(2), {"v1": 100})
    for at_s, canary in ((3, sample(20, 13)), (4, sample(34, 27))):
        down = look(rollout, at_s, canary, sample(90 * at_s), {"v1": 100}, ready=False)
        assert advance(rollout, down) is rollout
    rollout = advance(rollout, look(rollout, 5, sample(34, 27), sample(450), {"v1": 100}))
    assert rollout.evidence.error_rate.canary == (27, 34)
    rollout = advance(rollout, look(rollout, 6, sample(34, 27), sample(540)))
    rollout = advance(rollout, look(rollout, 7, sample(39, 27), sample(630)))
    assert (rollout.phase, rollout.fault) == (Phase.ROLLING_BACK, Fault.COMPARISON)
    assert rollout.reason.startswith(
        "errors 79.4 %, stable 0 % (allowed +1 point, 34 requests)"
    )


@pytest.mark.parametrize("late_s", [0, 6])
def test_a_canary_that_crashes_once_a_step_is_found_out_by_the_evidence(late_s):
    """No limit and no count of failed windows is in its way."""
    plan = make_plan(
        limits__failure_limit=99,
        limits__error_rate_max=1.0,
        limits__labels_min=0,
        bake_s=20,
        deadlines__step_s=600,
        deadlines__watch_s=300,
    )
    a_world, rollout, crashed = world(late_s=late_s), begin(plan), -1
    while not finished(rollout):
        a_world.obey(rollout)
        down = rollout.unready_since is not None and crashed == rollout.step
        crashes = rollout.phase is Phase.STEP and rollout.step > crashed and rollout.window
        a_world.behaviours["v2"] = Behaviour(errors=0.9 if crashes else 0.0)
        a_world.pass_time(1)
        ready = rollout.phase is not Phase.PENDING and not crashes
        crashed = rollout.step if crashes else crashed
        rollout = advance(rollout, a_world.look(rollout, ready=ready or down))
    assert (rollout.phase, rollout.fault) == (Phase.ROLLED_BACK, Fault.COMPARISON)


# --- hours without a look ----------------------------------------------------------------

STANDING = {
    Phase.DEPLOYING: {"ready": False},
    Phase.SMOKE: {"smoke": None},
    Phase.SHADOW: {},
    Phase.STEP: {},
    Phase.AWAITING_APPROVAL: {},
    Phase.PROMOTING: {},
    Phase.WATCHING: {},
}
STOOD = [
    *((in_phase(phase), seen) for phase, seen in STANDING.items()),
    (in_phase(Phase.STEP, paused_at=seconds(3)), {}),
    (in_phase(Phase.STEP, unready_since=seconds(3)), {"ready": False}),
    (in_phase(Phase.WATCHING, unready_since=seconds(3)), {"ready": False}),
]


@pytest.mark.parametrize(("rollout", "seen"), STOOD)
def test_hours_in_which_nobody_looked_count_for_no_deadline(rollout, seen):
    away_s = 5000.0
    here = {"ready": True, "canary": None, "stable": None, "weights": {"v1": 50}, **seen}
    looked = world().look(rollout, at=seconds(4), **here)
    assert advance(rollout, looked).phase is rollout.phase
    back = looked.model_copy(update={"at": seconds(4 + away_s)})
    assert advance(rollout, back).phase is Phase.ROLLING_BACK, "the same, but watched"
    after = advance(without(rollout, Missed(unwatched_s=away_s)), back)
    assert after.phase is rollout.phase
    limit_s = _limit_s(rollout)
    for left_s, phase in ((limit_s - 0.5, rollout.phase), (limit_s + 0.5, Phase.ROLLING_BACK)):
        later = back.model_copy(update={"at": seconds(away_s + left_s)})
        assert advance(after, later).phase is phase, "what was left before is left now"


def _limit_s(rollout: Rollout) -> float:
    """Seconds after NOW at which the first deadline of the rollout ends, if it is watched."""
    deadlines, watch = rollout.plan.deadlines, rollout.plan.watch
    if rollout.paused:
        return 3 + deadlines.paused_s
    if rollout.unready_since:
        lost_s = (1 - watch.availability_min) * watch.s
        return 3 + (lost_s if rollout.phase is Phase.WATCHING else deadlines.unready_s)
    if rollout.phase is Phase.WATCHING:
        return watch.s + deadlines.watch_s
    names = {Phase.AWAITING_APPROVAL: "approval"}
    return getattr(deadlines, f"{names.get(rollout.phase, rollout.phase)}_s")


@pytest.mark.parametrize("phase", [Phase.STEP, Phase.WATCHING])
def test_a_window_left_alone_goes_on_and_judges_what_was_answered_meanwhile(phase):
    weights = SPLIT if phase is Phase.STEP else ALL
    rollout = in_phase(phase, step=0 if phase is Phase.STEP else 2)
    rollout = advance(rollout, look(rollout, 0, Sample(), Sample(), weights))
    rollout = without(rollout, Missed(unwatched_s=3999.0))
    bad = look(rollout, 4000, sample(900, 800), sample(9000), weights)
    rolled_back = advance(rollout, bad)
    assert rolled_back.phase is Phase.ROLLING_BACK
    assert rolled_back.reason.split("after the rollout: ")[-1].startswith("errors 88.9 %")
    good = look(rollout, 4000, *GOOD, weights)
    assert advance(rollout, good).phase is phase
