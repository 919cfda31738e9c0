"""Copy a finished data set from one folder into another."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from model.dataset import manifest
from model.program.console import Progress
from model.program.errors import BadInput
from model.program.files import file_sha256
from model.program.paths import inside


def copy(source: Path, output: Path) -> manifest.DataSet:
    """Copy a finished data set into `output`, as hard links where the disk allows it.

    A converted one is copied with its truth, so the copy can be used for scoring too. All paths
    are checked before the first file is written. Raises BadInput.
    """
    data = manifest.read(source)
    last = [*_truth(source), "manifest.parquet", "dataset.json"]
    names = sorted({name for split in manifest.SPLITS for name in _images(data, split)})
    what = "an image in the manifest"
    pairs = [(inside(source, name, what), inside(output, name, what)) for name in names]
    pairs += [(source / name, output / name) for name in last]
    with Progress("copy", len(names)) as progress:
        for done, (path, target) in enumerate(pairs, start=1):
            _link(path.resolve(), target)
            progress.update(min(done, len(names)))
    return manifest.read(output)


def _truth(source: Path) -> list[str]:
    """Names of the files that a conversion adds, checked against their hash; [] if none."""
    names = ["truth.parquet", "conversion.json"]
    if not any((source / name).exists() for name in names):
        return []
    try:
        expected = json.loads((source / "conversion.json").read_text())["truth_sha256"]
        found = file_sha256(source / "truth.parquet")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{source}: truth.parquet or conversion.json is missing or damaged ({error})",
            expected="both, or neither",
            do="convert again",
        ) from error
    if found != expected:
        raise BadInput(
            f"{source}/truth.parquet has SHA-256 {found}",
            expected=f"{expected} as conversion.json says",
            do="convert again; the file changed after it was written",
        )
    return names


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
