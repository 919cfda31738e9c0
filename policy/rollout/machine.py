"""Progressive rollout as a pure state machine: what one look changes.

A controller reads the record from the ledger, looks, calls `advance`, and writes what comes
back if it is another record; then it makes the endpoint what the record wants:

    after = advance(rollout, seen)              # the same object if nothing changed
    ...write `after` to the ledger...
    ...deploy desired_versions(after), set desired_weights(after), undeploy the others...

It is level-triggered: nothing is done because of a transition, everything because desired
and real differ. So it may die, repeat itself or lose a call at any point. See record.py beside
this file for the picture of the states and commands.py for what people can say.
"""

from pydantic import AwareDatetime

from policy.counts import LATENCY_EDGES_S, Counts, Labelled, Sample, between
from policy.evidence.limits import Fault, Verdict
from policy.evidence.tests import chance_of_so_few
from policy.rollout.commands import abort, approve, pause, promote_now, reject, resume
from policy.rollout.looks import reading, weigh_block
from policy.rollout.plans import steps_s
from policy.rollout.record import (
    Compared,
    Phase,
    Rollout,
    Row,
    Seen,
    Smoke,
    Tally,
    Window,
    as_desired,
    deadline_s,
    desired_versions,
    desired_weights,
    finished,
    next_look_s,
    rows,
    shadow_percent,
    shown,
    split,
    start,
    stayed_s,
)
from policy.rollout.transitions import enter, next_step, note, replaced, roll_back
from policy.rollout.windows import look_at_step, look_at_watch
from policy.words import duration, per_time, percent

__all__ = [
    "LATENCY_EDGES_S",
    "Compared",
    "Counts",
    "Fault",
    "Labelled",
    "Phase",
    "Rollout",
    "Row",
    "Sample",
    "Seen",
    "Smoke",
    "Tally",
    "Verdict",
    "Window",
    "abort",
    "advance",
    "approve",
    "between",
    "desired_versions",
    "desired_weights",
    "finished",
    "next_look_s",
    "pause",
    "promote_now",
    "reject",
    "resume",
    "rows",
    "shadow_percent",
    "split",
    "start",
]

_MUST_STAY_READY = frozenset(
    {Phase.SHADOW, Phase.STEP, Phase.AWAITING_APPROVAL, Phase.PROMOTING, Phase.WATCHING}
)


def advance(rollout: Rollout, seen: Seen) -> Rollout:
    """The record after one look; the same object if nothing changed. Never raises.

    At most one transition happens, so that each is in the ledger before it is acted on.
    """
    if finished(rollout):
        return rollout
    if rollout.phase is Phase.ROLLING_BACK:
        return _rolling_back(rollout, seen)
    if seen.failure:
        why = f"{rollout.version} cannot serve: {seen.failure}"
        return roll_back(rollout, seen.at, Fault.CANNOT_SERVE, why)
    if rollout.unready_since is not None and (down := _down_too_long(rollout, seen.at)):
        return roll_back(rollout, seen.at, Fault.UNREADY, down)
    after = _looked_at(rollout, seen)
    overdue = _overdue(rollout, seen.at)
    if overdue and (after.phase, after.step) == (rollout.phase, rollout.step):
        watching = rollout.phase is Phase.WATCHING
        return roll_back(rollout, seen.at, Fault.WATCH if watching else Fault.DEADLINE, overdue)
    return after


def _looked_at(rollout: Rollout, seen: Seen) -> Rollout:
    """What is true at this look, whether or not it comes late: a slow look blames nobody."""
    told = rollout.phase in _MUST_STAY_READY and seen.weights is not None
    if told and seen.ready != (rollout.unready_since is None):
        return _readiness_changed(rollout, seen)
    if rollout.unready_since is not None:
        return rollout
    return _in_its_state(rollout, seen)


