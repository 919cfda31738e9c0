"""From a benchmark's official files to a data set of ours, in bounded memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TypeVar

from model.dataset import manifest
from model.formats import gqa, images
from model.formats.question import truth_schema
from model.formats.sources import Source, sources
from model.formats.staging import Row, Staging
from model.formats.truth_hash import Rows
from model.program.errors import BadInput
from model.program.files import file_sha256, write_json
from model.program.paths import inside

OnProgress = Callable[[str, int, int], None]  # phase, done, of (0: not known yet)
Item = TypeVar("Item")

_VAL_SHARE = 20  # one in so many images of train goes to val where there is no third split
_CHUNK = 8192
_TELL = 500  # questions between two calls of on_progress
_PLAIN = dict.fromkeys(range(0x20), " ")  # no control characters in the manifest's texts


def convert(format: str, source: Path, output: Path, on_progress: OnProgress) -> Path:
    """Convert the official files in `source` to a data set in `output` and return it.

    Beside the data set of model/README.md it writes `truth.parquet`, with which model.evaluate
    scores without the official files, and `conversion.json`. Does nothing if the data set is
    finished; interrupted at any point, it goes on where it was.

    Raises:
        BadInput: a file is missing or damaged, an id appears twice, a question has no
            annotation, an image is missing or cannot be decoded.
    """
    path = output / ".conversion.sqlite"
    if not (output / "dataset.json").is_file():
        splits = sources(format, source)
        staging = Staging(path, format, _signature(splits))
        try:
            _read(splits, staging, on_progress)
            _place(splits, output, staging, on_progress)
            left_out = _split(splits, staging)
            rows_sha256 = _write_truth(format, output, staging)
            record = {"format": format, "left_out": left_out, "rows_sha256": rows_sha256}
            record["truth_sha256"] = file_sha256(output / "truth.parquet")
            write_json(output / "conversion.json", record)
            manifest.write(output, format, _columns(staging, on_progress))
        finally:
            staging.close()
    path.unlink(missing_ok=True)
    return output


def _signature(splits: list[Source]) -> str:
    """What is converted: a step that was done from other files does not count."""
    files = [path for source in splits for path in source.files]
    return json.dumps([[str(path), images.stamp(path)] for path in files])


def _read(splits: list[Source], staging: Staging, tell: OnProgress) -> None:
    """Everything but the images, a step a file."""
    for source in splits:
        step = f"questions of {source.name}"
        if not staging.has(step):
            with staging.step(step):
                staging.add_questions(source.name, _told(source.read(), step, tell))
                if source.words:
                    staging.add_words(source.name, source.words())
        if source.scenes and not staging.has(f"boxes of {source.name}"):
            with staging.step(f"boxes of {source.name}"):
                boxes = gqa.boxes(source.scenes)
                staging.add_boxes(_told(boxes, f"boxes of {source.name}", tell))
    if any(source.words for source in splits):
        staging.join_words()


def _place(splits: list[Source], output: Path, staging: Staging, tell: OnProgress) -> None:
    by_name, known = {source.name: source for source in splits}, staging.stamps()
    wanted = [_wanted(by_name[name], image, output) for name, image in staging.images()]
    todo = [item for item in wanted if not _is_placed(item, known)]
    done = len(wanted) - len(todo)
    for batch in images.place(todo):
        staging.add_images(
            [
                (i.source, i.image, i.target.relative_to(output).as_posix(), mark, sha256)
                for i, mark, sha256 in batch
            ]
        )
        done += len(batch)
        tell("images", done, len(wanted))


def _wanted(source: Source, image: str, output: Path) -> images.Wanted:
    name, what = source.image_name(image), f"image {image!r} of {source.name}"
    if "/" in name or name.startswith(".") or not name.isprintable():
        raise BadInput(
            what, expected="a plain file name", now="no image was placed", do="correct the data"
        )
    path = inside(source.folder, name, what)
    target = inside(output, f"images/{source.name}/{name}", what)
    return images.Wanted(source.name, image, path, target)


def _is_placed(item: images.Wanted, known: Mapping[tuple[str, str], str]) -> bool:
    if (item.source, item.image) not in known or not item.target.is_file():
        return False
    return item.path.is_file() and known[item.source, item.image] == images.stamp(item.path)


def _split(splits: list[Source], staging: Staging) -> int:
    """Put every image into one split: test first, then val, so that none leaks into train.

    Returns how many questions were left out because the bytes of their image are in an
    earlier split too.
    """
    taken: set[str] = set()
    order = ("test", "val", "train")
    for source in sorted(splits, key=lambda source: order.index(source.split)):
        free = [sha256 for sha256 in staging.hashes(source.name) if sha256 not in taken]
        split_of = dict.fromkeys(free, source.split)
        if source.split == "train" and all(other.split != "val" for other in splits):
            split_of |= dict.fromkeys(free[: max(1, len(free) // _VAL_SHARE)], "val")
        if source.split not in split_of.values():
            raise BadInput(
                f"{source.name} has no image left for {source.split}", do="add images"
            )
        staging.assign(source.name, split_of)
        taken |= split_of.keys()
    return staging.left_out()


def _write_truth(name: str, output: Path, staging: Staging) -> str:
    """What people said, in the order of the manifest; returns the hash of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = truth_schema(name).insert(1, pa.field("split", pa.string()))
    part, sealed = output / ".truth.parquet.part", Rows()
    with pq.ParquetWriter(part, schema) as writer:
        for chunk in _chunks(staging):
            rows = [{**row.truth, "image": row.file, "split": row.split} for row in chunk]
            batch = pa.RecordBatch.from_pylist(rows, schema)
            sealed.add(batch)
            writer.write_batch(batch)
    part.replace(output / "truth.parquet")
    return sealed.sha256


def _columns(staging: Staging, tell: OnProgress) -> Iterator[Mapping[str, list[object]]]:
    """The manifest's columns, chunk by chunk."""
    done = 0
    for chunk in _chunks(staging):
        columns: dict[str, list[object]] = {
            "question_id": [row.question_id for row in chunk],
            "split": [row.split for row in chunk],
            "image": [row.file for row in chunk],
            "image_sha256": [row.sha256 for row in chunk],
        }
        for name in ("question", "answer", "family"):
            columns[name] = [str(row.truth[name]).translate(_PLAIN).strip() for row in chunk]
        for at, name in enumerate(manifest.BOX):
            columns[name] = [round(row.box[at]) for row in chunk]
        yield columns
        done += len(chunk)
        tell("manifest", done, 0)


def _chunks(staging: Staging) -> Iterator[list[Row]]:
    rows = staging.rows()
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _told(items: Iterable[Item], phase: str, tell: OnProgress) -> Iterator[Item]:
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % _TELL == 0:
            tell(phase, done, 0)
    tell(phase, done, done)
