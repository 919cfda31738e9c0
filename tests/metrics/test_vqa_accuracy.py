"""Each answer scores what the official evaluator gives it, to the last digit.

data/agreement.json and data/gqa.json hold cases with the values that the official code
gave; model/metrics/README.md says which code, and how the cases were made.
"""

import json
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.formats.question import twins
from model.metrics import normalise
from model.metrics.score import score
from model.metrics.vqa_accuracy import RULES, accuracy

DATA = Path(__file__).parent / "data"
FROZEN = json.loads((DATA / "agreement.json").read_text())
GQA = json.loads((DATA / "gqa.json").read_text())
REWRITE = {name: getattr(normalise, name) for name in RULES}


def cases(name):
    return [pytest.param(case, id=f"{name}: {case['name']}") for case in FROZEN[name]]


def text_and_twins(answers):
    """Answers as strings and, where they are records, which are equal but for the answer."""
    if isinstance(answers[0], str):
        return answers, None
    return [answer["answer"] for answer in answers], twins(answers)


def scored(name, many):
    pairs = [text_and_twins(case["answers"]) for case in many]
    return accuracy(
        RULES[name],
        pa.array([case["prediction"] for case in many]),
        pa.array([texts for texts, _ in pairs], pa.list_(pa.string())),
        pa.array([twin for _, twin in pairs], pa.list_(pa.int16())),
    ).tolist()


@pytest.mark.parametrize("case", cases("vqav2"))
def test_vqav2_agrees(case):
    assert normalise.vqav2(case["prediction"]) == case["rewritten"]
    assert scored("vqav2", [case]) == [case["accuracy"]]


@pytest.mark.parametrize("case", cases("textvqa"))
def test_textvqa_agrees(case):
    assert normalise.textvqa(case["prediction"]) == case["rewritten"]
    assert scored("textvqa", [case]) == [case["accuracy"]]


@pytest.mark.parametrize("case", cases("vizwiz"))
def test_vizwiz_agrees(case):
    assert normalise.vizwiz(case["prediction"]) == case["rewritten"]
    assert scored("vizwiz", [case]) == [case["accuracy"]]


@pytest.mark.parametrize("name", RULES)
def test_questions_together_score_what_each_scores_alone(name):
    many = FROZEN[name]
    assert scored(name, many) == [case["accuracy"] for case in many]


@pytest.mark.parametrize("matches", range(11))
def test_the_rule_is_the_mean_over_all_sets_that_leave_one_out(matches):
    people = ["red"] * matches + ["blue"] * (10 - matches)
    sets = list(combinations(people, 9))
    brute = sum(min(chosen.count("red") / 3, 1) for chosen in sets) / len(sets)
    case = {"answers": people, "prediction": "red"}
    assert scored("vizwiz", [case])[0] == pytest.approx(brute)


WORDS = st.text(alphabet="aA1,.-'/ 3\nx?", max_size=8)


@settings(deadline=None, max_examples=60)
@given(answers=st.lists(WORDS, min_size=10, max_size=10), guess=WORDS)
def test_an_accuracy_is_one_of_the_five_that_ten_people_allow(answers, guess):
    case = {"answers": answers, "prediction": guess}
    for name in RULES:
        (value,) = scored(name, [case])
        assert round(value, 9) in {0, 0.3, 0.6, 0.9, 1}


@settings(deadline=None, max_examples=60)
@given(
    questions=st.lists(
        st.tuples(st.lists(WORDS, min_size=1, max_size=12), WORDS), min_size=1, max_size=8
    )
)
def test_equals_a_plain_loop_over_people(questions):
    many = [{"answers": answers, "prediction": guess} for answers, guess in questions]
    for name in RULES:
        assert scored(name, many) == [plain(name, *question) for question in questions]


def plain(name, answers, guess):
    """The rule in words: leave each person out, count, cap, take the mean."""
    rewrite = REWRITE[name]
    compared = [answer if name == "vizwiz" else rewrite(answer) for answer in answers]
    wanted = rewrite(guess)
    alike = {normalise.vqav2_plain(answer) for answer in answers}
    if name == "vqav2" and len(alike) == 1:
        compared, wanted = list(alike) * len(answers), normalise.vqav2_plain(guess)
    total = 0.0
    for left_out in range(len(compared)):
        others = compared[:left_out] + compared[left_out + 1 :]
        total += min(1.0, others.count(wanted) / 3)
    return total / len(compared)


@pytest.fixture(scope="module")
def gqa_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gqa")
    for name in ("questions", "choices", "predictions"):
        (folder / f"{name}.json").write_text(json.dumps(GQA[name]))
    return folder


@pytest.fixture(scope="module")
def gqa_scores(gqa_files):
    return score(
        "gqa",
        gqa_files / "predictions.json",
        gqa_files / "questions.json",
        choices=gqa_files / "choices.json",
        consistency=True,
    )


@pytest.mark.parametrize(
    "metric", ["binary", "open", "consistency", "validity", "plausibility"]
)
def test_gqa_agrees(gqa_scores, metric):
    assert 100 * gqa_scores.metrics[metric].value == pytest.approx(
        GQA["expected"][metric], abs=1e-11
    )


def test_gqa_accuracy_agrees(gqa_scores):
    assert 100 * gqa_scores.accuracy.value == pytest.approx(GQA["expected"]["accuracy"])
    assert gqa_scores.accuracy.questions == sum(
        question["isBalanced"] for question in GQA["questions"].values()
    )


def test_gqa_distribution_agrees(gqa_scores):
    found = gqa_scores.metrics["distribution"]
    assert found.value == pytest.approx(GQA["expected"]["distribution"], abs=1e-12)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("structural_type", "accuracyPerStructuralType"),
        ("semantic_type", "accuracyPerSemanticType"),
        ("words", "accuracyPerLength"),
        ("steps", "accuracyPerSteps"),
    ],
)
def test_gqa_agrees_by_type_and_length(gqa_scores, ours, theirs):
    found = {
        name: (pytest.approx(100 * s.value), s.questions)
        for name, s in gqa_scores.by[ours].items()
    }
    assert found == {name: tuple(pair) for name, pair in GQA["expected"][theirs].items()}


def test_gqa_says_what_it_leaves_out(gqa_files, gqa_scores):
    assert list(gqa_scores.left_out) == ["grounding"]
    files = gqa_files / "predictions.json", gqa_files / "questions.json"
    plain_scores = score("gqa", *files)
    assert set(plain_scores.left_out) == {
        "grounding",
        "consistency",
        "validity",
        "plausibility",
    }
    assert plain_scores.accuracy == gqa_scores.accuracy
