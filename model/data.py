"""Make a data set, or check one.

    python -m model.data --config FILE --output DIR
    python -m model.data --config FILE --check DIR --output DIR

The second form reads every file of a finished data set and writes check.json.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from model import checking, console, detail, manifest, settings
from model.bmp import encode_bmp
from model.console import Progress
from model.errors import BadInput
from model.files import sha256_hex, write_json

CHUNK = 250


def main(config: Path, output: Path, check: Path | None) -> None:
    """Make the data set that the configuration names, or check one that is there."""
    wanted = settings.load(settings.DataSettings, config).dataset
    if check is not None:
        report = checking.check(check, wanted.version, wanted.questions_min)
        write_json(output / "check.json", report)
        return
    if not (output / "dataset.json").is_file():
        _make(wanted, output)
    data = manifest.read(output)
    if data.fingerprint != wanted.version:
        raise BadInput(
            f"{wanted.uri} has the fingerprint {data.fingerprint}",
            expected=f"dataset.version (={wanted.version})",
            do="find out why the data changed, or pin the new fingerprint",
        )


def _make(wanted: settings.Dataset, output: Path) -> None:
    if wanted.format == "generated":
        generate(wanted.uri, output)
    elif wanted.format == "arr-coc":
        copy(Path(wanted.uri), output)
    else:
        from model.formats.convert import convert

        with Progress("convert", 0) as progress:
            convert(wanted.format, Path(wanted.uri), output, progress.tell)


def generate(uri: str, output: Path) -> manifest.DataSet:
    """Write the data set of a `generate://` address: 80 % train, 10 % val, 10 % test."""
    numbers = parse_uri(uri)
    images = numbers["images"]
    (output / "images").mkdir(parents=True, exist_ok=True)
    with Progress("generate", images) as progress:
        data = manifest.write(output, "generated", _chunks(numbers, output, progress))
        progress.update(images)
    return data


def parse_uri(uri: str) -> dict[str, int]:
    """`generate://detail?images=8000&questions=16&seed=7` as numbers. Raises BadInput."""
    parts = urlsplit(uri)
    wanted = "generate://detail?images=N&questions=N&seed=N"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    numbers = {key: int(text) for key, text in pairs if text.isascii() and text.isdigit()}
    if (parts.scheme, parts.netloc, parts.path) != ("generate", "detail", ""):
        raise BadInput(f"dataset.uri (={uri}) names no generated data set", expected=wanted)
    if sorted(key for key, _ in pairs) != ["images", "questions", "seed"] or len(numbers) < 3:
        raise BadInput(f"dataset.uri (={uri}) has other settings", expected=wanted)
    if not 10 <= numbers["images"] <= 1_000_000:
        raise BadInput(f"images (={numbers['images']})", expected="10 to 1000000")
    if not 1 <= numbers["questions"] <= detail.QUESTIONS_MAX:
        raise BadInput(
            f"questions (={numbers['questions']})", expected=f"1 to {detail.QUESTIONS_MAX}"
        )
    return numbers


def copy(source: Path, output: Path) -> manifest.DataSet:
    """Bring a finished data set into `output`, by hard links where the disk allows it."""
    data = manifest.read(source)
    names = sorted({name for split in manifest.SPLITS for name in _images(data, split)})
    with Progress("copy", len(names)) as progress:
        for done, name in enumerate([*names, "manifest.parquet", "dataset.json"], start=-1):
            _link(source / name, output / name)
            progress.update(max(0, done))
    return manifest.read(output)


def _images(data: manifest.DataSet, split: str) -> Sequence[str]:
    return manifest.read_split(data, split).images


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:  # another disk, or one without links
        try:
            shutil.copyfile(source, part)
        except OSError as error:
            raise BadInput(f"{source} cannot be copied ({error.strerror})") from error
    part.replace(target)


def _chunks(
    numbers: Mapping[str, int], output: Path, progress: Progress
) -> Iterator[Mapping[str, Sequence[object]]]:
    images = numbers["images"]
    for start in range(0, images, CHUNK):
        pictures_N = np.arange(start, min(start + CHUNK, images))
        pixels_N, palettes_N, asked = detail.draw(
            numbers["seed"], pictures_N, numbers["questions"]
        )
        files = [encode_bmp(*picture) for picture in zip(pixels_N, palettes_N, strict=True)]
        names = [f"images/{number:06d}.bmp" for number in pictures_N]
        for name, data in zip(names, files, strict=True):
            (output / name).write_bytes(data)
        hashes = [sha256_hex(data) for data in files]
        yield _columns(pictures_N, names, hashes, asked, images)
        progress.update(int(pictures_N[-1]))


def _columns(
    pictures_N: np.ndarray,
    names: Sequence[str],
    hashes: Sequence[str],
    asked: Sequence[detail.Question],
    images: int,
) -> Mapping[str, Sequence[object]]:
    numbers = pictures_N.tolist()
    splits = [_split(number, images) for number in numbers]
    per_picture = len(asked) // len(numbers)
    where = [question.picture for question in asked]
    boxes = zip(*(question.box for question in asked), strict=True)
    return {
        "question_id": [
            f"{numbers[n]:06d}-{row % per_picture:02d}" for row, n in enumerate(where)
        ],
        "split": [splits[n] for n in where],
        "image": [names[n] for n in where],
        "image_sha256": [hashes[n] for n in where],
        "question": [question.text for question in asked],
        "answer": [question.answer for question in asked],
        "family": [question.family for question in asked],
        **dict(zip(manifest.BOX, boxes, strict=True)),
    }


def _split(number: int, images: int) -> str:
    return (
        "train" if 10 * number < 8 * images else "val" if 10 * number < 9 * images else "test"
    )


if __name__ == "__main__":
    sys.exit(console.run(main, ["config", "output"], optional=["check"]))
