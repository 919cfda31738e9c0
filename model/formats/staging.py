"""Where a conversion keeps what it has read: a SQLite file, so that memory stays bounded.

It joins files that are each larger than memory (questions, annotations, boxes), finds ids
that repeat, and hands the questions out in the order of their ids. Each step is one
transaction, so that an interrupted conversion goes on with the step it was in.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model.formats.question import Box, Question, column, truth_schema
from model.program.errors import BadInput

_TABLES = """
    CREATE TABLE step (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE question (id TEXT PRIMARY KEY, source TEXT, image TEXT, object TEXT,
                           truth TEXT) WITHOUT ROWID;
    CREATE TABLE words (id TEXT PRIMARY KEY, source TEXT, image TEXT, question TEXT)
                        WITHOUT ROWID;
    CREATE TABLE box (image TEXT, object TEXT, x0 REAL, y0 REAL, x1 REAL, y1 REAL,
                      PRIMARY KEY (image, object)) WITHOUT ROWID;
    CREATE TABLE image (source TEXT, image TEXT, file TEXT, stamp TEXT, sha256 TEXT,
                        split TEXT, PRIMARY KEY (source, image)) WITHOUT ROWID;
"""
_SHOWN = 3  # examples named in an error


@dataclass(frozen=True)
class Row:
    """A question ready for the manifest. `split` is train, val or test."""

    question_id: str
    split: str
    file: str  # relative to the data set
    sha256: str
    box: Box
    truth: dict[str, object]  # by the names of `truth_schema`


class Staging:
    """`signature` names the sources; a file that was begun from others is begun again."""

    def __init__(self, path: Path, benchmark: str, signature: str) -> None:
        self._columns = truth_schema(benchmark).names
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = _open(path)
        if not self.has(signature):
            self._db.close()
            path.unlink()
            self._db = _open(path)
            with self.step(signature):
                pass

    def close(self) -> None:
        self._db.close()

    def has(self, step: str) -> bool:
        return bool(self._one("SELECT count(*) FROM step WHERE name = ?", step))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """All that is added inside is kept when it ends without an error, or none of it."""
        with self._db:
            yield
            self._db.execute("INSERT OR REPLACE INTO step VALUES (?)", (name,))

    def add_questions(self, source: str, pairs: Iterable[tuple[Question, str | None]]) -> None:
        """Questions of one official split, each with the id of the object it asks about."""
        rows = ((q.question_id, source, q.image, thing, self._truth(q)) for q, thing in pairs)
        self._insert("INSERT INTO question VALUES (?, ?, ?, ?, ?)", rows, "question id")

    def add_words(self, source: str, triples: Iterable[tuple[str, str, str]]) -> None:
        """Question id, image and text, where they stand in a file of their own."""
        rows = ((name, source, image, text) for name, image, text in triples)
        self._insert("INSERT INTO words VALUES (?, ?, ?, ?)", rows, "question id")

    def add_boxes(self, boxes: Iterable[tuple[str, str, Box]]) -> None:
        rows = ((image, thing, *box) for image, thing, box in boxes)
        self._insert("INSERT INTO box VALUES (?, ?, ?, ?, ?, ?)", rows, "object")

    def join_words(self) -> None:
        """Hold questions and their words against each other. Raises BadInput."""
        self._none(
            "SELECT q.id FROM question q LEFT JOIN words w USING (id) WHERE w.id IS NULL",
            "no question belongs to the annotation",
        )
        self._none(
            "SELECT w.id FROM words w LEFT JOIN question q USING (id) WHERE q.id IS NULL",
            "no annotation belongs to the question",
        )
        self._none(
            "SELECT q.id FROM question q JOIN words w USING (id)"
            " WHERE q.image <> w.image OR q.source <> w.source",
            "question and annotation name different images",
        )

    def images(self) -> list[tuple[str, str]]:
        """Official split and image of all images that a question asks about, in order."""
        return list(
            self._db.execute("SELECT DISTINCT source, image FROM question ORDER BY 1, 2")
        )

    def stamps(self) -> dict[tuple[str, str], str]:
        """What was known of each image file when it was hashed."""
        rows = self._db.execute("SELECT source, image, stamp FROM image")
        return {(source, image): stamp for source, image, stamp in rows}

    def add_images(self, rows: Sequence[tuple[str, str, str, str, str]]) -> None:
        """Official split, image, file, stamp, SHA-256; replaces what was known."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO image VALUES (?, ?, ?, ?, ?, NULL)", rows
            )

    def hashes(self, source: str) -> list[str]:
        """Distinct SHA-256 of the images of one official split, in order."""
        found = self._db.execute(
            "SELECT DISTINCT sha256 FROM image WHERE source = ? ORDER BY 1", (source,)
        )
        return [sha256 for (sha256,) in found]

    def assign(self, source: str, split_of: dict[str, str]) -> None:
        """Put the images of an official split into splits of ours, by SHA-256."""
        rows = ((split, source, sha256) for sha256, split in split_of.items())
        with self._db:
            self._db.executemany(
                "UPDATE image SET split = ? WHERE source = ? AND sha256 = ?", rows
            )

    def left_out(self) -> int:
        """Questions whose image was put into no split."""
        return self._one(
            "SELECT count(*) FROM question JOIN image USING (source, image) WHERE split IS NULL"
        )

    def rows(self) -> Iterator[Row]:
        """The questions in the order of their ids, as the manifest wants them."""
        cursor = self._db.execute(
            "SELECT q.id, i.split, i.file, i.sha256,"
            " b.x0, b.y0, b.x1, b.y1, q.truth, w.question"
            " FROM question q JOIN image i ON i.source = q.source AND i.image = q.image"
            " LEFT JOIN box b ON b.image = q.image AND b.object = q.object"
            " LEFT JOIN words w ON w.id = q.id WHERE i.split IS NOT NULL ORDER BY q.id"
        )
        for name, split, file, sha256, x0, y0, x1, y1, truth, words in cursor:
            values = dict(zip(self._columns, json.loads(truth), strict=True))
            if words is not None:
                values["question"] = words
            box = (-1.0, -1.0, -1.0, -1.0) if x0 is None else (x0, y0, x1, y1)
            yield Row(name, split, file, sha256, box, values)

    def _truth(self, question: Question) -> str:
        return json.dumps([column(question, name) for name in self._columns])

    def _insert(self, statement: str, rows: Iterable[tuple], what: str) -> None:
        row: tuple = ("",)
        try:
            for row in rows:
                self._db.execute(statement, row)
        except sqlite3.IntegrityError as error:
            raise BadInput(
                f"{what} {row[0]!r} appears twice", expected="each once in all splits together"
            ) from error
        except UnicodeEncodeError as error:
            raise BadInput(
                f"{what} {row[0]!r} contains an unpaired surrogate ({error.reason})"
            ) from error

    def _none(self, query: str, wrong: str) -> None:
        found = [name for (name,) in self._db.execute(f"{query} LIMIT {_SHOWN + 1}")]
        if found:
            more = ", …" if len(found) > _SHOWN else ""
            raise BadInput(
                f"{wrong} (question_id {', '.join(found[:_SHOWN])}{more})",
                expected="questions and annotations of the same version and split",
                do="check that both files are complete",
            )

    def _one(self, query: str, *values: str) -> int:
        return self._db.execute(query, values).fetchone()[0]


def _open(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path)
        db.execute("PRAGMA synchronous = OFF")  # a lost machine costs the conversion only
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.executescript(_TABLES)
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{path} cannot be used: {error}", do="delete it") from error
    return db
