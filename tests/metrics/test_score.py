"""A results file is scored alone, with counts and intervals; a wrong one is refused."""

import json

import pytest

from model.metrics import predictions
from model.metrics.score import score
from model.program.errors import BadInput


def vqav2(questions=4):
    """Annotations in the official form; everybody says red, of question 1 half say blue."""
    return {
        "info": {"version": "2.0"},
        "annotations": [
            {
                "question_id": n,
                "image_id": n // 2,
                "question_type": "what color" if n % 2 else "is the",
                "answer_type": "other",
                "multiple_choice_answer": "red",
                "answers": [
                    {
                        "answer": "blue" if n == 1 and a < 5 else "red",
                        "answer_confidence": "yes",
                        "answer_id": a + 1,
                    }
                    for a in range(10)
                ],
            }
            for n in range(questions)
        ],
    }


def save(folder, name, value):
    path = folder / f"{name}.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def answers(*given):
    return [{"question_id": n, "answer": answer} for n, answer in enumerate(given)]


@pytest.fixture
def run(tmp_path):
    def run(given, truth=None):
        truth = vqav2() if truth is None else truth
        return score("vqav2", save(tmp_path, "given", given), save(tmp_path, "truth", truth))

    return run


def test_scores_by_answer_and_question_type(run):
    found = run(answers("red", "blue", "red", "green"))
    assert found.accuracy.value == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert found.accuracy.questions == 4
    assert found.by["question_type"]["what color"].value == pytest.approx(0.5)
    assert found.by["question_type"]["is the"].value == 1
    assert found.families["other"] == found.accuracy
    assert found.questions["correct"].to_pylist() == [1, 1, 1, 0]
    assert found.questions["predicted"].to_pylist() == ["red", "blue", "red", "green"]


def test_ids_may_be_written_as_text(run):
    given = [{"question_id": str(n), "answer": "red"} for n in range(4)]
    assert run(given).accuracy.value == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            answers("red", "red", "red"),
            r"1 question\(s\) without a prediction, the first is '3'",
        ),
        (answers(*["red"] * 5), r"1 prediction\(s\) for unknown questions, one is '4'"),
        ([*answers(*["red"] * 4), *answers("red")], r"question 0 is answered twice"),
        ([{"answer": "red"}], r"prediction 1 has no 'question_id' but \['answer'\]"),
        ([{"question_id": 0}], r"question 0 has no 'answer'"),
        ([{"question_id": True, "answer": "red"}], r"question_id is True"),
        ([{"question_id": 1.0, "answer": "red"}], r"question_id is 1.0"),
        ([{"question_id": 0, "answer": 2}], r"question 0: answer is 2; expected a string"),
        (["red"], r"prediction 1: found 'red'; expected an object"),
        ({"question_id": 0}, r"expecting '\[' at character 0"),
        ('[{"question_id": 0, "answer": "re', r"is not the expected JSON"),
        ("", r"expecting '\[' at character 0"),
        ('[{"question_id": 0, "answer": "red"}]]', r"something follows the end"),
        ('[{"question_id": 0, "answer": "\\ud83d"}]', r"without a prediction"),
    ],
)
def test_a_wrong_results_file_is_refused(run, given, message):
    with pytest.raises(BadInput, match=message):
        run(given)


def test_half_a_character_is_refused(run):
    with pytest.raises(BadInput, match="an unpaired surrogate"):
        run(json.dumps(answers("red", "red", "red", "\ud83d")))


def without(key):
    truth = vqav2()
    del truth["annotations"][2][key]
    return truth


