"""Analyses mean what they mean in Argo Rollouts, and their conditions are never executed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.condition import check, holds
from policy.counts import Sample
from policy.evidence.analysis import Measurements, Outcome, evaluate, measure, results, stop
from policy.rollout.machine import Phase, advance, approve, resume
from tests.policy.worlds import (
    ACCURATE,
    NOW,
    Behaviour,
    begin,
    make_plan,
    run,
    sample,
    seconds,
    until,
    world,
)

RESULT = results(sample(200, 4, labels=100, wrong=8), sample(900, 9, labels=400, wrong=20))


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("result.error_rate < 0.05", True),
        ("result.error_rate <= 0.02 and result.accuracy >= 0.9", True),
        ("result.error_rate < 0.01 || result.accuracy > 0.9", True),
        ("not (result.accuracy > 0.9)", False),
        ("result.error_rate - result.stable_error_rate <= 0.01", True),
        ("result.error_rate > 3 * result.stable_error_rate", False),
        ("result.requests == 200 && result.errors != 3", True),
        ("result.latency_p95_s * 1000 < 36", True),
        ("-result.errors < 0", True),
        ("true_is_not_a_name < 1", None),
        ("True", True),
    ],
)
def test_a_condition_on_the_window(condition, truth):
    if truth is None:
        with pytest.raises(ValueError, match="is not a number, "):
            holds(condition, RESULT)
    else:
        assert holds(condition, RESULT) is truth


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "result.error_rate",
        "result.error_rate <",
        "result.error_rat < 1",
        "other.error_rate < 1",
        "result.error_rate and 1 < 2",
        "0 < result.error_rate < 1",
        "result.error_rate < True",
        "result.error_rate in (1, 2)",
        "result['error_rate'] < 1",
        "result.error_rate.real < 1",
        "__import__('os').system('true') < 1",
        "len('x') < 2",
        "(lambda: 1)() < 2",
        "[x for x in (1,)] < 2",
        "result.errors ** 9 < 1",
        "result.errors << 9 < 1",
        "'a' < 'b'",
        "(x := 1) < 2",
        "1 if True else 2 < 3",
        "1j < 2",
        "(" * 300 + "1 < 2" + ")" * 300,
        "not " * 200 + "True",
    ],
)
def test_what_is_no_condition_is_refused_before_it_runs(condition):
    with pytest.raises(ValueError, match="condition|not a|is not"):
        check(condition)
    with pytest.raises(ValueError, match="condition|not a|is not"):
        holds(condition, RESULT)


@given(st.text(max_size=80))
def test_any_text_is_a_condition_or_refused(text):
    try:
        check(text)
    except ValueError:
        return
    holds(text, dict.fromkeys(RESULT, 1.0)) if "/" not in text else None


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("result.stable_accuracy > 0.5", "there is no data for result.stable_accuracy"),
        ("1 / (result.errors - 4) > 0", "divides by zero"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error(condition, reason):
    result = {**RESULT, "stable_accuracy": None}
    with pytest.raises(ValueError, match=reason):
        holds(condition, result)


def analysis(success="", failure="", **changes):
    return ACCURATE.model_copy(
        update={"success_condition": success, "failure_condition": failure, **changes}
    )


GOOD, BAD = "result.accuracy >= 0.9", "result.accuracy < 0.9"
FALSE, MISSING = "result.accuracy > 2", "result.stable_accuracy > 0"


@pytest.mark.parametrize(
    ("success", "failure", "outcome"),
    [
        ("", "", Outcome.SUCCESSFUL),
        (GOOD, "", Outcome.SUCCESSFUL),
        (FALSE, "", Outcome.FAILED),
        ("", FALSE, Outcome.SUCCESSFUL),
        ("", GOOD, Outcome.FAILED),
        (GOOD, BAD, Outcome.SUCCESSFUL),
        (FALSE, BAD, Outcome.INCONCLUSIVE),
        (GOOD, GOOD, Outcome.FAILED),
        (MISSING, BAD, Outcome.ERROR),
        (GOOD, MISSING, Outcome.ERROR),
        (MISSING, MISSING, Outcome.ERROR),
    ],
)
def test_a_measurement_has_argos_outcome(success, failure, outcome):
    result = {**RESULT, "stable_accuracy": None}
    assert evaluate(analysis(success, failure), result)[0] is outcome


OK, NO, UNSURE, LOST = 0.95, 0.3, 0.7, None  # accuracies, for ACCURATE's two conditions


@pytest.mark.parametrize(
    ("accuracies", "limits", "outcome"),
    [
        ([], {}, Outcome.RUNNING),
        ([OK], {}, Outcome.RUNNING),
        ([OK, OK], {}, Outcome.SUCCESSFUL),
        ([NO], {}, Outcome.FAILED),
        ([NO], {"failure_limit": 1}, Outcome.RUNNING),
        ([NO, OK], {"failure_limit": 1}, Outcome.SUCCESSFUL),
        ([NO, NO], {"failure_limit": 1}, Outcome.FAILED),
        ([UNSURE], {}, Outcome.RUNNING),
        ([UNSURE, UNSURE], {}, Outcome.INCONCLUSIVE),
        ([LOST] * 2, {}, Outcome.RUNNING),
        ([LOST] * 3, {}, Outcome.ERROR),
        ([LOST, LOST, OK, LOST, LOST], {}, Outcome.RUNNING),
        ([LOST, LOST, OK, LOST, OK], {}, Outcome.SUCCESSFUL),
        ([OK] * 50, {"count": 0}, Outcome.RUNNING),
        ([NO, OK, OK, OK], {}, Outcome.FAILED),
    ],
)
def test_an_analysis_has_argos_end(accuracies, limits, outcome):
    metric, measured = ACCURATE.model_copy(update=limits), Measurements(name="accurate")
    for accuracy in accuracies:
        measured = measure(measured, metric, {**RESULT, "accuracy": accuracy}, NOW)
    assert measured.outcome is outcome


def test_a_stopped_analysis_without_failure_is_successful():
    assert stop(Measurements(name="a")).outcome is Outcome.SUCCESSFUL
    failed = Measurements(name="a", outcome=Outcome.FAILED)
    assert stop(failed) is failed


def test_results_of_silence_are_no_data():
    silent = results(Sample(), None)
    assert silent["requests"] == 0
    assert {silent[name] for name in ("error_rate", "latency_p95_s", "accuracy")} == {None}
    assert silent["stable_requests"] is None


def test_a_latency_that_no_answer_tells_is_unknown_and_not_the_fastest():
    failing = results(sample(30, 30), sample(900))
    assert (failing["requests"], failing["error_rate"]) == (30, 1.0)
    assert failing["latency_p95_s"] is None
    fast = analysis("result.latency_p95_s < 1")
    outcome, message = evaluate(fast, failing)
    assert outcome is Outcome.ERROR
    assert message.startswith("there is no data for result.latency_p95_s")


# --- in a rollout ------------------------------------------------------------------------


def with_analysis(**changes):
    metric = ACCURATE.model_copy(update=changes).model_dump()
    return begin(make_plan(analyses=(metric,), limits__labels_min=0))


def test_a_step_is_left_when_its_analyses_have_been_successful():
    records = run(world(), with_analysis(count=3))
    runs = [r.analyses[0] for r in records if r.analyses and r.phase is Phase.STEP]
    assert max(run.count for run in runs) == 3
    assert {run.outcome for run in runs} == {Outcome.RUNNING, Outcome.SUCCESSFUL}
    assert records[-1].phase is Phase.DONE


def test_measurements_keep_their_interval():
    records = run(world(), with_analysis(count=0, interval_s=3))
    first = [r for r in records if r.phase is Phase.STEP and r.step == 0 and r.analyses]
    times = sorted({r.analyses[0].measured_at for r in first if r.analyses[0].measured_at})
    assert [(b - a).total_seconds() for a, b in pairwise(times)] == [3, 3]


def test_a_failed_analysis_takes_the_version_back():
    last = run(world(Behaviour(wrong=0.8)), with_analysis())[-1]
    assert last.phase is Phase.ROLLED_BACK
    assert last.reason.startswith(
        "analysis accurate Failed: result.accuracy < 0.5 at accuracy 0."
    )


def test_a_dry_run_decides_nothing():
    records = run(world(Behaviour(wrong=0.8)), with_analysis(dry_run=True))
    assert any(r.analyses and r.analyses[0].outcome is Outcome.FAILED for r in records)
    assert records[-1].phase is Phase.DONE


def test_an_inconclusive_analysis_pauses_for_a_person():
    a_world = world(Behaviour(wrong=0.3))
    rollout = until(Phase.STEP, a_world, with_analysis().plan)
    records = run(a_world, rollout)
    paused = next(r for r in records if r.paused)
    assert paused.reason.startswith("paused: analysis accurate Inconclusive: neither")
    assert records[-1].reason.startswith("paused for 601 s, limit 600 s")
    resumed = resume(paused, "ann", "70 % is fine", seconds(90))
    assert resumed.analyses[0] == Measurements(name="accurate")


def test_an_analysis_without_data_is_an_error_that_takes_the_version_back():
    metric = with_analysis(
        success_condition="result.stable_accuracy < 0", failure_condition="", interval_s=2
    )
    first = metric.model_copy(update={"stable": None})
    last = run(world(stable=None), first)[-1]
    assert last.reason.startswith("analysis accurate Error: there is no data for result.stable")


def test_analyses_rest_while_people_are_asked():
    a_world = world()
    plan = make_plan(analyses=(ACCURATE.model_dump(),), approval=True)
    waiting = until(Phase.AWAITING_APPROVAL, a_world, plan)
    a_world.pass_time(5)
    looked = advance(advance(waiting, a_world.look(waiting)), a_world.look(waiting))
    assert (looked.phase, looked.analyses) == (Phase.AWAITING_APPROVAL, ())
    approved = approve(looked, "ada", "looks well", seconds(a_world.at_s))
    assert run(a_world, approved)[-1].phase is Phase.DONE


def test_analyses_rest_in_the_shadow():
    plan = make_plan(analyses=(ACCURATE.model_dump(),), shadow__percent=20)
    ended = run(world(), begin(plan))[-1]
    assert ended.phase is Phase.ROLLED_BACK, "nothing is mirrored in this world"
    assert "0 of 20 answers compared so far" in ended.reason
