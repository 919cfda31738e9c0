"""Too little traffic to judge by, and canaries that wait for a person for a day."""

import pytest

from policy.counts import Compared, Sample
from policy.evidence.limits import Fault, Verdict
from policy.rollout.commands import promote_now, resume
from policy.rollout.machine import advance
from policy.rollout.observed import Missed, without
from policy.rollout.record import Phase, Rollout, desired_weights, rows
from tests.policy.worlds import (
    ACCURATE,
    Behaviour,
    begin,
    in_phase,
    make_plan,
    run,
    sample,
    seconds,
    until,
    walked,
    world,
)

TEN_AN_HOUR = 100 / 3600  # requests a second; the first weight is 10 %
HOUR_S, DAY_S = 3600.0, 86400.0


def scarce_plan(little_traffic: str, **changes):
    quiet = {"deadlines__quiet_s": 6 * HOUR_S, "replay_per_s": 0}
    return make_plan(**{"little_traffic": little_traffic, **quiet, **changes})


def scarce(plan, behaviour=None, seed=0) -> list[Rollout]:
    a_world = world(behaviour, per_s=TEN_AN_HOUR, seed=seed)
    return run(a_world, begin(plan), look_s=20)


# --- wait --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_ten_canary_requests_an_hour_promote_a_good_version_in_few_records(seed):
    records = scarce(scarce_plan("wait"), seed=seed)
    assert (records[-1].phase, walked(records)) == (Phase.DONE, [0, 10, 50, 100])
    assert all(row.canary.requests >= 20 for row in rows(records) if row.verdict == "pass")
    hours = (records[-1].entered_at - records[0].started_at).total_seconds() / HOUR_S
    assert 1.5 < hours < 5
    assert len(records) < 50


@pytest.mark.parametrize("behaviour", [Behaviour(errors=0.6), Behaviour(wrong=0.8)])
def test_a_bad_version_is_rolled_back_by_its_first_few_requests(behaviour):
    records = scarce(scarce_plan("wait"), behaviour)
    assert (records[-1].phase, walked(records)) == (Phase.ROLLED_BACK, [0, 10, 0])
    assert {record.fault for record in records} <= {None, Fault.LIMIT, Fault.COMPARISON}


def test_a_wait_for_traffic_ends_after_quiet_s():
    plan = scarce_plan("wait", deadlines__quiet_s=HOUR_S)
    records = run(world(per_s=0), begin(plan), look_s=5)
    assert (records[-1].phase, records[-1].fault) == (Phase.ROLLED_BACK, Fault.DEADLINE)
    assert records[-1].reason == (
        "step 0 for 3605 s, limit 3600 s; before that: no request for 10 s; waiting for "
        "traffic; stable v1 serves 100 %"
    )
    assert len(records) < 10


def test_the_wait_is_told_once_and_its_window_goes_on():
    rollout = opened(scarce_plan("wait"))
    few = sample(3, labels=3), sample(30, labels=30)
    waiting = look(rollout, 10, *few)
    assert waiting.reason == (
        "3 of the 20 requests needed; about 57 s more at this rate; waiting for traffic"
    )
    one_more = look(waiting, 12, sample(4, labels=4), sample(40, labels=40))
    assert one_more is waiting, "a request alone makes no record"
    more = look(waiting, 200, sample(18, labels=18), sample(180, labels=180))
    assert (more.step, more.window.start) == (0, rollout.window.start)
    enough = look(more, 201, sample(20, labels=20), sample(200, labels=200))
    assert enough.step == 1
    assert enough.evidence.error_rate.canary == (0, 20), "all of it is weighed"
    assert not enough.scarce


def test_errors_too_few_to_be_sure_are_waited_for_as_well():
    rollout = opened(scarce_plan("wait"))
    unsure = look(rollout, 10, sample(21, 2, labels=19), sample(189, labels=189))
    assert unsure.reason == (
        "errors 9.52 %, limit 5 % (21 requests); too few to be sure; waiting for traffic"
    )
    later = look(unsure, 500, sample(41, 2, labels=39), sample(400, labels=400))
    assert later.step == 1


def test_metrics_that_cannot_be_read_during_the_wait_blame_nobody():
    rollout = opened(scarce_plan("wait"))
    waiting = look(rollout, 10, sample(3, labels=3), sample(30))
    away = look(waiting, 3000, None, None)
    assert (away.phase, away.reason) == (Phase.STEP, "no metrics for 50 min")
    assert look(away, 3001, None, None) is away
    assert look(away, 3020, sample(25, labels=25), sample(250, labels=250)).step == 1


def test_analyses_rest_while_traffic_is_waited_for():
    plan = scarce_plan(
        "wait", analyses=(ACCURATE.model_copy(update={"count": 0}).model_dump(),)
    )
    records = scarce(plan)
    assert records[-1].phase is Phase.DONE
    assert {run.failed + run.errors for record in records for run in record.analyses} == {0}
    assert len(records) < 60


