"""Windows of traffic in a rollout: opened, judged, opened anew."""

from datetime import timedelta

from pydantic import AwareDatetime

from policy.counts import Sample
from policy.evidence.analysis import Outcome
from policy.evidence.limits import Fault, Ruling, Verdict
from policy.rollout.looks import (
    analyses_at,
    reading,
    restarted,
    since,
    take_measurements,
    weigh_block,
)
from policy.rollout.record import (
    Phase,
    Rollout,
    Seen,
    Window,
    as_desired,
    desired_weights,
    shown,
    split,
    stayed_s,
)
from policy.rollout.rulings import row_of, rule_by_limits, rule_window, too_few
from policy.rollout.transitions import enter, next_step, note, replaced, roll_back
from policy.words import duration

_LONGER_SHARE = 0.1  # of the time in the state: so long is a window extended at least
_WAITING_SHARE = 0.5  # the same for a new window while a person is waited for ...
_WAITING_MAX_S = 3600.0  # ... up to this: in a longer one new errors would drown in old answers


def look_at_step(rollout: Rollout, seen: Seen) -> Rollout:
    """A look at STEP, SHADOW or AWAITING_APPROVAL; only right weights make a valid window.

    A window begins with counters that are complete up to the state's beginning: where they
    come two minutes late, it begins two minutes late.
    """
    window = rollout.window
    if away := _other_weights(rollout, seen):
        return rollout if window is None else replaced(rollout, window=None, reason=away)
    if window is None and seen.until < rollout.entered_at:
        return rollout
    if window is None or _lacks_a_start(rollout, window, seen):
        return _open(rollout, seen)
    if restarted(window, seen):
        anew = "the counters began again; the window starts anew"
        return replaced(_open(rollout, seen), reason=anew)
    return _look_into(window, rollout, seen)


def _look_into(window: Window, rollout: Rollout, seen: Seen) -> Rollout:
    """Weigh, measure, rule; a verdict is due at the window's end, a failure at any look."""
    canary, stable = since(window.start, seen)
    looked = weigh_block(rollout, seen)
    if rollout.plan.little_traffic == "replay" or not too_few(rollout, canary):
        looked = take_measurements(looked, window, seen, canary, stable)
    ruling = rule_window(looked, window, seen, canary, stable)
    early = seen.until < window.due and not _must_pause(looked)
    waits = early or _still_waits(looked, window, canary, ruling)
    if waits and ruling.verdict is not Verdict.FAIL:
        return looked
    if looked.scarce:  # what has come while it waited is weighed before it goes on
        looked = weigh_block(looked, seen, now=True)
        ruling = rule_window(looked, window, seen, canary, stable)
    judged = replaced(looked, last=row_of(rollout, seen, canary, stable, ruling))
    return _judged(judged, seen, ruling)


def look_at_watch(rollout: Rollout, seen: Seen) -> Rollout:
    """A look after the promotion: past a limit the version before takes over again."""
    window, watch = rollout.window, rollout.plan.watch
    if window is None or window.start.canary is None:
        return _open_watch(rollout, seen)
    canary, _ = since(window.start, seen)
    if canary is None:
        return note(rollout, _unread(rollout))
    if canary.restarted:
        anew = "the counters began again; the watch goes on"
        return replaced(rollout, window=_window_until(seen, window.due), reason=anew)
    ruling = rule_by_limits(rollout, window, seen, canary, None)
    if seen.until < window.due and ruling.verdict is not Verdict.FAIL:
        return note(rollout, _other_weights(rollout, seen) or rollout.reason)
    silence = ruling.verdict is Verdict.NO_DATA and watch.requests_min == 0
    if ruling.scarce and not silence:  # too little blames nobody before the deadline
        return rollout if rollout.scarce else _wait(rollout, ruling)
    judged = replaced(rollout, last=row_of(rollout, seen, canary, None, ruling))
    if ruling.verdict is Verdict.PASS or silence:
        waited_s = (seen.until - window.start.at).total_seconds()
        watched_s = waited_s if rollout.scarce else watch.s
        watched = f"{rollout.version} serves 100 %; watched for {duration(watched_s)}"
        return enter(judged, Phase.DONE, seen.at, f"{watched}: {ruling.reason}")
    return roll_back(judged, seen.at, Fault.WATCH, f"after the rollout: {ruling.reason}")


def _open_watch(rollout: Rollout, seen: Seen) -> Rollout:
    """One missed reading blames nobody; metrics away for good end in the watch's deadline."""
    if seen.until < rollout.entered_at:
        return rollout
    if seen.canary is None:
        return note(rollout, _unread(rollout))
    return replaced(rollout, window=_window(seen, rollout.plan.watch.s))


def _unread(rollout: Rollout) -> str:
    return f"no metrics for {rollout.version}; the watch goes on"


def _judged(rollout: Rollout, seen: Seen, ruling: Ruling) -> Rollout:
    """What a verdict means for the rollout."""
    if ruling.verdict is Verdict.FAIL:
        return _failed(rollout, seen, ruling)
    if _must_pause(rollout):
        paused = f"paused: {analyses_at(rollout, Outcome.INCONCLUSIVE)}"
        return replaced(_open(rollout, seen), paused_at=seen.at, reason=paused)
    if rollout.paused or rollout.phase is Phase.AWAITING_APPROVAL:
        return _open_longer(rollout, seen)
    if ruling.verdict is Verdict.PASS:
        return next_step(rollout, seen.at, ruling.reason)
    if ruling.verdict is Verdict.CONTINUE:
        goes_on = _open(rollout, seen) if ruling.anew else _extend(rollout, seen)
        return note(goes_on, ruling.reason)
    return _undecided(rollout, seen, ruling)


