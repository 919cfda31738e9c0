"""The done file of an uploaded folder: each file's SHA-256 and length, written last.

    <parent>/<name>/…            the files
    <parent>/.<name>.done.json   {"files": {"a/b": {"sha256": …, "bytes": …}}}

Without it nothing was uploaded to its end. It lies beside the folder, so that what is inside
is exactly what was uploaded. Names in it are a stranger's: they are checked before use.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from deployments.files import entries, leaves_folder, sha256_of
from policy.errors import StoreError

MAKE_AGAIN = (
    "delete the done file (.NAME.done.json beside the folder NAME), then start the flow again, "
    "which makes it anew: .venv/bin/prefect deployment run retrain/on-demand"
)


class File(BaseModel, frozen=True, extra="forbid"):
    sha256: str
    bytes: int


class Done(BaseModel, frozen=True, extra="forbid"):
    files: Mapping[str, File]

    def encode(self) -> bytes:
        files = {name: file.model_dump() for name, file in sorted(self.files.items())}
        return json.dumps({"files": files}, indent=0).encode()


def done_key(key: str) -> str:
    """The key of the done file of the folder `key`."""
    parent, _, name = key.rpartition("/")
    return f"{parent}/.{name}.done.json".removeprefix("/")


def parse(data: bytes, uri: str) -> Done:
    """Read a done file. Raises StoreError if it is damaged or names a file outside."""
    try:
        done = Done.model_validate_json(data)
    except ValidationError as error:
        raise _wrong(uri, f"is damaged: {error.errors()[0]['msg']}") from error
    for name in done.files:
        if leaves_folder(name):
            raise _wrong(uri, f"names the file {name!r}")
    return done


def done_of(folder: Path) -> Done:
    """Hash every plain file of `folder`; links and pipes are left out. Raises OSError."""
    sizes = {name: (folder / name) for name, kind in entries(folder) if kind == "file"}
    return Done(
        files={
            name: File(sha256=sha256_of(path), bytes=path.stat().st_size)
            for name, path in sizes.items()
        }
    )


def holds(folder: Path, done: Done) -> bool:
    """Whether `folder` has exactly the files of `done`, byte for byte, and no link."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        plain = all(kind == "file" for _, kind in entries(folder))
        return plain and done_of(folder) == done
    except OSError:
        return False  # what cannot be read is not a copy


def key_below(root: str, uri: str) -> str:
    """The key of a URI in the store at `root`. Raises StoreError if it is not below it."""
    key = uri.rstrip("/").removeprefix(f"{root}/")
    if key == uri.rstrip("/"):
        raise StoreError(
            f"{uri} is not in the store at {root}",
            expected=f"{root}/…",
            holds="nothing was read or written",
        )
    return checked(key, root)


def checked(key: str, root: str) -> str:
    """The key itself. Raises StoreError if it could leave the store."""
    if leaves_folder(key):
        raise StoreError(
            f"{key!r} is not a key of the store at {root}",
            expected="names joined by single slashes, none of them '.' or '..'",
            holds="nothing was read or written",
        )
    return key


def _wrong(uri: str, found: str) -> StoreError:
    return StoreError(
        f"the done file of {uri} {found}",
        expected="the SHA-256 and length of each file below the folder",
        holds="nothing was downloaded",
        do=MAKE_AGAIN,
    )
