"""How right each answer is that people gave to a question, for training on all of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Of each of N questions up to J answers; shorter lists end with -1 and a score of 0.

    `candidate_NJ` numbers the model's answers, `score_NJ` is the benchmark's accuracy of each.
    """

    candidate_NJ: np.ndarray
    score_NJ: np.ndarray


def nobody(questions: int) -> Agreement:
    """The data set tells one answer a question, and no more."""
    return Agreement(np.zeros((questions, 0), np.int64), np.zeros((questions, 0), np.float32))
