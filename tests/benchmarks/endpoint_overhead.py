"""What Envoy adds to a call of a model server, and what one replica costs when it is killed.

    python -m tests.benchmarks.endpoint_overhead [--seconds 5]

Real Envoy, real load over unix sockets, everything in one run, alternating so that a busy
machine hits both alike. The same simple clients ask both, the server at its socket and Envoy at
its operators'. The server is the stand-in of tests/local/answers.py: the figure is what the
endpoint adds, not how fast a model is.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import threading
import time

from deployments.local.layout import layout_of
from deployments.local.servers import program_name, servers_of
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import serve
from tests.local.harness import LocalHarness, local_harness
from tests.local.load import BODY, load

VERSION = "2026.11.22-aaaaaaa"
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    seconds = parser.parse_args().seconds
    with local_harness() as harness:
        print(json.dumps(measure(harness, seconds), indent=1))


def measure(harness: LocalHarness, seconds: int) -> dict:
    config, endpoints = harness.config, harness.place.endpoints
    supervisor, release = Supervisor(layout_of(config)), harness.make_release(VERSION)
    for endpoint in endpoints.values():
        serve(endpoint, release)
    found = {}
    [server] = servers_of(supervisor, harness.idle)
    direct, through = server.sockets[0], layout_of(config).operators_socket(harness.idle)
    runs = {"direct": [], "through Envoy": []}
    for _ in range(ROUNDS):
        runs["direct"].append(asked(str(direct), seconds))
        runs["through Envoy"].append(asked(str(through), seconds))
    for name, figures in runs.items():
        found[name] = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
    for name, settings in config.endpoints.items():
        found[f"killed at 100 %, {settings.replicas} server(s)"] = killed(
            endpoints[name], supervisor, name
        )
    return found


def asked(path: str, seconds: int) -> dict[str, float]:
    """Median and p99 in ms, and requests per second, over four connections."""
    took: list[float] = []
    deadline = time.perf_counter() + seconds
    threads = [threading.Thread(target=ask, args=(path, deadline, took)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "median_ms": 1000 * statistics.median(took),
        "p99_ms": 1000 * statistics.quantiles(took, n=100)[98],
        "requests_per_s": len(took) / seconds,
    }


def ask(path: str, deadline: float, took: list[float]) -> None:
    """One question after another over one connection, until the deadline."""
    head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(BODY)}\r\n\r\n"
    question = (head + BODY).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        while (start := time.perf_counter()) < deadline:
            connection.sendall(question)
            reply = connection.recv(65536)
            while b"}]}" not in reply:
                reply += connection.recv(65536)
            if not reply.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(reply.decode())
            took.append(time.perf_counter() - start)


def killed(endpoint, supervisor: Supervisor, name: str) -> dict[str, int]:
    """Kill -9 one server of the only version under load and count."""
    program = program_name(name, VERSION)
    victim = next(p for p in supervisor.processes() if p.program == program)
    with load(endpoint.url) as seen:
        time.sleep(1)
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(4)
    return {"requests": seen.sent, "failed": seen.failed}


if __name__ == "__main__":
    main()
