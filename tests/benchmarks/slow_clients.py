"""What good clients notice while a thousand slow and hostile ones hold their connections.

    python -m tests.benchmarks.slow_clients [--clients 1000] [--seconds 60]

Real Envoy with the limits of deployments/local.yaml, the stand-in model servers of
tests/local/answers.py. Good clients ask 50 times a second, whether the last answer has come
or not, first alone, then beside the others; each is timed from the moment it was due.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field

import httpx
import psutil

from deployments.local.layout import layout_of
from deployments.local.servers import ports_of
from deployments.local.supervisor.programs import Supervisor
from tests.local.fixtures import serve
from tests.local.harness import LocalHarness, local_harness

VERSION = "2026.11.22-aaaaaaa"
ASK = {"instances": [{"question": "what colour?"}]}
PER_S = 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    with local_harness() as harness:
        print(json.dumps(measure(harness, asked.clients, asked.seconds), indent=1))


def measure(
    harness: LocalHarness, clients: int, seconds: int, alone_s: int = 10, after_s: int = 60
) -> dict:
    endpoint = harness.place.endpoint(harness.name)
    serve(endpoint, harness.make_release(VERSION))
    port = ports_of(harness.config, harness.name).port
    memory = Memory(harness)
    alone = asyncio.run(good(port, alone_s))
    found = {"alone": alone.told(), "memory before, MB": memory.now()}
    most = harness.config.serving.request_bytes_max
    command = [sys.executable, "-m", "tests.local.hostile"]
    words = [*command, *map(str, (port, clients, seconds, most))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as hostile:
        beside = asyncio.run(good(port, seconds, memory))
        ends = json.loads(hostile.communicate()[0])
    found |= {"hostile clients": clients, "beside them": beside.told()}
    found |= {"memory at most, MB": memory.most}
    time.sleep(after_s)
    return found | {"memory after, MB": memory.now(), "their ends": ends}


@dataclass
class Seen:
    """What the good clients saw."""

    took_s: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def told(self) -> dict:
        ordered = sorted(self.took_s)
        at = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
        times = {
            f"{n} ms": 1000 * ordered[int(len(ordered) * share)] for n, share in at.items()
        }
        rounded = {name: round(value, 1) for name, value in times.items()}
        sent = len(ordered) + sum(self.failed.values())
        return {"requests": sent, "failed": self.failed, **rounded}


class Memory:
    """What Envoy and the model servers of the endpoint hold."""

    def __init__(self, harness: LocalHarness) -> None:
        processes = Supervisor(layout_of(harness.config)).processes()
        self._pids = {
            "Envoy"
            if process.program.startswith("envoy")
            else f"server {process.process}": psutil.Process(process.pid)
            for process in processes
            if harness.name in process.program
        }
        self.most: dict[str, int] = {}

    def now(self) -> dict[str, int]:
        held = {name: p.memory_info().rss // 2**20 for name, p in self._pids.items()}
        self.most = {name: max(mb, self.most.get(name, 0)) for name, mb in held.items()}
        return held


async def good(port: int, seconds: float, memory: Memory | None = None) -> Seen:
    """Ask so often for so long, each when it is due."""
    seen, asking = Seen(), set[asyncio.Task[None]]()
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=20, trust_env=False
    ) as client:
        start = time.monotonic()
        for number in range(int(seconds * PER_S)):
            due = start + number / PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            asking.add(asyncio.create_task(_ask(client, due, seen)))
            if memory and number % 10 == 0:
                memory.now()
        await asyncio.gather(*asking)
    return seen


async def _ask(client: httpx.AsyncClient, due: float, seen: Seen) -> None:
    try:
        reply = await client.post("/predict", json=ASK)
        end = str(reply.status_code)
    except httpx.TransportError as error:
        end = type(error).__name__
    if end == "200":
        seen.took_s.append(time.monotonic() - due)
    else:
        seen.failed[end] = seen.failed.get(end, 0) + 1


if __name__ == "__main__":
    main()
