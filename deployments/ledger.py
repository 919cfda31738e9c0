"""Reading the ledger from a store and appending to it; its meaning is in policy/ledger.py.

    ledger/00000201.json                  the records
    ledger-snapshots/00000200-<sha>.json  the state after record 200

A snapshot saves the reading of old records, never decides: it is believed only if a record of
the chain names its SHA-256. Records are the truth, and `audit` folds all of them. One that is
newer than the last record says that records are gone: nothing is read, and nothing written,
until somebody has looked. Other names in the folder are not records; see ledger_repair.py.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from deployments import Store
from deployments.ledger_objects import blobs, read_or_none, require_whole
from policy.errors import AlreadyExists, LedgerError, NotFound, StoreError
from policy.ledger import NO_RECORD, STATE_VERSION, Ledger, extend, fold, key, next_record
from policy.records import (
    Event,
    Record,
    Registered,
    Snapshotted,
    broken,
    decode,
)

SNAPSHOT_EVERY = 200
_FOLDER = "ledger-snapshots"
RECORD = re.compile(r"ledger/[0-9]{8}\.json")
_SNAPSHOT = re.compile(rf"{_FOLDER}/([0-9]{{8}})-[0-9a-f]{{12}}\.json")
_KEPT = 16  # states among which the audit finds the one of a snapshot; seldom another one


def read(store: Store, known: Ledger | None = None) -> Ledger:
    """Fold all records that are not in `known` yet. Raises LedgerError, StoreError.

    With `known`, an earlier state of the same ledger, only what came after it is asked for, so
    that a look costs the same however long the ledger is; without, it starts from the newest
    snapshot that the chain vouches for.
    """
    if known is None:
        return _read_from_nothing(store)
    number, state = known.number, known
    while (data := read_or_none(store, key(number + 1))) is not None:
        number += 1
        require_whole(store, key(number), data)
        state = extend(state, key(number), data)
    if state is known:
        _require_head(store, known)
    return state


def append(
    store: Store,
    decide: Callable[[Ledger], Event | None],
    *,
    by: str,
    run: str = "",
    known: Ledger | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Ledger:
    """Write the event that `decide` makes of the current state; None writes nothing.

    Whoever loses the race for a number reads again and decides again, so `decide` may be
    called several times; what it raises ends the attempt with nothing written. A record is
    folded before it is created: what could not be read again is never written. `known` is as
    in `read`.

    Returns:
        The state with the new record.
    """
    state = known
    while True:
        state = read(store, state)
        event = decide(state)
        if event is None:
            return state
        record = next_record(state, event, at=now(), by=by, run=run)
        after = _folded_first(state, record)
        try:
            store.create(key(record.number), record.encode())
        except AlreadyExists as error:
            state = _after_losing(store, state, error)
            continue
        return _with_snapshot(store, after, now)


def _after_losing(store: Store, state: Ledger, error: AlreadyExists) -> Ledger:
    """The state with what somebody else wrote. Raises LedgerError if that cannot be read."""
    after = read(store, state)
    if after.number == state.number:
        raise LedgerError(
            f"{key(state.number + 1)} exists and cannot be read as a record",
            expected="a plain object under that name, or none",
            holds="nothing was written",
            do="see what lies there and move it away",
        ) from error
    return after


def records(store: Store, first: int = 1, last: int | None = None) -> Iterator[Record]:
    """The records from `first` to `last` (to the end), in order, their chain checked."""
    previous = "" if first > 1 else NO_RECORD
    for name, data in blobs(store, first, last):
        record = decode(name, data)
        if previous and record.previous != previous:
            raise broken(f"{name} does not follow the record before")
        previous = hashlib.sha256(data).hexdigest()
        yield record


def registered(store: Store, state: Ledger, version: str) -> Registered:
    """Everything that was recorded of a version. Raises NotFound, LedgerError."""
    known = state.version(version)
    data = store.read(key(known.number))
    event = decode(key(known.number), data).event
    if hashlib.sha256(data).hexdigest() != known.sha256 or not isinstance(event, Registered):
        raise broken(f"{key(known.number)} is not what it was when {version} was registered")
    return event


def audit(store: Store, last: int | None = None) -> Ledger:
    """Fold every record up to `last`, and hold each snapshot against what it folds to.

    Raises:
        LedgerError: if the chain is broken or ends too early, or a record vouches for a
            snapshot that differs.
    """
    state, before, snapshots = Ledger(), deque[Ledger](maxlen=_KEPT), store.list(_FOLDER)
    for name, data in blobs(store, 1, last):
        before.append(state)
        state = extend(state, name, data)
        if state.snapshot != before[-1].snapshot:
            event = decode(name, data).event
            if isinstance(event, Snapshotted) and not _agrees(store, event, before):
                raise broken(f"{name} vouches for a snapshot that the records do not fold to")
    _require_no_newer(store, snapshots, state)
    return state


def _agrees(store: Store, event: Snapshotted, before: Iterable[Ledger]) -> bool:
    """Whether the snapshot is one of the states right before, or else an older one."""
    if event.version != STATE_VERSION:
        return True  # nobody who reads this shape believes it
    found = (state for state in before if state.number == event.number)
    state = next(found, None) or fold(blobs(store, 1, event.number))
    return hashlib.sha256(_encode(state)).hexdigest() == event.sha256


def _read_from_nothing(store: Store) -> Ledger:
    """From the newest snapshot that holds, else from the first record."""
    names = store.list(_FOLDER)  # before the records, of which more may come meanwhile
    state = _folded(store, names)
    _require_no_newer(store, names, state)
    return state


def _folded(store: Store, snapshots: Sequence[str]) -> Ledger:
    for name in reversed(snapshots):
        state = _snapshot(store, name)
        if state is not None:
            try:
                return fold(blobs(store, state.number + 1, None), state)
            except LedgerError:
                continue  # the chain does not go on from it; the records themselves decide
    return fold(blobs(store, 1, None))


def _require_no_newer(store: Store, snapshots: Sequence[str], state: Ledger) -> None:
    """A snapshot is made after its record: without that record, records are gone."""
    numbers = [int(found[1]) for name in snapshots if (found := _SNAPSHOT.fullmatch(name))]
    newest = max(numbers, default=0)
    if newest > state.number:
        raise LedgerError(
            f"records {state.number + 1} to {newest} of the ledger are gone: it ends before a "
            f"snapshot that was made after record {newest}",
            expected="every record that was ever written",
            holds="nothing was written and traffic is as it was",
            do=f"restore {store.root}/ledger from a copy of the store; only if the older "
            f"ledger is what you want: mv {store.root}/{_FOLDER} {store.root}/{_FOLDER}-aside",
        )


def _snapshot(store: Store, name: str) -> Ledger | None:
    """The state in a snapshot; None if no record of the chain vouches for it."""
    try:
        data = store.read(name)
        number, sha = int(name[len(_FOLDER) + 1 :][:8]), hashlib.sha256(data).hexdigest()
        envelope, _, body = data.partition(b"\n")
        if int(envelope) != STATE_VERSION:
            return None
        state = Ledger.model_validate_json(body)
    except (ValueError, ValidationError, StoreError, NotFound):
        return None  # records decide, a snapshot only saves reading them
    if state.number != number or not _vouched(store, number, sha):
        return None
    head = read_or_none(store, key(number))
    if head is None or hashlib.sha256(head).hexdigest() != state.head:
        return None
    return state


def _vouched(store: Store, number: int, sha: str) -> bool:
    """Whether one of the next records names this snapshot; others may have come between."""
    for after in range(number + 1, number + 1 + SNAPSHOT_EVERY):
        data = read_or_none(store, key(after))
        if data is None:
            return False
        if b'"snapshot"' in data[:1000]:
            event = decode(key(after), data).event
            if isinstance(event, Snapshotted) and event.number == number:
                return event.sha256 == sha
    return False


def _with_snapshot(store: Store, state: Ledger, now: Callable[[], datetime]) -> Ledger:
    """Snapshot the state where one is due. Whoever fails or dies here leaves it to the next."""
    if state.number < state.snapshot + SNAPSHOT_EVERY:
        return state
    data = _encode(state)
    sha = hashlib.sha256(data).hexdigest()
    event = Snapshotted(version=STATE_VERSION, number=state.number, sha256=sha)
    record = next_record(state, event, at=now(), by="ledger", run="")
    try:
        store.create(f"{_FOLDER}/{state.number:08d}-{sha[:12]}.json", data)
    except AlreadyExists:
        pass  # of a writer that died before it could vouch for it
    except StoreError:
        return state  # the record is written; the next one tries again
    after = _folded_first(state, record)
    try:
        store.create(key(record.number), record.encode())
    except (AlreadyExists, StoreError):
        return state
    return after


def _encode(state: Ledger) -> bytes:
    return b"%d\n" % STATE_VERSION + state.model_dump_json().encode()


def _folded_first(state: Ledger, record: Record) -> Ledger:
    try:
        return extend(state, key(record.number), record.encode())
    except LedgerError as error:
        raise LedgerError(
            f"the new record {record.number} ({record.event.kind}) could not be read again: "
            f"{error}",
            holds="nothing was written",
        ) from error


def _require_head(store: Store, known: Ledger) -> None:
    """What was read before must still be there."""
    if not known.number:
        return
    data = read_or_none(store, key(known.number))
    if data is None or hashlib.sha256(data).hexdigest() != known.head:
        raise LedgerError(
            f"record {known.number} of the ledger is gone or was changed",
            expected="everything that was read before",
            holds="nothing was written",
            do="restore the missing records from a copy of the store",
        )


def now() -> datetime:
    """The present in UTC: ledger times carry their zone."""
    return datetime.now(UTC)
