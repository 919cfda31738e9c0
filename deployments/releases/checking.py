"""Could a release be loaded now? The same answer as loading it gives, for less.

    <scratch>/checked/<digest>.json   which files verified, when, and by whom they are signed

Every byte and the signature are verified the first time, after any change of a file, and once
a day; in between, that no file was touched is enough (in a bucket, that each is still there).
Whoever serves a release verifies it all.
"""

import hashlib
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from deployments import Release, Store
from deployments.files import entries, write_whole
from deployments.releases.folder import fetch, read_manifest, verify
from deployments.releases.manifest import MANIFEST, require_digest
from deployments.releases.signing import SIGNATURE, Trusted, refused
from deployments.stores.disk import DiskStore
from policy.errors import ReleaseError

_DAY_S = 86400.0


class _Verified(BaseModel, frozen=True, extra="forbid"):
    """`files` stands for the names, sizes, times and places of all files."""

    files: str
    signed_by: str
    size: int


@dataclass(frozen=True)
class Checked:
    """The key whose signature holds ("" if none does), bytes in all, and why it cannot load."""

    signed_by: str
    size: int = 0
    problem: str = ""


def checked(store: Store, release: Release, scratch: Path, trusted: Trusted) -> Checked:
    """Whether a release of the store could be loaded by somebody who trusts these keys.

    Raises StoreError if the store does not answer: that says nothing about the release.
    """
    note = scratch / "checked" / f"{release.digest}.json"
    try:
        require_digest(release.digest)
        if isinstance(store, DiskStore):
            found = _here(
                Path(store.root) / "releases" / release.digest, release, note, trusted
            )
        else:
            found = _elsewhere(store, release, note, trusted)
    except ReleaseError as error:
        return Checked("", problem=str(error))
    return Checked(found.signed_by, found.size)


def _here(folder: Path, release: Release, note: Path, trusted: Trusted) -> _Verified:
    lines = _lines_of_plain(folder, release.digest)
    files = _sha256("\n".join(line for line, _ in lines).encode())
    known = _known(note, files, trusted)
    if known is None:
        signed_by, size = verify(folder, release.digest, trusted), sum(s for _, s in lines)
        known = _noted(note, _Verified(files=files, signed_by=signed_by, size=size))
    return known


def _elsewhere(store: Store, release: Release, note: Path, trusted: Trusted) -> _Verified:
    """What lies in a bucket is copied to be verified; in between, all of it must be there."""
    prefix = f"releases/{release.digest}/"
    there = [key.removeprefix(prefix) for key in store.list(prefix)]
    for name in (MANIFEST, SIGNATURE, *read_manifest(store, release.digest)):
        if name not in there:
            raise refused(release.digest, f"{name} is missing")
    files = _sha256("\n".join(there).encode() + store.read(prefix + SIGNATURE))
    known = _known(note, files, trusted)
    if known is None:
        copy = fetch(store, release, note.parent, trusted)
        signed_by, size = verify(copy, release.digest, trusted), sum(s for _, s in _lines(copy))
        shutil.rmtree(copy)
        known = _noted(note, _Verified(files=files, signed_by=signed_by, size=size))
    return known


def _lines_of_plain(folder: Path, digest: str) -> list[tuple[str, int]]:
    """As `_lines`. Raises ReleaseError if it is no folder, or cannot be looked into."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise refused(digest, f"{folder} is not a folder")
        return [*_lines(folder)]
    except FileNotFoundError as error:
        raise refused(digest, "it is not in the store") from error
    except OSError as error:
        raise refused(digest, f"it cannot be read: {error}") from error


def _lines(folder: Path) -> Iterator[tuple[str, int]]:
    """What changes with any change of a file, and its size."""
    for name, kind in entries(folder):
        at = (folder / name).lstat()
        times = f"{at.st_mtime_ns} {at.st_ctime_ns}"
        yield f"{name!r} {kind} {at.st_size} {times} {at.st_ino} {at.st_nlink}", at.st_size


def _known(note: Path, files: str, trusted: Trusted) -> _Verified | None:
    """What was found before, if it is of today, of these files and by a key that is trusted."""
    try:
        fresh = 0 <= time.time() - note.stat().st_mtime < _DAY_S
        known = _Verified.model_validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None
    return known if fresh and known.files == files and known.signed_by in trusted else None


def _noted(note: Path, verified: _Verified) -> _Verified:
    with suppress(OSError):  # it is verified again next time
        write_whole(note, verified.model_dump_json())
    return verified


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
