"""Scores that cannot be are refused, whoever's they are."""

import math

import pytest

from policy.config import Benchmark
from policy.errors import DataError
from policy.gates.decision import Champion, decide_gate
from policy.gates.scores import Score, parse_scores
from policy.gates.significance import compare
from tests.policy.evaluations import DATA, GATES, PINNED, answers, first, scores


def odd(**changes):
    return scores().model_copy(update=changes)


def parts(*pairs):
    return {f"f{n}": Score(questions=q, accuracy=a) for n, (q, a) in enumerate(pairs)}


NONSENSE = [
    (odd(accuracy=60.0), "accuracy of WHO is 60, not a fraction from 0 to 1"),
    (odd(accuracy=1.7), "accuracy of WHO is 1.7, not a fraction"),
    (odd(accuracy=-0.1), "accuracy of WHO is -0.1, not a fraction"),
    (odd(accuracy=math.inf), "accuracy of WHO is inf, not a fraction"),
    (odd(accuracy=math.nan), "accuracy of WHO is nan, not a fraction"),
    (odd(questions=0), "accuracy of WHO is over 0 questions, at least 1"),
    (odd(questions=-5), "accuracy of WHO is over -5 questions"),
    (odd(families={}), "no family of WHO was scored"),
    (odd(families=parts((1000, 0.95), (0, 0.95))), "accuracy of WHO on f1 is over 0 questions"),
    (odd(families=parts((1000, math.nan))), "accuracy of WHO on f0 is nan, not a fraction"),
    (odd(families=parts((1000, math.inf))), "accuracy of WHO on f0 is inf, not a fraction"),
    (odd(families=parts((1000, 95.0))), "accuracy of WHO on f0 is 95, not a fraction"),
    (
        odd(families=parts((500, 0.95), (400, 0.95))),
        "the families of WHO do not add up: 900 questions, 1000 in all",
    ),
    (
        odd(families=parts((900, 0.9), (100, 1.0))),
        "the families of WHO do not add up: accuracy 91 %, 95 % in all",
    ),
    (odd(data_fingerprint="sha256:x"), f"WHO was scored on sha256:x, not {PINNED}"),
]


@pytest.mark.parametrize(("seen", "reason"), NONSENSE)
def test_a_score_that_cannot_be_is_refused_with_one_reason(seen, reason):
    report = first(seen)
    assert not report.passed
    assert len(report.reasons) == 1
    assert reason.replace("WHO", "the new version") in report.reasons[0]


@pytest.mark.parametrize(("seen", "reason"), NONSENSE)
def test_a_champion_s_score_that_cannot_be_lets_nobody_pass(seen, reason):
    paired = compare("v1", answers(1000, 0.99), answers(1000, 0.7), GATES.alpha)
    report = decide_gate(scores(), Champion(scores=seen, paired=paired), GATES, {}, PINNED)
    assert not report.passed
    assert len(report.reasons) == 1
    assert reason.replace("WHO", "v1") in report.reasons[0]


@pytest.mark.parametrize(("seen", "reason"), NONSENSE)
@pytest.mark.parametrize("limit", [0.5, "reported"])
def test_a_benchmark_s_score_that_cannot_be_never_passes(seen, reason, limit):
    wanted = Benchmark(
        name="gqa",
        dataset=DATA.model_copy(update={"version": PINNED}),
        accuracy_above=limit,
    )
    gates = GATES.model_copy(update={"benchmarks": (wanted,)})
    report = decide_gate(scores(), None, gates, {"gqa": seen}, PINNED)
    assert not report.passed
    assert len(report.reasons) == 1
    assert reason.replace("WHO", "gqa") in report.reasons[0]


def test_rounded_accuracies_still_add_up():
    thirds = {"a": 0.333333, "b": 0.666667, "c": 1.0}
    assert (
        first(scores(accuracy=0.666667, questions=999, families=thirds))
        .reasons[0]
        .startswith("accuracy 66.67 %")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the whole file"),
        (
            '{"data_fingerprint": "x", "questions": 9, "accuracy": 0.5}',
            "families: Field required",
        ),
        (
            '{"data_fingerprint": "x", "questions": "9", "accuracy": 0.5, "families": {}}',
            "questions: Input should be a valid integer",
        ),
        (
            '{"data_fingerprint": "x", "questions": 9, "accuracy": true, "families": {}}',
            "accuracy: Input should be a valid number",
        ),
    ],
)
def test_a_file_that_holds_no_scores_is_an_error(text, said):
    with pytest.raises(DataError, match=said):
        parse_scores(text, "scores.json")


def test_what_evaluate_writes_is_read_whatever_else_it_holds():
    text = scores().model_dump_json()[:-1] + ', "benchmark": "gqa", "by": {}}'
    assert parse_scores(text, "scores.json") == scores()