def _in_its_state(rollout: Rollout, seen: Seen) -> Rollout:
    match rollout.phase:
        case Phase.SHADOW | Phase.STEP | Phase.AWAITING_APPROVAL:
            return look_at_step(rollout, seen)
        case Phase.PROMOTING:
            return _promoting(rollout, seen)
        case Phase.WATCHING:
            return look_at_watch(rollout, seen)
        case _ if rollout.paused:
            return rollout
        case Phase.PENDING:
            deploying = enter(rollout, Phase.DEPLOYING, seen.at, f"deploying {rollout.version}")
            return replaced(deploying, began=reading(seen))
        case Phase.DEPLOYING if seen.ready:
            return enter(rollout, Phase.SMOKE, seen.at, f"{rollout.version} is ready")
        case Phase.SMOKE if seen.smoke is not None:
            return _smoke(rollout, seen, seen.smoke)
    return rollout


def _smoke(rollout: Rollout, seen: Seen, smoke: Smoke) -> Rollout:
    """Every request must be answered; accuracy must not be proven to be below its limit."""
    limits, alpha = rollout.plan.limits, rollout.plan.judge.alpha
    if smoke.wrong:
        why = f"smoke test: {smoke.wrong} of {smoke.requests} requests failed: {smoke.detail}"
        return roll_back(rollout, seen.at, Fault.SMOKE, why)
    if smoke.requests < rollout.plan.smoke_requests:
        return rollout
    passed = f"smoke test: {smoke.requests} requests answered"
    if smoke.labels:
        accuracy = smoke.correct / smoke.labels
        if chance_of_so_few(smoke.correct, smoke.labels, limits.accuracy_min) < alpha:
            why = f"smoke test: accuracy {percent(accuracy)}, at least "
            why += f"{percent(limits.accuracy_min)} needed ({smoke.labels} labels)"
            return roll_back(rollout, seen.at, Fault.SMOKE, why)
        passed += f", accuracy {percent(accuracy)} ({smoke.labels} labels)"
    if rollout.promote_at_once:
        return enter(rollout, Phase.PROMOTING, seen.at, f"{rollout.reason}; {passed}")
    told = f"{passed}; {estimate}" if (estimate := _estimate(rollout, seen)) else passed
    if rollout.plan.shadow.percent and rollout.stable is not None:
        return enter(rollout, Phase.SHADOW, seen.at, told)
    return next_step(rollout, seen.at, told)


def _estimate(rollout: Rollout, seen: Seen) -> str:
    """How long the steps will take at the traffic seen since it began; "" if not known."""
    before = rollout.began and rollout.began.stable
    if rollout.began is None or before is None or seen.stable is None:
        return ""
    elapsed_s = (seen.until - rollout.began.at).total_seconds()
    asked = between(before, seen.stable)
    if asked is None or asked.restarted or elapsed_s <= 0 or not asked.counts.requests:
        return ""
    per_s = asked.counts.requests / elapsed_s
    steps = f"about {duration(steps_s(rollout.plan, per_s))} to 100 %"
    return f"{steps} at {per_time(per_s)}"


def _promoting(rollout: Rollout, seen: Seen) -> Rollout:
    if not as_desired(rollout, seen):
        return rollout
    if rollout.plan.watch.s and rollout.stable is not None:
        backup = f"{rollout.stable} stays as a backup for {duration(rollout.plan.watch.s)}"
        return enter(rollout, Phase.WATCHING, seen.at, f"{rollout.reason}; {backup}")
    reason = f"{rollout.version} serves 100 %: {rollout.reason}"
    return enter(rollout, Phase.DONE, seen.at, reason)


