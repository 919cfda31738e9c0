"""Checkpoints: written whole or not at all, verified when read, only the newest few kept.

A checkpoint is `step-00000120-1f3a….ckpt`; the last part is the start of its SHA-256, so a
truncated or changed file is noticed and the one before it is used.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from typing_extensions import override

from model.program.console import log
from model.program.errors import BadInput, StorageUnavailable
from model.program.files import sha256_hex, write_whole

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, RetryConfig

NAME = re.compile(r"step-(\d{8})-([0-9a-f]{16})\.ckpt")
# An outage as long as that costs nothing: steps go on while a checkpoint is being written.
PATIENCE = timedelta(seconds=30)
BACKOFF: "BackoffConfig" = {
    "init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2,
}  # fmt: skip
REFUSED = re.compile(
    r"status code: 40[0134]|Unable to recognise URL"
)  # obstore has no type for these


class CheckpointStorage(Protocol):
    """Where checkpoints are kept: a folder or a bucket."""

    def put(self, name: str, data: bytes) -> None: ...
    def get(self, name: str) -> bytes: ...
    def names(self) -> list[str]: ...
    def remove(self, name: str) -> None: ...


class Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, data: bytes) -> None:
        write_whole(self._path / name, data)

    def get(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def names(self) -> list[str]:
        return sorted(path.name for path in self._path.glob("step-*.ckpt"))

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


class Bucket:
    """gs:// or s3://, with the credentials of the environment.

    Every call raises BadInput where the storage refuses it, StorageUnavailable where it does
    not answer for `PATIENCE`.
    """

    def __init__(self, uri: str) -> None:
        from obstore.store import from_url

        self._uri = uri
        retries: RetryConfig = {
            "max_retries": 1000,
            "retry_timeout": PATIENCE,
            "backoff": BACKOFF,
        }
        with self._clear_errors():
            self._store = from_url(uri, retry_config=retries)

    def put(self, name: str, data: bytes) -> None:
        with self._clear_errors():
            self._store.put(name, data)

    def get(self, name: str) -> bytes:
        with self._clear_errors():
            return bytes(self._store.get(name).bytes())

    def names(self) -> list[str]:
        with self._clear_errors():
            found = [meta["path"] for page in self._store.list() for meta in page]
        return sorted(path for path in found if NAME.fullmatch(path))

    def remove(self, name: str) -> None:
        with self._clear_errors():
            self._store.delete(name)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            text = str(error).strip().split("\n")[0]
            found = f"checkpointing.uri (={self._uri}): {text}"
            if REFUSED.search(text):
                raise BadInput(
                    found, expected="a bucket that the environment's credentials may write to"
                ) from error
            raise StorageUnavailable(
                found,
                expected=f"an answer within {PATIENCE.seconds} s",
                do="run the same command again; it resumes from the newest checkpoint there",
            ) from error


def open_storage(uri: str, output: Path) -> CheckpointStorage:
    """Open `checkpointing.uri`. Outside the run's own folder each run has a shelf by name."""
    if uri == "run":
        return Folder(output / "checkpoints")
    if uri.startswith(("gs://", "s3://")):
        return Bucket(f"{uri.rstrip('/')}/{output.resolve().name}")
    if "://" in uri:
        raise BadInput(f"checkpointing.uri (={uri})", expected="run, a folder, gs:// or s3://")
    return Folder(Path(uri) / output.resolve().name)


def newest_valid(place: CheckpointStorage) -> tuple[str, int] | None:
    """Name and step of the newest checkpoint that is whole; says which ones are not."""
    for name in reversed(place.names()):
        match = NAME.fullmatch(name)
        if match and sha256_hex(place.get(name)).startswith(match[2]):
            return name, int(match[1])
        log(f"checkpoint {name} is damaged; trying the one before it")
    return None


class BackgroundWriter(AsyncCheckpointIO):
    """Lightning's thread that writes while training goes on.

    Each checkpoint that waits for the one before is another copy of the network in memory, so
    no new one is to be made while this is `busy`.
    """

    def __init__(self, whole: "CheckpointFiles") -> None:
        super().__init__(whole)
        self._writing = whole.writing

    @property
    def busy(self) -> bool:
        return self._writing.is_set()

    @override
    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._writing.set()
        super().save_checkpoint(*args, **kwargs)


class CheckpointFiles(CheckpointIO):
    """Lightning's plug for reading and writing; `path` is `step-N` going out."""

    def __init__(self, place: CheckpointStorage, keep: int) -> None:
        self._place, self._keep = place, keep
        self._failed: Exception | None = None
        self.writing = Event()

    @override
    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write the new one first, then remove what is older than the newest `keep`."""
        try:
            if self._failed:  # Lightning asks once more as it ends: do not wait as long again
                raise self._failed
            self._save(checkpoint, Path(path).name)
        except Exception as error:
            self._failed = error
            raise
        finally:
            self.writing.clear()

    def _save(self, checkpoint: Mapping[str, Any], name: str) -> None:
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        data = buffer.getvalue()
        self._place.put(f"{name}-{sha256_hex(data)[:16]}.ckpt", data)
        for old in self._place.names()[: -self._keep]:
            self._place.remove(old)

    @override
    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        data = self._place.get(Path(path).name)
        return torch.load(
            io.BytesIO(data), map_location=map_location or "cpu", weights_only=True
        )

    @override
    def remove_checkpoint(self, path: _PATH) -> None:
        self._place.remove(Path(path).name)
