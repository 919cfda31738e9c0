"""What large and hostile requests cost a model server and who asks it small questions.

    python -m tests.benchmarks.hostile_serving

Targets: health within 100 ms while 25 large pictures are worked on; memory within 10 % of
before a minute after the worst requests. Times are those of the machine as it is: see its load.
"""

import os
import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from tests.model.pictures import encoded, noise
from tests.model.served import client_of, sealed_release, server_at
from tests.model.test_serving_under_attack import SMALL, WORST, body_of

LARGE = 25
QUIET_S, RETURN_S = 6, 60


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release, path = sealed_release(folder / "v1"), folder / "model.sock"
        with (
            server_at(path, release) as (process, client),
            client_of(path) as other,
            ThreadPoolExecutor(8) as pool,
        ):
            print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
            _delays("nothing else", client, [])
            for _ in range(2):
                large = body_of(encoded(noise(2000, 1900), "JPEG", progressive=True))
                requests = [pool.submit(_status, other, large) for _ in range(LARGE)]
                _delays(f"{LARGE} pictures of 3.8 Mpx, 8 at once", client, requests)
            _memory(psutil.Process(process.pid), client, pool)


def _delays(what: str, client: httpx.Client, meanwhile: list[Future[int]]) -> None:
    health, small = [], []
    end = time.monotonic() + 2
    while time.monotonic() < end or not all(one.done() for one in meanwhile):
        for asked, ask in ((health, _health), (small, _small)):
            start = time.perf_counter()
            ask(client)
            asked.append(1e3 * (time.perf_counter() - start))
    statuses = [one.result() for one in meanwhile]
    answers = ", ".join(f"{statuses.count(s)} got {s}" for s in sorted(set(statuses)))
    print(
        f"beside {what} {answers}: health {statistics.median(health):.1f} ms, at most "
        f"{max(health):.1f}; one question {statistics.median(small):.1f}, at most "
        f"{max(small):.1f} ms ({len(small)} asked)"
    )


def _health(client: httpx.Client) -> None:
    client.get("/health").raise_for_status()


def _small(client: httpx.Client) -> None:
    client.post("/predict", content=SMALL).raise_for_status()


def _status(client: httpx.Client, body: str) -> int:
    return client.post("/predict", content=body).status_code


def _memory(process: psutil.Process, client: httpx.Client, pool: ThreadPoolExecutor) -> None:
    time.sleep(QUIET_S)
    before = process.memory_info().rss
    for name, (body, _) in WORST.items():
        requests = [pool.submit(_status, client, body) for _ in range(4)]
        peak = process.memory_info().rss
        while not all(one.done() for one in requests):
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.005)
        print(
            f"memory, 4 of {name}: {before / 2**20:.0f} MiB before, at most {peak / 2**20:.0f}"
        )
    time.sleep(RETURN_S)
    after = process.memory_info().rss
    print(f"memory a minute later: {after / 2**20:.0f} MiB, {after / before:.3f} of before")


if __name__ == "__main__":
    main()
