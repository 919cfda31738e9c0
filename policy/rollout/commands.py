"""What a person may tell a rollout: each command is a record, written by whoever gives it.

All are pure and safe to repeat: a command whose wish already holds returns the same record.
A command that cannot apply raises Refused and changes nothing.
"""

from pydantic import AwareDatetime

from policy.errors import Refused
from policy.evidence.limits import Fault
from policy.rollout.record import FINISHED, Phase, Rollout
from policy.rollout.transitions import enter, fresh_analyses, replaced, roll_back

_BEFORE_100 = frozenset(
    {
        Phase.PENDING,
        Phase.DEPLOYING,
        Phase.SMOKE,
        Phase.SHADOW,
        Phase.STEP,
        Phase.AWAITING_APPROVAL,
    }
)
_PROMOTED = frozenset({Phase.PROMOTING, Phase.WATCHING})
WORDS_MAX = 1000  # of who and why: every later record of a rollout may carry them
_NOT_TESTED = frozenset({Phase.PENDING, Phase.DEPLOYING, Phase.SMOKE})


def abort(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Roll the version back, from any state that is not an end."""
    require_signed(by, why)
    _must(rollout.phase not in FINISHED, rollout, "abort", "a rollout under way")
    if rollout.phase is Phase.ROLLING_BACK:
        return rollout
    _must(not rollout.rollback, rollout, "abort", "a rollout that is not itself a rollback")
    return roll_back(rollout, at, Fault.ABORTED, f"aborted by {by}: {why}", by)


def promote_now(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Skip analysis and approval; a version still has to get ready and pass its smoke."""
    require_signed(by, why)
    _must(rollout.phase in _BEFORE_100 | _PROMOTED, rollout, "promote", "a rollout under way")
    if rollout.promote_at_once or rollout.phase in _PROMOTED:
        return rollout
    reason = f"promoted at once by {by}: {why}"
    hurried = replaced(_resumed(rollout, at), promote_at_once=True, reason=reason, by=by)
    if rollout.phase in _NOT_TESTED:
        return hurried
    return enter(hurried, Phase.PROMOTING, at, reason)


def pause(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Hold the present state and weight; the version is still rolled back if it fails."""
    require_signed(by, why)
    _must(rollout.phase in _BEFORE_100, rollout, "pause", "a rollout on its way to 100 %")
    if rollout.paused:
        return rollout
    return replaced(rollout, paused_at=at, reason=f"paused by {by}: {why}", by=by)


def resume(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Go on after a pause, with a new window; the pause does not count in the deadline."""
    require_signed(by, why)
    _must(rollout.phase not in FINISHED, rollout, "resume", "a rollout under way")
    if not rollout.paused:
        return rollout
    return replaced(_resumed(rollout, at), reason=f"resumed by {by}: {why}", by=by)


def approve(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Let the version go to 100 %, where it is analysed once more."""
    require_signed(by, why)
    _must(rollout.phase is Phase.AWAITING_APPROVAL, rollout, "approve", "one that waits for it")
    last = len(rollout.plan.weights) - 1
    reason = f"approved by {by}: {why}"
    return enter(_resumed(rollout, at), Phase.STEP, at, reason, by, step=last)


def reject(rollout: Rollout, by: str, why: str, at: AwareDatetime) -> Rollout:
    """Roll back a version that waits for approval."""
    require_signed(by, why)
    _must(rollout.phase is Phase.AWAITING_APPROVAL, rollout, "reject", "one that waits for it")
    return roll_back(rollout, at, Fault.REJECTED, f"rejected by {by}: {why}", by)


def _resumed(rollout: Rollout, at: AwareDatetime) -> Rollout:
    """Not paused; the time of the pause is given back to the state's deadline.

    Whoever resumes has seen why it waited: windows without a verdict are tolerated anew.
    """
    if rollout.paused_at is None:
        return rollout
    entered_at = rollout.entered_at + (at - rollout.paused_at)
    analyses = fresh_analyses(rollout) if rollout.phase is Phase.STEP else ()
    return replaced(
        rollout,
        paused_at=None,
        entered_at=entered_at,
        window=None,
        inconclusive=0,
        analyses=analyses,
    )


def require_signed(by: str, why: str) -> None:
    """Raises Refused unless both are words that a ledger can keep."""
    for what, words in (("who", by), ("why", why)):
        broken = words.encode(errors="ignore").decode() != words
        if not words.strip() or broken or len(words) > WORDS_MAX:
            found = "half a character in it" if broken else f"{len(words.strip())} characters"
            raise Refused(
                f"{what} has {found}: {words[:40].encode(errors='replace').decode()!r}",
                expected=f"one sentence of at most {WORDS_MAX} characters",
                holds="nothing was written",
                do="say who and why; both go into the ledger",
            )


def _must(allowed: bool, rollout: Rollout, command: str, expected: str) -> None:
    if not allowed:
        raise Refused(
            f"cannot {command} the rollout of {rollout.version}: its state is {rollout.phase}",
            expected=expected,
            holds=f"the rollout is unchanged: {rollout.reason}",
        )