def test_the_watch_waits_for_its_requests_too():
    plan = scarce_plan("wait", watch__requests_min=10)
    watching = in_phase(Phase.WATCHING, step=2, plan=plan)
    watching = look(watching, 0, Sample(), None, {"v2": 100})
    few = look(watching, 20, sample(2), None, {"v2": 100})
    assert (few.phase, few.scarce) == (Phase.WATCHING, True)
    assert look(few, 3000, sample(4), None, {"v2": 100}) is few
    done = look(few, 3600, sample(12), None, {"v2": 100})
    assert done.phase is Phase.DONE
    assert done.reason.startswith("v2 serves 100 %; watched for 60 min: errors 0 %")
    bad = look(few, 3600, sample(12, 9), None, {"v2": 100})
    assert bad.reason == "after the rollout: errors 75 %, limit 15 % (12 requests)"
    overdue = look(few, 6 * HOUR_S + 21, sample(4), None, {"v2": 100})
    assert overdue.fault is Fault.WATCH


def test_the_shadow_waits_for_its_requests_too():
    plan = scarce_plan("wait", shadow__percent=20)
    shadow, weights = in_phase(Phase.SHADOW, plan=plan), {"v1": 100}
    shadow = look(shadow, 0, Sample(), Sample(), weights)
    few = {"shadow": Compared(compared=5, differed=0)}
    waiting = look(shadow, 10, sample(30), sample(100), weights, **few)
    assert waiting.reason == "5 of 20 answers compared so far; waiting for traffic"
    assert look(waiting, 500, sample(30), sample(100), weights, **few) is waiting
    enough = {"shadow": Compared(compared=25, differed=1)}
    later = look(waiting, 3000, sample(90), sample(300), weights, **enough)
    assert later.phase is Phase.STEP


# --- ask, replay -------------------------------------------------------------------------


def test_a_person_is_asked_where_the_plan_says_so():
    records = scarce(scarce_plan("ask", deadlines__paused_s=2 * HOUR_S))
    asked = next(record for record in records if record.paused)
    assert asked.reason == "no request for 60 s; a person decides: promote, resume or abort"
    assert (asked.phase, desired_weights(asked)) == (Phase.STEP, {"v1": 90, "v2": 10})
    last = records[-1].reason
    assert last == "paused for 7220 s, limit 7200 s; stable v1 serves 100 %"


def test_whoever_is_asked_may_promote_or_have_it_go_on():
    a_world = world(per_s=TEN_AN_HOUR)
    records = run(a_world, begin(scarce_plan("ask")), look_s=5, stop=Phase.ROLLING_BACK)
    asked = next(record for record in records if record.paused)
    at = asked.paused_at
    a_world.at_s = (at - seconds(0)).total_seconds()
    resumed = resume(asked, "ann", "wait for more", at)
    assert (resumed.paused, resumed.inconclusive) == (False, 0)
    assert next(r for r in run(a_world, resumed, look_s=5) if r.paused).paused_at > at
    promoted = promote_now(asked, "ann", "tested by hand", at)
    watched = run(a_world, promoted, look_s=5)
    assert watched[-1].phase is Phase.DONE, "the watch waits for its requests"


def test_with_replay_windows_in_which_the_version_alone_had_too_few_are_counted():
    plan = make_plan(little_traffic="replay", replay_per_s=0)
    rollout, weights = in_phase(Phase.STEP, plan=plan, step=0), {"v1": 90, "v2": 10}
    for turn in range(5):
        rollout = look(rollout, 12 * turn, sample(1), sample(900 * turn), weights)
    assert rollout.fault is Fault.INCONCLUSIVE


def test_with_replay_a_lack_of_both_is_nothing_about_the_version():
    """A flood of clients took the answers of both: the version's window was none of it."""
    records = scarce(scarce_plan("replay"))
    assert records[-1].fault is Fault.DEADLINE
    assert "; stable has too few as well" in records[-1].reason


@pytest.mark.parametrize(
    ("little_traffic", "replays_per_s"), [("replay", 20), ("wait", 0), ("ask", 0)]
)
def test_questions_are_replayed_only_where_the_plan_says_so(little_traffic, replays_per_s):
    assert make_plan(little_traffic=little_traffic).replays_per_s == replays_per_s


# --- windows measured in requests, and how long that takes -------------------------------


def test_a_window_needs_its_requests_as_well_as_its_time():
    rollout = opened(make_plan(bake_requests=50))
    after = look(rollout, 10, sample(25, labels=25), sample(225, labels=225))
    assert (after.step, after.last.verdict) == (0, Verdict.INCONCLUSIVE)
    assert after.reason == "25 of the 50 requests needed; about 10 s more at this rate"
    early = look(after, 15, sample(60, labels=60), sample(540, labels=540))
    assert early.step == 0, "and its time"
    assert look(early, 20, sample(60, labels=60), sample(540, labels=540)).step == 1