def with_answers(found):
    truth = vqav2()
    truth["annotations"][2]["answers"] = found
    return truth


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ({"annotations": []}, "holds no questions"),
        ({"questions": []}, r"has the keys \['questions'\]; expected one array 'annotations'"),
        ({"annotations": vqav2()["annotations"] * 2}, "question '0' is in .* 2 times"),
        (without("question_id"), "an annotation has no 'question_id'"),
        (without("answers"), "question 2 has no 'answers'"),
        (with_answers([]), "question 2 has no answers"),
        (with_answers(["red"]), "question 2: found 'red'; expected an object"),
        (with_answers([{"answer_id": 1}]), r"question 2 has no 'answer'"),
    ],
)
def test_a_wrong_truth_is_refused(run, truth, message):
    with pytest.raises(BadInput, match=message):
        run(answers(*["red"] * 4), truth)


def test_missing_files_and_unknown_benchmarks_are_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        score("vqav2", tmp_path / "no.json", tmp_path / "no.json")
    with pytest.raises(BadInput, match=r"benchmark 'coco'; expected one of"):
        score("coco", tmp_path / "no.json", tmp_path / "no.json")


def test_answers_that_are_one_record_are_left_out_together(run):
    truth = with_answers([{"answer": "red"}] * 10)
    assert run(answers(*["red"] * 4), truth).questions["correct"].to_pylist()[2] == 0


@pytest.mark.parametrize(
    ("benchmark", "ids"),
    [
        ("vqav2", ["12", "7"]),
        ("textvqa", ["3", "4"]),
        ("gqa", ["07", "x"]),
        ("vizwiz", ["a.jpg"]),
    ],
)
def test_written_predictions_read_back(tmp_path, benchmark, ids):
    path = tmp_path / "results.json"
    given = [f"answer {n}, «ä»" for n in range(len(ids))]
    sure = [0.25] * len(ids) if benchmark == "vizwiz" else None
    predictions.write(benchmark, path, ids, given, sure)
    found = predictions.read(benchmark, path)
    assert found.answers == dict(zip(ids, given, strict=True))
    assert found.answerable == ({"a.jpg": 0.25} if sure else {})


def test_question_ids_are_written_as_integers(tmp_path):
    path = tmp_path / "results.json"
    predictions.write("vqav2", path, ["12"], ["yes"])
    assert json.loads(path.read_text()) == [{"question_id": 12, "answer": "yes"}]


def vizwiz(tmp_path, sure):
    truth = [
        {
            "image": f"VizWiz_val_{n:08d}.jpg",
            "question": "what is this?",
            "answers": [{"answer": "can", "answer_confidence": "yes"}] * 10,
            "answer_type": "other",
            "answerable": n % 2,
        }
        for n in range(4)
    ]
    given = [
        {"image": item["image"], "answer": "Can.", **({} if s is None else {"answerable": s})}
        for item, s in zip(truth, sure, strict=True)
    ]
    return score("vizwiz", save(tmp_path, "given", given), save(tmp_path, "truth", truth))


def test_vizwiz_scores_answerability_only_where_it_is_predicted(tmp_path):
    found = vizwiz(tmp_path, [0, 1, 0.2, 0.4])
    assert found.accuracy.value == 1
    assert found.metrics["average_precision"].value == 1
    assert found.metrics["f1_score"].value == pytest.approx(0.8)
    assert vizwiz(tmp_path, [None] * 4).left_out == {
        "answerability": "the predictions do not give `answerable`"
    }


@pytest.mark.parametrize(
    ("sure", "message"),
    [
        ([0, 1, None, 1], "gives `answerable` for 3 of 4 questions"),
        ([0, 1, "yes", 1], "answerable is 'yes'; expected a finite number"),
        ([0, 1, float("nan"), 1], "answerable is nan; expected a finite number"),
    ],
)
def test_vizwiz_refuses_answerability_in_part(tmp_path, sure, message):
    with pytest.raises(BadInput, match=message):
        vizwiz(tmp_path, sure)


def test_textvqa_wants_ten_answers(tmp_path):
    record = {"question_id": 1, "image_id": "a", "question": "?", "answers": ["x"] * 9}
    truth = save(tmp_path, "truth", {"data": [record]})
    given = save(tmp_path, "given", answers("x", "x")[1:])
    with pytest.raises(BadInput, match="expected ten strings"):
        score("textvqa", given, truth)
