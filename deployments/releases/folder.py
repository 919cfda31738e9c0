"""Releases in the store: sealed, signed folders under one digest, verified at every load.

    releases/<digest>/MANIFEST          `sha256sum` lines of all other files, sorted
    releases/<digest>/SIGNATURE         over all other files, see deployments/releases/signing.py
    releases/<digest>/weights.safetensors, …

The digest is the SHA-256 of MANIFEST, so it stands for every byte of the release; the ledger
says which digest a version is, and the signature that somebody trusted here made it. Objects
are created once and MANIFEST last: a release with a manifest is complete.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deployments import Release, Store
from deployments.releases.signing import (
    SIGNATURE,
    PrivateKey,
    Trusted,
    check,
    refused,
    sign,
    signer_of,
)
from policy.errors import AlreadyExists, NotFound, ReleaseError

MANIFEST = "MANIFEST"


@dataclass(frozen=True)
class Published:
    """A release in the store and the fingerprint of the key that signed it there."""

    digest: str
    signed_by: str


def seal(folder: Path, key: PrivateKey) -> str:
    """Write MANIFEST over all files of `folder`, sign them, and return the digest."""
    lines = [f"{_sha256(path)}  {name}\n" for name, path in _files(folder).items()]
    (folder / MANIFEST).write_text("".join(lines))
    sign(folder, key)
    return _sha256(folder / MANIFEST)


def publish(store: Store, folder: Path, digest: str, trusted: Trusted) -> Published:
    """Copy a sealed folder into the store. Safe to repeat after a crash.

    The same bytes sealed twice have two signatures; the one that the store has stays.

    Raises:
        ReleaseError: if the folder is not what `digest` stands for, or the signature that
            counts is not by a trusted key.
    """
    signed_by = verify(folder, digest, trusted)
    for name in (*_files(folder), SIGNATURE, MANIFEST):
        key, data = f"releases/{digest}/{name}", (folder / name).read_bytes()
        try:
            store.create(key, data)
        except AlreadyExists as error:
            stored = store.read(key)
            if name == SIGNATURE:
                (folder / SIGNATURE).write_bytes(stored)
                signed_by = verify(folder, digest, trusted)
            elif stored != data:
                raise refused(digest, f"{name} in the store has other bytes") from error
    return Published(digest, signed_by)


def fetch(store: Store, release: Release, folder: Path, trusted: Trusted) -> Path:
    """Bring a release to `folder/<digest>`, verified, and return that path.

    A copy that is already there is verified again and made anew if it fails.

    Raises:
        ReleaseError: if the store's copy is missing a file, has one changed byte, or is not
            signed by a trusted key.
    """
    digest, target = release.digest, folder / release.digest
    if target.is_dir():
        try:
            verify(target, digest, trusted)
            return target
        except ReleaseError:
            pass  # a half copy of a killed process: the store's own is checked below
    names = read_manifest(store, digest)
    signer_of(_signature(store, digest), digest, trusted)  # before all the rest is copied
    for name in (*names, SIGNATURE, MANIFEST):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_read(store, digest, name))
    verify(target, digest, trusted)
    return target


def read_manifest(store: Store, digest: str) -> Mapping[str, str]:
    """Return {path: SHA-256} of a stored release. Raises ReleaseError."""
    return _parse(_read(store, digest, MANIFEST), digest)


def read_file(store: Store, digest: str, name: str) -> bytes:
    """Return one file of a stored release, held against its MANIFEST. Raises ReleaseError."""
    data, listed = _read(store, digest, name), read_manifest(store, digest)
    if listed.get(name) != (sha256 := hashlib.sha256(data).hexdigest()):
        raise refused(digest, f"{name} has SHA-256 {sha256[:12]}…, not the listed one")
    return data


def verify(folder: Path, digest: str, trusted: Trusted) -> str:
    """Check MANIFEST against `digest`, every file against MANIFEST, and the signature.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        ReleaseError: naming the first file that is missing, changed or not listed, or what
            is wrong with the signature.
    """
    if not (folder / MANIFEST).is_file():
        raise refused(digest, f"{MANIFEST} is missing")
    listed, found = _parse((folder / MANIFEST).read_bytes(), digest), _files(folder)
    for name, expected in listed.items():
        if name not in found:
            raise refused(digest, f"{name} is missing")
        if (sha256 := _sha256(found[name])) != expected:
            raise refused(digest, f"{name} has SHA-256 {sha256[:12]}…, not the listed one")
    for name in found:
        if name not in listed:
            raise refused(digest, f"{name} is not listed in {MANIFEST}")
    return check(folder, digest, trusted)


def _read(store: Store, digest: str, name: str) -> bytes:
    try:
        return store.read(f"releases/{digest}/{name}")
    except NotFound as error:
        raise refused(digest, f"{name} is missing") from error


def _signature(store: Store, digest: str) -> bytes | None:
    try:
        return store.read(f"releases/{digest}/{SIGNATURE}")
    except NotFound:
        return None


def _files(folder: Path) -> dict[str, Path]:
    """All files of a release but its seal, by relative path, in order."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: names[name] for name in sorted(names) if name not in (MANIFEST, SIGNATURE)}


def _parse(data: bytes, digest: str) -> dict[str, str]:
    if (sha256 := hashlib.sha256(data).hexdigest()) != digest:
        raise refused(digest, f"{MANIFEST} has SHA-256 {sha256[:12]}…")
    entries = {}
    for line in data.decode(errors="replace").splitlines():
        sha256, _, name = line.partition("  ")
        if len(sha256) != 64 or not name or _leaves_folder(name):
            raise refused(digest, f"{MANIFEST} has the line {line!r}")
        entries[name] = sha256
    return entries


def _leaves_folder(name: str) -> bool:
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
