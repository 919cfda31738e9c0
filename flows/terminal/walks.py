"""Rollouts as they went, told from their records."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from policy.records import Record, Requested, RolloutChanged
from policy.rollout.record import Phase, Rollout, desired_weights


@dataclass(frozen=True)
class Walk:
    """One rollout: the version's weights in percent, in their order, and how it stands."""

    endpoint: str
    version: str
    began: datetime
    weights: tuple[int, ...]
    phase: Phase
    reason: str


def walks(records: Iterable[Record]) -> list[Walk]:
    """The rollouts that stand in `records`, in the order in which they began."""
    found: dict[str, Walk] = {}
    for record in records:
        rollout = rollout_of(record)
        if rollout is not None:
            found[rollout.id] = _further(found.get(rollout.id), rollout)
    return list(found.values())


def rollout_of(record: Record) -> Rollout | None:
    """The rollout as a record leaves it; None for a record that changes none."""
    event = record.event
    return event.rollout if isinstance(event, RolloutChanged | Requested) else None


def path(walk: Walk) -> str:
    """The weights as `0 % -> 10 % -> 100 %`."""
    return " -> ".join(f"{weight} %" for weight in walk.weights)


def _further(before: Walk | None, rollout: Rollout) -> Walk:
    share = desired_weights(rollout).get(rollout.version, 0)
    weights = before.weights if before else ()
    if not weights or weights[-1] != share:
        weights = (*weights, share)
    return Walk(
        rollout.endpoint, rollout.version, rollout.started_at, weights, rollout.phase,
        rollout.reason,
    )  # fmt: skip
