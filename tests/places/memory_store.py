"""The store of the place `memory`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.files import entries
from deployments.stores.done import Done, File, checked, done_key, key_below, parse
from policy.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from tests.places.memory import MemoryCloud


class MemoryStore:
    """`deployments.Store` in a dictionary."""

    root = "memory://cloud"

    def __init__(self, cloud: "MemoryCloud", scratch: Path) -> None:
        self._cloud, self._scratch = cloud, scratch

    def create(self, key: str, data: bytes) -> None:
        with self._cloud.call("create"):
            if checked(key, self.root) in self._cloud.objects:
                raise AlreadyExists(f"{key} exists in {self.root}", holds="it is unchanged")
            self._cloud.objects[key] = data

    def read(self, key: str) -> bytes:
        with self._cloud.call("read"):
            return self._read(checked(key, self.root))

    def list(self, prefix: str, after: str = "") -> Sequence[str]:
        below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with self._cloud.call("list"):
            return sorted(k for k in self._cloud.objects if k.startswith(below) and k > after)

    def upload(self, folder: Path, uri: str) -> None:
        """Each file is a call of its own: a caller may die between any two."""
        key = key_below(self.root, uri)
        files = {name: (folder / name).read_bytes() for name, _ in entries(folder)}
        with self._cloud.call("upload"):
            self.put_folder(key, files)

    def put_folder(self, key: str, files: dict[str, bytes]) -> None:
        """The files below `key`, their done file last."""
        objects = self._cloud.objects
        objects.pop(done_key(key), None)
        for stale in [k for k in objects if k.startswith(f"{key}/")]:
            del objects[stale]
        for name, data in files.items():
            with self._cloud.call("put"):
                objects[f"{key}/{name}"] = data
        done = Done(files={n: File(sha256=_sha256(d), bytes=len(d)) for n, d in files.items()})
        objects[done_key(key)] = done.encode()

    def download(self, uri: str) -> Path:
        key = key_below(self.root, uri)
        with self._cloud.call("download"):
            done = self._read(done_key(key))
            target = self._scratch / "downloads" / _sha256(done)[:32]
            for name in parse(done, uri).files:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._read(f"{key}/{name}"))
            target.mkdir(parents=True, exist_ok=True)
            return target

    def _read(self, key: str) -> bytes:
        if key not in self._cloud.objects:
            raise NotFound(f"no {key} in {self.root}")
        return self._cloud.objects[key]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