def _rolling_back(rollout: Rollout, seen: Seen) -> Rollout:
    """Stays until the endpoint confirms the way back; giving up would help nobody."""
    if not as_desired(rollout, seen):
        return _cannot_be_empty(rollout, seen)
    if rollout.stable is None:
        holds = "nothing serves: there was no version before"
    elif seen.stable_ready:
        holds = f"stable {rollout.stable} serves 100 %"
    else:
        waiting = f"waiting for stable {rollout.stable} to be ready"
        return rollout if waiting in rollout.reason else _noted(rollout, waiting)
    return enter(rollout, Phase.ROLLED_BACK, seen.at, f"{rollout.reason}; {holds}")


def _cannot_be_empty(rollout: Rollout, seen: Seen) -> Rollout:
    """An endpoint that cannot be left empty keeps a first version; do not wait for ever."""
    waited_s = (seen.at - rollout.entered_at).total_seconds()
    soon = waited_s <= rollout.plan.deadlines.promoting_s
    if rollout.stable is not None or seen.weights is None or soon:
        return rollout
    holds = f"{shown(split(seen.weights))} still serves: there was no version before"
    return enter(rollout, Phase.ROLLED_BACK, seen.at, f"{rollout.reason}; {holds}")


def _noted(rollout: Rollout, more: str) -> Rollout:
    return note(rollout, f"{rollout.reason}; {more}")


def _overdue(rollout: Rollout, at: AwareDatetime) -> str:
    """The reason if the state or a pause lasts too long; "" if not."""
    limit_s, elapsed_s = deadline_s(rollout), stayed_s(rollout, at)
    if limit_s is None:
        return ""
    if rollout.paused:
        return _late("paused", elapsed_s, limit_s)
    name = f"step {rollout.step}" if rollout.phase is Phase.STEP else rollout.phase
    late = _late(name, elapsed_s, limit_s)
    return f"{late}; before that: {rollout.reason}" if late else ""


def _late(what: str, elapsed_s: float, limit_s: float) -> str:
    if elapsed_s <= limit_s:
        return ""
    return f"{what} for {round(elapsed_s, 1):g} s, limit {limit_s:g} s"


def _down_too_long(rollout: Rollout, at: AwareDatetime) -> str:
    """An outage has its deadline, and a watch its availability, over all outages in it."""
    down_s = (at - (rollout.unready_since or at)).total_seconds()
    if late := _late(f"{rollout.version} not ready", down_s, rollout.plan.deadlines.unready_s):
        return late
    if rollout.phase is not Phase.WATCHING:
        return ""
    watch, total_s = rollout.plan.watch, rollout.unready_s + down_s
    available = 1 - total_s / max(watch.s, total_s)
    if available >= watch.availability_min:
        return ""
    ready = f"ready {percent(available)} of the time, {percent(watch.availability_min)} needed"
    return f"after the rollout: {ready} (down for {duration(total_s)})"


def _readiness_changed(rollout: Rollout, seen: Seen) -> Rollout:
    """An outage takes the weight away at once and counts as a failed window.

    What was answered until the version is back is evidence too: the block goes on meanwhile.
    """
    if rollout.unready_since is not None:
        down_s = (seen.at - rollout.unready_since).total_seconds()
        again = f"{rollout.version} is ready again after {duration(down_s)}"
        back = {"unready_since": None, "unready_s": rollout.unready_s + down_s, "reason": again}
        if rollout.phase is Phase.WATCHING:
            return replaced(rollout, **back)
        return replaced(weigh_block(rollout, seen, now=True), **back, window=None)
    away = f"{rollout.version} is not ready"
    failures, tolerated = rollout.failures + 1, rollout.plan.limits.failure_limit
    if rollout.phase not in (Phase.SHADOW, Phase.STEP, Phase.AWAITING_APPROVAL):
        return replaced(rollout, unready_since=seen.at, reason=away)
    if failures > tolerated:
        why = f"{away}; failed window {failures}, {tolerated} allowed"
        return roll_back(rollout, seen.at, Fault.UNREADY, why)
    weighed = weigh_block(rollout, seen, now=True)
    return replaced(weighed, unready_since=seen.at, failures=failures, reason=away)
