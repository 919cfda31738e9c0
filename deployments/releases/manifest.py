"""MANIFEST: the lines of `sha256sum` that make one digest stand for every byte of a release.

    4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865  sub/architecture.json

Names in it are a stranger's until the signature holds: one that could not be written on every
disk, or that two readers could read as two files, is refused before anything is copied.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from itertools import accumulate

from deployments.files import leaves_folder
from deployments.releases.signing import SIGNATURE, refused

MANIFEST = "MANIFEST"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART_BYTES_MAX, _NAME_BYTES_MAX = 200, 600  # ours adds to a name, and lies somewhere


def written(hashes: Mapping[str, str]) -> str:
    """The text for these SHA-256 by name."""
    return "".join(f"{sha256}  {name}\n" for name, sha256 in hashes.items())


def parsed(data: bytes, digest: str) -> dict[str, str]:
    """{name: SHA-256} of the MANIFEST with this digest. Raises ReleaseError."""
    if (sha256 := hashlib.sha256(data).hexdigest()) != digest:
        raise refused(digest, f"{MANIFEST} has SHA-256 {sha256[:12]}…")
    try:
        lines = data.decode().removesuffix("\n").split("\n") if data else []
    except UnicodeDecodeError as error:
        raise refused(digest, f"{MANIFEST} is not text") from error
    found = [_LINE.fullmatch(line) for line in lines]
    for line, match in zip(lines, found, strict=True):
        if match is None:
            raise refused(digest, f"{MANIFEST} has the line {line[:100]!r}")
    entries = [(match[2], match[1]) for match in found if match]
    if problem := wrong_names([name for name, _ in entries]):
        raise refused(digest, f"{MANIFEST} lists {problem}")
    return dict(entries)


def require_digest(digest: str) -> None:
    """Raises ReleaseError if it could be no digest, and so part of no path."""
    if not _DIGEST.fullmatch(digest):
        raise refused(digest, f"{digest[:80]!r} is not a SHA-256 digest")


def wrong_names(names: Iterable[str]) -> str:
    """What is wrong with the names of a release's files; "" if nothing is."""
    taken = dict[str, str]()  # what a disk that ignores case would take for the same name
    folders = set[str]()
    for name in names:
        if problem := _wrong(name):
            return f"{name[:100]!r}, {problem}"
        *above, own = accumulate(_folded(name).split("/"), lambda path, part: f"{path}/{part}")
        if own in taken:
            return f"{name!r} and {taken[own]!r}, which are one name on some disks"
        if own in folders or any(folder in taken for folder in above):
            return f"{name!r}, which is a file and a folder at once"
        taken[own] = name
        folders.update(above)
    return ""


def _wrong(name: str) -> str:
    if leaves_folder(name):
        return "which is not a plain path below a folder"
    if "\\" in name or not name.isprintable():
        return "which has characters that do not belong into a name"
    parts = [len(part.encode()) for part in name.split("/")]
    if max(parts) > _PART_BYTES_MAX or sum(parts) > _NAME_BYTES_MAX:
        return f"which is longer than {_PART_BYTES_MAX} bytes, or {_NAME_BYTES_MAX} in all"
    if _folded(name) in (MANIFEST.casefold(), SIGNATURE.casefold()):
        return "which seals the release and is no part of it"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
