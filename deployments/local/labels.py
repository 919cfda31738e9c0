"""Live answers whose truth is known: what each source has told of them, in one small database.

A source has one row for each version, replaced as it learns more. So a look reads one file,
however many replays there have been, and SQLite keeps every record whole, also where two
write at once or one is killed.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from policy.counts import Compared, Labelled
from policy.errors import StoreError

_BUSY_S = 5.0
_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (source TEXT, version TEXT, labels INT, correct INT, "
    "compared INT, differed INT, PRIMARY KEY (source, version)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS life (epoch TEXT)",
)
_NO_LABELS, _NONE_COMPARED = Labelled(), Compared()


@dataclass(frozen=True)
class Known:
    """Sums over all sources by version. `epoch` names the life of the database."""

    epoch: str
    labelled: Mapping[str, Labelled]
    compared: Mapping[str, Compared]


class Answers:
    """The database of one endpoint; it is made at the first call. Each raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def record(
        self,
        source: str,
        labels: Mapping[str, Labelled],
        compared: Mapping[str, Compared],
    ) -> None:
        """Replace what `source` has told before."""
        rows = []
        for version in {**labels, **compared}:
            known = labels.get(version, _NO_LABELS)
            pairs = compared.get(version, _NONE_COMPARED)
            numbers = (known.labels, known.correct, pairs.compared, pairs.differed)
            rows.append((source, version, *numbers))
        with self._transaction("IMMEDIATE") as database:
            database.execute("DELETE FROM answers WHERE source = ?", (source,))
            database.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)

    def read(self) -> Known:
        """Everything known of every version."""
        with self._transaction("DEFERRED") as database:
            [(epoch,)] = database.execute("SELECT epoch FROM life").fetchall()
            sums = database.execute(
                "SELECT version, SUM(labels), SUM(correct), SUM(compared), SUM(differed) "
                "FROM answers GROUP BY version"
            ).fetchall()
        return Known(
            epoch,
            {row[0]: Labelled(labels=row[1], correct=row[2]) for row in sums},
            {row[0]: Compared(compared=row[3], differed=row[4]) for row in sums if row[3]},
        )

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            ) as database:
                _make(database)
                database.execute(f"BEGIN {kind}")
                yield database
                database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the answers in {self._path} cannot be read or written ({error})",
                holds="no further answer counts as labelled until they can",
                do="free some disk space, or delete the file and lose the labels in it",
            ) from error


def _make(database: sqlite3.Connection) -> None:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if ("life",) in tables:
        return
    database.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        database.execute(table)
    new = "INSERT INTO life SELECT ? WHERE NOT EXISTS (SELECT * FROM life)"
    database.execute(new, (uuid.uuid4().hex,))
    database.execute("COMMIT")
