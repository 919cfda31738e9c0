"""From one state of a rollout to another."""

from pydantic import AwareDatetime

from policy.evidence.analysis import Measurements
from policy.evidence.limits import Fault
from policy.rollout.record import Phase, Rollout


def enter(
    rollout: Rollout,
    phase: Phase,
    at: AwareDatetime,
    reason: str,
    by: str = "",
    step: int | None = None,
) -> Rollout:
    """The record at the beginning of a state: nothing seen or missed in it yet.

    `by` "" keeps who acted last; `step` None keeps the step.
    """
    return rollout.model_copy(
        update={
            "phase": phase,
            "entered_at": at,
            "reason": reason,
            "by": by or rollout.by,
            "step": rollout.step if step is None else step,
            "window": None,
            "failures": 0,
            "inconclusive": 0,
            "scarce": False,
            "unready_s": 0.0,
            "paused_at": None,
            "analyses": fresh_analyses(rollout) if phase is Phase.STEP else (),
        }
    )


def fresh_analyses(rollout: Rollout) -> tuple[Measurements, ...]:
    """The configured analyses with nothing measured: each step has its own run of them."""
    return tuple(Measurements(name=analysis.name) for analysis in rollout.plan.analyses)


def roll_back(
    rollout: Rollout, at: AwareDatetime, fault: Fault, reason: str, by: str = ""
) -> Rollout:
    """Start the way back: weights, verify, undeploy."""
    return replaced(enter(rollout, Phase.ROLLING_BACK, at, reason, by), fault=fault)


def next_step(rollout: Rollout, at: AwareDatetime, reason: str) -> Rollout:
    """The next weight above 0, or a person's approval before 100, or promotion after it.

    A first version has no stable to share with: it goes to 100 % at once.
    """
    if rollout.step == _last(rollout):
        return enter(rollout, Phase.PROMOTING, at, reason)
    if leads_to_all(rollout) and rollout.plan.approval:
        return enter(rollout, Phase.AWAITING_APPROVAL, at, reason)
    return enter(rollout, Phase.STEP, at, reason, step=_following(rollout))


def leads_to_all(rollout: Rollout) -> bool:
    """Whether the next step is the one to 100 %."""
    return rollout.step < _last(rollout) == _following(rollout)


def _following(rollout: Rollout) -> int:
    weights, last = rollout.plan.weights, _last(rollout)
    if rollout.stable is None:
        return last
    return next(i for i in range(min(rollout.step + 1, last), last + 1) if weights[i] > 0)


def _last(rollout: Rollout) -> int:
    return len(rollout.plan.weights) - 1


def note(rollout: Rollout, reason: str) -> Rollout:
    """The same state with another reason; the same object if it is the same reason."""
    return rollout if rollout.reason == reason else replaced(rollout, reason=reason)


def replaced(rollout: Rollout, **changes: object) -> Rollout:
    return rollout.model_copy(update=changes)
