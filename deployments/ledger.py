"""Reading the ledger from a store and appending to it; its meaning is in policy/ledger.py."""

from collections.abc import Callable
from datetime import UTC, datetime

from deployments import Store
from policy.errors import AlreadyExists, LedgerError
from policy.ledger import Event, Ledger, extend, fold, key, next_record


def read(store: Store, known: Ledger | None = None) -> Ledger:
    """Fold all records. Raises LedgerError on the first that does not fit.

    With `known`, an earlier state of the same ledger, only the records after it are read: a
    controller looks twice a second, and the ledger grows for years.
    """
    names, held = store.list("ledger"), known.number if known else 0
    if len(names) < held:
        raise LedgerError(
            f"the ledger has {len(names)} records",
            expected=f"at least the {held} that were read before",
            do="bring the missing ones back from a copy of the store",
        )
    return fold(((name, store.read(name)) for name in names[held:]), known)


def append(
    store: Store,
    decide: Callable[[Ledger], Event | None],
    *,
    by: str,
    run: str = "",
    known: Ledger | None = None,
) -> Ledger:
    """Write the event that `decide` makes of the current state; None writes nothing.

    Whoever loses the race for a number reads again and decides again, so `decide` may be
    called several times; what it raises ends the attempt with nothing written. `known` is as
    in `read`.

    Returns:
        The state with the new record.
    """
    ledger = known
    while True:
        ledger = read(store, ledger)
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
