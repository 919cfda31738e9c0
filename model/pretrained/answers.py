"""The answers that the model can give, and soft targets for them. Legend: __init__.py."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.dataset.manifest import Split
from model.dataset.soft_targets import SoftTargets
from model.metrics import truth
from model.metrics.vqa_accuracy import RULES, accuracy


def most_frequent(train: Split, answers_max: int) -> tuple[str, ...]:
    """The most frequent answers, sorted; of equally frequent ones the first in the alphabet."""
    count_N = np.bincount(train.answer_N, minlength=len(train.answers))
    order = sorted(range(len(train.answers)), key=lambda n: (-count_N[n], train.answers[n]))
    return tuple(sorted(train.answers[n] for n in order[:answers_max]))


def soft_targets(
    folder: Path, name: str, ids: Sequence[str], answers: Sequence[str]
) -> SoftTargets | None:
    """How right each of `answers` is for the questions `ids` of a split, as people answered.

    By the benchmark's own rule (model/metrics/vqa_accuracy.py), so training optimises what
    evaluation measures. None where the data set has one answer per question: GQA and generated
    data. Raises BadInput if truth.parquet is not what was converted.
    """
    benchmark = truth.benchmark_of(folder)
    if benchmark not in RULES:
        return None
    table = truth.converted(benchmark, folder, name)
    row = {question_id: n for n, question_id in enumerate(table["question_id"].to_pylist())}
    table = table.take(pa.array([row[question_id] for question_id in ids]))
    number = {answer: n for n, answer in enumerate(answers)}
    given = zip(table["answers"].to_pylist(), table["answer"].to_pylist(), strict=True)
    candidates = [
        sorted({number[a] for a in map(str.strip, [*people, answer]) if a in number})
        for people, answer in given
    ]
    return _scored(benchmark, table, candidates, answers)


def _scored(
    benchmark: str,
    table: pa.Table,
    candidates: Sequence[Sequence[int]],
    answers: Sequence[str],
) -> SoftTargets:
    """The accuracy that each candidate would have, all computed at once."""
    count_N = np.array([len(those) for those in candidates], np.int64)
    row_P = np.repeat(np.arange(len(count_N)), count_N)
    number_P = np.array([n for those in candidates for n in those], np.int64)
    asked = table.take(pa.array(row_P))
    score_P = accuracy(
        RULES[benchmark],
        pa.array(answers, pa.string()).take(pa.array(number_P)),
        asked["answers"].combine_chunks(),
        asked["twins"].combine_chunks() if "twins" in asked.column_names else None,
    )
    candidate_NJ = np.full((len(count_N), int(count_N.max(initial=1))), -1, np.int64)
    score_NJ = np.zeros(candidate_NJ.shape, np.float32)
    filled_NJ = np.arange(candidate_NJ.shape[1]) < count_N[:, None]
    candidate_NJ[filled_NJ], score_NJ[filled_NJ] = number_P, score_P
    return SoftTargets(candidate_NJ, score_NJ)
