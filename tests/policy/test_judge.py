"""The verdict on one window, from tables; and on the whole comparison with stable."""

import pytest

from policy.counts import Counts, Labelled, Sample, between
from policy.evidence.comparison import Bet, Evidence, found_worse, full, not_proven, weigh
from policy.evidence.limits import Bounds, Verdict, rule, rule_shadow
from policy.rollout.record import tally
from policy.words import duration, per_time, percent, points
from tests.policy.worlds import make_plan, sample

BOUNDS = Bounds(20, 0.05, 1.0, 10, 0.75, 0.01)
GOOD = sample(100, 1, labels=50, wrong=2)


@pytest.mark.parametrize(
    ("canary", "stable", "verdict", "reason"),
    [
        (
            GOOD,
            GOOD,
            Verdict.PASS,
            "errors 1 % (limit 5 %), p95 latency 35 ms (limit 1 s), accuracy 96 % (at least "
            "75 %); 100 requests",
        ),
        (None, GOOD, Verdict.NO_DATA, "no metrics for 10 s"),
        (Sample(), GOOD, Verdict.NO_DATA, "no request for 10 s"),
        (
            sample(5, labels=5),
            GOOD,
            Verdict.INCONCLUSIVE,
            "5 of the 20 requests needed; about 30 s more at this rate",
        ),
        (
            sample(50),
            GOOD,
            Verdict.INCONCLUSIVE,
            "0 of the 10 labels needed; none so far",
        ),
        (
            Sample(counts=Counts(requests=50), labelled=Labelled(labels=50, correct=50)),
            GOOD,
            Verdict.INCONCLUSIVE,
            "0 of the 20 answers needed; none so far",
        ),
        (
            sample(412, 45, labels=300),
            GOOD,
            Verdict.FAIL,
            "errors 10.9 %, limit 5 % (412 requests)",
        ),
        (sample(8, 6), GOOD, Verdict.FAIL, "errors 75 %, limit 5 % (8 requests)"),
        (
            sample(40, labels=40, wrong=30),
            GOOD,
            Verdict.FAIL,
            "accuracy 25 %, at least 75 % needed (40 labels)",
        ),
        (
            sample(40, latency_s=2.0, labels=40),
            GOOD,
            Verdict.FAIL,
            "p95 latency 2.5 s, limit 1 s (40 requests)",
        ),
        (
            sample(40, latency_s=60.0, labels=40),
            GOOD,
            Verdict.FAIL,
            "p95 latency over 10 s, limit 1 s (40 requests)",
        ),
        (
            sample(40, 3, labels=37),
            GOOD,
            Verdict.INCONCLUSIVE,
            "errors 7.5 %, limit 5 % (40 requests); too few to be sure",
        ),
        (
            sample(200, 100, labels=100),
            sample(900, 400),
            Verdict.CONTINUE,
            "errors 50 %, limit 5 % (200 requests); stable is over it too",
        ),
        (
            sample(200, 100, labels=100),
            sample(10, 10),
            Verdict.FAIL,
            "errors 50 %, limit 5 % (200 requests)",
        ),
        (
            sample(200, 100, labels=100, wrong=90),
            sample(900, 400, labels=500),
            Verdict.FAIL,
            "accuracy 10 %, at least 75 % needed (100 labels)",
        ),
    ],
)
def test_the_verdict_at_the_end_of_a_window(canary, stable, verdict, reason):
    ruling = rule(BOUNDS, canary, stable, elapsed_s=10, over=True)
    assert (ruling.verdict, ruling.reason) == (verdict, reason)


@pytest.mark.parametrize("canary", [None, Sample(), sample(5), GOOD, sample(40, 3, labels=37)])
def test_before_the_end_only_a_proven_failure_is_a_verdict(canary):
    assert rule(BOUNDS, canary, GOOD, elapsed_s=5, over=False).verdict is Verdict.CONTINUE
    bad = sample(40, 20, labels=20)
    assert rule(BOUNDS, bad, GOOD, elapsed_s=5, over=False).verdict is Verdict.FAIL


def test_where_every_attempt_failed_the_latency_is_unknown_and_passes_no_limit():
    failing, lenient = sample(30, 30), BOUNDS._replace(labels_min=0, error_rate_max=1.0)
    assert failing.latency_p95_s is None
    assert (tally(failing).latency_p95_s, tally(failing).latency_known) == (None, False)
    ruling = rule(lenient, failing, GOOD, elapsed_s=10, over=True)
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert ruling.reason == "0 of the 1 answers needed; none so far"


@pytest.mark.parametrize(
    ("canary", "scarce"),
    [
        (None, False),
        (Sample(), True),
        (sample(5, labels=5), True),
        (sample(50), True),
        (sample(40, 3, labels=37), True),
        (GOOD, False),
    ],
)
def test_a_verdict_that_more_traffic_would_change_says_so(canary, scarce):
    assert rule(BOUNDS, canary, GOOD, elapsed_s=10, over=True).scarce is scarce


def test_accuracy_is_not_judged_without_labels_min():
    bounds = BOUNDS._replace(labels_min=0)
    wrong = sample(40, labels=40, wrong=40)
    assert rule(bounds, wrong, GOOD, elapsed_s=10, over=True).verdict is Verdict.PASS


