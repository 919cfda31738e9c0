"""Make a data set, or check one.

    python -m model.data --config FILE --output DIR
    python -m model.data --config FILE --check DIR --output DIR

The second form reads every file of a finished data set and writes check.json.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from model import checking, console, generating, manifest, settings
from model.console import Progress
from model.errors import BadInput
from model.files import write_json


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


if __name__ == "__main__":
    sys.exit(console.run(main, ["config", "output"], optional=["check"]))
