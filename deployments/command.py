"""Commands of people to the rollout under way: each is one record in the ledger.

Whichever controller drives the rollout finds them at its next look, so they work from any
machine that reaches the store, and of two that contradict each other the first one counts.
"""

from deployments import Store, ledger
from policy.errors import Refused
from policy.ledger import Ledger, RolloutChanged
from policy.rollout import commands
from policy.rollout.record import Rollout

COMMANDS = {
    "abort": commands.abort,
    "promote": commands.promote_now,
    "pause": commands.pause,
    "resume": commands.resume,
    "approve": commands.approve,
    "reject": commands.reject,
}


def give(store: Store, endpoint: str, command: str, by: str, why: str) -> Rollout:
    """Write `command` into the ledger and return the rollout as it is then.

    Raises Refused if no rollout is under way or it is in no state for `command`.
    """
    given: list[Rollout] = []

    def decide(state: Ledger) -> RolloutChanged | None:
        running = state.endpoint(endpoint).unfinished
        if running is None:
            raise Refused(
                f"no rollout under way on {endpoint}",
                holds=f"{state.endpoint(endpoint).stable or 'nothing'} serves there",
                do="see python -m flows status",
            )
        after = COMMANDS[command](running, by, why, ledger.now())
        given.append(after)
        return None if after == running else RolloutChanged(rollout=after)

    ledger.append(store, decide, by=by)
    return given[-1]
