"""Check a data set for everything that can be wrong with it, before it is trained on."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model.dataset import manifest
from model.dataset.images import decode
from model.formats import truth_hash
from model.program.console import Progress
from model.program.errors import BadInput


def check(folder: Path, version: str, questions_min: int) -> dict[str, object]:
    """Read every row and decode every image of a data set; return what was counted.

    Raises:
        BadInput: a missing or damaged manifest, another fingerprint than `version`, a split
            too small or of one answer, a question asked twice of one image, an image in two
            splits, people's answers that changed, a file that is missing, changed or not an
            image.
    """
    data = manifest.read(folder)
    if data.fingerprint != version:
        raise BadInput(
            f"the data set has the fingerprint {data.fingerprint}",
            expected=f"dataset.version (={version})",
            do="find out why the data changed, or pin the new fingerprint",
        )
    for name, questions in data.splits.items():
        if questions < questions_min:
            raise BadInput(
                f"split {name!r} has {questions} questions",
                expected=f"at least dataset.questions_min (={questions_min})",
            )
    splits = {name: manifest.read_split(data, name) for name in manifest.SPLITS}
    _truth_as_sealed(folder)
    _no_image_in_two(splits)
    for name, split in splits.items():
        _no_question_twice(name, split)
    return _report(data, splits) | {"images": _every_image(folder, splits)}


def _truth_as_sealed(folder: Path) -> None:
    path = folder / "truth.parquet"
    if not truth_hash.rows_of(folder):
        return
    try:
        with pq.ParquetFile(path) as file:
            truth_hash.check(folder, file.iter_batches())
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path} is missing or damaged ({error})", do="convert again") from error


def _report(data: manifest.DataSet, splits: dict[str, manifest.Split]) -> dict[str, object]:
    return {
        "fingerprint": data.fingerprint,
        "questions": dict(data.splits),
        "families": {
            name: dict(Counter(split.families[n] for n in split.family_N.tolist()))
            for name, split in splits.items()
        },
        "answers": {
            name: dict(Counter(split.answers[n] for n in split.answer_N.tolist()))
            for name, split in splits.items()
        },
    }


def _no_image_in_two(splits: dict[str, manifest.Split]) -> None:
    """By content: the same picture under two names is a leak too."""
    home: dict[str, tuple[str, str]] = {}
    for name, split in splits.items():
        for image, sha256 in zip(split.images, split.hashes, strict=True):
            other, before = home.setdefault(sha256, (name, image))
            if other != name:
                raise BadInput(
                    f"image {image} of split {name!r} equals {before} of split {other!r}",
                    expected="each image in one split only; else scores are too good",
                )


def _no_question_twice(name: str, split: manifest.Split) -> None:
    for i, image in enumerate(split.images):
        asked = split.question_N[split.first_I[i] : split.first_I[i + 1]].tolist()
        if len(set(asked)) < len(asked):
            twice = split.questions[Counter(asked).most_common(1)[0][0]]
            raise BadInput(f"{twice!r} is asked twice about image {image} of {name}")


def _every_image(folder: Path, splits: dict[str, manifest.Split]) -> dict[str, int]:
    pairs = [
        pair
        for split in splits.values()
        for pair in zip(split.images, split.hashes, strict=True)
    ]
    with Progress("check", len(pairs)) as progress:
        for done, (image, sha256) in enumerate(pairs, start=1):
            decode(manifest.read_image(folder, image, sha256), f"image {image}")
            progress.update(done)
    return {name: len(split.images) for name, split in splits.items()}