def test_no_comparison_needed_means_shadow_passes():
    assert rule_shadow(0, 0, 0, 0.2, 0.01).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (percent(0.0667), "6.67 %"),
        (points(0.1), "10 points"),
        (points(0.01), "1 point"),
        (duration(0), "0 s"),
        (duration(0.05), "50 ms"),
        (duration(0.9996), "1 s"),
        (duration(40), "40 s"),
        (duration(7000), "117 min"),
        (duration(14400), "4 h"),
        (duration(9.5e6), "110 d"),
        (per_time(150), "150 requests/s"),
        (per_time(1.25), "1.2 requests/s"),
        (per_time(100 / 3600), "100 requests/h"),
        (per_time(5 / 3600), "5 requests/h"),
    ],
)
def test_numbers_are_told_in_units_that_one_can_feel(told, words):
    assert told == words


# --- counters ----------------------------------------------------------------------------


def test_a_difference_of_counters():
    before = sample(100, 4, labels=50, wrong=5)
    now = sample(160, 5, labels=80, wrong=9)
    assert between(before, now) == sample(60, 1, labels=30, wrong=4)


@pytest.mark.parametrize(
    "now",
    [
        sample(99, 4, labels=50, wrong=5),
        sample(200, 3, labels=90, wrong=5),
        sample(200, 9, labels=49, wrong=0),
        sample(200, 9, labels=90, wrong=60),
        sample(200, 9, latency_s=2.0, labels=90, wrong=5),
    ],
)
def test_any_counter_that_is_lower_is_a_dip_and_not_known_now(now):
    assert between(sample(100, 4, labels=50, wrong=5), now) is None


@pytest.mark.parametrize("requests", [3, 100, 900])
def test_counters_of_another_life_began_again_whatever_they_say(requests):
    before = sample(100, 4, labels=50, wrong=5, epoch="1")
    now = sample(requests, 1, labels=60, epoch="2")
    since = between(before, now)
    assert since.restarted
    assert since.model_copy(update={"restarted": False}) == now


def test_the_95th_percentile_is_the_edge_of_its_bucket():
    latency = [0] * 17
    latency[4], latency[8] = 94, 6
    assert Sample(counts=Counts(requests=100, latency=tuple(latency))).latency_p95_s == 0.1
    latency[4], latency[8] = 95, 5
    assert Sample(counts=Counts(requests=100, latency=tuple(latency))).latency_p95_s == 0.02


# --- comparison --------------------------------------------------------------------------


def weighed(plan, blocks):
    evidence = Evidence()
    for canary, stable in blocks:
        evidence = weigh(evidence, plan, canary, stable)
    return evidence


def test_more_errors_than_stable_are_found():
    plan = make_plan()
    evidence = weighed(plan, [(sample(20, 6), sample(180, 2))] * 3)
    assert found_worse(evidence, plan).startswith(
        "errors 30 %, stable 1.11 % (allowed +1 point, 60 requests); odds "
    )
    assert evidence.error_rate == evidence.error_rate.model_copy(
        update={"canary": (18, 60), "stable": (6, 540)}
    )


def test_more_slow_answers_than_stable_are_found_once_stable_is_known():
    plan = make_plan()
    fast, slow = sample(20, latency_s=0.03), sample(20, latency_s=0.2)
    first = weighed(plan, [(slow, sample(180, latency_s=0.03))])
    assert first.slow_edge_s == 0.035
    assert first.slow_rate == Bet()
    evidence = weighed(plan, [(slow, sample(180, latency_s=0.03))] * 4)
    assert found_worse(evidence, plan).startswith("slow answers 100 %, stable 0 % (allowed +5")
    assert found_worse(weighed(plan, [(fast, sample(180))] * 4), plan) == ""


def test_more_wrong_answers_than_stable_are_found_where_labels_are_judged():
    blocks = [(sample(20, labels=20, wrong=16), sample(180, labels=180, wrong=9))] * 3
    plan = make_plan()
    assert found_worse(weighed(plan, blocks), plan).startswith("wrong answers 80 %, stable 5 %")
    silent = make_plan(limits__labels_min=0)
    assert found_worse(weighed(silent, blocks), silent) == ""


def test_one_side_alone_teaches_and_decides_nothing():
    plan = make_plan()
    alone = Sample(counts=Counts(), labelled=Labelled())
    evidence = weighed(plan, [(sample(50, 50), alone)] * 5)
    assert evidence.error_rate == Bet(canary=(250, 250))
    assert found_worse(evidence, plan) == ""


def test_proof_of_being_as_good_needs_every_metric():
    plan = make_plan()
    blocks = [(sample(100, 1, labels=100, wrong=5), sample(100, 1, labels=100, wrong=5))]
    assert not_proven(weighed(plan, blocks), plan).startswith(
        "errors not yet proven to be within 5 points of stable's; about "
    )
    assert not_proven(weighed(plan, blocks * 20), plan) == ""
    unlabelled = [(sample(100, 1), sample(100, 1))]
    assert "wrong answers not yet" in not_proven(weighed(plan, unlabelled * 20), plan)


def test_a_block_ends_when_it_is_big_or_old_enough():
    plan = make_plan()
    known = Evidence(error_rate=Bet(canary=(0, 400)))
    assert full(Evidence(), plan, sample(5), 0.1)
    assert not full(Evidence(), plan, sample(4), 4.9)
    assert full(Evidence(), plan, sample(1), 5)
    assert not full(Evidence(), plan, sample(0), 500)
    assert not full(known, plan, sample(99), 1)
    assert full(known, plan, sample(100), 1)
