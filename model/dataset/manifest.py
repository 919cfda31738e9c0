"""A data set on the disk: a Parquet manifest, image files and a done file.

The fingerprint is the SHA-256 of the rows as text: the columns in the order of `COLUMNS`,
joined by U+001F and ended by a newline, in the order of their ids. It covers the images by
their hashes and does not depend on who wrote the Parquet file. Of a converted benchmark a last
line, "truth" and the SHA-256 of what people said (model/formats/truth_hash.py), is part of it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.formats.truth_hash import rows_of
from model.program.errors import BadInput
from model.program.files import sha256_hex, write_json
from model.program.paths import check_name, inside

TEXTS = ("question_id", "split", "image", "image_sha256", "question", "answer", "family")
BOX = ("box_x0", "box_y0", "box_x1", "box_y1")
COLUMNS = pa.schema([(name, pa.string()) for name in TEXTS] + [(n, pa.int32()) for n in BOX])
ANSWER_BOX = ("answer_x0", "answer_y0", "answer_x1", "answer_y1")
COUNTED = "counted"  # corners of all that an answer counts, box after box; [] if it counts none
WITH_ANSWER = pa.schema(  # all five of them, or none
    [*COLUMNS, *[(name, pa.int32()) for name in ANSWER_BOX], (COUNTED, pa.list_(pa.int32()))]
)
SPLITS = ("train", "val", "test")
ANSWERS_MAX = 3129  # what the winners of VQA challenges kept, Teney et al. 2017
AT_ONCE = 65536
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1e]")


@dataclass(frozen=True)
class DataSet:
    """The done file of a data set that was read and found whole."""

    folder: Path
    fingerprint: str
    splits: Mapping[str, int]
    families: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The questions of one split, grouped by image. N questions, I images.

    Texts are stored once: `question_N` indexes `questions`, and so on. The questions of
    image i are rows `first_I[i]` to `first_I[i + 1]`.
    """

    images: tuple[str, ...]
    hashes: tuple[str, ...]
    first_I: np.ndarray
    ids: tuple[str, ...]
    question_N: np.ndarray
    questions: tuple[str, ...]
    answer_N: np.ndarray
    answers: tuple[str, ...]
    family_N: np.ndarray
    families: tuple[str, ...]
    box_N4: np.ndarray
    answer_box_N4: np.ndarray  # -1 where the data set does not tell
    counted_NK4: np.ndarray  # K boxes of the answer that counts most; -1 after the last

    def image_of(self, row: int) -> int:
        return int(np.searchsorted(self.first_I, row, side="right")) - 1


