"""Attempts against requests: what two equal versions are charged with at 90/10.

    python -m tests.benchmarks.request_counting [--requests 20000]

Real Envoy, real servers that fail for 1 % of the questions, always. Envoy tries a failed
request up to three times more, at the fallback and back. By attempts the version with the
fallback's role looks worse than its equal; by requests, each counted once for the version that
the split chose, the two are alike.
"""

import argparse
import json
import queue
import threading

from deployments import Desired
from deployments.local import loopback
from deployments.local.layout import layout_of
from tests.local.fixtures import bring
from tests.local.harness import LocalHarness, local_harness

STABLE, CANARY = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb"
THREADS, POISON_EVERY = 4, 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    requests = parser.parse_args().requests
    with local_harness() as harness:
        print(json.dumps(measure(harness, requests), indent=1))


def measure(harness: LocalHarness, requests: int) -> dict:
    pair = [harness.make_release(v, fails_on="poison") for v in (STABLE, CANARY)]
    endpoint = harness.place.endpoint(harness.name)
    bring(endpoint, Desired(tuple(pair), {STABLE: 90, CANARY: 10}, STABLE))
    ask_all(endpoint, requests)
    harness.counted()
    samples = harness.place.telemetry.read(harness.name, [STABLE, CANARY]).samples
    attempts = attempts_of(harness)
    return {
        version: {
            "requests": samples[version].counts.requests,
            "error rate by requests": round(samples[version].error_rate, 4),
            "attempts": attempts[version][0],
            "error rate by attempts": round(attempts[version][1] / attempts[version][0], 4),
        }
        for version in (STABLE, CANARY)
    }


def ask_all(endpoint, requests: int) -> None:
    turns: queue.SimpleQueue[int] = queue.SimpleQueue()
    for turn in range(requests):
        turns.put(turn)

    def work() -> None:
        while True:
            try:
                turn = turns.get_nowait()
            except queue.Empty:
                return
            question = "poison" if turn % POISON_EVERY == 0 else "water"
            endpoint.ask(None, [{"question": question}])

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def attempts_of(harness: LocalHarness) -> dict[str, tuple[int, int]]:
    """Attempts and failed attempts by version, as Envoy counts them for each server."""
    with loopback.client_at(layout_of(harness.config).admin_socket(harness.name)) as admin:
        clusters = admin.get("/clusters?format=json").json()["cluster_statuses"]
    return {
        cluster["name"]: (total(cluster, "rq_total"), total(cluster, "rq_error"))
        for cluster in clusters
        if cluster["name"] in (STABLE, CANARY)
    }


def total(cluster: dict, name: str) -> int:
    stats = (stat for host in cluster["host_statuses"] for stat in host["stats"])
    return sum(int(stat.get("value", 0)) for stat in stats if stat["name"] == name)


if __name__ == "__main__":
    main()
