"""Make a data set, or check one.

    python -m model.data --config FILE --output DIR
    python -m model.data --config FILE --check DIR --output DIR

The second form reads every file of a finished data set and writes check.json.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from model import checking, console, generating, manifest, settings
from model.console import Progress
from model.errors import BadInput
from model.files import file_sha256, write_json


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
        generating.generate(wanted.uri, output)
    elif wanted.format == "arr-coc":
        copy(Path(wanted.uri), output)
    else:
        from model.formats.convert import convert

        with Progress("convert", 0) as progress:
            convert(wanted.format, Path(wanted.uri), output, progress.tell)


def copy(source: Path, output: Path) -> manifest.DataSet:
    """Bring a finished data set into `output`, by hard links where the disk allows it.

    A converted one comes with its truth, so that the copy can be scored against too.
    """
    data = manifest.read(source)
    last = [*_truth(source), "manifest.parquet", "dataset.json"]
    names = sorted({name for split in manifest.SPLITS for name in _images(data, split)})
    with Progress("copy", len(names)) as progress:
        for done, name in enumerate([*names, *last], start=1):
            _link(source / name, output / name)
            progress.update(min(done, len(names)))
    return manifest.read(output)


def _truth(source: Path) -> list[str]:
    """What a conversion leaves beside the data set, held against its hash; [] if nothing."""
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


if __name__ == "__main__":
    sys.exit(console.run(main, ["config", "output"], optional=["check"]))
