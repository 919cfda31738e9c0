"""The answers to choose from, and how right each is that people gave. Legend: __init__.py."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.agreed import Agreement
from model.manifest import Split
from model.metrics import truth
from model.metrics.agreement import RULES, accuracy


def most_frequent(train: Split, answers_max: int) -> tuple[str, ...]:
    """The answers given to most questions, sorted; of two alike the one first in order."""
    count_N = np.bincount(train.answer_N, minlength=len(train.answers))
    order = sorted(range(len(train.answers)), key=lambda n: (-count_N[n], train.answers[n]))
    return tuple(sorted(train.answers[n] for n in order[:answers_max]))


def agreement(
    folder: Path, name: str, ids: Sequence[str], answers: Sequence[str]
) -> Agreement | None:
    """How right each of `answers` is that people gave to the questions `ids` of a split.

    By the benchmark's own rule (model/metrics/agreement.py), so that what training raises is
    what evaluation measures. None where the data set tells one answer: GQA, and generated
    ones. Raises BadInput if truth.parquet is not what was converted.
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
) -> Agreement:
    """The accuracy that each candidate would have, all in one go."""
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
    return Agreement(candidate_NJ, score_NJ)
