"""The gate fails closed, knows its power, and lets a far better challenger win."""

import math

import numpy as np
import pytest

from policy.config import Benchmark, Dataset, Gates
from policy.errors import DataError
from policy.gates.scores import Score, Scores, compare, judge

GATES = Gates(
    accuracy_min=0.9,
    family_accuracy_min=0.8,
    questions_min=500,
    non_inferiority_margin=0.02,
    alpha=0.01,
    benchmarks=(),
)
DATA = Dataset(uri="gqa", format="gqa", version=f"sha256:{'a' * 64}", questions_min=100)


def scores(accuracy=0.95, questions=1000, **families):
    families = families or {"query": 0.95}
    return Scores(
        data_fingerprint="sha256:x",
        questions=questions,
        accuracy=accuracy,
        families={name: Score(questions=100, accuracy=a) for name, a in families.items()},
    )


def answers(n, accuracy, seed=0):
    return (np.random.default_rng(seed).random(n) < accuracy).astype(float)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (scores(), None),
        (scores(accuracy=0.9), None),  # the limit itself is reached
        (scores(accuracy=0.8999), "accuracy 0.8999 < 0.9"),
        (scores(accuracy=math.nan), "accuracy nan < 0.9"),
        (scores(questions=499), "questions 499 < 500"),
        (scores(query=0.95, flash=0.79), "accuracy of flash 0.79 < 0.8"),
        (scores().model_copy(update={"families": {}}), "no family was scored"),
    ],
)
def test_the_first_version_must_reach_the_absolute_limits(seen, reason):
    report = judge(seen, None, GATES, {})
    assert report.passed is (reason is None)
    if reason:
        assert reason in report.reasons


def test_a_far_better_challenger_wins():
    paired = compare("v1", answers(2000, 0.99), answers(2000, 0.7, seed=1), GATES.alpha)
    assert judge(scores(), paired, GATES, {}).passed
    assert paired.low > 0.2


def test_an_identical_challenger_is_not_worse_and_its_interval_has_a_width():
    same = answers(1000, 0.95)
    paired = compare("v1", same, same, GATES.alpha)
    assert paired.difference == 0
    assert -0.01 < paired.low < 0 < paired.high
    assert judge(scores(), paired, GATES, {}).passed


def test_a_clearly_worse_challenger_is_called_worse():
    paired = compare("v1", answers(5000, 0.9), answers(5000, 0.97, seed=1), GATES.alpha)
    report = judge(scores(), paired, GATES, {})
    assert not report.passed
    assert report.reasons[0].startswith("worse than v1")


def test_too_few_questions_are_inconclusive_and_do_not_pass():
    paired = compare("v1", answers(60, 0.9), answers(60, 0.9, seed=1), GATES.alpha)
    report = judge(scores(), paired, GATES, {})
    assert not report.passed
    assert "inconclusive against v1" in report.reasons[0]
    assert "at 60 questions" in report.reasons[0]


def test_a_challenger_worse_by_the_margin_passes_at_most_alpha_of_the_time():
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(1000):
        theirs = rng.random(2000) < 0.95
        flips = rng.random(2000) < 0.03  # 0.95 -> 0.03 lost, 0.01 of all won: 0.02 worse
        wins = rng.random(2000) < 0.17
        ours = np.where(theirs, ~flips, wins)
        paired = compare("v1", ours.astype(float), theirs.astype(float), GATES.alpha)
        passed += paired.low > -GATES.non_inferiority_margin
    assert passed / 1000 < 2 * GATES.alpha


@pytest.mark.parametrize("n", [(3, 4), (1, 1), (0, 0)])
def test_other_questions_cannot_be_compared(n):
    with pytest.raises(DataError, match=f"{n[0]} answers of the new version and {n[1]} of v1"):
        compare("v1", [1.0] * n[0], [1.0] * n[1], 0.01)


def on_gqa(accuracy=0.7, questions=100, fingerprint=DATA.version):
    seen = {"data_fingerprint": fingerprint, "accuracy": accuracy, "questions": questions}
    return {"gqa": scores().model_copy(update=seen)}


@pytest.mark.parametrize(
    ("limit", "seen", "passed", "reason"),
    [
        (0.65, on_gqa(0.6501), True, "accuracy on gqa 0.6501 > 0.65"),
        (0.65, on_gqa(0.65), False, "accuracy on gqa 0.65 <= 0.65"),  # more, not as much
        (0.65, on_gqa(math.nan), False, "accuracy on gqa nan <= 0.65"),
        (0.0, on_gqa(0.0), False, "accuracy on gqa 0 <= 0.0"),
        ("reported", on_gqa(0.0), True, "accuracy on gqa 0 (reported)"),
        ("reported", on_gqa(math.nan), False, "accuracy on gqa nan (reported)"),
        ("reported", {}, False, "gqa was not scored"),
        (0.65, {}, False, "gqa was not scored"),
        (0.65, {"vqav2": scores()}, False, "gqa was not scored"),
        (0.65, on_gqa(questions=99), False, "gqa questions 99 < 100"),
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
    report = judge(scores(), None, GATES.model_copy(update={"benchmarks": (wanted,)}), seen)
    assert report.passed is passed
    assert report.checks[-1].reason.startswith(reason)