def write(folder: Path, kind: str, chunks: Iterable[Mapping[str, Sequence[object]]]) -> DataSet:
    """Write manifest and done file. Ids must rise from row to row over all chunks.

    The truth of a converted benchmark is already written, and sealed by conversion.json.

    Args:
        kind: the data set's format, for the done file.
        chunks: columns by name (see `COLUMNS`); the image files are already written.

    Raises:
        BadInput: ids that do not rise, a control character in a text, or an image whose path
            leads out of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".manifest.parquet.part"
    summary = _Summary()
    chunks = iter(chunks)
    first = dict(next(chunks))
    schema = WITH_ANSWER if COUNTED in first else COLUMNS
    with pq.ParquetWriter(part, schema) as writer:
        for chunk in chain([first], chunks):
            batch = pa.RecordBatch.from_pydict(dict(chunk), schema=schema)
            summary.add(batch)
            writer.write_batch(batch)
    part.replace(folder / "manifest.parquet")
    summary.seal(rows_of(folder))
    record = {"format": kind, **summary.record()}
    write_json(folder / "dataset.json", record)
    return _data_set(folder, record)


def read(folder: Path) -> DataSet:
    """Read the done file and hold the whole manifest against it. Raises BadInput."""
    record = _done_file(folder)
    summary = _Summary()
    for batch in _batches(folder):
        summary.add(batch)
    summary.seal(rows_of(folder))
    found, expected = summary.record(), {k: v for k, v in record.items() if k != "format"}
    if found["fingerprint"] != expected.get("fingerprint"):
        raise BadInput(
            f"{folder}: the manifest's fingerprint is {found['fingerprint']}",
            expected=f"{expected.get('fingerprint')} as dataset.json says",
            do="make the data set again; it changed after it was written",
        )
    if found != expected:
        raise BadInput(
            f"{folder}/dataset.json does not describe its manifest", do="make it again"
        )
    return _data_set(folder, record)


def read_split(data: DataSet, name: str) -> Split:
    """One split, its rows grouped by image in the order of the images' names.

    Raises BadInput for a split without questions, or of a single answer.
    """
    table = _table(data.folder, name)
    if not table.num_rows:
        raise BadInput(
            f"{data.folder}: split {name!r} is empty", expected="at least one question"
        )
    table = table.sort_by([("image", "ascending"), ("question_id", "ascending")])
    image_N, images = _coded(table, "image")
    first_I = np.flatnonzero(np.diff(image_N, prepend=-1))
    hashes = table["image_sha256"].take(pa.array(first_I)).to_pylist()
    question_N, questions = _coded(table, "question")
    answer_N, answers = _coded(table, "answer")
    if len(answers) < 2:
        raise BadInput(
            f"{data.folder}: split {name!r} has only one answer, {', '.join(answers)!r}",
            expected="at least two different answers",
        )
    family_N, families = _coded(table, "family")
    box_N4 = np.stack([table[name].to_numpy() for name in BOX], axis=1)
    answer_box_N4, counted_NK4 = np.full_like(box_N4, -1), np.full_like(box_N4, -1)[:, None]
    if COUNTED in table.schema.names:
        answer_box_N4 = np.stack([table[name].to_numpy() for name in ANSWER_BOX], axis=1)
        counted_NK4 = _padded(table[COUNTED].combine_chunks(), data.folder)
    return Split(
        images, tuple(hashes), np.append(first_I, len(image_N)),
        tuple(table["question_id"].to_pylist()),
        question_N, questions, answer_N, answers, family_N, families, box_N4, answer_box_N4,
        counted_NK4,
    )  # fmt: skip


def read_image(folder: Path, name: str, sha256: str) -> bytes:
    """The bytes of one image file, held against its hash. Raises BadInput."""
    path = inside(folder, name, "an image in the manifest")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            f"image {name} cannot be read ({error.strerror})", do="make the data set again"
        ) from error
    if (found := sha256_hex(data)) != sha256:
        raise BadInput(
            f"image {name} has SHA-256 {found}",
            expected=f"{sha256} as the manifest says",
            do="make the data set again; the file changed after it was written",
        )
    return data


def _done_file(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BadInput(
            f"no data set at {folder} (dataset.json is missing)",
            expected="a folder that model.data finished",
            do="run model.data again",
        ) from error
    except (ValueError, OSError) as error:
        raise BadInput(f"{path} cannot be read: {error}", do="run model.data again") from error
    wanted = {"format", "fingerprint", "splits", "families", "answers"}
    if not isinstance(record, dict) or record.keys() != wanted:
        raise BadInput(f"{path} has the wrong keys", expected=f"{sorted(wanted)}")
    return record


def _batches(folder: Path, split: str | None = None) -> Iterator[pa.RecordBatch]:
    path = folder / "manifest.parquet"
    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow not in (COLUMNS, WITH_ANSWER):
                raise BadInput(
                    f"{path} has columns {file.schema_arrow.names}",
                    expected=f"{COLUMNS.names} as in model/README.md",
                )
            for batch in file.iter_batches(AT_ONCE):
                yield batch if split is None else _only(batch, split)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path} is missing or damaged ({str(error).splitlines()[0]})",
            expected="a whole Parquet file",
            do="make the data set again",
        ) from error


def _table(folder: Path, split: str) -> pa.Table:
    batches = list(_batches(folder, split))
    return pa.Table.from_batches(batches, schema=None if batches else COLUMNS)


class _Summary:
    """What the done file says about the rows, gathered chunk by chunk."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last_id = ""
        self._splits: Counter[str] = Counter()
        self._families: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()

    def add(self, batch: pa.RecordBatch) -> None:
        self._check_order(batch)
        for name in batch["image"].unique().to_pylist():
            check_name(str(name), "an image in the manifest")
        self._hash.update(_lines(batch))
        _count(self._splits, batch["split"])
        _count(self._families, batch["family"])
        _count(self._answers, _only(batch, "train")["answer"])

    def seal(self, truth: str) -> None:
        """After the last row; `truth` is "" where nobody was asked."""
        if truth:
            self._hash.update(f"truth {truth}\n".encode())

    def record(self) -> dict[str, Any]:
        wrong = sorted(self._splits.keys() - set(SPLITS))
        if wrong:
            raise BadInput(f"split {wrong[0]!r} in the manifest", expected=f"one of {SPLITS}")
        often = sorted(self._answers, key=lambda answer: (-self._answers[answer], answer))
        return {
            "fingerprint": f"sha256:{self._hash.hexdigest()}",
            "splits": {name: self._splits[name] for name in SPLITS},
            "families": sorted(self._families),
            "answers": sorted(often[:ANSWERS_MAX]),
        }

    def _check_order(self, batch: pa.RecordBatch) -> None:
        ids = [self._last_id, *map(str, batch["question_id"].to_pylist())]
        for before, after in pairwise(ids):
            if before >= after:
                raise BadInput(
                    f"question_id {after!r} follows {before!r}",
                    expected="rising ids, none twice",
                )
        self._last_id = ids[-1]


