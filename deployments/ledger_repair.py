"""What lies beside the ledger's records, and the one thing in it that may be mended by hand.

    ledger/00000201.json               cut short: the machine went off, or a copy was made then
    ledger-torn/00000201-<sha>.json    where it is set aside; nothing is deleted

A record is on the disk before it gets its name, so only a copy that was made or brought back
at a bad moment has one that was cut short. The ledger goes on without it, and the reconciler
brings the endpoints to what it says then. Anything else that is wrong with a ledger is damage
or forgery, and only another copy mends that.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments import Store, ledger
from deployments.files import exclusive
from deployments.ledger_objects import RECORD
from deployments.stores.disk import DiskStore
from policy.errors import NotFound, Unsupported
from policy.ledger import key
from policy.records import cut_short

_TORN = "ledger-torn"


@dataclass(frozen=True)
class SetAside:
    """A record that was cut short after so many bytes, and where it lies now."""

    name: str
    size: int
    to: str


def strangers(store: Store) -> Sequence[str]:
    """Ignored names in the ledger's folder that are not records. Raises StoreError."""
    return [name for name in store.list("ledger") if not RECORD.fullmatch(name)]


def in_the_way(store: Store, number: int) -> str:
    """What lies in the place of the record after `number` and is none; "" if nothing does.

    Nothing can be written to the ledger before it is gone.
    """
    name = key(number + 1)
    if not isinstance(store, DiskStore):
        return next(iter(store.list(name)), "")
    if not store.lies_there(name):
        return ""
    try:
        store.read(name)
    except NotFound:
        return name
    return ""  # a record that somebody has just written


def repair(store: Store) -> SetAside | None:
    """Set the last record aside if it was cut short; None if the ledger is whole as it is.

    Raises:
        LedgerError: if anything else is wrong with the ledger; nothing was changed.
        Unsupported: if the store is a bucket, which has every object whole or not at all.
        StoreError, Busy
    """
    if not isinstance(store, DiskStore):
        ledger.audit(store)
        raise Unsupported(
            f"the ledger at {store.root} is whole: in a bucket no record is ever cut short",
            holds="nothing was changed",
        )
    with exclusive(Path(store.root) / _TORN / ".lock", "the repair of the ledger"):
        name = _last(store)
        data = _cut_short(store, name)
        if data is None:
            ledger.audit(store)
            return None
        number = int(Path(name).stem)
        ledger.audit(store, number - 1)  # whatever else is wrong is told before any change
        to = f"{_TORN}/{number:08d}-{hashlib.sha256(data).hexdigest()[:12]}.json"
        store.set_aside(name, to)
        return SetAside(name, len(data), to)


def _last(store: Store) -> str:
    names = [name for name in store.list("ledger") if RECORD.fullmatch(name)]
    return names[-1] if names else ""


def _cut_short(store: Store, name: str) -> bytes | None:
    """The bytes of a record that was cut short; None of any other, or of what is none."""
    try:
        data = store.read(name) if name else None
    except NotFound:
        return None
    return data if data is not None and cut_short(data) else None