@pytest.mark.parametrize(
    ("per_s", "changes", "told"),
    [
        (50, {}, "about 30 s to 100 % at 50 requests/s"),
        (1, {}, "about 4.3 min to 100 % at 1 request/s"),
        (TEN_AN_HOUR, {}, "about 2.6 h to 100 % at 100 requests/h"),
        (50, {"bake_requests": 5000}, "about 22 min to 100 % at 50 requests/s"),
        (50, {"strategy": "blue-green", "weights": (0, 100)}, "about 10 s to 100 % at 50 re"),
    ],
)
def test_how_long_it_will_take_at_todays_traffic_is_told_at_the_start(per_s, changes, told):
    start = world().look(begin(), stable=sample(1000))
    rollout = advance(begin(make_plan(**changes)), start)
    rollout = rollout.model_copy(update={"phase": Phase.SMOKE})
    asked = sample(1000 + round(3600 * per_s))
    first = advance(rollout, world().look(rollout, at=seconds(3600 - 3600), stable=asked))
    assert first.reason == "smoke test: 5 requests answered", "no time has passed"
    rollout = without(rollout, Missed(unwatched_s=3600.0))
    late = world().look(rollout, at=seconds(3600), stable=asked)
    after = advance(rollout, late)
    assert after.reason.startswith(f"smoke test: 5 requests answered; {told}")
    anew = late.model_copy(update={"stable": sample(7, epoch="2")})
    assert advance(rollout, anew).reason == "smoke test: 5 requests answered"


# --- a person is waited for --------------------------------------------------------------


def wait_a_day(rollout, a_world, look_s, turns_bad_s=float("inf")) -> list[Rollout]:
    """The records while nobody answers, until the day is over or it is rolled back."""
    records, began_s = [rollout], a_world.at_s
    while a_world.at_s < began_s + DAY_S and rollout.phase is not Phase.ROLLING_BACK:
        if a_world.at_s - began_s >= turns_bad_s:
            a_world.behaviours["v2"] = Behaviour(errors=0.6)
        a_world.obey(rollout)
        a_world.pass_time(look_s)
        after = advance(rollout, a_world.look(rollout))
        if after is not rollout:
            records.append(after)
        rollout = after
    return records


@pytest.mark.parametrize("per_s", [0.05, 20])
def test_a_day_of_waiting_for_a_person_writes_few_records(per_s):
    plan = scarce_plan("wait", approval=True, deadlines__approval_s=2 * DAY_S)
    a_world = world(per_s=per_s)
    waiting = run(a_world, begin(plan), look_s=10, stop=Phase.AWAITING_APPROVAL)[-1]
    records = wait_a_day(waiting, a_world, look_s=30)
    assert records[-1].phase is Phase.AWAITING_APPROVAL
    assert len(records) < 60


def test_a_version_that_turns_bad_after_hours_of_waiting_is_rolled_back_in_minutes():
    plan = make_plan(approval=True, deadlines__approval_s=2 * DAY_S)
    a_world = world(per_s=20)
    waiting = until(Phase.AWAITING_APPROVAL, a_world, plan)
    began_s = a_world.at_s
    last = wait_a_day(waiting, a_world, look_s=30, turns_bad_s=10.4 * HOUR_S)[-1]
    assert last.phase is Phase.ROLLING_BACK
    assert a_world.at_s - began_s < 10.4 * HOUR_S + 400


@pytest.mark.parametrize("waited_s", [10, HOUR_S, 9 * HOUR_S])
def test_a_limit_that_is_proven_to_be_broken_rolls_back_at_the_next_look(waited_s):
    plan = make_plan(approval=True, deadlines__approval_s=DAY_S, limits__failure_limit=0)
    rollout, weights = in_phase(Phase.AWAITING_APPROVAL, plan=plan), {"v1": 50, "v2": 50}
    rollout = look(rollout, waited_s, Sample(), Sample(), weights)
    bad = look(rollout, waited_s + 1, sample(40, 30, labels=10), None, weights)
    assert (bad.phase, bad.reason) == (
        Phase.ROLLING_BACK,
        "errors 75 %, limit 5 % (40 requests)",
    )


def opened(plan) -> Rollout:
    return look(in_phase(Phase.STEP, plan=plan), 0, Sample(), Sample())


def look(rollout, at_s, canary, stable, weights=None, **changes) -> Rollout:
    """The record after a look with these counters."""
    weights = weights or {"v1": 90, "v2": 10}
    seen = {"at": seconds(at_s), "canary": canary, "stable": stable, "ready": True}
    return advance(rollout, world().look(rollout, weights=weights, **seen, **changes))
