"""Make a data set, or check one.

    python -m model.data --config FILE --output DIR
    python -m model.data --config FILE --check DIR --output DIR

The second form reads every file of a finished data set and writes check.json.
"""

import sys
from pathlib import Path

from model.dataset import checks, manifest
from model.dataset.copying import copy
from model.generated import generator
from model.program import console, settings
from model.program.console import Progress
from model.program.errors import BadInput
from model.program.files import write_json


def main(config: Path, output: Path, check: Path | None) -> None:
    """Make the data set that the configuration names, or check one that is there."""
    wanted = settings.load(settings.DataSettings, config).dataset
    if check is not None:
        report = checks.check(check, wanted.version, wanted.questions_min)
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
        generator.generate(wanted.uri, output)
    elif wanted.format == "arr-coc":
        copy(Path(wanted.uri), output)
    else:
        from model.formats.convert import convert

        with Progress("convert", 0) as progress:
            convert(wanted.format, Path(wanted.uri), output, progress.tell)


if __name__ == "__main__":
    sys.exit(console.run(main, ["config", "output"], optional=["check"]))
