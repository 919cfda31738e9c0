"""Named analyses in the words, and with the meaning, of Argo Rollouts.

A measurement is Failed when the failure condition holds (or, without one, when the success
condition does not), Inconclusive when both conditions are false, an Error when a condition
cannot be evaluated: an error is neither success nor failure. A metric ends
    Failed         with more than failure_limit failed measurements,
    Inconclusive   with more than inconclusive_limit inconclusive ones,
    Error          with more than consecutive_error_limit errors in a row,
    Successful     after `count` measurements (errors do not count), or when it is stopped.

Source of the meaning: argo-rollouts, analysis/analysis.go and utils/evaluate/evaluate.go.
"""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel

from policy.condition import FIELDS, holds
from policy.counts import Sample
from policy.rollout.plans import Analysis

Result = Mapping[str, float | None]


class Outcome(StrEnum):
    """Of one measurement, or of a whole analysis; the later the worse."""

    RUNNING = "Running"
    SUCCESSFUL = "Successful"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    FAILED = "Failed"


class Measurements(BaseModel, frozen=True):
    """One analysis under way. `message` is that of the last measurement."""

    name: str
    outcome: Outcome = Outcome.RUNNING
    measured_at: AwareDatetime | None = None
    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    consecutive_errors: int = 0
    message: str = ""

    @property
    def count(self) -> int:
        """Measurements without those that were errors."""
        return self.successful + self.failed + self.inconclusive


def measure(
    run: Measurements, analysis: Analysis, result: Result, at: AwareDatetime
) -> Measurements:
    """The run after one more measurement; a run that has ended never changes."""
    if run.outcome is not Outcome.RUNNING:
        return run
    outcome, message = evaluate(analysis, result)
    error = outcome is Outcome.ERROR
    measured = run.model_copy(
        update={
            "measured_at": at,
            "successful": run.successful + (outcome is Outcome.SUCCESSFUL),
            "failed": run.failed + (outcome is Outcome.FAILED),
            "inconclusive": run.inconclusive + (outcome is Outcome.INCONCLUSIVE),
            "errors": run.errors + error,
            "consecutive_errors": run.consecutive_errors + 1 if error else 0,
            "message": message,
        }
    )
    return measured.model_copy(update={"outcome": _assess(measured, analysis)})


def stop(run: Measurements) -> Measurements:
    """End a run that is still measuring: without failure it was successful."""
    if run.outcome is not Outcome.RUNNING:
        return run
    return run.model_copy(update={"outcome": Outcome.SUCCESSFUL})


def evaluate(analysis: Analysis, result: Result) -> tuple[Outcome, str]:
    """The outcome of one measurement, and what was found."""
    succeeds, fails = analysis.success_condition, analysis.failure_condition
    try:
        success = holds(succeeds, result) if succeeds else None
        failure = holds(fails, result) if fails else None
    except ValueError as error:
        return Outcome.ERROR, str(error)
    if success is None and failure is None:
        return Outcome.SUCCESSFUL, "measured, no condition"
    failed = failure if failure is not None else not success
    found = _values(f"{succeeds} {fails}", result)
    if failed:
        condition = fails if failure is not None else f"not ({succeeds})"
        return Outcome.FAILED, f"{condition} at {found}"
    if success is False:
        return Outcome.INCONCLUSIVE, f"neither {succeeds} nor {fails} at {found}"
    return Outcome.SUCCESSFUL, f"{succeeds or f'not ({fails})'} at {found}"


def results(canary: Sample | None, stable: Sample | None) -> Result:
    """The fields of `result`; None where there is no data."""
    values: dict[str, float | None] = dict.fromkeys(FIELDS)
    for prefix, sample in (("", canary), ("stable_", stable)):
        if sample is None:
            continue
        counts, labels = sample.counts, sample.labelled.labels
        some = counts.requests > 0
        values[f"{prefix}requests"] = counts.requests
        values[f"{prefix}error_rate"] = sample.error_rate if some else None
        values[f"{prefix}latency_p95_s"] = sample.latency_p95_s if some else None
        values[f"{prefix}accuracy"] = sample.accuracy if labels else None
        if not prefix:
            values |= {"errors": counts.errors, "labels": labels}
    return values


def _assess(run: Measurements, analysis: Analysis) -> Outcome:
    if run.failed > analysis.failure_limit:
        return Outcome.FAILED
    if run.inconclusive > analysis.inconclusive_limit:
        return Outcome.INCONCLUSIVE
    if run.consecutive_errors > analysis.consecutive_error_limit:
        return Outcome.ERROR
    if analysis.count and run.count >= analysis.count:
        return Outcome.SUCCESSFUL
    return Outcome.RUNNING


def _values(conditions: str, result: Result) -> str:
    named = [name for name in FIELDS if f"result.{name}" in conditions]
    return ", ".join(f"{name} {_shown(result[name])}" for name in named) or "no field"


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
