"""Windows of traffic in a rollout: opened, judged, opened anew."""

from datetime import timedelta

from policy.counts import Sample
from policy.evidence.analysis import Outcome
from policy.evidence.comparison import found_worse, not_proven
from policy.evidence.limits import Bounds, Fault, Ruling, Verdict, rule, rule_shadow
from policy.rollout.looks import (
    analyses_at,
    analyses_unfinished,
    reading,
    restarted,
    since,
    take_measurements,
    weigh_block,
)
from policy.rollout.record import (
    Phase,
    Rollout,
    Row,
    Seen,
    Window,
    as_desired,
    desired_weights,
    split,
    tally,
)
from policy.rollout.transitions import but, enter, leads_to_all, next_step, note, take_back


def look_at_step(rollout: Rollout, seen: Seen) -> Rollout:
    """A look at STEP, SHADOW or AWAITING_APPROVAL; only right weights make a valid window."""
    window = rollout.window
    if away := _other_weights(rollout, seen):
        return rollout if window is None else but(rollout, window=None, reason=away)
    if window is None or _lacks_a_start(rollout, window, seen):
        return _open(rollout, seen)
    canary, stable = since(window.start, seen)
    if restarted(window, seen):
        return but(_open(rollout, seen), reason="counters restarted; the window starts anew")
    looked = weigh_block(rollout, seen)
    looked = take_measurements(looked, window, seen, canary, stable)
    ruling = _ruling(looked, window, seen, canary, stable)
    if seen.at < window.due and ruling.verdict is not Verdict.FAIL and not _must_pause(looked):
        return looked
    judged = but(looked, last=_row(rollout, seen, canary, stable, ruling))
    return _judged(judged, seen, ruling)


def look_at_watch(rollout: Rollout, seen: Seen) -> Rollout:
    """A look after the promotion: past a limit the version before takes over again."""
    window, watch = rollout.window, rollout.plan.watch
    if window is None:
        return but(rollout, window=_window(seen, watch.s))
    canary, _ = since(window.start, seen)
    ruling = _by_limits(rollout, window, seen, canary, None)
    if seen.at < window.due and ruling.verdict is not Verdict.FAIL:
        return note(rollout, _other_weights(rollout, seen) or rollout.reason)
    judged = but(rollout, last=_row(rollout, seen, canary, None, ruling))
    silence = ruling.verdict is Verdict.NO_DATA and watch.requests_min == 0
    if ruling.verdict is Verdict.PASS or silence:
        reason = f"{rollout.version} serves 100 %; watched {watch.s:g} s: {ruling.reason}"
        return enter(judged, Phase.DONE, seen.at, reason)
    return take_back(judged, seen.at, Fault.WATCH, f"after the rollout: {ruling.reason}")


def _judged(rollout: Rollout, seen: Seen, ruling: Ruling) -> Rollout:
    """What a verdict means for the rollout."""
    if ruling.verdict is Verdict.FAIL:
        return _failed(rollout, seen, ruling)
    if _must_pause(rollout):
        paused = f"paused: {analyses_at(rollout, Outcome.INCONCLUSIVE)}"
        return but(_open(rollout, seen), paused_at=seen.at, reason=paused)
    if rollout.paused or rollout.phase is Phase.AWAITING_APPROVAL:
        return _open(rollout, seen)
    if ruling.verdict is Verdict.PASS:
        return next_step(rollout, seen.at, ruling.reason)
    if ruling.verdict is Verdict.CONTINUE:
        goes_on = _open(rollout, seen) if ruling.anew else _extend(rollout, seen)
        return note(goes_on, ruling.reason)
    inconclusive, tolerated = rollout.inconclusive + 1, rollout.plan.limits.inconclusive_limit
    if inconclusive > tolerated:
        why = f"inconclusive windows {inconclusive} > {tolerated}: {ruling.reason}"
        return take_back(rollout, seen.at, Fault.INCONCLUSIVE, why)
    return but(_extend(rollout, seen), inconclusive=inconclusive, reason=ruling.reason)


def _failed(rollout: Rollout, seen: Seen, ruling: Ruling) -> Rollout:
    """A failed window may be tolerated; what is proven over the whole rollout is final."""
    failures, tolerated = rollout.failures + 1, rollout.plan.limits.failure_limit
    if ruling.final or failures > tolerated:
        return take_back(rollout, seen.at, ruling.fault, ruling.reason)
    reason = f"{ruling.reason}; failure {failures} of {tolerated} tolerated"
    weighed = weigh_block(rollout, seen, now=True)
    return but(_open(weighed, seen), failures=failures, reason=reason)


