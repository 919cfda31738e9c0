"""Envoy's administration: what it really does now, and its counters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deployments.local import loopback
from deployments.local.envoy.configuration import MARKS, Split
from deployments.local.envoy.routes import split_of
from policy.errors import EndpointSilent


class Admin:
    """Questions to one running Envoy. Each raises EndpointSilent if it does not answer."""

    def __init__(self, endpoint: str, socket: Path) -> None:
        self._endpoint = endpoint
        self._client = loopback.client_at(socket)

    def ready(self) -> bool:
        try:
            return self._client.get("/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def contents(self, kind: str) -> frozenset[str]:
        """The content marks of the active clusters or routes."""
        with self.understanding():
            marks = (
                r.get("metadata", {}).get("filter_metadata", {}) for r in self.active_of(kind)
            )
            return frozenset(mark.get(MARKS, {}).get("content", "") for mark in marks)

    def active_of(self, kind: str) -> Sequence[dict[str, Any]]:
        """The active clusters or routes themselves."""
        with self.understanding():
            return self._clusters() if kind == "clusters" else self._routes()

    def split(self) -> Split:
        """The split that is in force."""
        with self.understanding():
            return next((split_of(route) for route in self._routes()), Split())

    def active(self, version: str) -> int:
        """Requests that `version` is answering right now."""
        with self.understanding():
            hosts = (c for c in self._statuses() if c["name"] == version)
            return sum(_stat(h, "rq_active") for c in hosts for h in c.get("host_statuses", []))

    def started(self) -> str:
        """When this Envoy began, and with it its counters: a time that names its life."""
        with self.understanding():
            dump = self._get("/config_dump", {"resource": "static_clusters"}, "configs")
            return str(dump["configs"][0]["last_updated"])

    def refusals(self) -> int:
        """How many files of clusters and routes this Envoy has refused."""
        stats = self.stats(r"\.update_(rejected|failure)$")
        with self.understanding():
            return sum(int(stat["value"]) for stat in stats)

    def stats(self, pattern: str) -> Sequence[Mapping[str, Any]]:
        """Counters and histograms whose names match, the buckets cumulative."""
        query = {"format": "json", "histogram_buckets": "cumulative", "filter": pattern}
        return self._get("/stats", query, "stats")["stats"]

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """An answer is read within: what has another shape is not an answer of Envoy's."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._silent(error) from error

    def _clusters(self) -> Sequence[dict[str, Any]]:
        dump = self._get("/config_dump", {"resource": "dynamic_active_clusters"})
        return [entry["cluster"] for entry in dump.get("configs", [])]

    def _routes(self) -> Sequence[dict[str, Any]]:
        dump = self._get("/config_dump", {"resource": "dynamic_route_configs"})
        return [entry["route_config"] for entry in dump.get("configs", [])]

    def _statuses(self) -> Sequence[Mapping[str, Any]]:
        part = "cluster_statuses"
        return self._get("/clusters", {"format": "json"}, part)[part]

    def _get(self, path: str, query: Mapping[str, str], *parts: str) -> Mapping[str, Any]:
        """The answer, which has these parts: whatever else may answer here is not Envoy."""
        try:
            answer = self._client.get(path, params=query).raise_for_status().json()
            if not isinstance(answer, dict) or any(part not in answer for part in parts):
                raise ValueError(f"{str(answer)[:100]!r} is not an answer to {path}")
            return answer
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> EndpointSilent:
        return EndpointSilent(
            f"endpoint {self._endpoint}: Envoy does not answer ({repr(error)[:200]})",
            holds="the split is what it was",
            do="make up",
        )


def _stat(host: Mapping[str, Any], name: str) -> int:
    return sum(int(s.get("value", 0)) for s in host.get("stats", []) if s["name"] == name)
