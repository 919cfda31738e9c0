"""One Envoy's data plane: what was written into its files is confirmed by its own account."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployments.local.envoy import configuration as envoy
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import Split
from deployments.local.files import write_whole
from deployments.local.layout import Layout
from deployments.local.supervisor.programs import tail
from policy.errors import EndpointError

_PATIENCE_S = (1, 2, 3, 4)  # between writes of a file that Envoy may not have noticed


class DataPlane:
    def __init__(self, layout: Layout, endpoint: str, admin: Admin) -> None:
        self._endpoint, self._admin = endpoint, admin
        self._xds = layout.xds(endpoint)
        self._log = layout.logs / f"envoy-{endpoint}.log"

    def split(self) -> Split:
        """The split that is in force. Raises EndpointError if Envoy does not answer."""
        return self._admin.split()

    def write(self, kind: str, discovery: Mapping[str, Any]) -> None:
        """Replace `clusters` or `routes` and return once Envoy has that very content.

        The notice of a changed file can be lost, so it is written again until it arrives.
        What Envoy refuses is taken back, so that it does not meet it at its next start.
        Raises EndpointError.
        """
        path = self._xds / f"{kind}.json"
        text, before = json.dumps(discovery, indent=1), path.read_text()
        wanted = frozenset(map(envoy.fingerprint, discovery["resources"]))

        def arrived() -> bool:
            return self._admin.contents(kind) == wanted

        if text == before and arrived():
            return
        for patience_s in _PATIENCE_S:
            write_whole(path, text)
            if _until(arrived, patience_s):
                return
        write_whole(path, before)
        raise EndpointError(
            f"endpoint {self._endpoint}: Envoy did not take the new {kind} in "
            f"{sum(_PATIENCE_S)} s\n{_last_record(self._log)}\n",
            holds="the split is as it was",
            do=f"read {self._log}",
        )

    def drain(self, version: str) -> None:
        """Wait until the last request of a version without traffic is answered or timed out."""
        _until(lambda: self._admin.active(version) == 0, envoy.REQUEST_TIMEOUT_S + 1)


def _until(condition: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _last_record(log: Path) -> str:
    """The beginning of Envoy's last record; the rest repeats the whole file."""
    records = [line for line in tail(log, 10_000).splitlines() if line.startswith("[")]
    return records[-1][:400] if records else "(Envoy has said nothing)"
