"""Paths that come from data: a manifest, a benchmark's files, a release's MANIFEST.

Whoever wrote the data chose them, so every one goes through `inside` before it is opened or
written to.
"""

import os
import re
from pathlib import Path

from model.program.errors import BadInput

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def inside(folder: Path, name: str, what: str) -> Path:
    """`folder / name`, which lies in the folder whatever links there are. Raises BadInput.

    Args:
        what: whose path it is, as an error should call it: "an image".
    """
    check_name(name, what)
    root = os.path.realpath(folder)
    real = os.path.realpath(os.path.join(root, name))  # noqa: PTH118  quick: asked per image
    if not real.startswith(root.rstrip("/") + "/"):
        raise _refused(
            name, what, f"leads to {real}, outside of {root}", "no link that leads out"
        )
    return folder / name


def check_name(name: str, what: str) -> None:
    """Refuse what is not a plain relative path, without a look at the disk. Raises BadInput."""
    if not name:
        raise _refused(name, what, "is empty", "a relative path")
    if "\\" in name or CONTROL.search(name):
        raise _refused(name, what, "holds a backslash or a control character", "neither")
    if name.startswith("/"):
        raise _refused(name, what, "is absolute", "a relative path")
    if wrong := [part for part in name.split("/") if part in ("", ".", "..")]:
        raise _refused(name, what, f"has the part {wrong[0]!r}", "names of folders and a file")


def _refused(name: str, what: str, found: str, expected: str) -> BadInput:
    return BadInput(
        f"the path {name!r} of {what} {found}",
        expected=f"a path inside its folder: {expected}",
        now="nothing was read from it or written to it",
        do="correct the data, or do not use it",
    )
