"""Score a results file as the benchmark's official evaluator does, and say how sure it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.formats import gqa as gqa_files
from model.metrics import gqa, interval, predictions, truth, vqa_accuracy
from model.metrics.answerability import answerability
from model.metrics.interval import Score
from model.program.errors import BadInput


@dataclass(frozen=True)
class Scores:
    """All scores of one results file.

    `families` is the split that the benchmark reports first, `by` all splits by name,
    `metrics` what it measures besides accuracy, `left_out` why a metric is not there.
    `questions` has a row a scored question: question_id, family, answer, predicted, correct.
    """

    benchmark: str
    accuracy: Score
    families: Mapping[str, Score]
    by: Mapping[str, Mapping[str, Score]]
    metrics: Mapping[str, Score] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    questions: pa.Table = field(default_factory=lambda: pa.table({}))


def score(
    benchmark: str,
    predicted: Path,
    truth_path: Path,
    *,
    choices: Path | None = None,
    consistency: bool = False,
) -> Scores:
    """Score the results file `predicted` against the truth.

    Args:
        truth_path: see model.metrics.truth.read.
        choices: GQA's choices file, for validity and plausibility.
        consistency: GQA: predictions and truth cover all questions, not only balanced ones.

    Raises:
        BadInput: a file is missing or malformed; a prediction is missing, doubled or for a
            question that the truth does not have.
    """
    questions = truth.read(benchmark, truth_path)
    given = predictions.read(benchmark, predicted)
    ids = questions["question_id"].to_pylist()
    if benchmark == "gqa":
        needed = [True] * len(ids) if consistency else questions["balanced"].to_pylist()
        return _gqa(questions, predictions.align(given, ids, needed), choices, consistency)
    answers_N = predictions.align(given, ids, [True] * len(ids))
    sure_N = [given.answerable[name] for name in ids] if given.answerable else None
    return _vqa(benchmark, questions, answers_N, sure_N)


def _vqa(
    benchmark: str, questions: pa.Table, predicted_N: pa.Array, sure_N: list[float] | None
) -> Scores:
    """VQAv2, TextVQA and VizWiz: agreement with the human answers."""
    twin_NA = questions["twins"].combine_chunks() if benchmark == "vqav2" else None
    human_NA = questions["answers"].combine_chunks()
    right_N = vqa_accuracy.accuracy(
        vqa_accuracy.RULES[benchmark], predicted_N, human_NA, twin_NA
    )
    image_N = _codes(questions["image"])
    splits = {"answer_type": questions["family"]}
    if benchmark == "vqav2":
        splits["question_type"] = questions["question_type"]
    by = {name: _by(column, right_N, image_N) for name, column in splits.items()}
    metrics: dict[str, Score] = {}
    left_out = {}
    if benchmark == "vizwiz" and sure_N is not None:
        metrics = answerability(questions["answerable"].to_numpy(), np.asarray(sure_N))
    elif benchmark == "vizwiz":
        left_out["answerability"] = "the predictions do not give `answerable`"
    return Scores(
        benchmark,
        interval.mean(right_N, image_N),
        by["answer_type"],
        by,
        metrics,
        left_out,
        _rows(questions, predicted_N, right_N),
    )


def _gqa(
    questions: pa.Table, predicted_N: pa.Array, choices: Path | None, consistency: bool
) -> Scores:
    """GQA: equality on the balanced questions, and what its other metrics make of it."""
    balanced_N = questions["balanced"].to_numpy()
    if not balanced_N.any():
        raise BadInput("no question in the truth is balanced", expected="GQA's questions file")
    right_N = (_texts(predicted_N) == _texts(questions["answer"])).astype(float)
    image_N = _codes(questions["image"])
    metrics: dict[str, Score | None] = {}
    left_out = {"grounding": "needs attention maps in the evaluator's own format"}
    if consistency:
        metrics["consistency"] = gqa.consistency(questions, right_N, image_N)
    else:
        left_out["consistency"] = "not asked for; it needs answers to all questions"
    if choices:
        belongs_N2 = gqa.belongs(questions, predicted_N, gqa_files.choices(choices))[balanced_N]
        metrics["validity"] = interval.mean(belongs_N2[:, 0], image_N[balanced_N])
        metrics["plausibility"] = interval.mean(belongs_N2[:, 1], image_N[balanced_N])
    else:
        left_out |= dict.fromkeys(("validity", "plausibility"), "no choices file was given")

    mask = pa.array(balanced_N)
    questions, predicted_N = questions.filter(mask), predicted_N.filter(mask)
    right_N, image_N = right_N[balanced_N], image_N[balanced_N]
    metrics |= _open_and_binary(questions["family"], right_N, image_N)
    metrics["distribution"] = gqa.distribution(
        questions["group"].combine_chunks(),
        questions["answer"].combine_chunks(),
        predicted_N,
        image_N,
    )
    left_out |= {name: "no question counts for it" for name, s in metrics.items() if s is None}
    by = {
        name: _by(column, right_N, image_N) for name, column in _gqa_splits(questions).items()
    }
    return Scores(
        "gqa",
        interval.mean(right_N, image_N),
        by["structural_type"],
        by,
        {name: value for name, value in metrics.items() if value is not None},
        left_out,
        _rows(questions, predicted_N, right_N),
    )


def _gqa_splits(questions: pa.Table) -> dict[str, pa.ChunkedArray]:
    words = [len(question.split()) for question in questions["question"].to_pylist()]
    return {
        "structural_type": questions["family"],
        "semantic_type": questions["semantic_type"],
        "steps": questions["steps"],
        "words": pa.chunked_array([words]),
    }


def _open_and_binary(
    family_N: pa.ChunkedArray, right_N: np.ndarray, image_N: np.ndarray
) -> dict[str, Score | None]:
    open_N = _texts(family_N) == "query"
    return {
        name: interval.mean(right_N[of_N], image_N[of_N]) if of_N.any() else None
        for name, of_N in (("binary", ~open_N), ("open", open_N))
    }


def _by(
    column_N: pa.ChunkedArray, right_N: np.ndarray, image_N: np.ndarray
) -> dict[str, Score]:
    """The mean within each value of the column, in the order of the values."""
    coded = column_N.combine_chunks().dictionary_encode()
    code_N, names = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    order_N = np.argsort(code_N, kind="stable")
    parts = np.split(order_N, np.cumsum(np.bincount(code_N, minlength=len(names)))[:-1])
    means = [interval.mean(right_N[part], image_N[part]) for part in parts]
    return {str(name): mean for name, mean in sorted(zip(names, means, strict=True))}


def _rows(questions: pa.Table, predicted_N: pa.Array, right_N: Iterable[float]) -> pa.Table:
    kept = questions.select(["question_id", "family", "answer"])
    return kept.append_column("predicted", predicted_N).append_column(
        "correct", pa.array(right_N, pa.float64())
    )


def _codes(column_N: pa.ChunkedArray) -> np.ndarray:
    return column_N.combine_chunks().dictionary_encode().indices.to_numpy()


def _texts(column_N: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return np.array(column_N.to_pylist(), dtype=object)
