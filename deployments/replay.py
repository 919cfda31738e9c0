"""Live traffic with a known truth: held-out questions sent to an endpoint at a steady rate.

    python -m deployments.replay CONFIG ENDPOINT --requests FILE --per-s N --output FILE

Open loop: a question is sent when it is due, however long earlier answers take. It ends
after --seconds, or when its standard input is closed, which the system does when whoever
started it dies. The tally is replaced whole, twice a second:

    {"total": T, "versions": {version: T}, "late": N}
    T = {"sent", "failed", "labelled", "correct"}

`failed` had no answer, or one that is not 200; `labelled` were answered and their truth is
known; `late` were sent more than half a second after they were due.
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
from pathlib import Path

from deployments import Endpoint, Json, Reply, connect
from policy.config import Config, load_config, parse_config
from policy.errors import DataError, JobFailed

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
    _late: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, question: Question, reply: Reply, late_s: float) -> None:
        good = reply.status == 200 and len(reply.predictions) == 1
        correct = good and question.judge(reply.predictions[0])
        new = {"sent": 1, "failed": not good, "labelled": good, "correct": correct}
        with self._lock:
            self._late += late_s > _LATE_S
            self._counts.setdefault(reply.version, Counter()).update(new)

    def record(self) -> Mapping[str, Json]:
        with self._lock:
            total = sum(self._counts.values(), Counter())
            versions = {name: _whole(counts) for name, counts in self._counts.items()}
            return {"total": _whole(total), "versions": versions, "late": self._late}


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


def send_steadily(
    endpoint: Endpoint,
    questions: Sequence[Question],
    per_s: float,
    tally: Tally,
    stop: threading.Event,
) -> Sequence[threading.Thread]:
    """Start the threads that send question i at i / per_s seconds from now until `stop`."""
    start, turns, lock = time.monotonic(), iter(range(2**62)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                turn = next(turns)
            due = start + turn / per_s
            if stop.wait(max(0, due - time.monotonic())):
                return
            question, late_s = questions[turn % len(questions)], time.monotonic() - due
            tally.add(question, endpoint.send(None, [question.instance]), late_s)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


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
    tally, stop = Tally(), threading.Event()
    threads = send_steadily(endpoint, questions, asked.per_s, tally, stop)
    deadline = time.monotonic() + asked.seconds
    while time.monotonic() < deadline and not _let_go(_WRITE_EVERY_S):
        write_tally(asked.output, tally)
    stop.set()
    for thread in threads:
        thread.join(timeout=12)
    write_tally(asked.output, tally)


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
