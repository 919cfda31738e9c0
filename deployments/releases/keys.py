"""Which key signs the releases of a place, and whose releases may serve there.

    <root>/keys/release.pem    the private key made here, readable by its owner alone
    <root>/keys/release.pub    its public half, to be given away

A key is made here only where `root` is a folder on this disk.

A key is changed by signing with a new one while the old public half stays in
`signing.trusted`: what the old one signed can still be served and rolled back to. Taking it
out there takes the trust away.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from deployments.files import create_private, open_plain, write_whole
from deployments.releases.signing import PrivateKey, Trusted, new_key, private_key, public_key
from policy.config import Config
from policy.errors import ConfigError, Unsupported

VARIABLE = "ARR_COC_SIGNING_KEY"
_BYTES_MAX = 2**16
_NOT_USED = "nothing was signed or verified with it"


def signing_key(config: Config, secret: Callable[[str], str] | None = None) -> PrivateKey:
    """The key that signs here, made now if it is `made-here` and there is none yet.

    Args:
        secret: returns the text of a secret by its name, where the place has secrets.

    Raises:
        ConfigError: if there is no such key, or its public half is not trusted.
        Unsupported: if it is a secret and nobody can tell it.
    """
    key = _source(config, secret)
    if key.public.fingerprint not in trusted(config):
        raise ConfigError(
            f"signing.private_key (={config.signing.private_key}) has the public half "
            f"{key.public.fingerprint[:12]}, which is not in signing.trusted",
            expected=f"one of {sorted(name[:12] for name in trusted(config))}",
            holds="nothing was signed: no endpoint would serve it",
            do=f"add it to signing.trusted:\n{key.public.pem.decode()}",
        )
    return key


def require_keys(config: Config) -> None:
    """Look for the keys now rather than after a training; secrets are told to flows only.

    Raises ConfigError, as `signing_key` does.
    """
    if config.signing.private_key in ("made-here", "environment"):
        signing_key(config)
    trusted(config)


def trusted(config: Config, *, make: bool = True) -> Trusted:
    """The public keys of `signing.trusted`, and of the key made here. Raises ConfigError.

    Args:
        make: the key that is made here, if there is none yet, and its public half; else that
            is an error, and nothing is written.
    """
    keys = [
        public_key(text.encode(), f"signing.trusted.{number}")
        for number, text in enumerate(config.signing.trusted)
    ]
    if config.signing.private_key == "made-here":
        keys.append(_made_here(_folder(config), make=make).public)
    return {key.fingerprint: key for key in keys}


def _source(config: Config, secret: Callable[[str], str] | None) -> PrivateKey:
    kind, _, name = config.signing.private_key.partition("/")
    if kind == "made-here":
        return _made_here(_folder(config))
    if kind == "environment":
        return private_key(_variable().encode(), VARIABLE)
    if secret is None:
        raise Unsupported(f"the secret {name!r} cannot be read here", expected="a flow run")
    return private_key(secret(name).encode(), f"the secret {name}")


def _folder(config: Config) -> Path:
    """Where a key is made: never in a bucket, where it would lie beside what it signs."""
    root = config.root.removeprefix("file://")
    if "://" in root:
        raise ConfigError(
            f"signing.private_key is made-here, but root (={config.root}) is not a folder here",
            expected="root in a folder on this disk, or a key that is kept elsewhere",
            holds="no key was made and nothing was signed",
            do=f"set signing.private_key to environment (PEM in {VARIABLE}) or secret/NAME, "
            "and put its public half into signing.trusted",
        )
    return Path(root).absolute() / "keys"


def _variable() -> str:
    if not os.environ.get(VARIABLE):
        raise ConfigError(
            f"signing.private_key is environment, but {VARIABLE} is not set",
            expected="a private key in PEM",
            holds="nothing was signed",
            do="set it where the worker starts (`make up`)",
        )
    return os.environ[VARIABLE]


def _made_here(folder: Path, *, make: bool = True) -> PrivateKey:
    path = folder / "release.pem"
    if not os.path.lexists(path):
        # Looked at again last: of two that make it at once, one finds the other's.
        if not make or (_was_made(path) and not os.path.lexists(path)):
            raise ConfigError(
                f"{path} is not there",
                expected="the key made at first use",
                holds=_NOT_USED,
                do=f"restore {path} from a copy; if there is none, empty {folder} but keep it: "
                "make up then makes a new key, which trusts none of today's releases",
            )
        create_private(path, new_key().pem)
    key, public = private_key(_read_own(path), str(path)), path.with_suffix(".pub")
    if make and _plain_bytes(public) != key.public.pem:
        if public.is_dir() and not public.is_symlink():
            raise _not_plain(public, "the public half of release.pem")
        write_whole(public, key.public.pem.decode())
    return key


def _read_own(path: Path) -> bytes:
    """A private key that nobody else can have read or laid there. Raises ConfigError."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _not_plain(path, "the key made at first use, mode 600")
        with open_plain(path) as file:
            seen, text = os.fstat(file.fileno()), file.read(_BYTES_MAX)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error}",
            expected=f"a file with mode 600, owned by user {os.getuid()}",
            holds=_NOT_USED,
            do=f"see who owns {path}",
        ) from error
    if seen.st_uid != os.getuid():
        raise ConfigError(
            f"{path} belongs to user {seen.st_uid}",
            expected=f"a file owned by the user who runs this, {os.getuid()}",
            holds=_NOT_USED,
            do=f"run this as that user, or restore {path} from your own copy",
        )
    if seen.st_mode & 0o077:
        raise ConfigError(
            f"{path} can be read by others (mode {seen.st_mode & 0o777:o})",
            expected="mode 600",
            holds=_NOT_USED,
            do=f"chmod 600 {path}, or delete it if others may have read it",
        )
    return text


def _plain_bytes(path: Path) -> bytes | None:
    """What a plain file holds; None if it is none, or cannot be read."""
    try:
        with open_plain(path) as file:
            return file.read(_BYTES_MAX)
    except OSError:
        return None


def _not_plain(path: Path, expected: str) -> ConfigError:
    return ConfigError(
        f"{path} is not a plain file",
        expected=expected,
        holds=_NOT_USED,
        do=f"find out who put it there, move it away, and restore {path} from a copy",
    )


def _was_made(path: Path) -> bool:
    """Whether a key was made here once and is lost; an empty folder asks for a new one."""
    if os.path.lexists(path.with_suffix(".pub")):
        return True
    releases = path.parent.with_name("releases")
    return not path.parent.exists() and releases.exists() and any(releases.iterdir())
