"""The ledger's objects in a store: which are records, and the bytes of each."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from deployments import Store
from policy.errors import LedgerError, NotFound
from policy.ledger import key
from policy.records import broken, cut_short

RECORD = re.compile(r"ledger/[0-9]{8}\.json")
REPAIR = ".venv/bin/python -m flows repair-ledger"
_READERS = 16


def blobs(store: Store, first: int, last: int | None) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of records in order; all that are listed.

    Over a network several are read at a time; on a disk that would only cost threads.
    """
    if last is None:
        # What else lies there (a copy, an editor's file) is not a record; a gap still shows.
        listed = store.list("ledger", after=key(first - 1))
        names = [name for name in listed if RECORD.fullmatch(name)]
    else:
        names = [key(number) for number in range(first, last + 1)]
    for name, data in _read_all(store, names):
        if last is None and name == names[-1]:
            require_whole(store, name, data)
        yield name, data


def _read_all(store: Store, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    def plain(name: str) -> bytes:
        try:
            return store.read(name)
        except NotFound as error:
            raise broken(f"{name} is gone, or no plain file") from error

    if "://" not in store.root or len(names) < _READERS:
        yield from ((name, plain(name)) for name in names)
        return
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), 1000):
            part = names[start : start + 1000]
            yield from zip(part, pool.map(plain, part), strict=True)


def require_whole(store: Store, name: str, data: bytes) -> None:
    """Tell a last record that was cut short from one that was changed."""
    if cut_short(data) and not _after(store, name):
        raise LedgerError(
            f"the last record of the ledger, {name}, was cut short after {len(data)} bytes",
            expected="a whole record, as every other one is",
            holds="nothing was written and traffic is as it was",
            do=f"{REPAIR} sets it aside (behind it the configuration's path, if it is not "
            "deployments/local.yaml)",
        )


def _after(store: Store, name: str) -> bool:
    return any(RECORD.fullmatch(other) for other in store.list("ledger", after=name))


def read_or_none(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except NotFound:
        return None
