"""Every implementation of Jobs that the contract tests run on, by name.

One more is one more entry in JOBS: a function that opens a world for the tests.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deployments import Job, Jobs, Store
from deployments.local.jobs import LocalJobs
from policy.config import Compute
from tests.places.stores import opened

CHORES = "tests.local.chores"
COMPUTE = Compute(
    processes=1, threads=1, machine="local", accelerators=0, accelerator="none",
    spot=False, restarts_max=2, timeout_s=60,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """Jobs and their store. `open_jobs` opens them once more, as another process would."""

    store: Store
    open_jobs: Callable[[Compute], Jobs]

    def jobs(self, **compute: Any) -> Jobs:
        return self.open_jobs(COMPUTE.model_copy(update=compute))

    def chores(
        self, told: Mapping[str, Any], key: str = "k", output: str = "runs/out", **inputs: str
    ) -> Job:
        """A job of tests/local/chores.py that does as it is told."""
        return Job(key, CHORES, told, inputs, f"{self.store.root}/{output}")

    def file(self, name: str, output: str = "runs/out") -> str:
        """What the finished job wrote."""
        return (self.store.download(f"{self.store.root}/{output}") / name).read_text()


@contextmanager
def _local(store: str, folder: Path) -> Iterator[World]:
    with opened(store, folder) as at:
        yield World(at.store, lambda compute: LocalJobs(compute, at.again(), at.scratch))


JOBS: Mapping[str, Callable[[Path], AbstractContextManager[World]]] = {
    "local-disk": partial(_local, "disk"),
    "local-s3": partial(_local, "s3"),
}
