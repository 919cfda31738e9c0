"""Live traffic with a known truth: held-out questions sent to an endpoint at a steady rate.

    python -m deployments.replay CONFIG ENDPOINT --requests FILE --per-s N --output FILE

Open loop: a question is sent when it is due, however long earlier answers take. It ends
after --seconds, or when its standard input is closed, which the system does when whoever
started it dies. The tally is replaced whole, twice a second:

    {"total": T, "versions": {version: T}, "shadows": {version: S}, "late": N}
    T = {"sent", "failed", "labelled", "correct"}
    S = {"compared", "differed"}

`failed` had no answer, or one that is not 200; `labelled` were answered and their truth is
known; `late` were sent more than half a second after they were due. While the endpoint
mirrors requests to a version (SHADOW), the same share of the questions is also put to that
version by name, and the two answers are compared where both came.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from deployments import Endpoint, Json, Reply, connect
from policy.config import Config, load_config, parse_config
from policy.errors import DataError, EndpointError, JobFailed

THREADS = 8
_WRITE_EVERY_S = 0.5
_LATE_S = 0.5


@dataclass(frozen=True)
class Question:
    """One line of requests.jsonl, see model/README.md."""

    instance: Json
    answer: str
    family: str

    def judge(self, prediction: Json) -> bool:
        """Whether a prediction gives the known answer."""
        return isinstance(prediction, dict) and prediction.get("answer") == self.answer


@dataclass
class Tally:
    """What was sent so far, by the version that answered; "" where none did."""

    _counts: dict[str, Counter[str]] = field(default_factory=dict)
    _shadows: dict[str, Counter[str]] = field(default_factory=dict)
    _late: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, question: Question, reply: Reply, late_s: float) -> None:
        good = reply.status == 200 and len(reply.predictions) == 1
        correct = good and question.judge(reply.predictions[0])
        new = {"sent": 1, "failed": not good, "labelled": good, "correct": correct}
        with self._lock:
            self._late += late_s > _LATE_S
            self._counts.setdefault(reply.version, Counter()).update(new)

    def compare(self, version: str, reply: Reply, shadow: Reply) -> None:
        """Count a question that two versions were asked, if both answered."""
        if reply.status == shadow.status == 200:
            differed = _answers(reply) != _answers(shadow)
            with self._lock:
                counts = self._shadows.setdefault(version, Counter())
                counts.update({"compared": 1, "differed": differed})

    def record(self) -> Mapping[str, Json]:
        with self._lock:
            total = sum(self._counts.values(), Counter())
            versions = {name: _whole(counts) for name, counts in self._counts.items()}
            shadows = {name: dict(counts) for name, counts in self._shadows.items()}
        parts = {"versions": versions, "shadows": shadows, "late": self._late}
        return {"total": _whole(total), **parts}


def read_requests(data: bytes) -> Sequence[Question]:
    """Parse requests.jsonl. Raises DataError naming the line."""
    questions = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            questions.append(Question(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"line {number} of the held-out requests: {error}",
                expected='{"instance": …, "answer": …, "family": …}',
            ) from error
    if not questions:
        raise DataError("there are no held-out requests", expected="at least one line")
    return questions


@contextmanager
def replaying(
    config: Config, endpoint: str, requests: Path, per_s: float
) -> Iterator[Callable[[], Mapping[str, Json]]]:
    """Replay while the block runs; yields a function that reads the tally so far.

    The replay is a process of its own and ends with the block, or with this process however
    that dies. Its tally stays in the endpoint's folder of tallies. Raises JobFailed at the
    end if the replay failed.
    """
    output = tallies(config, endpoint) / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json"
    write_tally(output, Tally())
    command = [sys.executable, "-m", "deployments.replay", "-", endpoint]
    command += ["--requests", str(requests), "--per-s", str(per_s), "--output", str(output)]
    far_end, lifeline = os.pipe()
    process = subprocess.Popen(command, stdin=far_end, start_new_session=True)
    os.close(far_end)
    try:
        with os.fdopen(lifeline, "w") as pipe:
            # The configuration as it is here, not as its file may be by now.
            pipe.write(config.model_dump_json() + "\n")
            pipe.flush()
            yield lambda: json.loads(output.read_text())
    finally:
        code = _end_of(process)
    if code != 0:
        raise JobFailed(
            f"the replay to {endpoint} ended with exit code {code}",
            exit_code=code,
            holds="its tally has what was sent until then",
            do="read the error that it left in the log of this run",
        )


def _end_of(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tallies(config: Config, endpoint: str) -> Path:
    """Where the tallies of an endpoint are kept."""
    from deployments.local.layout import layout_of

    folder = layout_of(config.root).tallies(endpoint)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Sender:
    """Sends question i at i / per_s seconds from its start, by several threads."""

    def __init__(
        self, endpoint: Endpoint, questions: Sequence[Question], per_s: float, tally: Tally
    ) -> None:
        self._endpoint, self._questions, self._tally = endpoint, questions, tally
        self._per_s, self._start = per_s, time.monotonic()
        self._turns, self._lock, self._stop = count(), threading.Lock(), threading.Event()
        self.shadows: Mapping[str, int] = {}
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=12)

    def _work(self) -> None:
        while True:
            with self._lock:
                turn = next(self._turns)
            due = self._start + turn / self._per_s
            if self._stop.wait(max(0, due - time.monotonic())):
                return
            self._ask(turn, time.monotonic() - due)

    def _ask(self, turn: int, late_s: float) -> None:
        question = self._questions[turn % len(self._questions)]
        reply = self._endpoint.send(None, [question.instance])
        self._tally.add(question, reply, late_s)
        for version, percent in self.shadows.items():
            if (turn + 1) * percent // 100 > turn * percent // 100:  # an even share of turns
                shadow = self._endpoint.send(version, [question.instance])
                self._tally.compare(version, reply, shadow)


def write_tally(output: Path, tally: Tally) -> None:
    part = output.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(tally.record()))
    part.replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deployments.replay")
    parser.add_argument("config", help="a configuration file; - reads it as one line of input")
    parser.add_argument("endpoint")
    parser.add_argument("--requests", type=Path, required=True, help="requests.jsonl")
    parser.add_argument("--per-s", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the tally")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    config = (
        parse_config(sys.stdin.readline(), "standard input")
        if asked.config == "-"
        else load_config(Path(asked.config))
    )
    questions = read_requests(asked.requests.read_bytes())
    endpoint = connect(config).endpoint(asked.endpoint)
    while not endpoint.weights():  # the first version of all gets traffic once it has weight
        if _let_go(0.2):
            return
    tally = Tally()
    sender = Sender(endpoint, questions, asked.per_s, tally)
    deadline = time.monotonic() + asked.seconds
    while time.monotonic() < deadline and not _let_go(_WRITE_EVERY_S):
        sender.shadows = _mirrored(endpoint)
        write_tally(asked.output, tally)
    sender.stop()
    write_tally(asked.output, tally)


def _mirrored(endpoint: Endpoint) -> Mapping[str, int]:
    try:
        return endpoint.mirrored()
    except EndpointError:
        return {}  # the endpoint is away; the questions go on and are counted as failed


def _answers(reply: Reply) -> Sequence[Json]:
    return [p.get("answer") if isinstance(p, dict) else p for p in reply.predictions]


def _let_go(wait_s: float) -> bool:
    """Wait, at most until standard input is closed; whether it is."""
    readable, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1024)


def _whole(counts: Mapping[str, int]) -> Mapping[str, int]:
    return {
        name: int(counts.get(name, 0)) for name in ("sent", "failed", "labelled", "correct")
    }


if __name__ == "__main__":
    main()
