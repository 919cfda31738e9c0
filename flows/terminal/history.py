"""Who or what promoted which version when, and why: the ledger, read aloud."""

import json
from collections.abc import Mapping

from policy.config import Config
from policy.ledger import Ledger, Record, Registered, RolloutChanged
from policy.rollout.record import Phase, Rollout

TOLD = {
    Phase.PENDING: "rollout began",
    Phase.DONE: "promoted",
    Phase.ROLLING_BACK: "taking back",
    Phase.ROLLED_BACK: "taken back",
    Phase.AWAITING_APPROVAL: "waits for approval",
}

SPOKEN = ("approved by ", "promoted at once by ", "paused by ", "resumed by ")


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
    lines: list[str] = []
    last: dict[str, Rollout] = {}
    for record in state.records:
        told = _told(record, last)
        if told:
            lines.append(f"{record.number:4d}  {record.at:%Y-%m-%d %H:%M:%S}  {told}")
        if isinstance(record.event, RolloutChanged):
            last[record.event.rollout.endpoint] = record.event.rollout
    return lines


def _told(record: Record, last: Mapping[str, Rollout]) -> str:
    """`last` is the record before of each endpoint."""
    match record.event:
        case Registered(version=version, accuracy=accuracy, signed_by=key):
            signed = f"signed by {key[:12]}" if key else "not signed"
            return f"{version}  registered by {record.by}: accuracy {accuracy:.3f}, {signed}"
        case RolloutChanged(rollout=rollout):
            return _rollout(rollout, last.get(rollout.endpoint))
        case event:
            return f"retraining {event.key} started ({event.cause}): {event.why}"


def _rollout(rollout: Rollout, before: Rollout | None) -> str:
    """A decision, or a person's word; empty for what only moves it along."""
    entered = before is None or (before.id, before.phase) != (rollout.id, rollout.phase)
    on = f"on {rollout.endpoint}: {rollout.reason}"
    if entered and rollout.phase in TOLD:
        return f"{rollout.version}  {TOLD[rollout.phase]} {on}"
    new = before is None or before.reason != rollout.reason
    spoken = new and rollout.reason.startswith(SPOKEN)
    return f"{rollout.version}  a person's word {on}" if spoken else ""
