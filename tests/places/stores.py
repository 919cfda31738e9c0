"""Every store that the contract tests run on, by name; each empty, below a root of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.store import open_store
from deployments.stores.bucket import BucketStore
from deployments.stores.disk import DiskStore
from tests.places.buckets import BUCKET, s3

STORES = ("disk", "s3")


@dataclass(frozen=True)
class Opened:
    """A store, the folder for its downloads, and what another process needs to reach it."""

    store: DiskStore | BucketStore
    scratch: Path
    environment: Mapping[str, str]

    def uri(self, key: str) -> str:
        return f"{self.store.root}/{key}"

    def again(self) -> DiskStore | BucketStore:
        """The same store as another process would open it."""
        return open_store(self.store.root, self.scratch)


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Opened]:
    scratch = folder / "scratch"
    if kind == "disk":
        yield Opened(open_store(str(folder / "store"), scratch), scratch, {})
        return
    environment = s3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        root = f"s3://{BUCKET}/{uuid4().hex[:8]}"
        yield Opened(open_store(root, scratch), scratch, environment)
