"""The place `memory` for the contract tests: a cloud in which ten minutes pass at once."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments import Release, Store
from tests.places.memory import MemoryCloud, Settings
from tests.policy.worlds import Behaviour

_SLOWER = 100  # what takes a second elsewhere takes minutes in a cloud


class MemoryHarness:
    """`tests.contract.harness.Harness` over a cloud whose only traffic is the tests' own."""

    name, idle = "production", "staging"

    def __init__(self, scratch: Path) -> None:
        self.cloud = MemoryCloud(Settings(per_s=0), verify=self._verify)
        self.place = self.cloud.place(scratch)
        self._refused: dict[str, str] = {}

    def make_release(self, version: str, **behaviour: Any) -> Release:
        digest = hashlib.sha256(version.encode()).hexdigest()
        every = behaviour.get("fails_every", 0)
        self.cloud.behaviours[version] = Behaviour(1 / every if every else 0.0)
        if "exit" in behaviour:
            self._refused[digest] = f"told to exit with {behaviour['exit']}"
        return Release(version, digest)

    def damage(self, release: Release) -> None:
        self._refused[release.digest] = "behaviour.json has SHA-256 of something else"

    def wait(self, true: Callable[[], bool], limit_s: float = 30) -> None:
        for _ in range(round(limit_s)):
            if true():
                return
            self.cloud.pass_time(_SLOWER)
        raise AssertionError("it did not come true")

    def counted(self) -> None:
        self.cloud.pass_time(self.cloud.settings.metrics_late_s + 1)

    def _verify(self, release: Release) -> str:
        return self._refused.get(release.digest, "")


@contextmanager
def memory_harness() -> Iterator[MemoryHarness]:
    with tempfile.TemporaryDirectory() as scratch:
        yield MemoryHarness(Path(scratch))


class OpenedMemory:
    """`tests.places.stores.Opened` over a cloud."""

    def __init__(self, folder: Path) -> None:
        self._cloud, self._scratch = MemoryCloud(), folder / "scratch"
        self.store = self.again()

    def uri(self, key: str) -> str:
        return f"{self.store.root}/{key}"

    def again(self) -> Store:
        return self._cloud.place(self._scratch).store