def _lines(batch: pa.RecordBatch) -> bytes:
    """The rows as text. Raises BadInput if it could be read in two ways."""
    columns = [batch[name].to_pylist() for name in batch.schema.names]
    rows = zip(*columns, strict=True)
    text = "".join("\x1f".join(map(str, row)) + "\n" for row in rows)
    separators = text.count("\n"), text.count("\x1f")
    expected = len(batch), len(batch) * (len(columns) - 1)
    if separators != expected or CONTROL.search(text) or any(c.null_count for c in batch):
        raise BadInput("a value in the manifest is empty or holds a control character")
    return text.encode()


def _only(batch: pa.RecordBatch, split: str) -> pa.RecordBatch:
    wanted = np.asarray(batch["split"].to_pylist(), dtype=object) == split
    return batch.filter(pa.array(wanted))


def _count(counter: Counter[str], column: pa.Array) -> None:
    for pair in column.value_counts().to_pylist():
        counter[pair["values"]] += pair["counts"]


def _coded(table: pa.Table, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    column = table[name].combine_chunks().dictionary_encode()
    return column.indices.to_numpy().astype(np.int64), tuple(column.dictionary.to_pylist())


def _padded(boxes_N: pa.ListArray, folder: Path) -> np.ndarray:
    """Lists of corners as boxes, int32 (N, K, 4), -1 after the last of each list."""
    corners_N = np.asarray(boxes_N.value_lengths())
    if (corners_N % 4).any():
        raise BadInput(
            f"{folder}: {COUNTED} has a list of {corners_N[corners_N % 4 > 0][0]} numbers",
            expected="four for each box",
        )
    count_N = corners_N // 4
    padded_NK4 = np.full((len(count_N), max(1, count_N.max()), 4), -1, np.int32)
    filled_NK = np.arange(padded_NK4.shape[1]) < count_N[:, None]
    padded_NK4[filled_NK] = boxes_N.flatten().to_numpy().reshape(-1, 4)
    return padded_NK4


def _data_set(folder: Path, record: Mapping[str, Any]) -> DataSet:
    families, answers = tuple(record["families"]), tuple(record["answers"])
    return DataSet(folder, record["fingerprint"], record["splits"], families, answers)
