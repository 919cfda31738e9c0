"""What one look adds to the evidence and to the analyses of a window."""

from collections.abc import Iterator
from datetime import timedelta

from policy.counts import Sample, between
from policy.evidence.analysis import Measurements, Outcome, measure, results
from policy.evidence.comparison import full, weigh
from policy.rollout.plans import Analysis
from policy.rollout.record import Phase, Reading, Rollout, Seen, Window, stayed_s
from policy.rollout.transitions import replaced


def since(before: Reading, seen: Seen) -> tuple[Sample | None, Sample | None]:
    """What canary and stable answered since a reading; None where it is not known now."""
    pairs = ((before.canary, seen.canary), (before.stable, seen.stable))
    canary, stable = (
        None if was is None or now is None else between(was, now) for was, now in pairs
    )
    return canary, stable


def restarted(window: Window, seen: Seen) -> bool:
    """Whether a counter began again at zero since the window or its block began."""
    samples = (*since(window.start, seen), *since(window.block, seen))
    return any(sample is not None and sample.restarted for sample in samples)


def reading(seen: Seen) -> Reading:
    return Reading(at=seen.until, canary=seen.canary, stable=seen.stable)


def weigh_block(rollout: Rollout, seen: Seen, *, now: bool = False) -> Rollout:
    """Weigh the window's present block if it is full, the window is over, or `now`.

    A window that is given up is weighed `now`: leaving out what went wrong would make the
    canary look better than it is.
    One that waits for traffic is not over: each of its few requests would make a record.
    """
    window = rollout.window
    if rollout.stable is None or window is None:
        return rollout
    canary, stable = since(window.block, seen)
    if (
        canary is None
        or stable is None
        or not (stable.counts.requests and canary.counts.requests)
    ):
        return rollout
    age_s = (seen.until - window.block.at).total_seconds()
    stayed = stayed_s(rollout, seen.at)
    ready = full(rollout.evidence, rollout.plan, canary, age_s, stayed)
    over = seen.until >= window.due and not rollout.scarce
    if not (now or ready or over):
        return rollout
    evidence = weigh(rollout.evidence, rollout.plan, canary, stable)
    next_block = window.model_copy(update={"block": reading(seen)})
    return replaced(rollout, evidence=evidence, window=next_block)


def take_measurements(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Rollout:
    """Measure each analysis of a step whose interval has passed."""
    if rollout.phase is not Phase.STEP or rollout.paused or not rollout.analyses:
        return rollout
    result = results(canary, stable)
    runs = []
    for run, analysis in _measured(rollout):
        before = max(run.measured_at or window.start.at, window.start.at)
        due = seen.until >= before + timedelta(seconds=analysis.interval_s)
        runs.append(measure(run, analysis, result, seen.until) if due else run)
    analyses = tuple(runs)
    return rollout if analyses == rollout.analyses else replaced(rollout, analyses=analyses)


def analyses_at(rollout: Rollout, *outcomes: Outcome) -> str:
    """Names and last messages of the deciding analyses with one of `outcomes`; "" for none."""
    return "; ".join(
        f"analysis {run.name} {run.outcome}: {run.message or 'not measured yet'}"
        for run, analysis in _measured(rollout)
        if run.outcome in outcomes and not analysis.dry_run
    )


def analyses_unfinished(rollout: Rollout) -> str:
    """The analyses with a count that they have not reached; those without are just stopped."""
    return "; ".join(
        f"analysis {run.name}: {run.count} of {analysis.count} measurements"
        for run, analysis in _measured(rollout)
        if run.outcome is Outcome.RUNNING and analysis.count and not analysis.dry_run
    )


def _measured(rollout: Rollout) -> Iterator[tuple[Measurements, Analysis]]:
    """Each analysis with its run; none outside a step, where nothing is measured."""
    return zip(rollout.analyses, rollout.plan.analyses, strict=bool(rollout.analyses))
