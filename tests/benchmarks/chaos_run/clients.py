"""Clients: some that behave and must not lose a request, and some that do all they can."""

import http.client
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.chaos_run.story import Story

BODY = json.dumps({"instances": [{"question": "what colour?"}]})
ANSWER_S = 15.0  # what a client waits for an answer
ENVOY_S = 20.0  # so long after its kill Envoy may be away


@dataclass(frozen=True)
class Lost:
    at_s: float
    took_s: float
    how: str


class Clients:
    """A steady load of requests, each tried once. `excused`: when Envoy was killed."""

    def __init__(
        self, port: int, story: Story, *, threads: int = 4, each_per_s: float = 5
    ) -> None:
        self._port, self._story, self._pause_s = port, story, 1 / each_per_s
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, daemon=True) for _ in range(threads)
        ]
        self.answers, self.lost, self.excused = Counter[str](), list[Lost](), list[float]()
        self.slowest_s, self.excused_count = 0.0, 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def envoy_was_killed(self) -> None:
        """From now on, and for ENVOY_S at most, a request may be lost."""
        self.excused.append(self._story.now_s())

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        due = time.monotonic()
        while not self._stop.is_set():
            due = max(due + self._pause_s, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))
            at_s, start = self._story.now_s(), time.monotonic()
            try:
                connection.request("POST", "/predict", BODY)
                reply = connection.getresponse()
                text = reply.read()
                how = "" if reply.status == 200 else f"{reply.status} {text[:80]!r}"
                version = reply.getheader("x-arr-version", "?")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                how, version = repr(error), "?"
            self._count(Lost(at_s, time.monotonic() - start, how), version)

    def _count(self, one: Lost, version: str) -> None:
        with self._lock:
            self.answers[version] += 1
            self.slowest_s = max(self.slowest_s, one.took_s)
            if not one.how:
                return
            if any(
                k - 1 <= one.at_s + one.took_s and one.at_s <= k + ENVOY_S for k in self.excused
            ):
                self.excused_count += 1
                return
            self.lost.append(one)
        if len(self.lost) <= 5:
            self._story.breach(
                "no lost request", f"sent at {one.at_s:.1f} s, {one.took_s:.1f} s, {one.how}"
            )


class Hostile:
    """Slow, wrong and greedy clients, a few at a time."""

    def __init__(self, port: int, seed: int, canary: Callable[[], str]) -> None:
        self._port, self._canary = port, canary
        self._drawn, self._stop = random.Random(f"hostile {seed}"), threading.Event()  # noqa: S311
        self._threads = [threading.Thread(target=self._act, daemon=True) for _ in range(2)]
        self.acts = Counter[str]()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _act(self) -> None:
        acts = [
            self._bad_body, self._pinned, self._unfinished, self._slow_reader, self._slow_head,
            self._many_connections, self._goes_away, self._odd_routes,
        ]  # fmt: skip
        while not self._stop.wait(self._drawn.uniform(0.05, 0.6)):
            act = self._drawn.choice(acts)
            self.acts[act.__name__.strip("_").replace("_", " ")] += 1
            try:
                act()
            except (OSError, http.client.HTTPException):
                continue  # whatever happens to such a client is right

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def _post(self, body: bytes, path: str = "/predict", **headers: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        connection.getresponse().read()
        connection.close()

    def _bad_body(self) -> None:
        bodies = [b"", b"{", b"\xff" * 2_000, b"[" * 5_000, b'{"instances": 7}', b"x" * 400_000]
        self._post(self._drawn.choice(bodies))

    def _pinned(self) -> None:
        for _ in range(5):
            self._post(b"{", x_arr_version=self._canary())

    def _odd_routes(self) -> None:
        for path in ("/predict?x=1", "/predict/", "//predict", "/metrics", "/../predict"):
            self._post(BODY.encode(), path)

    def _head(self, length: int) -> bytes:
        return f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()

    def _unfinished(self) -> None:
        with self._connect() as one:
            one.sendall(self._head(1_000_000) + b"x" * 300_000)
            self._stop.wait(3)

    def _slow_head(self) -> None:
        with self._connect() as one:
            for byte in b"POST /predict HTTP/1.1":
                one.sendall(bytes([byte]))
                self._stop.wait(0.1)

    def _slow_reader(self) -> None:
        with self._connect() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.sendall((self._head(len(BODY)) + BODY.encode()) * 50)
            self._stop.wait(3)

    def _many_connections(self) -> None:
        held = [self._connect() for _ in range(60)]
        self._stop.wait(1)
        for one in held:
            one.close()

    def _goes_away(self) -> None:
        for _ in range(10):
            with self._connect() as one:
                one.sendall(self._head(len(BODY)) + BODY.encode())
