"""The ledger: one append-only chain of records, and the state that it folds to.

    ledger/00000001.json  {"schema_version": 2, "number": 1, "previous": 64 zeros, …}
    ledger/00000002.json  {"schema_version": 2, "number": 2, "previous": SHA-256 of 1, …}

A record is written only by creating its number, so of two writers one wins and the other
reads again and decides again. What serves where, which versions exist and how far a rollout
is: all of it is the fold of these records, and they are the audit trail as well. The state
keeps what decisions need, not the history: it does not grow with the number of records.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel

from policy.errors import NotFound
from policy.records import (
    SCHEMA_VERSION,
    Decided,
    Event,
    Record,
    Registered,
    Requested,
    RetrainingStarted,
    RolloutChanged,
    Snapshotted,
    Told,
    broken,
    decode,
)
from policy.rollout.record import Phase, Rollout, finished
from policy.rollout.requests import Answer, settle, withdrawn

NO_RECORD = "0" * 64
TOLD_PHASES = frozenset({Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.DONE, Phase.ROLLED_BACK})
STATE_VERSION = 1
"""Of the shape of `Ledger`: another one, and snapshots of before are not read any more."""
_PROMOTED_KEPT, _ANSWERS_KEPT, _STARTS_KEPT = 100, 200, 200


class Version(BaseModel, frozen=True):
    """A registered version; `number` and `sha256` name the record that has all the rest."""

    version: str
    digest: str
    accuracy: float
    signed_by: str
    key: str
    at: datetime
    by: str
    number: int
    sha256: str


class Untold(BaseModel, frozen=True):
    """A rollout entered `phase` by record `number`, and people are not told of it yet.

    `channels` are those by which they were told already.
    """

    rollout: str
    endpoint: str
    phase: Phase
    first: int
    number: int
    at: datetime
    channels: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        return f"{self.rollout}:{self.phase}"


class Totals(BaseModel, frozen=True):
    """Counters over all rollouts of an endpoint, for metrics."""

    records: int = 0
    results: Mapping[str, int] = {}
    faults: Mapping[str, int] = {}
    verdicts: Mapping[str, int] = {}


class EndpointState(BaseModel, frozen=True):
    """`promoted` holds the versions in the order in which they became stable.

    `first` is the number of the last rollout's first record, `last_at` the time of its last.
    """

    promoted: tuple[str, ...] = ()
    rollout: Rollout | None = None
    first: int = 0
    last_at: datetime | None = None
    totals: Totals = Totals()

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


_NOTHING_YET = EndpointState()


class Ledger(BaseModel, frozen=True):
    """The state after `number` records. `retrainings` maps each key to its (last) start."""

    number: int = 0
    head: str = NO_RECORD
    versions: Mapping[str, Version] = {}
    endpoints: Mapping[str, EndpointState] = {}
    retrainings: Mapping[str, datetime] = {}
    requests: Mapping[str, Answer] = {}
    untold: tuple[Untold, ...] = ()
    snapshot: int = 0
    """The number up to which a snapshot was made last."""

    def endpoint(self, name: str) -> EndpointState:
        return self.endpoints.get(name, _NOTHING_YET)

    def version(self, version: str) -> Version:
        """Raises NotFound with the newest versions there are."""
        if version not in self.versions:
            known = ", ".join([*self.versions][-5:])
            such = f", such as: {known}" if known else "; none is registered yet"
            raise NotFound(
                f"there is no version {version!r} in the ledger",
                expected=f"a registered one{such}",
                holds="nothing was changed",
                do="see `make history` for all versions",
            )
        return self.versions[version]

    def waiting(self, endpoint: str) -> Answer | None:
        """The oldest request that waits for this endpoint to be free."""
        waiting = (
            answer
            for answer in self.requests.values()
            if answer.request.endpoint == endpoint and not (answer.decided or answer.rollout)
        )
        return min(waiting, key=lambda answer: answer.number, default=None)

    def stage(self, version: str, roles: Mapping[str, str]) -> str:
        """candidate, staging or production; `roles` has the role of each endpoint."""
        found = {role for name, role in roles.items() if self.endpoint(name).stable == version}
        return next((role for role in ("production", "staging") if role in found), "candidate")


def key(number: int) -> str:
    return f"ledger/{number:08d}.json"


def fold(blobs: Iterable[tuple[str, bytes]], known: Ledger | None = None) -> Ledger:
    """Fold (key, bytes) pairs, in the order of their keys, into the state after `known`.

    Raises:
        LedgerError: if a number is missing, a hash does not fit, a record is damaged or of a
            schema that this program does not know yet.
    """
    folding = _Fold(known or Ledger())
    for name, data in blobs:
        folding.add(name, data)
    return folding.state()


def extend(ledger: Ledger, name: str, data: bytes) -> Ledger:
    """Check one more record against the chain and apply it. Raises LedgerError."""
    return fold([(name, data)], ledger)


def next_record(ledger: Ledger, event: Event, *, at: datetime, by: str, run: str) -> Record:
    """The record that would add `event` to `ledger`."""
    return Record(
        schema_version=SCHEMA_VERSION, number=ledger.number + 1, previous=ledger.head, at=at,
        by=by, run=run, event=event,
    )  # fmt: skip


class _Fold:
    """The state while records are added to it; linear in their number."""

    def __init__(self, ledger: Ledger) -> None:
        self._number, self._head, self._snapshot = ledger.number, ledger.head, ledger.snapshot
        self._versions, self._endpoints = dict(ledger.versions), dict(ledger.endpoints)
        self._retrainings, self._requests = dict(ledger.retrainings), dict(ledger.requests)
        self._untold = {untold.what: untold for untold in ledger.untold}

    def state(self) -> Ledger:
        # Every part is made of records that were validated when they were read.
        return Ledger.model_construct(
            number=self._number,
            head=self._head,
            versions=self._versions,
            endpoints=self._endpoints,
            retrainings=self._retrainings,
            requests=self._requests,
            untold=tuple(self._untold.values()),
            snapshot=self._snapshot,
        )

    def add(self, name: str, data: bytes) -> None:
        number, sha256 = self._number + 1, hashlib.sha256(data).hexdigest()
        if name != key(number):
            raise broken(f"{name} found where {key(number)} should be")
        record = decode(name, data)
        if record.number != number:
            raise broken(f"{name} says number {record.number}")
        if record.previous != self._head:
            raise broken(
                f"{name} follows {record.previous[:12]}…, but {self._head[:12]}… is before"
            )
        self._apply(record, sha256)
        self._number, self._head = number, sha256

    def _apply(self, record: Record, sha256: str) -> None:
        match record.event:
            case Registered() as event:
                self._register(record, event, sha256)
            case RolloutChanged(rollout=rollout):
                self._change(record, rollout)
            case RetrainingStarted(key=inputs):
                self._start(inputs, record.at)
            case Requested(answer=answer, rollout=rollout):
                self._request(record, answer)
                if rollout is not None:
                    self._change(record, rollout)
            case Decided(answer=answer):
                self._requests[answer.request.id] = answer
                self._forget_answers()
            case Told(what=what, channel=channel):
                self._mark(what, channel)
            case Snapshotted(number=number):
                self._snapshot = number

    def _register(self, record: Record, event: Registered, sha256: str) -> None:
        if event.version in self._versions:
            raise broken(f"record {record.number} registers {event.version} a second time")
        self._versions[event.version] = Version(
            version=event.version, digest=event.digest, accuracy=event.accuracy,
            signed_by=event.signed_by, key=event.lineage.get("key", ""), at=record.at,
            by=record.by, number=record.number, sha256=sha256,
        )  # fmt: skip

    def _request(self, record: Record, answer: Answer) -> None:
        id = answer.request.id
        if id in self._requests:
            raise broken(f"record {record.number} makes the request {id} a second time")
        update: dict[str, object] = {"number": record.number}
        if answer.rollout or answer.decided:  # nothing will be started from its plan any more
            update["request"] = answer.request.model_copy(update={"plan": None})
        self._requests[id] = answer.model_copy(update=update)
        if answer.request.kind == "rollback":
            self._withdraw_waiting(answer.request.endpoint, answer.request.by)
        self._forget_answers()

    def _start(self, inputs: str, at: datetime) -> None:
        self._retrainings.pop(inputs, None)  # so that they stand in the order of their starts
        self._retrainings[inputs] = at
        if len(self._retrainings) > _STARTS_KEPT:
            del self._retrainings[next(iter(self._retrainings))]

    def _forget_answers(self) -> None:
        """Keep all requests that wait and the newest that are decided.

        At once, and not when the state is made: however many records are folded in one go, it
        must be the same state.
        """
        decided = [id for id, answer in self._requests.items() if answer.decided]
        for id in decided[:-_ANSWERS_KEPT]:
            del self._requests[id]

    def _withdraw_waiting(self, endpoint: str, by: str) -> None:
        """After a rollback nothing begins by itself that was asked for before it."""
        for id, answer in self._requests.items():
            waits = not (answer.decided or answer.rollout)
            if waits and answer.request.endpoint == endpoint:
                why = (
                    f"withdrawn: {by} asked for a rollback meanwhile; ask again if it is wanted"
                )
                self._requests[id] = withdrawn(answer, why)

    def _change(self, record: Record, rollout: Rollout) -> None:
        _require_sense(record, rollout)
        before = self._endpoints.get(rollout.endpoint, _NOTHING_YET)
        same = before.rollout is not None and before.rollout.id == rollout.id
        self._endpoints[rollout.endpoint] = EndpointState(
            promoted=_promoted(before, rollout),
            rollout=rollout,
            first=before.first if same else record.number,
            last_at=record.at,
            totals=_totals(before, rollout, same=same),
        )
        self._answer(rollout)
        entered = not same or before.rollout is None or before.rollout.phase != rollout.phase
        # Records of version 1 were told by whoever wrote them, or never will be.
        if entered and rollout.phase in TOLD_PHASES and record.schema_version > 1:
            self._tell(record, rollout)

    def _answer(self, rollout: Rollout) -> None:
        waiting = self._requests.get(rollout.request)
        if waiting is not None and not waiting.rollout and not waiting.decided:
            asked = waiting.request.model_copy(update={"plan": None})
            update = {"rollout": rollout.id, "reason": "", "request": asked}
            self._requests[rollout.request] = waiting.model_copy(update=update)
        if finished(rollout):
            for id, answer in self._requests.items():
                if answer.rollout == rollout.id and not answer.decided:
                    self._requests[id] = settle(answer, rollout)
            self._forget_answers()

    def _mark(self, what: str, channel: str) -> None:
        untold = self._untold.get(what)
        if untold is None:
            return
        if not channel:
            del self._untold[what]
            return
        update = {"channels": (*untold.channels, channel)}
        self._untold[what] = untold.model_copy(update=update)

    def _tell(self, record: Record, rollout: Rollout) -> None:
        first = self._endpoints[rollout.endpoint].first
        untold = Untold(
            rollout=rollout.id, endpoint=rollout.endpoint, phase=rollout.phase, first=first,
            number=record.number, at=record.at,
        )  # fmt: skip
        self._untold[untold.what] = untold


def _require_sense(record: Record, rollout: Rollout) -> None:
    """What every reader relies on; only a forged record is otherwise."""
    weights = rollout.plan.weights
    if not -1 <= rollout.step < max(len(weights), 1):
        raise broken(f"record {record.number} is at step {rollout.step} of {len(weights)}")
    if not all(0 <= weight <= 100 for weight in weights):
        raise broken(f"record {record.number} has the weights {list(weights)}")
    if not 0 < rollout.plan.judge.alpha < 1:
        raise broken(f"record {record.number} has the alpha {rollout.plan.judge.alpha}")


def _promoted(before: EndpointState, rollout: Rollout) -> tuple[str, ...]:
    """Only a rollback shortens the history; everything else that serves is added to it."""
    promoted, version = before.promoted, rollout.version
    if rollout.phase is not Phase.DONE or before.stable == version:
        return promoted
    if rollout.rollback and version in promoted:
        return promoted[: len(promoted) - promoted[::-1].index(version)]
    return (*promoted, version)[-_PROMOTED_KEPT:]


def _totals(before: EndpointState, rollout: Rollout, *, same: bool) -> Totals:
    totals, was = before.totals, before.rollout if same else None
    results, faults, verdicts = totals.results, totals.faults, totals.verdicts
    if rollout.last is not None and (was is None or was.last != rollout.last):
        verdicts = _plus_one(verdicts, rollout.last.verdict)
    if finished(rollout) and (was is None or not finished(was)):
        results = _plus_one(results, rollout.phase)
        if rollout.phase is Phase.ROLLED_BACK:
            faults = _plus_one(faults, rollout.fault or "unknown")
    return Totals(records=totals.records + 1, results=results, faults=faults, verdicts=verdicts)


def _plus_one(counts: Mapping[str, int], name: str) -> Mapping[str, int]:
    return {**counts, str(name): counts.get(str(name), 0) + 1}
