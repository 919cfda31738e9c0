"""Reading the ledger from a store and appending to it; its meaning is in policy/ledger.py."""

from collections.abc import Callable
from datetime import UTC, datetime

from deployments import Store
from policy.errors import AlreadyExists
from policy.ledger import Event, Ledger, extend, fold, key, next_record


def read(store: Store) -> Ledger:
    """Fold all records. Raises LedgerError on the first that does not fit."""
    return fold((name, store.read(name)) for name in store.list("ledger"))


def append(
    store: Store, decide: Callable[[Ledger], Event | None], *, by: str, run: str = ""
) -> Ledger:
    """Write the event that `decide` makes of the current state; None writes nothing.

    Whoever loses the race for a number reads again and decides again, so `decide` may be
    called several times; what it raises ends the attempt with nothing written.

    Returns:
        The state with the new record.
    """
    while True:
        ledger = read(store)
        event = decide(ledger)
        if event is None:
            return ledger
        record = next_record(ledger, event, at=now(), by=by, run=run)
        try:
            store.create(key(record.number), record.encode())
        except AlreadyExists:
            continue
        return extend(ledger, key(record.number), record.encode())


def now() -> datetime:
    """The present in UTC: ledger times carry their zone."""
    return datetime.now(UTC)
