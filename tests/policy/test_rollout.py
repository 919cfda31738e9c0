"""Every arrow of the state diagram, with the reason that stands in the ledger."""

import re

import pytest

from policy.errors import Refused
from policy.rollout.machine import (
    Compared,
    Fault,
    Phase,
    Rollout,
    Sample,
    Smoke,
    Verdict,
    advance,
    desired_versions,
    desired_weights,
    next_look_s,
    rows,
    shadow_percent,
    start,
)
from tests.policy.worlds import (
    NOW,
    Behaviour,
    begin,
    in_phase,
    make_plan,
    phases,
    run,
    sample,
    seconds,
    until,
    walked,
    world,
)

ERRORS, WRONG, SLOW = Behaviour(errors=0.5), Behaviour(wrong=0.8), Behaviour(latency_s=2.0)


def test_a_good_version_walks_every_weight_and_is_watched():
    records = run(world(), begin())
    assert walked(records) == [0, 10, 50, 100]
    assert phases(records) == [
        "pending", "deploying", "smoke", "step", "promoting", "watching", "done",
    ]  # fmt: skip
    assert [row.verdict for row in rows(records)] == [Verdict.PASS] * 4
    assert [row.weight for row in rows(records)] == [10, 50, 100, 100]
    assert records[-1].reason.startswith("v2 serves 100 %; watched for 20 s: errors 0 %")
    assert desired_versions(records[-2]) == ("v1", "v2")
    assert desired_versions(records[-1]) == ("v2",)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (ERRORS, r"errors [\d.]+ %, (limit 5 %|stable 0 %) .*\d+ requests\)"),
        (
            WRONG,
            r"(accuracy [\d.]+ %, at least 75 %|wrong answers [\d.]+ %, stable) .*labels\)",
        ),
        (SLOW, r"(p95 latency [\d.]+ s, limit 1 s|slow answers [\d.]+ %, stable) .*\)"),
    ],
)
def test_a_bad_version_never_gets_past_its_first_weight(behaviour, reason):
    records = run(world(behaviour), begin())
    assert walked(records) == [0, 10, 0]
    assert phases(records)[-2:] == ["rolling-back", "rolled-back"]
    assert re.search(f"{reason}.*; stable v1 serves 100 %$", records[-1].reason)
    assert desired_versions(records[-2]) == ("v1", "v2")
    assert desired_versions(records[-1]) == ("v1",)


