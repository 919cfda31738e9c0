"""What Envoy adds to a call of a model server, and what one replica costs when it is killed.

    python -m tests.benchmarks.endpoint_overhead [--seconds 5]

Real Envoy, real load by wrk on loopback, everything in one run, alternating so that a busy
machine hits both alike. The server is the stand-in of tests/local/answers.py: the figure is
what the endpoint adds, not how fast a model is.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from deployments.local import loopback
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
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is not installed; to do: apt-get install wrk")
    with local_harness() as harness:
        print(json.dumps(measure(harness, seconds), indent=1))


def measure(harness: LocalHarness, seconds: int) -> dict:
    config, endpoints = harness.config, harness.place.endpoints
    supervisor, release = Supervisor(layout_of(config)), harness.make_release(VERSION)
    for endpoint in endpoints.values():
        serve(endpoint, release)
    found = {}
    port = servers_of(supervisor, harness.idle)[0].ports[0]
    direct, through = loopback.url(port), endpoints[harness.idle].url
    script = Path(config.scratch) / "ask.lua"
    script.write_text(f"wrk.method='POST'\nwrk.body='{BODY}'\n")
    runs = {"direct": [], "through Envoy": []}
    for _ in range(ROUNDS):
        runs["direct"].append(wrk(direct, script, seconds))
        runs["through Envoy"].append(wrk(through, script, seconds))
    for name, figures in runs.items():
        found[name] = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
    for name, settings in config.endpoints.items():
        found[f"killed at 100 %, {settings.replicas} server(s)"] = killed(
            endpoints[name], supervisor, name
        )
    return found


def wrk(url: str, script: Path, seconds: int) -> dict[str, float]:
    """Median and p99 in ms, and requests per second, over four connections."""
    command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "--latency", "-s", str(script)]
    said = subprocess.run(
        [*command, f"{url}/predict"], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in said:
        raise RuntimeError(said)
    return {
        "median_ms": _ms(said, "50%"),
        "p99_ms": _ms(said, "99%"),
        "requests_per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]),
    }


def killed(endpoint, supervisor: Supervisor, name: str) -> dict[str, int]:
    """Kill -9 one server of the only version under load and count."""
    program = program_name(name, VERSION)
    victim = next(p for p in supervisor.processes() if p.program == program)
    with load(endpoint.url) as seen:
        time.sleep(1)
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(4)
    return {"requests": seen.sent, "failed": seen.failed}


def _ms(said: str, percentile: str) -> float:
    value, unit = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", said).groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


if __name__ == "__main__":
    main()
