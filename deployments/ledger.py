"""Reading the ledger from a store and appending to it; its meaning is in policy/ledger.py."""

from collections.abc import Callable
from datetime import UTC, datetime

from deployments import Store
from policy.errors import AlreadyExists
from policy.ledger import Event, Ledger, extend, key, next_record


def read(store: Store, known: Ledger | None = None) -> Ledger:
    """Fold all records. Raises LedgerError on the first that does not fit.

    With `known`, an earlier state of the same ledger, only the records after it are read: a
    controller looks twice a second, and the ledger grows for years.
    """
    ledger = known or Ledger()
    for name in store.list("ledger")[ledger.number :]:
        ledger = extend(ledger, name, store.read(name))
    return ledger


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
