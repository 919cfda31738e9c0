"""The last record that this machine has seen: <scratch>/ledger-head says its number and store.

A ledger that was restored from an older copy is whole in itself; only who has seen more of it
knows that records are gone.
"""

from contextlib import suppress
from pathlib import Path

from deployments.files import write_whole


def head_path(scratch: Path) -> Path:
    return scratch / "ledger-head"


def remember_head(scratch: Path, root: str, number: int) -> None:
    """Remember the record, unless a later one was seen; a full disk leaves what was known."""
    if number > last_seen(scratch, root):
        with suppress(OSError):
            write_whole(head_path(scratch), f"{number} {root}\n")


def last_seen(scratch: Path, root: str) -> int:
    """The number of the last record seen in the store at `root`; 0 if that is not known."""
    try:
        number, _, store = head_path(scratch).read_text().strip().partition(" ")
        return int(number) if store == root else 0
    except (OSError, ValueError):
        return 0
