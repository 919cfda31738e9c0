"""Commands to the rollout under way: each is one record in the ledger."""

from policy import commands
from policy.config import Config
from policy.errors import Refused
from policy.ledger import Ledger, RolloutChanged

APPLY = {
    "abort": commands.abort,
    "promote": commands.promote_now,
    "pause": commands.pause,
    "resume": commands.resume,
    "approve": commands.approve,
    "reject": commands.reject,
}


def give(config: Config, command: str, endpoint: str, by: str, why: str) -> int:
    """Write `command` into the ledger and say what holds now. Raises Refused."""
    from deployments import connect, ledger

    def decide(state: Ledger) -> RolloutChanged:
        running = state.endpoint(endpoint).unfinished
        if running is None:
            raise Refused(
                f"no rollout under way on {endpoint}",
                holds=f"{state.endpoint(endpoint).stable or 'nothing'} serves there",
                do="see python -m flows status",
            )
        return RolloutChanged(rollout=APPLY[command](running, by, why, ledger.now()))

    state = ledger.append(connect(config).store, decide, by=by)
    rollout = state.endpoint(endpoint).rollout
    print(
        f"{rollout.version} on {endpoint}: {rollout.phase}: {rollout.reason}" if rollout else ""
    )
    return 0