def _undecided(rollout: Rollout, seen: Seen, ruling: Ruling) -> Rollout:
    """Too little was seen to say more: go on, wait for traffic, ask a person, or give up."""
    if rollout.last is not None and rollout.last.canary is None:
        return note(rollout, ruling.reason)  # unreadable: the deadline decides
    little_traffic = rollout.plan.little_traffic if ruling.scarce else ""
    if little_traffic == "wait":
        return _wait(rollout, ruling)
    if little_traffic == "replay" and ruling.shared:  # whoever takes the answers takes both's
        both = f"{ruling.reason}; stable has too few as well"
        return note(_extend(rollout, seen), both)
    inconclusive, tolerated = rollout.inconclusive + 1, rollout.plan.limits.inconclusive_limit
    scarce = little_traffic == "ask"
    if inconclusive <= tolerated:
        counted = replaced(_extend(rollout, seen), inconclusive=inconclusive, scarce=scarce)
        return replaced(counted, reason=ruling.reason)
    if scarce:
        asked = f"{ruling.reason}; a person decides: promote, resume or abort"
        return replaced(_open(rollout, seen), paused_at=seen.at, scarce=True, reason=asked)
    why = f"{ruling.reason} (window {inconclusive} without a verdict, {tolerated} allowed)"
    return roll_back(rollout, seen.at, Fault.INCONCLUSIVE, why)


def _still_waits(
    rollout: Rollout, window: Window, canary: Sample | None, ruling: Ruling
) -> bool:
    """Whether a window that is over goes on: for more requests, or until it can be read."""
    if rollout.paused or _must_pause(rollout):
        return False
    last = rollout.last
    known = last is not None and last.canary is None and last.at > window.start.at
    waits = rollout.scarce and rollout.plan.little_traffic == "wait"
    return (waits and ruling.scarce) or (canary is None and known)


def _wait(rollout: Rollout, ruling: Ruling) -> Rollout:
    return replaced(rollout, scarce=True, reason=f"{ruling.reason}; waiting for traffic")


def _failed(rollout: Rollout, seen: Seen, ruling: Ruling) -> Rollout:
    """A failed window may be tolerated; what is proven over the whole rollout is final."""
    failures, tolerated = rollout.failures + 1, rollout.plan.limits.failure_limit
    if ruling.final or failures > tolerated:
        return roll_back(rollout, seen.at, ruling.fault, ruling.reason)
    reason = f"{ruling.reason}; failed window {failures}, {tolerated} allowed"
    weighed = weigh_block(rollout, seen, now=True)
    return replaced(_open(weighed, seen), failures=failures, reason=reason)


def _must_pause(rollout: Rollout) -> bool:
    """Argo pauses on an inconclusive analysis, for a person to look at; so does this."""
    return not rollout.paused and bool(analyses_at(rollout, Outcome.INCONCLUSIVE))


def _other_weights(rollout: Rollout, seen: Seen) -> str:
    """Says so if the real split is not the desired one; "" if it is."""
    if as_desired(rollout, seen):
        return ""
    if seen.weights is None:
        return "the endpoint does not answer; the window starts anew"
    real, desired = shown(split(seen.weights)), shown(desired_weights(rollout))
    return f"the weights were {real} instead of {desired}; set back, the window starts anew"


def _lacks_a_start(rollout: Rollout, window: Window, seen: Seen) -> bool:
    """Whether metrics that were away at the window's start can be read now."""
    start = window.start
    canary_is_back = start.canary is None and seen.canary is not None
    stable_is_back = start.stable is None and seen.stable is not None
    return canary_is_back or (stable_is_back and rollout.stable is not None)


def _open(rollout: Rollout, seen: Seen) -> Rollout:
    return replaced(rollout, window=_window(seen, _bake_s(rollout)))


def _open_longer(rollout: Rollout, seen: Seen) -> Rollout:
    """A window while a person is waited for: longer each time, for each one is a record.

    What is proven to be over a limit fails at any look, however long the window is.
    """
    waited_s = min(_WAITING_SHARE * stayed_s(rollout, seen.at), _WAITING_MAX_S)
    return replaced(rollout, window=_window(seen, max(_bake_s(rollout), waited_s)))


def _extend(rollout: Rollout, seen: Seen) -> Rollout:
    """What was counted stays; the next verdict is due after another bake time.

    The longer the step lasts, the longer that is, for each verdict is a record.
    """
    longer_s = max(_bake_s(rollout), _LONGER_SHARE * stayed_s(rollout, seen.at))
    due = seen.until + timedelta(seconds=longer_s)
    window = rollout.window
    return replaced(rollout, window=window and window.model_copy(update={"due": due}))


def _bake_s(rollout: Rollout) -> float:
    shadow = rollout.phase is Phase.SHADOW
    return rollout.plan.shadow.bake_s if shadow else rollout.plan.bake_s


def _window(seen: Seen, bake_s: float) -> Window:
    return _window_until(seen, seen.until + timedelta(seconds=bake_s))


def _window_until(seen: Seen, due: AwareDatetime) -> Window:
    now = reading(seen)
    return Window(start=now, due=due, block=now)
