"""Signatures of releases with own keys, offline, in the format of OpenSSF Model Signing.

    SIGNATURE    a Sigstore bundle: an in-toto statement of every other file's SHA-256

Anybody checks a release with the standard's own program and the signer's public key:

    model_signing verify key FOLDER --signature FOLDER/SIGNATURE --public_key release.pub

Keys are ECDSA on P-256, P-384 or P-521 in PEM. The fingerprint of a key is the SHA-256 of
its public half in PEM, as `sha256sum release.pub` prints it and the bundle names it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from policy.errors import ConfigError, ReleaseError

if TYPE_CHECKING:
    from model_signing.hashing import Config as Hashing

SIGNATURE = "SIGNATURE"
ANOTHER = (
    "let another version serve (.venv/bin/python -m flows rollback --why …), or make one "
    "(.venv/bin/prefect deployment run retrain/on-demand)"
)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True)
class PublicKey:
    pem: bytes

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.pem).hexdigest()


@dataclass(frozen=True)
class PrivateKey:
    """Its text stands in no representation, so that no log or traceback shows it."""

    pem: bytes = field(repr=False)
    public: PublicKey


Trusted = Mapping[str, PublicKey]
"""Public keys by fingerprint."""


def sign(folder: Path, key: PrivateKey) -> None:
    """Write SIGNATURE over all other files of `folder`. Raises ReleaseError."""
    from model_signing import signing

    try:
        with _as_file(key.pem) as path:
            config = signing.Config().use_elliptic_key_signer(private_key=path)
        config.set_hashing_config(_every_file()).sign(folder, folder / SIGNATURE)
    except (OSError, ValueError) as error:
        raise ReleaseError(
            f"{folder} cannot be signed: {error}",
            expected="a folder of plain files",
            holds="nothing was stored",
        ) from error


def check(folder: Path, digest: str, trusted: Trusted) -> str:
    """Check SIGNATURE over all other files of a release; return its key's fingerprint.

    Raises:
        ReleaseError: naming `digest`, if the signature is missing, by a key that is not
            trusted, forged, or if one byte or one file differs from what was signed.
    """
    from model_signing import verifying

    path = folder / SIGNATURE
    signer = signer_of(path.read_bytes() if path.is_file() else None, digest, trusted)
    try:
        with _as_file(signer.pem) as key:
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_every_file()).verify(folder, path)
    # The bundle is a stranger's until here, and the library raises whatever it stumbles over.
    except Exception as error:
        found = str(error)[:200] or type(error).__name__
        raise refused(
            digest,
            f"{SIGNATURE} does not hold: {found}",
            expected=f"what the key {signer.fingerprint[:12]} signed",
        ) from error
    return signer.fingerprint


def signer_of(bundle: bytes | None, digest: str, trusted: Trusted) -> PublicKey:
    """The trusted key by which a bundle says it is. Proves nothing yet: see `check`.

    Raises:
        ReleaseError: if there is no bundle, or its key is not trusted.
    """
    ours = f"a signature by one of the trusted keys {sorted(key[:12] for key in trusted)}"
    if bundle is None:
        raise refused(digest, f"it has no {SIGNATURE}", expected=ours)
    try:
        key = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise refused(
            digest, f"{SIGNATURE} is not a bundle that names a key", expected=ours
        ) from error
    if not isinstance(key, str) or key not in trusted:
        raise refused(
            digest,
            f"it is signed by the key {str(key)[:12]!r}, which is not trusted",
            expected=ours,
            do=f"if you know that key, add its public half to signing.trusted; else {ANOTHER}",
        )
    return trusted[key]


def new_key() -> PrivateKey:
    """A fresh key on P-256."""
    from cryptography.hazmat.primitives import serialization as text
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(text.Encoding.PEM, text.PrivateFormat.PKCS8, text.NoEncryption())
    return private_key(pem, "a new key")


def private_key(pem: bytes, source: str) -> PrivateKey:
    """Read a private key. Raises ConfigError that names its `source` and shows none of it."""
    from cryptography.hazmat.primitives import serialization as text

    try:
        key = text.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, _unsupported()):
        raise _no_key(source, "PRIVATE", "it cannot be read, or has a password") from None
    return PrivateKey(pem, _public(key.public_key(), source))


def public_key(pem: bytes, source: str) -> PublicKey:
    """Read a public key. Raises ConfigError that names its `source`."""
    from cryptography.hazmat.primitives import serialization as text

    try:
        return _public(text.load_pem_public_key(pem), source)
    except (ValueError, _unsupported()):
        raise _no_key(source, "PUBLIC", "it cannot be read") from None


def refused(
    digest: str,
    found: str,
    *,
    expected: str = "exactly the files that were registered",
    do: str = ANOTHER,
) -> ReleaseError:
    """The error that every release which is not what it should be ends with."""
    return ReleaseError(
        f"release {digest[:12]}: {found}",
        expected=expected,
        holds="it is not served and nothing else was changed",
        do=do,
    )


def _public(key: object, source: str) -> PublicKey:
    from cryptography.hazmat.primitives import serialization as text
    from cryptography.hazmat.primitives.asymmetric import ec

    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _no_key(source, "PUBLIC", f"it is a {type(key).__name__}")
    pem = key.public_bytes(text.Encoding.PEM, text.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem)


def _no_key(source: str, kind: str, found: str) -> ConfigError:
    return ConfigError(
        f"{source} is not a key for signatures: {found}",
        expected=f"-----BEGIN {kind} KEY----- … (ECDSA on P-256, P-384 or P-521, no password)",
        holds="nothing was signed or served",
        do="openssl ecparam -name prime256v1 -genkey -noout -out release.pem; "
        "openssl ec -in release.pem -pubout",
    )


def _unsupported() -> type[Exception]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return UnsupportedAlgorithm


def _every_file() -> "Hashing":
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


@contextmanager
def _as_file(pem: bytes) -> Iterator[Path]:
    """A path from which a library can read a key once, while the key lies on no disk."""
    ours, theirs = os.pipe()
    try:
        os.write(theirs, pem)
        os.close(theirs)
        yield Path(f"/dev/fd/{ours}")
    finally:
        os.close(ours)
