"""Who or what promoted which version when, and why: the ledger, read aloud."""

import json

from policy.config import Config
from policy.ledger import Ledger, Record, Registered, RolloutChanged
from policy.state import Phase

TOLD = {
    Phase.PENDING: "rollout began",
    Phase.DONE: "promoted",
    Phase.ROLLING_BACK: "taking back",
    Phase.ROLLED_BACK: "taken back",
    Phase.AWAITING_APPROVAL: "waits for approval",
}


def show(config: Config, *, as_json: bool) -> int:
    """Print the decisions in the order in which they were made."""
    from deployments import connect, ledger

    state = ledger.read(connect(config).store)
    if as_json:
        print(json.dumps([json.loads(record.model_dump_json()) for record in state.records]))
        return 0
    for line in tell(state):
        print(line)
    print(f"{state.number} records, head {state.head[:12]}, chain intact")
    return 0


def tell(state: Ledger) -> list[str]:
    """One line for each decision; what only moves a rollout along is left out."""
    lines = []
    for record in state.records:
        told = _told(record)
        if told:
            lines.append(f"{record.number:4d}  {record.at:%Y-%m-%d %H:%M:%S}  {told}")
    return lines


def _told(record: Record) -> str:
    match record.event:
        case Registered(version=version, accuracy=accuracy, signed_by=key):
            signed = f"signed by {key[:12]}" if key else "not signed"
            return f"{version}  registered by {record.by}: accuracy {accuracy:.3f}, {signed}"
        case RolloutChanged(rollout=rollout) if rollout.phase in TOLD:
            what = f"{rollout.version}  {TOLD[rollout.phase]} on {rollout.endpoint}"
            return f"{what}: {rollout.reason}"
        case RolloutChanged():
            return ""
        case event:
            return f"retraining {event.key} started ({event.cause}): {event.why}"
