"""Hashes that protect the human answers of a converted benchmark: truth.parquet.

`truth_sha256` of conversion.json is the hash of the file, quick to hold it against;
`rows_sha256` is that of its rows as JSON, a line each, which does not depend on who wrote the
Parquet file, and is part of the data set's fingerprint (model/dataset/manifest.py).
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from model.program.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "conversion.json"


class Rows:
    """Hashes rows as they are written or read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, batch: "pa.RecordBatch") -> None:
        for row in batch.to_pylist():
            line = json.dumps([*row.values()], separators=(",", ":"))
            self._hash.update(f"{line}\n".encode())

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def rows_of(folder: Path) -> str:
    """The `rows_sha256` of a data set; "" if it was not converted. Raises BadInput."""
    path = folder / NAME
    if not path.exists():
        return ""
    try:
        return str(json.loads(path.read_text()).get("rows_sha256", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} is missing or damaged ({error})", do="convert again") from error


def check(folder: Path, batches: Iterable["pa.RecordBatch"]) -> None:
    """Hold every row of the truth against the seal. Raises BadInput."""
    rows = Rows()
    for batch in batches:
        rows.add(batch)
    if rows.sha256 != rows_of(folder):
        raise BadInput(
            f"the rows of {folder / 'truth.parquet'} have the SHA-256 {rows.sha256}",
            expected=f"{rows_of(folder) or 'rows_sha256'} as {NAME} says",
            do="convert again; what people said changed after it was written",
        )
