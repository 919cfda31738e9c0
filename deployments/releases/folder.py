"""Releases in the store: sealed, signed folders under one digest, verified at every load.

    releases/<digest>/MANIFEST          `sha256sum` lines of all other files, sorted
    releases/<digest>/SIGNATURE         over all other files, see signing.py
    releases/<digest>/weights.safetensors, …

The digest is the SHA-256 of MANIFEST, so it stands for every byte of the release; the ledger
says which digest a version is, and the signature that somebody trusted here made it. The first
signature in the store stays; all else is the same bytes whoever publishes. A published release
has a done file, so that a job can take it as its input.

A release is plain files. A link, a pipe or a file too many anywhere makes a copy wrong, and
so does a file with a second name elsewhere, by which somebody else could change it. A wrong
copy is replaced whole: nothing is ever written into it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments import Release, Store
from deployments.files import entries, open_plain, sha256_of, whole_copy
from deployments.releases.manifest import (
    MANIFEST,
    parsed,
    require_digest,
    written,
    wrong_names,
)
from deployments.releases.signing import (
    SIGNATURE,
    PrivateKey,
    Trusted,
    check,
    refused,
    sign,
    signer_of,
)
from policy.errors import AlreadyExists, NotFound, ReleaseError, StoreError


@dataclass(frozen=True)
class Published:
    """A release in the store and the fingerprint of the key that signed it there."""

    digest: str
    signed_by: str


def seal(folder: Path, key: PrivateKey) -> str:
    """Write MANIFEST over all files of `folder`, sign them, and return the digest.

    Raises ReleaseError if anything in it is not a plain file, or has a name that cannot be
    listed.
    """
    files = _files(folder)
    if problem := wrong_names(files):
        raise _not_plain(folder, f"it has {problem}")
    hashes = {name: sha256_of(path) for name, path in files.items()}
    (folder / MANIFEST).write_text(written(hashes))
    sign(folder, key)
    return sha256_of(folder / MANIFEST)


def publish(store: Store, folder: Path, digest: str, trusted: Trusted) -> Published:
    """Stream a sealed folder into the store. Safe to repeat after a crash.

    The same bytes sealed twice have two signatures; the one that the store has stays.

    Raises:
        ReleaseError: if the folder is not what `digest` stands for, or the signature that
            counts is not by a trusted key.
        StoreError: if the store cannot be written.
    """
    signed_by, key = verify(folder, digest, trusted), f"releases/{digest}/{SIGNATURE}"
    try:
        store.create(key, (folder / SIGNATURE).read_bytes())
    except AlreadyExists:
        (folder / SIGNATURE).write_bytes(store.read(key))
        signed_by = verify(folder, digest, trusted)
    store.upload(folder, f"{store.root}/releases/{digest}")
    return Published(digest, signed_by)


def fetch(store: Store, release: Release, folder: Path, trusted: Trusted) -> Path:
    """Bring a release to `folder/<digest>`, verified, and return that path.

    A copy that is already there is verified again; if anything is wrong with it, down to a
    link or a file too many, it is replaced whole. A server that has files of the old one open
    keeps them. Several at once do the work once.

    Raises:
        ReleaseError: if the store's copy is missing a file, has one changed byte, or is not
            signed by a trusted key.
        StoreError: if the store cannot be read, or the copy cannot be written: that blames
            no version.
    """
    require_digest(release.digest)
    digest, target = release.digest, folder / release.digest
    if _is_good(target, digest, trusted):
        return target
    hashes = read_manifest(store, digest)
    signer_of(_signature(store, digest), digest, trusted)  # before all the rest is copied

    def fill(new: Path) -> None:
        for name in (*hashes, SIGNATURE, MANIFEST):
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_read_listed(store, digest, name, hashes))
        verify(new, digest, trusted)

    try:
        whole_copy(target, lambda copy: _is_good(copy, digest, trusted), fill)
    except OSError as error:
        raise _not_written(target, error) from error
    return target


def read_manifest(store: Store, digest: str) -> Mapping[str, str]:
    """Return {path: SHA-256} of a stored release. Raises ReleaseError."""
    require_digest(digest)
    return parsed(_read(store, digest, MANIFEST), digest)


def read_file(store: Store, digest: str, name: str) -> bytes:
    """Return one file of a stored release, held against its MANIFEST. Raises ReleaseError."""
    listed = read_manifest(store, digest)
    if name not in listed:
        raise refused(digest, f"{name} is not listed in {MANIFEST}")
    return _read_listed(store, digest, name, listed)


def verify(folder: Path, digest: str, trusted: Trusted) -> str:
    """Check MANIFEST against `digest`, every file against MANIFEST, and the signature.

    Returns:
        The fingerprint of the key that signed it.

    Raises:
        ReleaseError: naming the first file that is missing, changed or not listed, or what
            is wrong with the signature.
    """
    found = _files(folder)
    listed = _listed(folder, digest)
    for name, expected in listed.items():
        if name not in found:
            raise refused(digest, f"{name} is missing")
        if (sha256 := _hashed(found[name], name, digest)) != expected:
            raise refused(digest, f"{name} has SHA-256 {sha256[:12]}…, not the listed one")
    for name in found:
        if name not in listed:
            raise refused(digest, f"{name} is not listed in {MANIFEST}")
    return check(folder, digest, trusted)


def _is_good(copy: Path, digest: str, trusted: Trusted) -> bool:
    """Whether a copy verifies. If not, the store's own is checked and takes its place."""
    if copy.is_symlink() or not copy.is_dir():
        return False
    try:
        verify(copy, digest, trusted)
        return all((copy / name).lstat().st_nlink == 1 for name, _ in entries(copy))
    except (ReleaseError, FileNotFoundError):
        return False


def _read_listed(store: Store, digest: str, name: str, hashes: Mapping[str, str]) -> bytes:
    """One file, if it is as it is listed. Raises ReleaseError, StoreError."""
    data = _read(store, digest, name)
    sha256 = hashlib.sha256(data).hexdigest()
    if hashes.get(name, sha256) != sha256:
        raise refused(digest, f"{name} has SHA-256 {sha256[:12]}…, not the listed one")
    return data


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
    """All files of a release but its seal, by relative path, in order. Raises ReleaseError."""
    if folder.is_symlink() or not folder.is_dir():
        raise _not_plain(folder, "it is not a folder")
    try:
        found = list(entries(folder))
    except OSError as error:
        raise _not_plain(folder, str(error)) from error
    for name, kind in found:
        if kind != "file":
            raise _not_plain(folder, f"{name} is a {kind}".replace("special", "pipe or device"))
    return {name: folder / name for name, _ in found if name not in (MANIFEST, SIGNATURE)}


def _listed(folder: Path, digest: str) -> dict[str, str]:
    try:
        with open_plain(folder / MANIFEST) as file:
            return parsed(file.read(), digest)
    except FileNotFoundError as error:
        raise refused(digest, f"{MANIFEST} is missing") from error
    except OSError as error:
        raise refused(digest, f"{MANIFEST} cannot be read: {error}") from error


def _hashed(path: Path, name: str, digest: str) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise refused(digest, f"{name} cannot be read: {error}") from error


def _not_plain(folder: Path, found: str) -> ReleaseError:
    return ReleaseError(
        f"{folder} cannot be signed or served: {found}",
        expected="a folder of plain files, without links",
        holds="nothing was stored",
    )


def _not_written(target: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the copy {target} could not be written: {error}",
        holds="what is served stays as it is",
        do="check the room and the rights there, then run again",
    )
