"""Is a new version worse than what serves, or is it chance? On the same questions."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel

from policy.errors import DataError


class Paired(BaseModel, frozen=True):
    """Challenger minus champion on the same questions, with the interval at 1 - 2 alpha.

    `difference`, `low` and `high` are differences of fractions.
    """

    champion: str
    questions: int
    difference: float
    low: float
    high: float


def compare(
    champion: str, ours_N: Sequence[float], theirs_N: Sequence[float], alpha: float
) -> Paired:
    """Compare correctness (fractions, shape (N,)) on the same N questions.

    The interval is the paired normal one with one made-up question won and one lost, so that
    two versions which never differ still get an interval of some width (after Agresti and Min
    2005, "Simple improved confidence intervals for comparing matched proportions", who add
    half of that).

    Raises:
        DataError: if the shapes differ, N < 2, or a value is not a fraction.
    """
    if len(ours_N) != len(theirs_N) or len(ours_N) < 2:
        raise DataError(
            f"{len(ours_N)} answers of the new version and {len(theirs_N)} of {champion}",
            expected="the same questions, at least 2",
            holds="nothing was registered",
        )
    ours, theirs = _fractions("the new version", ours_N), _fractions(champion, theirs_N)
    difference_N = ours - theirs
    padded = np.concatenate([difference_N, [1.0, -1.0]])
    error = padded.std(ddof=1) / np.sqrt(len(padded)) * NormalDist().inv_cdf(1 - alpha)
    return Paired(
        champion=champion,
        questions=len(ours_N),
        difference=float(difference_N.mean()),
        low=float(padded.mean() - error),
        high=float(padded.mean() + error),
    )


def not_worse(paired: Paired, margin: float) -> tuple[bool, str]:
    """Whether more than `margin` (a fraction) worse is ruled out, and what was found.

    Neither shown to be worse nor shown not to be is inconclusive, and does not pass.
    """
    passed = paired.low > -margin  # False for a NaN
    seen = (
        f"difference {_points(paired.difference)} points "
        f"({_points(paired.low)} to {_points(paired.high)}), "
        f"at most {100 * margin:.3g} worse allowed, {paired.questions} questions"
    )
    if passed:
        return True, f"not worse than {paired.champion}: {seen}"
    if paired.high < -margin:
        return False, f"worse than {paired.champion}: {seen}"
    return False, f"inconclusive against {paired.champion}: {seen}; more questions would tell"


def _fractions(who: str, values_N: Sequence[float]) -> np.ndarray:
    array_N = np.asarray(values_N, float)
    odd_N = ~((array_N >= 0) & (array_N <= 1))  # a NaN as well
    if odd_N.any():
        raise DataError(
            f"{int(odd_N.sum())} answers of {who} have no correctness, the first is "
            f"{array_N[odd_N][0]:g}",
            expected="fractions from 0 to 1",
            holds="nothing was registered",
        )
    return array_N


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"
