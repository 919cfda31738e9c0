"""Live traffic with a known truth: held-out questions sent to an endpoint at a steady rate.

    python -m deployments.replay CONFIG ENDPOINT --requests FILE --per-s N [--seconds S]

Open loop: a question is sent when it is due, however long earlier answers take. It ends
after --seconds, or when its standard input is closed, which the system does when whoever
started it dies. What the answers were worth is recorded with the place's telemetry, twice a
second. While the endpoint mirrors requests to a version, the same share of the questions is
also put to that version by name, and the two answers are compared where both came.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments import Endpoint, Place, connect
from deployments.files import write_whole
from deployments.questions import Outcomes, Sender, read_requests
from policy.config import Config, load_config, parse_config
from policy.errors import EndpointSilent, JobFailed, StoreError

_RECORD_EVERY_S = 0.5
_KEPT = 100  # replays whose totals are kept, for each endpoint


@dataclass(frozen=True)
class Sent:
    """Questions sent. `failed` had no answer, or one that is not 200; `late` were sent more
    than half a second after they were due."""

    sent: int = 0
    failed: int = 0
    late: int = 0


@dataclass(frozen=True)
class Replaying:
    """A replay under way; called, it tells what was sent so far."""

    process: "subprocess.Popen[bytes]"
    total: Path

    def __call__(self) -> Sent:
        return _read(self.total)

    def runs(self) -> bool:
        """Whether its process lives; somebody may have killed it."""
        return self.process.poll() is None


@contextmanager
def replaying(
    config: Config, endpoint: str, requests: Path, per_s: float
) -> Iterator[Replaying]:
    """Replay while the block runs.

    The replay is a process of its own and ends with the block, or with this process however
    that dies. What it recorded stays. Raises JobFailed at the end if the replay failed.
    """
    source = f"replay-{time.time_ns()}-{uuid.uuid4().hex[:6]}"
    total = _total_of(connect(config), endpoint, source)
    command = [sys.executable, "-m", "deployments.replay", "-", endpoint, "--source", source]
    command += ["--requests", str(requests), "--per-s", str(per_s)]
    far_end, lifeline = os.pipe()
    process = subprocess.Popen(command, stdin=far_end, start_new_session=True)
    os.close(far_end)
    try:
        with os.fdopen(lifeline, "w") as pipe:
            # The configuration as it is here, not as its file may be by now.
            pipe.write(config.model_dump_json() + "\n")
            pipe.flush()
            yield Replaying(process, total)
    finally:
        code = _end_of(process)
    if code != 0:
        raise JobFailed(
            f"the replay to {endpoint} ended with exit code {code}",
            exit_code=code,
            holds="what was answered until then is recorded",
            do="read the error that it left in the log of this run",
        )


def replayed(place: Place, endpoint: str) -> Sent:
    """What the last replays to an endpoint sent from this machine, all together."""
    totals = [_read(path) for path in _totals(place, endpoint).glob("*.json")]
    return Sent(
        sent=sum(one.sent for one in totals),
        failed=sum(one.failed for one in totals),
        late=sum(one.late for one in totals),
    )


def main() -> None:
    asked = _arguments()
    config = (
        parse_config(sys.stdin.readline(), "standard input")
        if asked.config == "-"
        else load_config(Path(asked.config))
    )
    questions = read_requests(asked.requests.read_bytes())
    place = connect(config)
    endpoint = place.endpoint(asked.endpoint)
    while not _serves(endpoint):  # the first version of all gets traffic once it has weight
        if _let_go(0.2):
            return
    _forget_old_totals(place, asked.endpoint)
    outcomes = Outcomes()
    sender = Sender(endpoint, questions, asked.per_s, outcomes)
    deadline = time.monotonic() + asked.seconds
    while time.monotonic() < deadline and not _let_go(_RECORD_EVERY_S):
        sender.look_for_mirrors()
        try:
            _record(place, asked.endpoint, asked.source, outcomes)
        except StoreError as error:
            print(f"warning: not recorded, tried again: {error}", file=sys.stderr)
    sender.stop()
    _record(place, asked.endpoint, asked.source, outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.replay")
    parser.add_argument("config", help="a configuration file; - reads it as one line of input")
    parser.add_argument("endpoint")
    parser.add_argument("--requests", type=Path, required=True, help="requests.jsonl")
    parser.add_argument("--per-s", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    new = f"replay-{time.time_ns()}-{uuid.uuid4().hex[:6]}"
    parser.add_argument("--source", default=new, help="the name that it records under")
    return parser.parse_args()


def _serves(endpoint: Endpoint) -> bool:
    try:
        return bool(endpoint.observe().weights)
    except EndpointSilent:
        return False


def _record(place: Place, endpoint: str, source: str, outcomes: Outcomes) -> None:
    """Raises StoreError; the next record has all of it."""
    labels, compared, total = outcomes.known()
    place.telemetry.record(endpoint, source, labels, compared)
    sent = Sent(total["sent"], total["failed"], total["late"])
    write_whole(_total_of(place, endpoint, source), json.dumps(asdict(sent)))


def _total_of(place: Place, endpoint: str, source: str) -> Path:
    return _totals(place, endpoint) / f"{source}.json"


def _totals(place: Place, endpoint: str) -> Path:
    return place.scratch / "replays" / endpoint


def _read(path: Path) -> Sent:
    try:
        return Sent(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Sent()  # nothing was sent yet, or the scratch folder is gone


def _forget_old_totals(place: Place, endpoint: str) -> None:
    """Their names begin with the time."""
    for path in sorted(_totals(place, endpoint).glob("*.json"))[:-_KEPT]:
        path.unlink(missing_ok=True)


def _end_of(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _let_go(wait_s: float) -> bool:
    """Wait, at most until standard input is closed; whether it is."""
    readable, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1024)


if __name__ == "__main__":
    main()
