"""The tokens that open the endpoints, in a file of their hashes (`serving.tokens`).

A token is printed once, when it is made; what is kept is its SHA-256, with a name and a role:
a `client` may ask, an `operator` may also name a version and read /metrics. The file is its
owner's alone. One that is missing, damaged or open to others lets nobody in.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from deployments.files import beside_lock, exclusive, open_plain, write_whole
from deployments.local.envoy.configuration import Guard
from policy.config import Config
from policy.errors import ConfigError

Role = Literal["client", "operator"]

PREFIX = "arrcoc_"  # by which scanners for secrets find one that was committed
_RANDOM_BYTES = 32
_NAME, _HASH = r"[a-z0-9][a-z0-9._-]{0,31}", r"[0-9a-f]{64}"
_FILE_BYTES_MAX = 2**20


@dataclass(frozen=True)
class Token:
    """One accepted token; `made` is a date in ISO 8601."""

    name: str
    role: Role
    sha256: str
    made: str


def add(path: Path, name: str, role: Role) -> str:
    """Make a token and return it; what is kept is its hash.

    The first one makes the file. Raises ConfigError if the name is taken or none, or the file
    is not what it should be.
    """
    if not re.fullmatch(_NAME, name):
        raise ConfigError(
            f"{name!a} is not a name for a token",
            expected="1 to 32 of a-z, 0-9, '.', '_' and '-', the first a letter or digit",
            holds="no token was made",
        )
    with _changing(path):
        known = read(path) if os.path.lexists(path) else ()
        if any(token.name == name for token in known):
            raise ConfigError(
                f"{path} has a token named {name}",
                expected="another name",
                holds="that one stays valid",
                do=f"choose another name, or remove {name} first",
            )
        secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        _write(path, [*known, Token(name, role, hash_of(secret), made)])
    return secret


def remove(path: Path, name: str) -> None:
    """Accept the token of this name no longer. Raises ConfigError if there is none."""
    with _changing(path):
        known = read(path)
        others = [token for token in known if token.name != name]
        if len(others) == len(known):
            names = ", ".join(token.name for token in known) or "none at all"
            raise ConfigError(
                f"{path} has no token named {name!a}",
                expected=f"one of its names: {names}",
                holds="all of them go on",
            )
        _write(path, others)


def read(path: Path) -> Sequence[Token]:
    """The accepted tokens. Raises ConfigError if the file is not what it should be."""
    try:
        with open_plain(path) as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise _unfit(path, "others can read or write it", f"chmod 600 {path}")
            text = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise _unfit(
            path, "it is not there", "python -m deployments.local tokens add NAME CONFIG"
        ) from error
    except OSError as error:
        raise _unfit(path, str(error), "mend or delete it") from error
    try:
        return _parsed(text)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unfit(
            path, f"it is damaged ({error!r})", "restore it, or delete it and make new tokens"
        ) from error


def admitted(guard: Guard) -> Guard:
    """The guard with the tokens that are accepted now; nobody's if the file is unfit."""
    if not guard.tokens:
        return guard
    try:
        tokens = read(Path(guard.tokens_file))
    except ConfigError:
        tokens = ()  # `problem` tells it: `up` refuses, and `status` shows it
    return replace(guard, accepted={t.sha256: f"{t.role} {t.name}" for t in tokens})


def require_tokens(config: Config) -> None:
    """Raises ConfigError if tokens are needed and their file would let nobody in."""
    if config.serving.tokens:
        read(Path(config.serving.tokens))


def problem(config: Config) -> str:
    """What is wrong with the tokens' file; "" if nothing, or if no tokens are needed."""
    try:
        require_tokens(config)
    except ConfigError as error:
        return str(error)
    return ""


def hash_of(token: str) -> str:
    """What is kept of a token: it is random, so nobody finds it by its hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def _parsed(text: bytes) -> Sequence[Token]:
    if len(text) > _FILE_BYTES_MAX:
        raise ValueError(f"more than {_FILE_BYTES_MAX} bytes")
    tokens = [Token(**entry) for entry in json.loads(text)["tokens"]]
    for token in tokens:
        fits = re.fullmatch(_NAME, token.name) and re.fullmatch(_HASH, token.sha256)
        if not fits or token.role not in ("client", "operator"):
            raise ValueError(f"{token.name!a} has no fit name, role or hash")
    if len({token.name for token in tokens}) < len(tokens):
        raise ValueError("two tokens have the same name")
    return tokens


def _write(path: Path, tokens: Sequence[Token]) -> None:
    entries = [asdict(token) for token in tokens]
    write_whole(path, json.dumps({"tokens": entries}, indent=1) + "\n")


def _changing(path: Path) -> AbstractContextManager[None]:
    return exclusive(beside_lock(path), f"the tokens' file {path}", 10)


def _unfit(path: Path, found: str, do: str) -> ConfigError:
    return ConfigError(
        f"serving.tokens (={path}): {found}",
        expected="a plain file of this user's alone, with mode 600",
        holds="nobody is let in",
        do=do,
    )
