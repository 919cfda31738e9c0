"""Verify a release: every file is as MANIFEST says, and there is no other."""

import re
from pathlib import Path

from model.program.errors import BadInput
from model.program.files import file_sha256
from model.program.paths import inside

LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def verify(folder: Path, digest: str = "") -> None:
    """Hold every file against MANIFEST, as `sha256sum -c` does. Raises BadInput.

    With a digest MANIFEST itself must have that SHA-256: whoever starts the server has
    checked the signature of just that release.
    """
    listed = _listed(folder)
    if digest and (found := file_sha256(folder / "MANIFEST")) != digest:
        raise _refused(folder, f"MANIFEST has SHA-256 {found}, ARR_COC_DIGEST is {digest}")
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    present = {
        name for name in present if name != "MANIFEST" and not name.startswith("SIGNATURE")
    }
    for what, names in (
        ("missing", listed.keys() - present),
        ("not in MANIFEST", present - listed.keys()),
    ):
        if names:
            raise _refused(folder, f"{sorted(names)[0]} is {what}")
    for name in listed:
        inside(folder, name, f"a file of release {folder.name}")
    for name, expected in listed.items():
        if (found := file_sha256(folder / name)) != expected:
            raise _refused(folder, f"{name} has SHA-256 {found}, MANIFEST says {expected}")


def _listed(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "MANIFEST").read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(folder, f"MANIFEST cannot be read ({type(error).__name__})") from error
    matches = [LINE.fullmatch(line) for line in lines]
    listed = {match[2]: match[1] for match in matches if match}
    if not lines or len(listed) < len(lines):
        raise _refused(
            folder, "MANIFEST has a line that is not a hash and a path, or lists a path twice"
        )
    return listed


def _refused(folder: Path, found: str) -> BadInput:
    return BadInput(
        f"release {folder.name} is refused: {found}",
        expected="the files that were sealed",
        do="fetch the release from the store again",
    )
