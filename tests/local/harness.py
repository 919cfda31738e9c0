"""The place `local` for the contract tests: a real stack in a temporary folder."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments import Release, local
from deployments.local.layout import layout_of
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import SERVER, configured, maker, start_endpoints, until

_FLUSH_S = 1.3  # Envoy adds up times once a second


class LocalHarness:
    """`tests.contract.harness.Harness` over real processes."""

    name, idle = "production", "staging"

    def __init__(self, root: Path) -> None:
        self.config = configured(root)
        self.place = local.connect(self.config, server=SERVER)
        self._root, self._make = root, maker(root)

    def make_release(self, version: str, **behaviour: Any) -> Release:
        return self._make(version, **behaviour)

    def damage(self, release: Release) -> None:
        path = self.stored(release) / "behaviour.json"
        path.write_text(path.read_text().replace("v", "w", 1))

    def stored(self, release: Release) -> Path:
        """The release's folder in the store."""
        return self._root / "releases" / release.digest

    def wait(self, true: Callable[[], bool], limit_s: float = 30) -> None:
        until(true, limit_s)

    def counted(self) -> None:
        time.sleep(_FLUSH_S)


@contextmanager
def local_harness() -> Iterator[LocalHarness]:
    root = Path(tempfile.mkdtemp(prefix="arr"))
    made = LocalHarness(root)
    try:
        start_endpoints(made.config)
        yield made
    finally:
        Supervisor(layout_of(made.config)).shutdown()
        shutil.rmtree(root)