def test_what_is_proven_against_stable_is_not_tolerated():
    plan = make_plan(limits__failure_limit=99, limits__error_rate_max=0.99)
    last = run(world(ERRORS), begin(plan))[-1]
    assert re.match(
        r"errors [\d.]+ %, stable 0 % \(allowed \+1 point, \d+ requests\); odds .*, limit 200",
        last.reason,
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_worse_version_is_taken_back_within_a_few_seconds(seed):
    records = run(world(ERRORS, seed=seed), begin())
    assert (records[-1].entered_at - NOW).total_seconds() < 15


def test_a_first_version_goes_to_100_at_once_and_is_judged_there():
    records = run(world(stable=None), begin(stable=None))
    assert walked(records) == [0, 100]
    assert [row.verdict for row in rows(records)] == [Verdict.PASS]
    assert [desired_weights(r) for r in records[:3]] == [{}, {}, {}]
    assert desired_weights(records[-1]) == {"v2": 100}


def test_a_bad_first_version_leaves_nothing_serving_and_says_so():
    last = run(world(ERRORS, stable=None), begin(stable=None))[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert desired_weights(last) == {}
    assert desired_versions(last) == ()
    assert last.reason.endswith("; nothing serves: there was no version before")


def test_an_endpoint_that_cannot_serve_nothing_does_not_hold_the_rollout_for_ever():
    back = in_phase(Phase.ROLLING_BACK, stable=None, reason="why")
    weights = {"weights": {"v2": 100}}
    assert advance(back, world().look(back, at=seconds(15), **weights)) is back
    last = advance(back, world().look(back, at=seconds(16), **weights))
    assert last.phase is Phase.ROLLED_BACK
    assert last.reason == "why; v2 100 % still serves: there was no version before"


@pytest.mark.parametrize(
    ("strategy", "weights", "expected"),
    [
        ("blue-green", (0, 100), [0, 100]),
        ("immediate", (100,), [0, 100]),
        ("canary", (0, 5, 20, 100), [0, 5, 20, 100]),
    ],
)
def test_strategies_are_data(strategy, weights, expected):
    records = run(world(), begin(make_plan(strategy=strategy, weights=weights)))
    assert walked(records) == expected
    assert records[-1].phase is Phase.DONE


def test_the_old_version_is_kept_until_the_watch_is_over():
    records = run(world(), begin(make_plan(strategy="blue-green", weights=(0, 100))))
    watched = [r for r in records if r.phase is Phase.WATCHING]
    assert all(desired_versions(r) == ("v1", "v2") for r in watched)
    assert (records[-1].entered_at - watched[0].entered_at).total_seconds() >= 20


def test_without_a_watch_the_old_version_goes_at_once():
    assert "watching" not in phases(run(world(), begin(make_plan(watch__s=0))))


# --- an endpoint that does not answer ----------------------------------------------------


@pytest.mark.parametrize("ready", [True, False])
def test_an_endpoint_that_does_not_answer_blames_nobody_and_starts_the_window_anew(ready):
    opened = advance(*opened_step())
    silent = advance(opened, look(opened, 3, None, None, weights=None, ready=ready))
    assert (silent.window, silent.failures, silent.unready_since) == (None, 0, None)
    assert silent.reason == "the endpoint does not answer; the window starts anew"
    assert advance(silent, look(silent, 4, None, None, weights=None, ready=ready)) is silent
    back = advance(silent, look(silent, 9, sample(5), sample(45)))
    assert back.window.start.at == seconds(9)


@pytest.mark.parametrize("phase", [Phase.STEP, Phase.PROMOTING, Phase.WATCHING])
def test_an_endpoint_that_stays_silent_ends_the_rollout_within_the_deadline(phase):
    rollout = in_phase(phase)
    for at in range(70):
        if rollout.phase is phase:
            rollout = advance(rollout, look(rollout, at, None, None, weights=None))
    assert rollout.phase is Phase.ROLLING_BACK
    assert rollout.fault is (Fault.WATCH if phase is Phase.WATCHING else Fault.DEADLINE)


@pytest.mark.parametrize("stable", ["v1", None])
def test_a_silent_endpoint_confirms_no_way_back(stable):
    back = in_phase(Phase.ROLLING_BACK, stable=stable)
    for at in (1, 100):
        seen = world(stable=stable).look(back, at=seconds(at), weights=None)
        assert advance(back, seen) is back


# --- deadlines and bad input: each ends with stable serving and a reason -----------------


@pytest.mark.parametrize(
    ("phase", "after_s", "reason"),
    [
        (Phase.DEPLOYING, 31, "deploying for 31 s, limit 30 s; before that: started by a test"),
        (Phase.SMOKE, 21, "smoke for 21 s, limit 20 s"),
        (Phase.SHADOW, 61, "shadow for 61 s, limit 60 s"),
        (Phase.STEP, 61, "step 0 for 61 s, limit 60 s"),
        (Phase.AWAITING_APPROVAL, 301, "awaiting-approval for 301 s, limit 300 s"),
        (Phase.PROMOTING, 16, "promoting for 16 s, limit 15 s"),
    ],
)
def test_a_state_past_its_deadline_is_taken_back(phase, after_s, reason):
    stuck = in_phase(phase)
    ready = phase is not Phase.DEPLOYING
    seen = world().look(stuck, at=seconds(after_s - 1.5), ready=ready, smoke=None)
    assert advance(stuck, seen).phase is phase
    back = advance(stuck, seen.model_copy(update={"at": seconds(after_s)}))
    assert back.phase is Phase.ROLLING_BACK
    assert back.reason.startswith(reason)


@pytest.mark.parametrize(
    ("phase", "follows", "weights"),
    [
        (Phase.DEPLOYING, Phase.SMOKE, {"v1": 100}),
        (Phase.SMOKE, Phase.STEP, {"v1": 100}),
        (Phase.PROMOTING, Phase.WATCHING, {"v2": 100}),
    ],
)
def test_what_is_true_at_a_late_look_counts_before_the_deadline(phase, follows, weights):
    """A slow machine looks late: that blames no version that got there."""
    there = in_phase(phase)
    late = world().look(there, at=seconds(100), ready=True, weights=weights)
    assert advance(there, late).phase is follows


def test_a_window_that_passes_at_a_late_look_passes():
    opened = advance(*opened_step())
    good = sample(40, labels=40), sample(360, labels=360)
    assert advance(opened, look(opened, 61, *good)).step == 1


@pytest.mark.parametrize("phase", [p for p in Phase if p not in ("done", "rolled-back")])
def test_a_version_that_can_never_serve_is_taken_back_from_anywhere(phase):
    seen = world().look(in_phase(phase), failure="exit code 2: MANIFEST differs")
    back = advance(in_phase(phase), seen)
    assert desired_weights(back) == {"v1": 100}
    if phase is not Phase.ROLLING_BACK:
        assert back.reason == "v2 cannot serve: exit code 2: MANIFEST differs"


def test_the_way_back_ends_only_when_the_endpoint_confirms_it():
    back = in_phase(Phase.ROLLING_BACK, reason="why")
    still = world().look(back, at=seconds(1e6), weights={"v1": 90, "v2": 10})
    assert advance(back, still) is back
    waiting = advance(back, world().look(back, stable_ready=False))
    assert waiting.phase is Phase.ROLLING_BACK
    assert waiting.reason == "why; waiting for stable v1 to be ready"
    assert advance(waiting, world().look(back, stable_ready=False)) is waiting
    ended = advance(back, world().look(back))
    assert (ended.phase, ended.reason) == (Phase.ROLLED_BACK, "why; stable v1 serves 100 %")


@pytest.mark.parametrize(
    ("smoke", "phase", "reason"),
    [
        (None, Phase.SMOKE, "started by a test"),
        (Smoke(requests=4, wrong=0), Phase.SMOKE, "started by a test"),
        (Smoke(requests=5, wrong=0), Phase.STEP, "smoke test: 5 requests answered"),
        (
            Smoke(requests=5, wrong=1, detail="status 400"),
            Phase.ROLLING_BACK,
            "smoke test: 1 of 5 requests failed: status 400",
        ),
        (
            Smoke(requests=9, wrong=0, labels=8, correct=4),
            Phase.STEP,
            "smoke test: 9 requests answered, accuracy 50 % (8 labels)",
        ),
        (
            Smoke(requests=20, wrong=0, labels=20, correct=8),
            Phase.ROLLING_BACK,
            "smoke test: accuracy 40 %, at least 75 % needed (20 labels)",
        ),
    ],
)
def test_smoke_wants_every_answer_and_condemns_accuracy_only_with_proof(smoke, phase, reason):
    smoking = in_phase(Phase.SMOKE)
    after = advance(smoking, world().look(smoking, ready=True, smoke=smoke))
    assert (after.phase, after.reason) == (phase, reason)


def test_weights_set_by_somebody_else_are_set_back_and_the_window_starts_anew():
    a_world = world()
    step = until(Phase.STEP, a_world)
    a_world.obey(step)
    opened = advance(step, a_world.look(step))
    assert opened.window is not None
    after = advance(opened, a_world.look(opened, weights={"v1": 50, "v2": 50}))
    assert after.window is None
    assert after.reason == (
        "the weights were v1 50 %, v2 50 % instead of v1 90 %, v2 10 %; set back, "
        "the window starts anew"
    )
    assert desired_weights(after) == {"v1": 90, "v2": 10}
    again = advance(after, a_world.look(after, at=seconds(50)))
    assert again.window.start.at == seconds(50)


def test_no_verdict_while_the_weights_are_not_real():
    step = in_phase(Phase.STEP)
    for at in (1, 30, 59):
        assert advance(step, world().look(step, at=seconds(at), ready=True)) is step


def opened_step(canary=None, stable=None, **changes):
    step = in_phase(Phase.STEP, **changes)
    return step, look(step, 0, canary or Sample(), stable or Sample())


def look(rollout, at_s, canary, stable, **changes):
    weights = {"weights": {"v1": 90, "v2": 10}, "ready": True}
    seen = {"at": seconds(at_s), "canary": canary, "stable": stable}
    return world().look(rollout, **{**weights, **seen, **changes})


def test_a_counter_that_restarts_starts_the_window_anew():
    step, first = opened_step(sample(500, labels=500), sample(5000, labels=5000))
    opened = advance(step, first)
    fresh = sample(4, epoch="2")
    after = advance(opened, look(opened, 3, fresh, sample(6000, labels=6000)))
    assert after.reason == "the counters began again; the window starts anew"
    assert after.window.start.at == seconds(3)
    assert after.window.start.canary == fresh


def test_a_restart_after_the_last_block_is_seen_too():
    step, first = opened_step()
    opened = advance(step, first)
    block = advance(opened, look(opened, 2, sample(30, labels=30), sample(300, labels=300)))
    assert block.window.block.at == seconds(2)
    fresh = sample(9, labels=9, epoch="2")
    after = advance(block, look(block, 3, fresh, sample(350, labels=350)))
    assert after.reason == "the counters began again; the window starts anew"


@pytest.mark.parametrize(
    ("missing", "fault", "reason"),
    [
        (None, Fault.DEADLINE, "step 0 for 61 s, limit 60 s; before that: no metrics for 10 s"),
        (
            Sample(),
            Fault.INCONCLUSIVE,
            "no request for 30 s (window 3 without a verdict, 2 allowed)",
        ),
    ],
)
def test_no_data_never_passes(missing, fault, reason):
    rollout = in_phase(Phase.STEP)
    for at in range(62):
        rollout = advance(rollout, look(rollout, at, missing, sample(at * 45)))
    assert rollout.phase is Phase.ROLLING_BACK
    assert (rollout.fault, rollout.reason) == (fault, reason)


@pytest.mark.parametrize("away", ["canary", "stable"])
def test_a_window_begins_when_the_metrics_are_back(away):
    here = {"canary": sample(10, labels=10), "stable": sample(90, labels=90)}
    step = in_phase(Phase.STEP)
    opened = advance(step, look(step, 0, **{**here, away: None}))
    back = advance(opened, look(opened, 4, **here))
    assert back.window.start.at == seconds(4)
    assert (back.window.start.canary, back.window.start.stable) == tuple(here.values())


def test_too_little_traffic_says_how_much_more_is_needed():
    opened = advance(*opened_step())
    after = advance(opened, look(opened, 10, sample(5, labels=5), sample(45, labels=45)))
    assert after.phase is Phase.STEP
    assert after.reason == "5 of the 20 requests needed; about 30 s more at this rate"
    assert after.last.verdict is Verdict.INCONCLUSIVE
    enough = advance(after, look(after, 20, sample(21, labels=21), sample(200, labels=200)))
    assert desired_weights(enough) == {"v1": 50, "v2": 50}


def test_an_incident_of_both_versions_holds_the_weight_and_blames_nobody():
    rollout = advance(*opened_step())
    for at in range(1, 41):
        both = sample(at * 5, at * 2, labels=at * 3), sample(at * 45, at * 18, labels=at * 27)
        rollout = advance(rollout, look(rollout, at, *both))
    assert rollout.phase is Phase.STEP
    assert rollout.failures == rollout.inconclusive == 0
    assert rollout.reason == "errors 40 %, limit 5 % (50 requests); stable is over it too"


def test_past_a_limit_but_not_proven_asks_for_more():
    opened = advance(*opened_step())
    one_error = sample(20, 1, labels=19), sample(180, 9, labels=180)
    assert advance(opened, look(opened, 10, *one_error)).step == 1
    two_errors = sample(21, 2, labels=19), sample(180, 9, labels=180)
    after = advance(opened, look(opened, 10, *two_errors))
    assert after.last.verdict is Verdict.INCONCLUSIVE
    assert after.reason == "errors 9.52 %, limit 5 % (21 requests); too few to be sure"


def test_a_failed_window_is_tolerated_as_often_as_configured():
    """Without readings of stable there is no comparison: only the limits judge."""
    opened = advance(*opened_step())
    bad = sample(40, 12)
    after = advance(opened, look(opened, 2, bad, None))
    assert after.failures == 1
    assert after.reason == "errors 30 %, limit 5 % (40 requests); failed window 1, 1 allowed"
    assert after.window.start.canary == bad
    again = advance(after, look(after, 4, sample(80, 24), None))
    assert again.phase is Phase.ROLLING_BACK
    assert again.reason == "errors 30 %, limit 5 % (40 requests)"


def test_a_window_that_is_given_up_still_counts_as_evidence():
    """Otherwise what went wrong would be left out, and the canary look better than it is."""
    opened = advance(*opened_step(plan=make_plan(judge__block_requests=500)))
    bad = look(opened, 2, sample(40, 12), sample(360))
    tolerated = advance(opened, bad)
    assert tolerated.evidence.error_rate.canary == (12, 40)
    crashed = advance(opened, look(opened, 2, sample(40, 1), sample(360), ready=False))
    assert crashed.evidence.error_rate.canary == (1, 40)


# --- outages of the canary ---------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.STEP, Phase.AWAITING_APPROVAL, Phase.WATCHING])
def test_an_unready_version_loses_its_weight_at_once_and_gets_it_back(phase):
    rollout = in_phase(phase)
    share = desired_weights(rollout)["v2"]
    down = advance(rollout, world().look(rollout, at=seconds(1), ready=False))
    assert desired_weights(down) == {"v1": 100}
    assert desired_versions(down) == ("v1", "v2")
    assert advance(down, world().look(down, at=seconds(3), ready=False)) is down
    up = advance(down, world().look(down, at=seconds(4), ready=True))
    assert desired_weights(up)["v2"] == share
    assert up.reason == "v2 is ready again after 3 s"


def test_an_outage_past_its_deadline_is_taken_back():
    down = in_phase(Phase.STEP, unready_since=NOW)
    after = advance(down, world().look(down, at=seconds(8.5), ready=False))
    assert after.phase is Phase.ROLLING_BACK
    assert after.reason == "v2 not ready for 8.5 s, limit 8 s"


def test_a_version_that_crashes_again_and_again_is_taken_back():
    rollout = in_phase(Phase.STEP)
    for at, ready in enumerate((False, True, False), start=1):
        rollout = advance(rollout, world().look(rollout, at=seconds(at), ready=ready))
    assert rollout.reason == "v2 is not ready; failed window 2, 1 allowed"


def test_a_watch_with_too_many_outages_brings_the_old_version_back():
    rollout = in_phase(Phase.WATCHING)  # 0.8 of 20 s: 4 s may be lost, every other one is
    for at in range(1, 11):
        seen = world().look(rollout, at=seconds(at), ready=at % 2 == 0)
        rollout = advance(rollout, seen)
    assert rollout.phase is Phase.ROLLING_BACK
    ready = "ready 75 % of the time, 80 % needed (down for 5 s)"
    assert rollout.reason == f"after the rollout: {ready}"
    assert desired_weights(rollout) == {"v1": 100}


def test_every_state_begins_with_a_clean_sheet():
    missed = {"failures": 1, "inconclusive": 2, "unready_s": 3.0}
    opened = advance(*opened_step(**missed))
    assert {name: getattr(opened, name) for name in missed} == missed
    good = sample(40, labels=40), sample(360, labels=360)
    after = advance(opened, look(opened, 10, *good))
    assert (after.phase, after.step) == (Phase.STEP, 1)
    assert {name: getattr(after, name) for name in missed} == dict.fromkeys(missed, 0)


# --- after the rollout -------------------------------------------------------------------


def test_a_version_that_goes_bad_after_the_rollout_is_taken_back():
    a_world = world()
    watching = until(Phase.WATCHING, a_world)
    a_world.behaviours["v2"] = Behaviour(errors=0.6)
    last = run(a_world, watching)[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert re.match(r"after the rollout: errors [\d.]+ %, limit 15 %", last.reason)
    assert desired_weights(last) == {"v1": 100}


@pytest.mark.parametrize(("requests_min", "phase"), [(20, Phase.WATCHING), (0, Phase.DONE)])
def test_silence_in_the_watch_passes_only_where_the_plan_says_so(requests_min, phase):
    plan = make_plan(watch__requests_min=requests_min)
    watching = in_phase(Phase.WATCHING, plan=plan, step=2)
    seen = {"weights": {"v2": 100}, "ready": True, "canary": Sample()}
    opened = advance(watching, world().look(watching, at=seconds(0), **seen))
    after = advance(opened, world().look(opened, at=seconds(20), **seen))
    assert after.phase is phase
    assert "no request for 20 s" in after.reason


@pytest.mark.parametrize("little_traffic", ["replay", "wait"])
def test_silence_in_the_watch_blames_nobody_before_the_deadline(little_traffic):
    """Envoy died near the end of a watch and counted anew: 13 ms of it were too little."""
    plan = make_plan(watch__requests_min=20, little_traffic=little_traffic, replay_per_s=5)
    watching = in_phase(Phase.WATCHING, plan=plan, step=2)
    seen = {"weights": {"v2": 100}, "ready": True}
    counted, anew = sample(500), Sample(epoch="2")
    opened = advance(watching, world().look(watching, at=seconds(0), canary=counted, **seen))
    again = advance(opened, world().look(opened, at=seconds(19), canary=anew, **seen))
    late = advance(again, world().look(again, at=seconds(21), canary=anew, **seen))
    assert (late.phase, late.scarce) == (Phase.WATCHING, True)
    answered = sample(30).model_copy(update={"epoch": "2"})
    done = advance(late, world().look(late, at=seconds(25), canary=answered, **seen))
    assert done.phase is Phase.DONE
    limit_s = plan.watch.s + (30 if little_traffic == "replay" else plan.deadlines.quiet_s)
    silent = advance(late, world().look(late, at=seconds(limit_s + 1), canary=anew, **seen))
    assert (silent.phase, silent.fault) == (Phase.ROLLING_BACK, Fault.WATCH)


# --- shadow ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compared", "differed", "phase", "reason"),
    [
        (100, 5, Phase.STEP, "errors 0 % (limit 5 %)"),
        (
            100,
            60,
            Phase.ROLLING_BACK,
            "60 % of the answers differ from stable's, limit 20 % (100",
        ),
        (8, 0, Phase.SHADOW, "8 of 20 answers compared so far"),
        (
            20,
            5,
            Phase.SHADOW,
            "25 % of the answers differ from stable's, limit 20 % (20 answers); too few",
        ),
    ],
)
def test_shadow_judges_answers_that_nobody_gets(compared, differed, phase, reason):
    plan = make_plan(shadow__percent=20, limits__failure_limit=0)
    shadow = in_phase(Phase.SHADOW, plan=plan)
    assert shadow_percent(shadow) == 20
    assert desired_weights(shadow) == {"v1": 100}
    weights = {"v1": 100}
    opened = advance(shadow, look(shadow, 0, Sample(), Sample(), weights=weights))
    seen = {"shadow": Compared(compared=compared, differed=differed), "weights": weights}
    after = advance(opened, look(opened, 10, sample(100), sample(500), **seen))
    assert after.phase is phase
    assert after.reason.startswith(reason)
    assert shadow_percent(after) == (20 if phase is Phase.SHADOW else 0)


def test_a_shadow_comes_before_the_first_weight():
    plan = make_plan(shadow__percent=20)
    smoking = in_phase(Phase.SMOKE, plan=plan)
    assert advance(smoking, world().look(smoking, ready=True)).phase is Phase.SHADOW
    first = smoking.model_copy(update={"stable": None})
    assert advance(first, world().look(first, ready=True)).phase is Phase.STEP


# --- proof before promotion --------------------------------------------------------------


def test_100_percent_waits_for_proof_where_the_plan_asks_for_it():
    margin = {"judge__promotion": "non-inferior", "judge__non_inferiority_margin": 0.03}
    plan = make_plan(**margin, deadlines__step_s=600)
    records = run(world(), begin(plan))
    waited = [row for row in rows(records) if row.verdict is Verdict.CONTINUE]
    assert records[-1].phase is Phase.DONE
    assert waited
    assert {row.weight for row in waited} == {50}
    asked = [row.canary.requests for row in waited]
    assert asked[-1] > 1.8 * asked[0]  # the window goes on, it does not begin again
    assert re.match(
        r"[\w ]+ not yet proven to be within 3 points of stable's; "
        r"(about \d+ more needed|how many more are needed is not known) "
        r"\(odds [\d.e-]+:1, needed 100:1, \d+ \w+\)",
        waited[0].reason,
    )


def test_without_proof_the_deadline_takes_the_version_back():
    plan = make_plan(judge__promotion="non-inferior", judge__non_inferiority_margin=0.001)
    last = run(world(), begin(plan))[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert re.match(
        r"step 1 for 6\d s, limit 60 s; before that: errors not yet proven", last.reason
    )


# --- the record --------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [Behaviour(), ERRORS, WRONG, SLOW])
def test_a_rollout_read_back_at_every_look_goes_the_same_way(behaviour):
    kept, read_back = run(world(behaviour), begin()), [begin()]
    a_world = world(behaviour)
    while read_back[-1].phase not in (Phase.DONE, Phase.ROLLED_BACK):
        rollout = Rollout.model_validate_json(read_back[-1].model_dump_json())
        a_world.obey(rollout)
        a_world.pass_time(1.0)
        after = advance(rollout, a_world.look(rollout))
        if after is not rollout:
            read_back.append(after)
    assert read_back == kept
    assert max(len(record.model_dump_json()) for record in kept) < 5000


def test_looks_between_blocks_write_nothing():
    records = run(world(), begin())
    looks = (records[-1].entered_at - NOW).total_seconds()
    assert len(records) < looks / 1.5


def test_a_slow_trickle_is_weighed_once_per_block_time():
    rollout, ends = advance(*opened_step()), set()
    for at in range(1, 10):
        rollout = advance(rollout, look(rollout, at, sample(at // 2), sample(at * 9)))
        ends.add((rollout.window.block.at - NOW).total_seconds())
    assert ends == {0, 5}


def test_a_finished_rollout_never_changes_and_needs_no_look():
    for phase in (Phase.DONE, Phase.ROLLED_BACK):
        end = in_phase(phase)
        seen = world().look(end, failure="gone", ready=False, weights={"v2": 50, "v1": 50})
        assert advance(end, seen) is end
        assert next_look_s(end, NOW) == 0


def test_the_next_look_comes_in_time_for_the_end_of_the_window():
    step, first = opened_step()
    opened = advance(step, first)
    assert next_look_s(step, NOW) == 1
    assert next_look_s(opened, seconds(9.6)) == pytest.approx(0.4)
    assert next_look_s(opened, seconds(11)) == 1


def test_a_version_that_is_stable_is_not_rolled_out_again():
    with pytest.raises(Refused, match="v1 already serves production"):
        start("r", "production", "v1", "v1", make_plan(), "a test", NOW)