def _ruling(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Ruling:
    """The comparison with stable and the analyses come first, then limits, then proofs."""
    if worse := found_worse(rollout.evidence, rollout.plan):
        return Ruling(Verdict.FAIL, worse, final=True, fault=Fault.COMPARISON)
    if failed := analyses_at(rollout, Outcome.FAILED, Outcome.ERROR):
        return Ruling(Verdict.FAIL, failed, final=True, fault=Fault.ANALYSIS)
    ruling = _by_limits(rollout, window, seen, canary, stable)
    if rollout.phase is Phase.SHADOW:
        ruling = _worse_of(ruling, _by_disagreement(rollout, seen))
    if ruling.verdict is not Verdict.PASS:
        return ruling
    unproven = analyses_unfinished(rollout)
    if rollout.plan.judge.promotion == "non-inferior" and leads_to_all(rollout):
        unproven = unproven or not_proven(rollout.evidence, rollout.plan)
    return Ruling(Verdict.CONTINUE, unproven) if unproven else ruling


def _by_limits(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Ruling:
    elapsed_s = (seen.at - window.start.at).total_seconds()
    over = seen.at >= window.due
    return rule(_bounds(rollout), canary, stable, elapsed_s=elapsed_s, over=over)


def _by_disagreement(rollout: Rollout, seen: Seen) -> Ruling:
    shadow, alpha = rollout.plan.shadow, rollout.plan.judge.alpha
    compared = seen.shadow.compared if seen.shadow else 0
    differed = seen.shadow.differed if seen.shadow else 0
    return rule_shadow(compared, differed, shadow.compared_min, shadow.disagreement_max, alpha)


def _worse_of(limits: Ruling, disagreement: Ruling) -> Ruling:
    keep = limits.verdict is Verdict.FAIL or disagreement.verdict is Verdict.PASS
    return limits if keep else disagreement


def _must_pause(rollout: Rollout) -> bool:
    """Argo pauses on an inconclusive analysis, for a person to look at; so does this."""
    return not rollout.paused and bool(analyses_at(rollout, Outcome.INCONCLUSIVE))


def _bounds(rollout: Rollout) -> Bounds:
    limits, watch = rollout.plan.limits, rollout.plan.watch
    alpha = rollout.plan.judge.alpha
    if rollout.phase is Phase.WATCHING:
        return Bounds(
            watch.requests_min, watch.error_rate_max, watch.latency_p95_s_max, 0, 0.0, alpha
        )
    return Bounds(
        limits.requests_min,
        limits.error_rate_max,
        limits.latency_p95_s_max,
        0 if rollout.phase is Phase.SHADOW else limits.labels_min,
        limits.accuracy_min,
        alpha,
    )


def _other_weights(rollout: Rollout, seen: Seen) -> str:
    """Says so if the real split is not the desired one; "" if it is."""
    if as_desired(rollout, seen):
        return ""
    if seen.weights is None:
        return "the endpoint does not tell its weights; the window starts anew"
    real, desired = split(seen.weights), desired_weights(rollout)
    return f"weights were {real}, not {desired}: set back, the window starts anew"


def _lacks_a_start(rollout: Rollout, window: Window, seen: Seen) -> bool:
    """Whether metrics that were away at the window's start can be read now."""
    start = window.start
    canary_is_back = start.canary is None and seen.canary is not None
    stable_is_back = start.stable is None and seen.stable is not None
    return canary_is_back or (stable_is_back and rollout.stable is not None)


def _open(rollout: Rollout, seen: Seen) -> Rollout:
    return but(rollout, window=_window(seen, _bake_s(rollout)))


def _extend(rollout: Rollout, seen: Seen) -> Rollout:
    """What was counted stays; the next verdict is due after another bake time."""
    due = seen.at + timedelta(seconds=_bake_s(rollout))
    window = rollout.window
    return but(rollout, window=window and window.model_copy(update={"due": due}))


def _bake_s(rollout: Rollout) -> float:
    shadow = rollout.phase is Phase.SHADOW
    return rollout.plan.shadow.bake_s if shadow else rollout.plan.bake_s


def _window(seen: Seen, bake_s: float) -> Window:
    now = reading(seen)
    return Window(start=now, due=seen.at + timedelta(seconds=bake_s), block=now)


def _row(
    rollout: Rollout, seen: Seen, canary: Sample | None, stable: Sample | None, ruling: Ruling
) -> Row:
    return Row(
        at=seen.at,
        phase=rollout.phase,
        step=rollout.step,
        weight=desired_weights(rollout).get(rollout.version, 0),
        canary=None if canary is None else tally(canary),
        stable=None if stable is None else tally(stable),
        verdict=ruling.verdict,
        reason=ruling.reason,
    )
