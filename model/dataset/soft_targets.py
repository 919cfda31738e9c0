"""Soft targets: how right each human answer to a question is, for training on all of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SoftTargets:
    """Up to J answers for each of N questions; shorter lists are padded with -1 and score 0.

    `candidate_NJ` numbers the model's answers, `score_NJ` is the benchmark's accuracy of each.
    """

    candidate_NJ: np.ndarray
    score_NJ: np.ndarray


def one_answer_each(questions: int) -> SoftTargets:
    """No soft targets: the data set has one answer per question."""
    return SoftTargets(np.zeros((questions, 0), np.int64), np.zeros((questions, 0), np.float32))
