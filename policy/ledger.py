"""The ledger: one append-only chain of records, and the state that it folds to.

    ledger/00000001.json  {"number": 1, "previous": 64 zeros, …}
    ledger/00000002.json  {"number": 2, "previous": SHA-256 of the file before, …}

A record is written only by creating its number, so of two writers one wins and the other
reads again and decides again. What serves where, which versions exist and how far a rollout
is: all of it is the fold of these records, and they are the audit trail as well.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from policy.errors import Busy, LedgerError, NotFound
from policy.rollout.machine import Phase, Rollout, finished

NO_RECORD = "0" * 64


class Registered(BaseModel, frozen=True, extra="forbid"):
    """A version passed its gate and its release is in the store."""

    kind: Literal["registered"] = "registered"
    version: str
    digest: str
    accuracy: float
    families: Mapping[str, float]
    reasons: tuple[str, ...]
    lineage: Mapping[str, str]
    signed_by: str = ""
    """Fingerprint of the key; empty in records of before, whose releases serve no more."""


class RolloutChanged(BaseModel, frozen=True, extra="forbid"):
    """A rollout entered a new state, before that state was acted on."""

    kind: Literal["rollout"] = "rollout"
    rollout: Rollout


class RetrainingStarted(BaseModel, frozen=True, extra="forbid"):
    """A retraining was permitted and began; `key` stands for its inputs."""

    kind: Literal["retraining"] = "retraining"
    key: str
    cause: str
    why: str


Event = Annotated[Registered | RolloutChanged | RetrainingStarted, Field(discriminator="kind")]


class Record(BaseModel, frozen=True, extra="forbid"):
    """One entry. `by` is a person or a program, `run` the flow run or empty."""

    number: int
    previous: str
    at: datetime
    by: str
    run: str
    event: Event

    def encode(self) -> bytes:
        return self.model_dump_json(indent=1).encode() + b"\n"


class Version(BaseModel, frozen=True):
    registered: Registered
    at: datetime
    by: str
    number: int


class EndpointState(BaseModel, frozen=True):
    """`promoted` holds the versions in the order in which they became stable."""

    promoted: tuple[str, ...] = ()
    rollout: Rollout | None = None

    @property
    def stable(self) -> str | None:
        return self.promoted[-1] if self.promoted else None

    @property
    def before(self) -> str | None:
        """The version that a rollback returns to."""
        return self.promoted[-2] if len(self.promoted) > 1 else None

    @property
    def unfinished(self) -> Rollout | None:
        return self.rollout if self.rollout and not finished(self.rollout) else None


class Ledger(BaseModel, frozen=True):
    """The state after `number` records. `retrainings` maps each key to its (last) start."""

    number: int = 0
    head: str = NO_RECORD
    versions: Mapping[str, Version] = {}
    endpoints: Mapping[str, EndpointState] = {}
    retrainings: Mapping[str, datetime] = {}
    records: tuple[Record, ...] = ()

    def endpoint(self, name: str) -> EndpointState:
        return self.endpoints.get(name, EndpointState())

    def version(self, version: str) -> Version:
        """Raises NotFound with the versions there are."""
        if version not in self.versions:
            known = ", ".join(self.versions) or "none"
            raise NotFound(
                f"no version {version!r} in the ledger",
                expected=f"one of: {known}",
                holds="nothing was changed",
            )
        return self.versions[version]

    def of_rollout(self, id: str) -> tuple[tuple[Record, Rollout], ...]:
        """Every record of one rollout, in order, with the state that it holds."""
        return tuple(
            (record, record.event.rollout)
            for record in self.records
            if isinstance(record.event, RolloutChanged) and record.event.rollout.id == id
        )

    def stage(self, version: str) -> str:
        """candidate, staging or production."""
        if self.endpoint("production").stable == version:
            return "production"
        return "staging" if self.endpoint("staging").stable == version else "candidate"


def key(number: int) -> str:
    return f"ledger/{number:08d}.json"


def fold(blobs: Iterable[tuple[str, bytes]], known: Ledger | None = None) -> Ledger:
    """Fold (key, bytes) pairs, in the order of their keys, into the state after `known`.

    Raises:
        LedgerError: if a number is missing, a hash does not fit or a record is damaged.
    """
    ledger = known or Ledger()
    for name, data in blobs:
        ledger = extend(ledger, name, data)
    return ledger


def extend(ledger: Ledger, name: str, data: bytes) -> Ledger:
    """Check one more record against the chain and apply it. Raises LedgerError."""
    number = ledger.number + 1
    if name != key(number):
        raise _broken(f"{name} found where {key(number)} should be")
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        raise _broken(f"{name} is damaged ({error.error_count()} wrong fields)") from error
    if record.number != number:
        raise _broken(f"{name} says number {record.number}")
    if record.previous != ledger.head:
        raise _broken(
            f"{name} follows {record.previous[:12]}…, but {ledger.head[:12]}… is before"
        )
    applied = _apply(ledger, record)
    return applied.model_copy(
        update={
            "number": number,
            "head": hashlib.sha256(data).hexdigest(),
            "records": (*ledger.records, record),
        }
    )


def next_record(ledger: Ledger, event: Event, *, at: datetime, by: str, run: str) -> Record:
    """The record that would add `event` to `ledger`."""
    return Record(
        number=ledger.number + 1, previous=ledger.head, at=at, by=by, run=run, event=event
    )


def begin(ledger: Ledger, rollout: Rollout) -> Rollout:
    """The rollout to drive: the unfinished one of the same version, else `rollout` anew.

    Raises:
        NotFound: if the version is not registered.
        Busy: if another version's rollout holds the endpoint.
    """
    ledger.version(rollout.version)
    running = ledger.endpoint(rollout.endpoint).unfinished
    if running is None:
        return rollout
    if running.version == rollout.version:
        return running
    raise Busy(
        f"{rollout.endpoint} is in the rollout of {running.version} "
        f"({running.phase}, since {running.entered_at:%Y-%m-%d %H:%M:%S} UTC)",
        expected="one rollout at a time on an endpoint",
        holds=f"{rollout.version} was not started and the weights are unchanged",
        do=f"wait, run the rollout of {running.version} again, or abort it",
    )


def _apply(ledger: Ledger, record: Record) -> Ledger:
    match record.event:
        case Registered():
            return _registered(ledger, record, record.event)
        case RolloutChanged():
            return _rollout_changed(ledger, record.event.rollout)
        case RetrainingStarted(key=inputs):
            retrainings = {**ledger.retrainings, inputs: record.at}
            return ledger.model_copy(update={"retrainings": retrainings})


def _registered(ledger: Ledger, record: Record, event: Registered) -> Ledger:
    if event.version in ledger.versions:
        raise _broken(f"record {record.number} registers {event.version} a second time")
    version = Version(registered=event, at=record.at, by=record.by, number=record.number)
    return ledger.model_copy(update={"versions": {**ledger.versions, event.version: version}})


def _rollout_changed(ledger: Ledger, rollout: Rollout) -> Ledger:
    before = ledger.endpoint(rollout.endpoint)
    promoted = before.promoted
    if rollout.phase is Phase.DONE and before.stable != rollout.version:
        promoted = _promote(promoted, rollout.version)
    state = EndpointState(promoted=promoted, rollout=rollout)
    return ledger.model_copy(
        update={"endpoints": {**ledger.endpoints, rollout.endpoint: state}}
    )


def _promote(promoted: tuple[str, ...], version: str) -> tuple[str, ...]:
    """Append, or go back to where `version` stands: a rollback is no new history."""
    if version in promoted:
        return promoted[: promoted.index(version) + 1]
    return (*promoted, version)


def _broken(found: str) -> LedgerError:
    return LedgerError(
        f"the ledger's chain is broken: {found}",
        expected="numbered records, each with the SHA-256 of the one before",
        holds="nothing was written and traffic is as it was",
        do="restore the record from a copy of the store; never edit records",
    )
