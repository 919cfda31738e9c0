"""What the figures of a window mean: the comparison with stable, limits, analyses, proofs."""

from policy.counts import Sample
from policy.evidence.analysis import Outcome
from policy.evidence.comparison import found_worse, not_proven
from policy.evidence.limits import Bounds, Fault, Ruling, Verdict, rule, rule_shadow
from policy.rollout.looks import analyses_at, analyses_unfinished
from policy.rollout.record import Phase, Rollout, Row, Seen, Window, desired_weights, tally
from policy.rollout.transitions import leads_to_all


def rule_window(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Ruling:
    """Rule on what both answered since the window began.

    The comparison with stable and the analyses come first, then limits, then proofs.
    """
    if worse := found_worse(rollout.evidence, rollout.plan):
        return Ruling(Verdict.FAIL, worse, final=True, fault=Fault.COMPARISON)
    if failed := analyses_at(rollout, Outcome.FAILED, Outcome.ERROR):
        return Ruling(Verdict.FAIL, failed, final=True, fault=Fault.ANALYSIS)
    ruling = rule_by_limits(rollout, window, seen, canary, stable)
    if rollout.phase is Phase.SHADOW:
        ruling = _worse_of(ruling, _by_disagreement(rollout, seen))
    if ruling.verdict is not Verdict.PASS:
        return ruling
    unproven = analyses_unfinished(rollout)
    if rollout.plan.judge.promotion == "non-inferior" and leads_to_all(rollout):
        unproven = unproven or not_proven(rollout.evidence, rollout.plan)
    return Ruling(Verdict.CONTINUE, unproven) if unproven else ruling


def rule_by_limits(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Ruling:
    """Rule by the absolute limits alone, those of the watch in the watch."""
    elapsed_s = (seen.until - window.start.at).total_seconds()
    over = seen.until >= window.due
    return rule(_bounds(rollout), canary, stable, elapsed_s=elapsed_s, over=over)


def too_few(rollout: Rollout, canary: Sample | None) -> bool:
    """Whether there are fewer requests or labels than it takes to judge by."""
    bounds = _bounds(rollout)
    return canary is not None and (
        canary.counts.requests < bounds.requests_min
        or canary.labelled.labels < bounds.labels_min
    )


def _by_disagreement(rollout: Rollout, seen: Seen) -> Ruling:
    shadow, alpha = rollout.plan.shadow, rollout.plan.judge.alpha
    compared = seen.shadow.compared if seen.shadow else 0
    differed = seen.shadow.differed if seen.shadow else 0
    return rule_shadow(compared, differed, shadow.compared_min, shadow.disagreement_max, alpha)


def _worse_of(limits: Ruling, disagreement: Ruling) -> Ruling:
    keep = limits.verdict is Verdict.FAIL or disagreement.verdict is Verdict.PASS
    return limits if keep else disagreement


def _bounds(rollout: Rollout) -> Bounds:
    limits, watch = rollout.plan.limits, rollout.plan.watch
    alpha = rollout.plan.judge.alpha
    if rollout.phase is Phase.WATCHING:
        return Bounds(
            watch.requests_min, watch.error_rate_max, watch.latency_p95_s_max, 0, 0.0, alpha
        )
    return Bounds(
        max(limits.requests_min, rollout.plan.bake_requests),
        limits.error_rate_max,
        limits.latency_p95_s_max,
        0 if rollout.phase is Phase.SHADOW else limits.labels_min,
        limits.accuracy_min,
        alpha,
    )


def row_of(
    rollout: Rollout, seen: Seen, canary: Sample | None, stable: Sample | None, ruling: Ruling
) -> Row:
    """The judged window as people see it."""
    return Row(
        at=seen.until,
        phase=rollout.phase,
        step=rollout.step,
        weight=desired_weights(rollout).get(rollout.version, 0),
        canary=None if canary is None else tally(canary),
        stable=None if stable is None else tally(stable),
        verdict=ruling.verdict,
        reason=ruling.reason,
    )
