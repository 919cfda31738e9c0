"""The gate fails closed, knows its power, and lets a far better challenger win."""

import math

import numpy as np
import pytest

from policy.config import Benchmark
from policy.errors import DataError
from policy.gates.decision import Champion, decide_gate
from policy.gates.significance import Paired, compare, not_worse
from tests.policy.evaluations import DATA, GATES, PINNED, answers, first, scores


def against(ours, theirs, gates=GATES):
    """The decision on a version that gave the answers `ours` where v1 gave `theirs`."""
    mine, its = (scores(float(np.mean(those)), len(those)) for those in (ours, theirs))
    easy = gates.model_copy(
        update={"questions_min": 1, "accuracy_min": 0.0, "family_accuracy_min": 0.0}
    )
    champion = Champion(scores=its, paired=compare("v1", ours, theirs, gates.alpha))
    return decide_gate(mine, champion, easy, {}, PINNED)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (scores(), None),
        (scores(accuracy=0.9), None),  # the limit itself is reached
        (scores(accuracy=0.8999), "accuracy 89.99 %, at least 90 % needed"),
        (scores(accuracy=0.899999), "accuracy 89.9999 %, at least 90 % needed"),
        (scores(questions=499), "499 questions, at least 500 needed"),
        (
            scores(0.9, 999, families={"query": 0.95, "shape": 0.96, "flash": 0.79}),
            "accuracy of flash 79 %, at least 80 % needed",
        ),
    ],
)
def test_the_first_version_must_reach_the_absolute_limits(seen, reason):
    report = first(seen)
    assert report.passed is (reason is None)
    if reason:
        assert report.reasons == (reason,)


# --- against what serves -----------------------------------------------------------------


def test_a_far_better_challenger_wins():
    report = against(answers(2000, 0.99), answers(2000, 0.7, seed=1))
    assert report.passed
    assert report.paired.low > 0.2


def test_an_identical_challenger_is_not_worse_and_its_interval_has_a_width():
    same = answers(1000, 0.95)
    report = against(same, same)
    assert report.passed
    assert report.paired.difference == 0
    assert -0.01 < report.paired.low < 0 < report.paired.high
    assert report.reasons[-1].startswith("not worse than v1: difference +0.00 points (-0.")
    assert report.reasons[-1].endswith("at most 2 worse allowed, 1000 questions")


def test_a_clearly_worse_challenger_is_called_worse():
    report = against(answers(5000, 0.9), answers(5000, 0.97, seed=1))
    assert not report.passed
    assert report.reasons[0].startswith("worse than v1")


def test_too_few_questions_are_inconclusive_and_do_not_pass():
    report = against(answers(60, 0.9), answers(60, 0.9, seed=1))
    assert not report.passed
    assert "inconclusive against v1" in report.reasons[0]
    assert report.reasons[0].endswith("60 questions; more questions would tell")


def test_a_challenger_worse_by_the_margin_passes_at_most_alpha_of_the_time():
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(1000):
        theirs = rng.random(2000) < 0.95
        flips = rng.random(2000) < 0.03  # 0.95 -> 0.03 lost, 0.01 of all won: 0.02 worse
        wins = rng.random(2000) < 0.17
        ours = np.where(theirs, ~flips, wins)
        paired = compare("v1", ours.astype(float), theirs.astype(float), GATES.alpha)
        passed += not_worse(paired, GATES.non_inferiority_margin)[0]
    assert passed / 1000 < 2 * GATES.alpha


@pytest.mark.parametrize("n", [(3, 4), (1, 1), (0, 0)])
def test_other_questions_cannot_be_compared(n):
    with pytest.raises(DataError, match=f"{n[0]} answers of the new version and {n[1]} of v1"):
        compare("v1", [1.0] * n[0], [1.0] * n[1], 0.01)


@pytest.mark.parametrize("odd_one", [math.nan, math.inf, 60.0, -1.0])
def test_answers_whose_correctness_is_no_fraction_cannot_be_compared(odd_one):
    good = [1.0, 0.0, 1.0]
    with pytest.raises(DataError, match="1 answers of v1 have no correctness, the first is"):
        compare("v1", good, [1.0, odd_one, 0.0], 0.01)
    with pytest.raises(DataError, match="1 answers of the new version"):
        compare("v1", [1.0, odd_one, 0.0], good, 0.01)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"questions": 60},
            "compared with v1 on 60 questions, but the new version was scored on",
        ),
        ({"difference": 0.3}, "at a difference of +30 points, but the scores differ by +0"),
        ({"difference": math.nan}, "at a difference of +nan points"),
        ({"low": math.nan}, "inconclusive against v1"),
    ],
)
def test_a_comparison_of_other_answers_than_were_scored_does_not_pass(changes, reason):
    paired = Paired(champion="v1", questions=1000, difference=0.0, low=-0.01, high=0.01)
    champion = Champion(scores=scores(), paired=paired.model_copy(update=changes))
    report = decide_gate(scores(), champion, GATES, {}, PINNED)
    assert not report.passed
    assert reason in report.reasons[0]


# --- benchmarks --------------------------------------------------------------------------


def on_gqa(accuracy=0.7, questions=100, fingerprint=DATA.version):
    return {"gqa": scores(accuracy, questions, fingerprint)}


@pytest.mark.parametrize(
    ("limit", "seen", "passed", "reason"),
    [
        (0.65, on_gqa(0.6501), True, "accuracy on gqa 65.01 %, more than 65 % needed"),
        (0.65, on_gqa(0.65), False, "accuracy on gqa 65 %, more than 65 % needed"),
        (0.0, on_gqa(0.0), False, "accuracy on gqa 0 %, more than 0 % needed"),
        ("reported", on_gqa(0.0), True, "accuracy on gqa 0 % (reported only)"),
        ("reported", {}, False, "gqa was not scored"),
        (0.65, {}, False, "gqa was not scored"),
        (0.65, {"vqav2": scores()}, False, "gqa was not scored"),
        (0.65, on_gqa(questions=99), False, "gqa has 99 questions, at least 100 needed"),
        (
            0.65,
            on_gqa(fingerprint="sha256:x"),
            False,
            "gqa was scored on sha256:x, not sha256:a",
        ),
    ],
)
def test_a_benchmark_is_passed_by_more_than_its_limit_on_its_own_data(
    limit, seen, passed, reason
):
    wanted = Benchmark(name="gqa", dataset=DATA, accuracy_above=limit)
    gates = GATES.model_copy(update={"benchmarks": (wanted,)})
    report = decide_gate(scores(), None, gates, seen, PINNED)
    assert report.passed is passed
    assert report.checks[-1].reason.startswith(reason)
