"""95 % intervals that know that questions about one image are not independent.

Shape legend
    N  questions
    G  images
"""

from dataclasses import dataclass

import numpy as np

_Z = 1.959963984540054  # two-sided 95 % of the normal distribution


@dataclass(frozen=True)
class Score:
    """A mean over `questions` with its 95 % interval. Fractions in [0, 1] unless said."""

    value: float
    low: float
    high: float
    questions: int


def mean(score_N: np.ndarray, image_N: np.ndarray) -> Score:
    """The mean with Wilson's interval at the effective number of questions.

    For right-or-wrong scores of one question an image this is Wilson's interval. Questions
    that share an image count for less, by the design effect (the variance of the mean over
    images against that of independent questions); never for more, so that soft scores get
    an interval that is rather too wide than too narrow.

    Args:
        score_N: in [0, 1], at least one.
        image_N: integers that tell the images apart.

    Source: Wilson 1927; Dean and Pagano 2015, "Evaluating confidence interval methods for
    binomial proportions in clustered surveys", for the effective number.
    """
    # From left to right, as the evaluators add, so that the last digit agrees as well.
    value = float(np.cumsum(score_N)[-1] / len(score_N))
    low, high = _wilson(value, _effective(score_N, image_N))
    return Score(value, low, high, len(score_N))


def _effective(score_N: np.ndarray, image_N: np.ndarray) -> float:
    """How many independent questions would be as uncertain; between 1 and N."""
    value = float(score_N.mean())
    _, group_N = np.unique(image_N, return_inverse=True)
    off_G = np.bincount(group_N, weights=score_N - value)
    groups, questions = len(off_G), len(score_N)
    if groups == 1:
        return 1.0
    variance = float((off_G**2).sum()) * groups / (groups - 1) / questions**2
    if variance == 0:  # all alike: nothing tells how much the images hang together
        return float(groups)
    return min(max(value * (1 - value) / variance, 1.0), float(questions))


def _wilson(value: float, number: float) -> tuple[float, float]:
    middle = (value + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    half = _Z / (1 + _Z**2 / number)
    half *= (value * (1 - value) / number + _Z**2 / (4 * number**2)) ** 0.5
    return max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half))
