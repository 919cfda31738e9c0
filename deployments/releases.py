"""Releases in the store: sealed folders under one digest, verified whenever they are read.

    releases/<digest>/MANIFEST          `sha256sum` lines of all other files, sorted
    releases/<digest>/weights.safetensors, …

The digest is the SHA-256 of MANIFEST, so it stands for every byte of the release. Objects
are created once and MANIFEST last: a release with a manifest is complete.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from deployments import Release, Store
from policy.errors import AlreadyExists, NotFound, ReleaseError

MANIFEST = "MANIFEST"


def seal(folder: Path) -> str:
    """Write MANIFEST over all files of `folder` and return the digest."""
    lines = [f"{_sha256(path.read_bytes())}  {name}\n" for name, path in _files(folder).items()]
    (folder / MANIFEST).write_text("".join(lines))
    return _sha256((folder / MANIFEST).read_bytes())


def publish(store: Store, folder: Path, digest: str) -> None:
    """Copy a sealed folder into the store. Safe to repeat after a crash.

    Raises:
        ReleaseError: if the folder is not what `digest` stands for.
    """
    verify(folder, digest)
    for name, path in {**_files(folder), MANIFEST: folder / MANIFEST}.items():
        key, data = f"releases/{digest}/{name}", path.read_bytes()
        try:
            store.create(key, data)
        except AlreadyExists as error:
            if store.read(key) != data:
                raise _damaged(digest, f"{name} in the store has other bytes") from error


def fetch(store: Store, release: Release, folder: Path) -> Path:
    """Bring a release to `folder/<digest>`, verified, and return that path.

    A copy that is already there is verified again and made anew if it fails.

    Raises:
        ReleaseError: if the store's copy is missing a file or has one changed byte.
    """
    target = folder / release.digest
    if target.is_dir():
        try:
            verify(target, release.digest)
            return target
        except ReleaseError:
            pass  # a half copy of a killed process: the store's own is checked below
    for name, expected in read_manifest(store, release.digest).items():
        data = read_file(store, release.digest, name)
        if _sha256(data) != expected:
            raise _damaged(release.digest, f"{name} has SHA-256 {_sha256(data)[:12]}…")
        _write(target / name, data)
    _write(target / MANIFEST, read_file(store, release.digest, MANIFEST))
    verify(target, release.digest)
    return target


def read_manifest(store: Store, digest: str) -> Mapping[str, str]:
    """Return {path: SHA-256} of a stored release. Raises ReleaseError."""
    data = read_file(store, digest, MANIFEST)
    if _sha256(data) != digest:
        raise _damaged(digest, f"{MANIFEST} has SHA-256 {_sha256(data)[:12]}…")
    return _parse(data.decode(), digest)


def read_file(store: Store, digest: str, name: str) -> bytes:
    """Return one file of a stored release, not verified. Raises ReleaseError."""
    try:
        return store.read(f"releases/{digest}/{name}")
    except NotFound as error:
        raise _damaged(digest, f"{name} is missing") from error


def verify(folder: Path, digest: str) -> None:
    """Check every file of `folder` against MANIFEST, and MANIFEST against `digest`.

    Raises:
        ReleaseError: naming the first file that is missing, changed or not listed.
    """
    if not (folder / MANIFEST).is_file():
        raise _damaged(digest, f"{MANIFEST} is missing")
    data = (folder / MANIFEST).read_bytes()
    if _sha256(data) != digest:
        raise _damaged(digest, f"{MANIFEST} has SHA-256 {_sha256(data)[:12]}…")
    listed, found = _parse(data.decode(), digest), _files(folder)
    for name, expected in listed.items():
        if name not in found:
            raise _damaged(digest, f"{name} is missing")
        if _sha256(found[name].read_bytes()) != expected:
            raise _damaged(digest, f"{name} does not have its listed SHA-256")
    for name in found:
        if name not in listed:
            raise _damaged(digest, f"{name} is not listed in {MANIFEST}")


def _files(folder: Path) -> dict[str, Path]:
    """All files of a release but its seal, by relative path, in order."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        n: names[n] for n in sorted(names) if n != MANIFEST and not n.startswith("SIGNATURE")
    }


def _parse(text: str, digest: str) -> dict[str, str]:
    entries = {}
    for line in text.splitlines():
        sha256, _, name = line.partition("  ")
        if len(sha256) != 64 or not name or _leaves_folder(name):
            raise _damaged(digest, f"{MANIFEST} has the line {line!r}")
        entries[name] = sha256
    return entries


def _leaves_folder(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(digest: str, found: str) -> ReleaseError:
    return ReleaseError(
        f"release {digest[:12]}: {found}",
        expected="exactly the files that were registered",
        holds="it is not served and nothing else was changed",
        do="register the version anew, or roll back to one that verifies",
    )
