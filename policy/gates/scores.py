"""The gate before the registry: may a trained version be released?

Every check fails closed. A version must reach the absolute limits over all questions and in
each family, must not be worse than what serves now, judged on the same questions, and must
pass the benchmarks that are configured beside the data set it was trained on.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel

from policy.config import Benchmark, Gates
from policy.errors import DataError


class Score(BaseModel, frozen=True):
    """Mean correctness over a number of questions; `accuracy` is a fraction."""

    questions: int
    accuracy: float


class Scores(BaseModel, frozen=True, extra="ignore"):
    """What model.evaluate wrote into scores.json."""

    data_fingerprint: str
    questions: int
    accuracy: float
    families: Mapping[str, Score]


class Paired(BaseModel, frozen=True):
    """Challenger minus champion on the same questions, with the interval at 1 - 2 alpha."""

    champion: str
    questions: int
    difference: float
    low: float
    high: float


class Check(BaseModel, frozen=True):
    name: str
    passed: bool
    reason: str


class GateReport(BaseModel, frozen=True):
    checks: tuple[Check, ...]
    paired: Paired | None

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the failed checks; of all if none failed."""
        failed = tuple(check.reason for check in self.checks if not check.passed)
        return failed or tuple(check.reason for check in self.checks)


def judge(
    scores: Scores, paired: Paired | None, gates: Gates, benchmarks: Mapping[str, Scores]
) -> GateReport:
    """Decide from a version's scores and its comparison with production.

    Args:
        paired: None only if nothing serves in production: the caller knows from the ledger.
        benchmarks: the version's scores on `gates.benchmarks`, by name.
    """
    checks = [
        _at_least("questions", scores.questions, gates.questions_min),
        _at_least("accuracy", scores.accuracy, gates.accuracy_min),
        *(
            _at_least(f"accuracy of {name}", family.accuracy, gates.family_accuracy_min)
            for name, family in scores.families.items()
        ),
    ]
    if not scores.families:
        checks.append(Check(name="families", passed=False, reason="no family was scored"))
    if paired is not None:
        checks.append(_not_worse(paired, gates))
    checks += [_benchmark(one, benchmarks.get(one.name)) for one in gates.benchmarks]
    return GateReport(checks=tuple(checks), paired=paired)


def compare(
    champion: str, ours_N: Sequence[float], theirs_N: Sequence[float], alpha: float
) -> Paired:
    """Compare correctness (fractions, shape (N,)) on the same N questions.

    The interval is the paired normal one with one made-up question won and one lost, so that
    two versions which never differ still get an interval of some width (after Agresti and Min
    2005, "Simple improved confidence intervals for comparing matched proportions", who add
    half of that).

    Raises:
        DataError: if the shapes differ or N < 2.
    """
    if len(ours_N) != len(theirs_N) or len(ours_N) < 2:
        raise DataError(
            f"{len(ours_N)} answers of the new version and {len(theirs_N)} of {champion}",
            expected="the same questions, at least 2",
        )
    difference_N = np.asarray(ours_N, float) - np.asarray(theirs_N, float)
    padded = np.concatenate([difference_N, [1.0, -1.0]])
    error = padded.std(ddof=1) / np.sqrt(len(padded)) * NormalDist().inv_cdf(1 - alpha)
    return Paired(
        champion=champion,
        questions=len(ours_N),
        difference=float(difference_N.mean()),
        low=float(padded.mean() - error),
        high=float(padded.mean() + error),
    )


def _at_least(name: str, value: float, limit: float) -> Check:
    passed = value >= limit  # False for a NaN
    sign = ">=" if passed else "<"
    told = f"{value:.4g}" if isinstance(value, float) else str(value)
    return Check(name=name, passed=passed, reason=f"{name} {told} {sign} {limit}")


def _benchmark(wanted: Benchmark, scores: Scores | None) -> Check:
    """More than the limit, or any score where it is only reported; of this very data set."""
    name, limit = f"accuracy on {wanted.name}", wanted.accuracy_above
    if scores is None:
        return Check(name=name, passed=False, reason=f"{wanted.name} was not scored")
    if scores.data_fingerprint != wanted.dataset.version:
        found = f"{wanted.name} was scored on {scores.data_fingerprint}"
        return Check(name=name, passed=False, reason=f"{found}, not {wanted.dataset.version}")
    if scores.questions < wanted.dataset.questions_min:
        found = f"{wanted.name} questions {scores.questions} < {wanted.dataset.questions_min}"
        return Check(name=name, passed=False, reason=found)
    told = f"{name} {scores.accuracy:.4g}"
    if limit == "reported":
        passed = math.isfinite(scores.accuracy)
        return Check(name=name, passed=passed, reason=f"{told} (reported)")
    passed = scores.accuracy > limit  # False for a NaN
    return Check(name=name, passed=passed, reason=f"{told} {'>' if passed else '<='} {limit}")


def _not_worse(paired: Paired, gates: Gates) -> Check:
    margin = gates.non_inferiority_margin
    passed = paired.low > -margin
    seen = f"difference {paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]"
    if passed:
        reason = f"not worse than {paired.champion}: {seen} > -{margin}"
    elif paired.high < -margin:
        reason = f"worse than {paired.champion}: {seen} < -{margin}"
    else:
        reason = (
            f"inconclusive against {paired.champion}: {seen} holds -{margin} "
            f"at {paired.questions} questions; more questions would tell"
        )
    return Check(name="not worse than production", passed=passed, reason=reason)
