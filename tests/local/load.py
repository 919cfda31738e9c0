"""A small load on loopback: keep-alive connections that ask one question over and over."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BODY = json.dumps({"instances": [{"question": "what colour?"}]})


@dataclass
class Load:
    """`answers` counts (status, version); status 0 is not an answer at all."""

    answers: Counter = field(default_factory=Counter)
    last_good: float = 0.0

    @property
    def sent(self) -> int:
        return sum(self.answers.values())

    @property
    def failed(self) -> int:
        return sum(count for (status, _), count in self.answers.items() if status != 200)

    def of(self, version: str) -> int:
        return self.answers[200, version]


@contextmanager
def load(
    url: str, threads: int = 4, pause_s: float = 0.002, body: str = BODY, more_than: int = 0
) -> Iterator[Load]:
    """Ask while the block runs, and on until `more_than` requests were sent, for 30 s at most:
    how many are sent beside something short is up to the machine.
    """
    seen, stop, lock = Load(), threading.Event(), threading.Lock()

    def ask() -> None:
        address = urlsplit(url).netloc
        connection = http.client.HTTPConnection(address, timeout=30)
        while not stop.wait(pause_s):
            try:
                connection.request("POST", "/predict", body)
                reply = connection.getresponse()
                reply.read()
                answer = reply.status, reply.getheader("x-arr-version", "")
            except (OSError, http.client.HTTPException):
                connection.close()
                answer = 0, ""
            with lock:
                seen.answers[answer] += 1
                if answer[0] == 200:
                    seen.last_good = time.monotonic()

    running = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield seen
        enough_s = time.monotonic() + 30
        while seen.sent <= more_than and time.monotonic() < enough_s:
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in running:
            thread.join()
