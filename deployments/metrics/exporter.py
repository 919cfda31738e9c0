"""Prometheus metrics of the ledger, the rollouts and the endpoints, at /metrics on 127.0.0.1.

    python -m deployments.metrics.exporter CONFIG --port N

Nothing is counted here: each scrape tells what the ledger and the data planes say at that
moment, so this process may die and start again. What cannot be read is left out, and
arr_coc_ledger_up and arr_coc_endpoint_up say so. Names, versions and figures alone: no
reason, no person, no token.
"""

import argparse
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from deployments import Endpoint, Place, Telemetry, connect, ledger
from deployments.metrics.rollout import counter, gauge, rollout_metrics
from deployments.metrics.server import MetricsServer
from policy.config import load_config
from policy.counts import LATENCY_EDGES_S, Sample
from policy.errors import EndpointSilent, LedgerError, NotFound, StoreError
from policy.ledger import Ledger


class Metrics(Collector):
    """Everything that a scrape of one place tells."""

    def __init__(self, place: Place) -> None:
        self._place, self._lock = place, threading.Lock()
        self._ledger: Ledger | None = None

    def collect(self) -> Iterator[Metric]:
        names = [*self._place.endpoints]
        state = self._read()
        up = [((), float(state is not None))]
        text = "Whether the ledger can be read, and each new record follows the one before."
        yield gauge("arr_coc_ledger_up", text, (), up)
        if state is not None:
            yield from rollout_metrics(state, names, ledger.now())
        yield from _endpoint_metrics(self._place)

    def _read(self) -> Ledger | None:
        """The ledger, of which only the new records are read; None if one does not fit."""
        with self._lock:
            try:
                self._ledger = ledger.read(self._place.store, self._ledger)
            except (LedgerError, StoreError, NotFound):
                return None
            return self._ledger


@dataclass(frozen=True)
class _Served:
    """One version at one endpoint; `of` are the values of the labels endpoint and version."""

    of: tuple[str, str]
    weight: int
    ready: bool
    sample: Sample


def _endpoint_metrics(place: Place) -> Iterator[Metric]:
    seen = {name: _seen(one, place.telemetry) for name, one in place.endpoints.items()}
    up = [((name,), float(versions is not None)) for name, versions in seen.items()]
    yield gauge("arr_coc_endpoint_up", "Whether the data plane answers.", ("endpoint",), up)
    all_ = [served for versions in seen.values() for served in versions or ()]
    where = ("endpoint", "version")
    weights = [(s.of, s.weight / 100) for s in all_]
    text = "Share of the requests that each version really has."
    yield gauge("arr_coc_endpoint_weight_ratio", text, where, weights)
    ready = [(s.of, float(s.ready)) for s in all_]
    yield gauge("arr_coc_endpoint_ready", "Whether the version is ready.", where, ready)
    for name, text, figures in (
        ("requests", "Requests that the split or a mirror gave the version.",
         [s.sample.counts.requests for s in all_]),
        ("request_errors", "Those whose first attempt failed, repaired or not.",
         [s.sample.counts.errors for s in all_]),
        ("labelled_answers", "Answers with a known truth.",
         [s.sample.labelled.labels for s in all_]),
        ("right_answers", "Those that were right.", [s.sample.labelled.correct for s in all_]),
    ):  # fmt: skip
        values = zip((s.of for s in all_), figures, strict=True)
        yield counter(f"arr_coc_endpoint_{name}", text, where, values)
    yield _latencies(all_, where)


def _latencies(all_: Sequence[_Served], where: Sequence[str]) -> Metric:
    """Buckets alone: a data plane gives no sum of the times."""
    name, text = "arr_coc_endpoint_request_seconds", "Times of the answered first attempts."
    family = HistogramMetricFamily(name, text, labels=where)
    edges = [*map(str, LATENCY_EDGES_S), "+Inf"]
    for served in all_:
        upto = accumulate(served.sample.counts.latency)
        family.add_metric(served.of, [*zip(edges, upto, strict=True)], sum_value=None)
    return family


def _seen(endpoint: Endpoint, telemetry: Telemetry) -> Sequence[_Served] | None:
    """What is deployed at an endpoint; None while it does not answer."""
    try:
        observed = endpoint.observe()
        samples = telemetry.read(endpoint.name, [*observed.servers]).samples
    except EndpointSilent:
        return None
    return [
        _Served(
            (endpoint.name, version),
            observed.weights.get(version, 0),
            server.state == "ready",
            samples[version],
        )
        for version, server in observed.servers.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deployments.metrics.exporter")
    parser.add_argument("config", type=Path)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    registry = CollectorRegistry()
    registry.register(Metrics(connect(load_config(asked.config))))
    MetricsServer(asked.port, registry).thread.join()


if __name__ == "__main__":
    main()
