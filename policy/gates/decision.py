"""The gate before the registry: may a trained version be released?

Every check fails closed. The scores must be believable and of the configured data set; a
version must reach the absolute limits over all questions and in each family, must not be
worse than what serves now, judged on the same questions, and must pass the benchmarks that
are configured beside the data set it was trained on.
"""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from policy.config import Benchmark, Gates
from policy.gates.scores import ROUNDING, Scores, doubts
from policy.gates.significance import Paired, not_worse

_NEW = "the new version"


class Champion(BaseModel, frozen=True):
    """What serves in production: its scores, and the new version's comparison with it."""

    scores: Scores
    paired: Paired


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


def decide_gate(
    scores: Scores,
    champion: Champion | None,
    gates: Gates,
    benchmarks: Mapping[str, Scores],
    fingerprint: str,
) -> GateReport:
    """Decide from a version's scores and its comparison with production.

    Args:
        champion: None only if nothing serves in production: the caller knows from the ledger.
        benchmarks: the version's scores on `gates.benchmarks`, by name.
        fingerprint: of the configured data set (`dataset.version`).
    """
    checks = [
        *_absolute(scores, gates, fingerprint),
        *(_against(champion, scores, gates, fingerprint) if champion else ()),
        *(check for one in gates.benchmarks for check in _benchmark(one, benchmarks)),
    ]
    return GateReport(checks=tuple(checks), paired=champion.paired if champion else None)


def _absolute(scores: Scores, gates: Gates, fingerprint: str) -> Iterator[Check]:
    if doubtful := list(doubts(scores, _NEW, fingerprint)):
        yield from (_failed("scores", reason) for reason in doubtful)
        return
    yield _enough(scores.questions, gates.questions_min)
    yield _at_least("accuracy", scores.accuracy, gates.accuracy_min)
    for name, family in scores.families.items():
        yield _at_least(f"accuracy of {name}", family.accuracy, gates.family_accuracy_min)


def _against(
    champion: Champion, scores: Scores, gates: Gates, fingerprint: str
) -> Iterator[Check]:
    name, paired = "not worse than production", champion.paired
    if doubtful := list(doubts(champion.scores, paired.champion, fingerprint)):
        yield from (_failed(name, reason) for reason in doubtful)
        return
    if reason := _of_other_answers(champion, scores):
        yield _failed(name, reason)
        return
    passed, reason = not_worse(paired, gates.non_inferiority_margin)
    yield Check(name=name, passed=passed, reason=reason)


def _of_other_answers(champion: Champion, scores: Scores) -> str:
    """Why the comparison is not one of the answers that were scored; "" if it is."""
    paired, theirs = champion.paired, champion.scores
    asked = {paired.questions, scores.questions, theirs.questions}
    if len(asked) > 1:
        return (
            f"compared with {paired.champion} on {paired.questions} questions, but the new "
            f"version was scored on {scores.questions} and {paired.champion} on "
            f"{theirs.questions}"
        )
    difference = scores.accuracy - theirs.accuracy
    if not abs(paired.difference - difference) <= ROUNDING:  # a NaN as well
        return (
            f"compared with {paired.champion} at a difference of "
            f"{100 * paired.difference:+.4g} points, but the scores differ by "
            f"{100 * difference:+.4g}"
        )
    return ""


def _benchmark(wanted: Benchmark, benchmarks: Mapping[str, Scores]) -> Iterator[Check]:
    """More than the limit, or any score where it is only reported; of this very data set."""
    what, limit = f"accuracy on {wanted.name}", wanted.accuracy_above
    scores = benchmarks.get(wanted.name)
    if scores is None:
        yield _failed(what, f"{wanted.name} was not scored")
        return
    if doubtful := list(doubts(scores, wanted.name, wanted.dataset.version)):
        yield from (_failed(what, reason) for reason in doubtful)
        return
    least = wanted.dataset.questions_min
    if scores.questions < least:
        yield _failed(
            what, f"{wanted.name} has {scores.questions} questions, at least {least} needed"
        )
    elif limit == "reported":
        told = f"{what} {100 * scores.accuracy:.4g} % (reported only)"
        yield Check(name=what, passed=True, reason=told)
    else:
        reason = _told(what, scores.accuracy, "more than", limit)
        yield Check(name=what, passed=scores.accuracy > limit, reason=reason)


def _enough(questions: int, least: int) -> Check:
    reason = f"{questions} questions, at least {least} needed"
    return Check(name="questions", passed=questions >= least, reason=reason)


def _at_least(what: str, accuracy: float, least: float) -> Check:
    reason = _told(what, accuracy, "at least", least)
    return Check(name=what, passed=accuracy >= least, reason=reason)


def _told(what: str, value: float, needed: str, limit: float) -> str:
    """In percent, with digits enough to tell the value from its limit."""
    digits = 4
    while value != limit and digits < 17 and _digits(value, digits) == _digits(limit, digits):
        digits += 1
    return f"{what} {_digits(value, digits)} %, {needed} {_digits(limit, digits)} % needed"


def _digits(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}g}"


def _failed(name: str, reason: str) -> Check:
    return Check(name=name, passed=False, reason=reason)
