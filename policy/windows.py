"""Windows of traffic in a rollout: opened, judged, opened anew."""

from datetime import timedelta

from policy.counts import Sample, between
from policy.judge import Bounds, Ruling, Verdict, rule
from policy.state import Phase, Rollout, Row, Seen, Window, desired_weights, split, tally
from policy.transitions import but, enter, next_step, note, take_back


def look_at_step(rollout: Rollout, seen: Seen) -> Rollout:
    """A look at STEP, SHADOW or AWAITING_APPROVAL; only right weights make a valid window."""
    window = rollout.window
    if away := _other_weights(rollout, seen):
        return rollout if window is None else but(rollout, window=None, reason=away)
    if window is None or _lacks_a_start(rollout, window, seen):
        return _open(rollout, seen)
    canary, stable = _since(window.canary, seen.canary), _since(window.stable, seen.stable)
    if any(sample is not None and sample.restarted for sample in (canary, stable)):
        return but(_open(rollout, seen), reason="counters restarted; the window starts anew")
    ruling = _rule(rollout, window, seen, canary, stable)
    if seen.at < window.due and ruling.verdict is not Verdict.FAIL:
        return rollout
    judged = but(rollout, last=_row(rollout, seen, canary, stable, ruling))
    return _judged(judged, window, seen, ruling)


def look_at_watch(rollout: Rollout, seen: Seen) -> Rollout:
    """A look after the promotion: past a limit the version before takes over again."""
    window, watch = rollout.window, rollout.plan.watch
    if window is None:
        return but(rollout, window=_window(seen, watch.s))
    canary = _since(window.canary, seen.canary)
    ruling = _rule(rollout, window, seen, canary, None)
    over = seen.at >= window.due
    if not over and ruling.verdict is not Verdict.FAIL:
        return note(rollout, _other_weights(rollout, seen) or rollout.reason)
    judged = but(rollout, last=_row(rollout, seen, canary, None, ruling))
    silence = ruling.verdict is Verdict.NO_DATA and watch.requests_min == 0
    if ruling.verdict is Verdict.PASS or silence:
        reason = f"{rollout.version} serves 100 %; watched {watch.s:g} s: {ruling.reason}"
        return enter(judged, Phase.DONE, seen.at, reason)
    return take_back(judged, seen.at, f"after the rollout: {ruling.reason}")


def _judged(rollout: Rollout, window: Window, seen: Seen, ruling: Ruling) -> Rollout:
    """What a verdict at a window's end means for the rollout."""
    limits = rollout.plan.limits
    if ruling.verdict is Verdict.FAIL:
        failures = rollout.failures + 1
        if failures > limits.failure_limit:
            return take_back(rollout, seen.at, ruling.reason)
        tolerated = f"{ruling.reason}; failure {failures} of {limits.failure_limit} tolerated"
        return but(_open(rollout, seen), failures=failures, reason=tolerated)
    if rollout.paused or rollout.phase is Phase.AWAITING_APPROVAL:
        return _open(rollout, seen)
    if ruling.verdict is Verdict.PASS:
        return next_step(rollout, seen.at, ruling.reason)
    if ruling.verdict is Verdict.CONTINUE:
        goes_on = _open(rollout, seen) if ruling.anew else _extend(rollout, window, seen)
        return note(goes_on, ruling.reason)
    inconclusive = rollout.inconclusive + 1
    if inconclusive > limits.inconclusive_limit:
        past = f"inconclusive windows {inconclusive} > {limits.inconclusive_limit}"
        return take_back(rollout, seen.at, f"{past}: {ruling.reason}")
    return but(_extend(rollout, window, seen), inconclusive=inconclusive, reason=ruling.reason)


def _rule(
    rollout: Rollout, window: Window, seen: Seen, canary: Sample | None, stable: Sample | None
) -> Ruling:
    elapsed_s = (seen.at - window.since).total_seconds()
    over = seen.at >= window.due
    return rule(_bounds(rollout), canary, stable, elapsed_s=elapsed_s, over=over)


def _bounds(rollout: Rollout) -> Bounds:
    limits, watch = rollout.plan.limits, rollout.plan.watch
    alpha = rollout.plan.judge.alpha
    if rollout.phase is Phase.WATCHING:
        return Bounds(
            watch.requests_min, watch.error_rate_max, watch.latency_p95_s_max, 0, 0.0, alpha
        )
    labels_min = 0 if rollout.phase is Phase.SHADOW else limits.labels_min
    return Bounds(
        limits.requests_min,
        limits.error_rate_max,
        limits.latency_p95_s_max,
        labels_min,
        limits.accuracy_min,
        alpha,
    )


def _other_weights(rollout: Rollout, seen: Seen) -> str:
    """Says so if the real split is not the desired one; "" if it is."""
    real, desired = split(seen.weights), desired_weights(rollout)
    if real == desired:
        return ""
    return f"weights were {real}, not {desired}: set back, the window starts anew"


def _lacks_a_start(rollout: Rollout, window: Window, seen: Seen) -> bool:
    """Whether metrics that were away at the window's start can be read now."""
    canary_is_back = window.canary is None and seen.canary is not None
    stable_is_back = window.stable is None and seen.stable is not None
    return canary_is_back or (stable_is_back and rollout.stable is not None)


def _open(rollout: Rollout, seen: Seen) -> Rollout:
    plan = rollout.plan
    bake_s = plan.shadow.bake_s if rollout.phase is Phase.SHADOW else plan.bake_s
    return but(rollout, window=_window(seen, bake_s))


def _extend(rollout: Rollout, window: Window, seen: Seen) -> Rollout:
    """What was counted stays; the next verdict is due after another bake time."""
    longer = _window(seen, rollout.plan.bake_s)
    return but(rollout, window=window.model_copy(update={"due": longer.due}))


def _window(seen: Seen, bake_s: float) -> Window:
    due = seen.at + timedelta(seconds=bake_s)
    return Window(since=seen.at, due=due, canary=seen.canary, stable=seen.stable)


def _since(before: Sample | None, now: Sample | None) -> Sample | None:
    return None if before is None or now is None else between(before, now)


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
