"""One Envoy's data plane: what was written into its files is confirmed by its own account."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployments.files import SPARE, keep_spare_room, with_spare_room, write_whole
from deployments.local.envoy import configuration as envoy
from deployments.local.envoy.admin import Admin
from deployments.local.envoy.configuration import Split
from deployments.local.layout import Layout
from deployments.local.supervisor.programs import tail
from policy.errors import EndpointError, EndpointSilent

_PATIENCE_S = (1, 2, 3, 4)  # between writes of a file that Envoy may not have noticed
_SETTLED_S = 15  # an order that is under way is through by then


class DataPlane:
    def __init__(self, layout: Layout, endpoint: str, admin: Admin) -> None:
        self._endpoint, self._admin = endpoint, admin
        self._xds = layout.xds(endpoint)
        self._log = layout.logs / f"envoy-{endpoint}.log"

    def split(self) -> Split:
        """The split that is in force. Raises EndpointSilent if Envoy does not answer."""
        return self._admin.split()

    def written(self, kind: str) -> Mapping[str, Any]:
        """`clusters` or `routes` as Envoy's file has them. Raises EndpointSilent if gone."""
        try:
            return json.loads(self._text(kind))
        except ValueError as error:
            raise self._lost(kind, "is damaged") from error

    def age_s(self, kind: str) -> float:
        """Seconds since `clusters` or `routes` were last written; EndpointSilent if gone."""
        try:
            return time.time() - (self._xds / f"{kind}.json").stat().st_mtime
        except FileNotFoundError as error:
            raise self._lost(kind, "is gone") from error

    def unwritten(self) -> str:
        """What Envoy has and its files have not: it would be lost with Envoy. "" if nothing.

        Raises EndpointSilent if Envoy does not answer.
        """
        for kind in ("clusters", "routes"):
            in_force = self._admin.contents(kind)
            try:
                written = _marks(self.written(kind))
                settled = self.age_s(kind) > _SETTLED_S
            except EndpointSilent as error:
                return str(error)
            if written != in_force and settled:
                return str(self._lost(kind, "is not what Envoy has"))
        return ""

    def write(self, kind: str, discovery: Mapping[str, Any]) -> None:
        """Replace `clusters` or `routes` and return once Envoy has that very content.

        The notice of a changed file can be lost, so it is written again until it arrives.
        What does not arrive is taken back, so that Envoy does not meet it at its next start.

        Raises:
            EndpointSilent: if Envoy does not answer, or does not take the file in time.
            EndpointError: if Envoy refuses the content.
        """
        text, before = json.dumps(discovery, indent=1), self._text(kind)
        wanted = _marks(discovery)

        def arrived() -> bool:
            return self._admin.contents(kind) == wanted

        if text == before and arrived():
            return
        refused_before = self._admin.refusals()
        path = self._xds / f"{kind}.json"
        for patience_s in _PATIENCE_S:
            self._write(path, text)
            if _until(arrived, patience_s):
                return
            if self._admin.refusals() > refused_before:
                self._take_back(kind, before)
                raise self._refused(kind)
        self._take_back(kind, before)
        raise self._late(kind)

    def _take_back(self, kind: str, before: str) -> None:
        """Write what is in force: as it stood in the file, if that is what stood there."""
        try:
            as_it_was = _marks(json.loads(before)) == self._admin.contents(kind)
        except ValueError:
            as_it_was = False
        text = before
        if not as_it_was:
            text = json.dumps(envoy.discovery([*self._admin.active_of(kind)]), indent=1)
        self._write(self._xds / f"{kind}.json", text)

    def _write(self, path: Path, text: str) -> None:
        spare = self._xds.parent / SPARE
        with_spare_room(spare, lambda: write_whole(path, text))
        keep_spare_room(spare)

    def idle(self, version: str, wait_s: float) -> bool:
        """Whether no request is with `version`, or none is left after at most `wait_s`."""
        return _until(lambda: self._admin.active(version) == 0, wait_s)

    def _text(self, kind: str) -> str:
        path = self._xds / f"{kind}.json"
        try:
            return path.read_text()
        except FileNotFoundError as error:
            raise self._lost(kind, "is gone") from error

    def _lost(self, kind: str, how: str) -> EndpointSilent:
        return EndpointSilent(
            f"endpoint {self._endpoint}: {self._xds / f'{kind}.json'} {how}",
            holds="Envoy goes on with what it has, but would not come back with it",
            do="make up",
        )

    def _refused(self, kind: str) -> EndpointError:
        return EndpointError(
            f"endpoint {self._endpoint}: Envoy refuses the new {kind}\n"
            f"{_last_record(self._log)}\n",
            holds="the split is as it was",
            do=f"read {self._log}",
        )

    def _late(self, kind: str) -> EndpointSilent:
        return EndpointSilent(
            f"endpoint {self._endpoint}: Envoy did not take the new {kind} in "
            f"{sum(_PATIENCE_S)} s\n{_last_record(self._log)}\n",
            holds="the split is as it was",
            do=f"read {self._log}",
        )


def _marks(discovery: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(map(envoy.fingerprint, discovery["resources"]))


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
