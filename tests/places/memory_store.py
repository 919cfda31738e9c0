"""The store of the place `memory`."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.files import entries
from deployments.stores.done import Done, File, checked, done_key, key_below, parse
from policy.errors import AlreadyExists, NotFound, StoreError

if TYPE_CHECKING:
    from tests.places.memory import MemoryCloud


ROOT = "/cloud"  # no network: whoever reads many objects need not read several at once
_ONE_WRITER = threading.Lock()


class MemoryStore:
    """`deployments.Store` in a dictionary."""

    root = ROOT

    def __init__(self, cloud: "MemoryCloud", scratch: Path) -> None:
        self._cloud, self._scratch = cloud, scratch

    def create(self, key: str, data: bytes) -> None:
        with self._cloud.call("create"), _ONE_WRITER:
            if checked(key, ROOT) in self._cloud.objects:
                raise AlreadyExists(f"{key} exists in {ROOT}", holds="it is unchanged")
            self._cloud.objects[key] = data

    def read(self, key: str) -> bytes:
        with self._cloud.call("read"):
            return self._read(checked(key, ROOT))

    def list(self, prefix: str, after: str = "") -> Sequence[str]:
        below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with self._cloud.call("list"):
            return sorted(k for k in self._cloud.objects if k.startswith(below) and k > after)

    def upload(self, folder: Path, uri: str) -> None:
        """Each file is a call of its own: a caller may die between any two."""
        key = key_below(ROOT, uri)
        if not folder.is_dir():
            raise StoreError(f"{uri} was not written: there is no folder {folder}")
        plain = (name for name, kind in entries(folder) if kind == "file")
        files = {name: (folder / name).read_bytes() for name in plain}
        with self._cloud.call("upload"):
            put_folder(self._cloud.objects, key, files, lambda: self._cloud.call("put"))

    def download(self, uri: str) -> Path:
        key = key_below(ROOT, uri)
        with self._cloud.call("download"):
            done = self._read(done_key(key))
            target = self._scratch / "downloads" / _sha256(done)[:32]
            for name in parse(done, uri).files:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._read(f"{key}/{name}"))
            target.mkdir(parents=True, exist_ok=True)  # of a folder without files
            return target

    def _read(self, key: str) -> bytes:
        if key not in self._cloud.objects:
            raise NotFound(f"no {key} in {ROOT}")
        return self._cloud.objects[key]


def put_folder(
    objects: dict[str, bytes],
    key: str,
    files: Mapping[str, bytes],
    call: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """The files below `key`, and their done file last; nothing of what was there before."""
    objects.pop(done_key(key), None)
    for stale in [name for name in objects if name.startswith(f"{key}/")]:
        del objects[stale]
    for name, data in files.items():
        with call():
            objects[f"{key}/{name}"] = data
    done = Done(files={n: File(sha256=_sha256(d), bytes=len(d)) for n, d in files.items()})
    objects[done_key(key)] = done.encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
