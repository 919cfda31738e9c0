"""Whether the ledger is whole, there at all, and of a time that can be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments import Place, Store, ledger
from deployments.ledger_head import head_path, last_seen
from deployments.ledger_objects import REPAIR
from deployments.ledger_repair import in_the_way, strangers
from flows.terminal.problem import Commands, Problem
from policy.errors import LedgerError, NotFound, StoreError
from policy.ledger import Ledger, key
from policy.records import decode
from policy.words import duration

_AHEAD = timedelta(minutes=2)  # clocks of several machines differ by less
_TOLD = 5


@dataclass(frozen=True)
class LedgerLook:
    """`broken` says why it cannot be read, `strange` names what lies there and is not a record.

    `seen` is the last record that this machine had seen before.
    """

    state: Ledger
    broken: str = ""
    blocked: str = ""
    strange: Sequence[str] = ()
    written: datetime | None = None
    seen: int = 0


def look_at_ledger(place: Place) -> LedgerLook:
    """Read all of it that status needs; what cannot be read is told, not raised."""
    store = place.store
    seen = last_seen(place.scratch, store.root)  # before the records, of which more may come
    try:
        state = ledger.read(store)
        written = _written(store, state)
        blocked, strange = in_the_way(store, state.number), strangers(store)
        return LedgerLook(state, "", blocked, strange, written, seen)
    except (LedgerError, StoreError, NotFound) as error:
        return LedgerLook(Ledger(), str(error))


def problems_of_ledger(
    look: LedgerLook, place: Place, serving: str, now: datetime, commands: Commands
) -> Iterator[Problem]:
    """What is wrong with it. `serving`: what the endpoints serve, "" if nothing."""
    root = place.store.root
    if look.broken:
        told = commands.told("ledger", look.broken, "rollbacks")
        do = commands.flows("repair-ledger") if REPAIR in look.broken else told.do
        yield Problem("ledger", told.what, do, "rollbacks")
    elif why := missing(look.state, place.store, serving):
        yield Problem("ledger", why, _bring_back(root), "rollbacks")
    elif look.seen > look.state.number:
        told = f"it was at record {look.seen}, and is at {look.state.number}: records are gone"
        do = f"{_bring_back(root)}; only if it is to be as it is: rm {head_path(place.scratch)}"
        yield Problem("ledger", told, do, "rollbacks")
    if look.blocked:
        away = f"mv {root}/{look.blocked} {root}/not-a-record"
        told = f"{look.blocked} is not a record, and no record can be written before it is gone"
        yield Problem("ledger", told, away, "rollbacks")
    if look.written is not None and look.written - now > _AHEAD:
        ahead = duration((look.written - now).total_seconds())
        told = f"its last record was written {ahead} from now: this clock, or that of whoever "
        yield Problem("clock", f"{told}wrote it, is wrong", "date  # is this clock right?")


def missing(state: Ledger, store: Store, serving: str) -> str:
    """Why a ledger without records cannot be all that there was; "" if it can."""
    if state.number:
        return ""
    if serving:
        return f"it has no records, but {serving}: it was deleted or emptied"
    if store.list("releases"):
        return "it has no records, but releases lie in the store: it was deleted or emptied"
    return ""


def require_there(state: Ledger, store: Store) -> None:
    """Raises LedgerError if there are no records although there were some."""
    if why := missing(state, store, ""):
        raise LedgerError(
            f"the ledger at {store.root}: {why}",
            expected="the records that go with them",
            holds="nothing was written and traffic is as it was",
            do=_bring_back(store.root),
        )


def notes(look: LedgerLook) -> Sequence[str]:
    """What is worth knowing and harms nobody."""
    if not look.strange:
        return ()
    more = f" and {len(look.strange) - _TOLD} more" if len(look.strange) > _TOLD else ""
    return (f"ignored in the ledger's folder: {', '.join(look.strange[:_TOLD])}{more}",)


def _bring_back(root: str) -> str:
    return f"restore {root}/ledger from a copy of the store, before anybody writes to it"


def _written(store: Store, state: Ledger) -> datetime | None:
    if not state.number:
        return None
    return decode(key(state.number), store.read(key(state.number))).at
