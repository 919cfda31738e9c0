"""What a ledger of 100,000 records costs, on a disk and on S3's wire.

    .venv/bin/python -m tests.benchmarks.ledger [RECORDS]

The records are those of 400 rollouts, each with its version, retraining, request and messages.
S3 is moto's server in this process: its own work counts in its wall and processor seconds.
Bars: the state from nothing in less than 1 s; an append with 100,000 records behind it not
slower than with 100; the memory of whoever reads along does not grow.
"""

import gc
import hashlib
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
import pytest

from deployments import Store, ledger
from deployments.ledger import SNAPSHOT_EVERY
from deployments.store import open_store
from policy.ledger import NO_RECORD, STATE_VERSION, Ledger, fold, key, next_record
from policy.records import (
    Event,
    Registered,
    Requested,
    RetrainingStarted,
    RolloutChanged,
    Snapshotted,
    Told,
)
from policy.rollout.record import Phase, start
from policy.rollout.requests import Answer, Request
from tests.places.buckets import BUCKET, s3
from tests.policy.worlds import make_plan

RECORDS = 100_000
FEW = 100
ROLLOUTS = 400
APPENDS = 60
FOLLOWED = 10_000
NOW = datetime(2026, 11, 22, tzinfo=UTC)
Put = Callable[[str, bytes], object]


def main() -> None:
    logging.getLogger("werkzeug").disabled = True
    total = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    with (
        tempfile.TemporaryDirectory(prefix="arr-") as folder,
        pytest.MonkeyPatch.context() as env,
    ):
        for name, value in s3().items():
            env.setenv(name, value)
        disk = Path(folder)
        measure("disk", total, partial(on_disk, disk))
        measure("S3", total, in_bucket)


def measure(where: str, total: int, make: Callable[[str], tuple[Store, Put]]) -> None:
    """Print what one kind of store needs."""
    print(f"{where}: {total} records{'':12} {'wall s':>8} {'processor s':>12}")
    few, put_few = make("few")
    write(put_few, FEW)
    many, put = make("many")
    before = write(put, total - FOLLOWED)
    grown = memory_of(partial(follow, many, put, before, total))
    if where == "disk":  # the other one's server is in this process
        print(f"  memory after {FOLLOWED} more records, followed: {grown:+.1f} MB")
    state = timed("state from nothing", partial(ledger.read, many))
    assert state.number >= total
    a_few = timed_appends(few)
    print(f"  an append at {FEW:7}             {a_few[0]:8.4f} {a_few[1]:12.4f}")
    a_lot = timed_appends(many)
    print(f"  an append at {total:7}             {a_lot[0]:8.4f} {a_lot[1]:12.4f}")
    ratios = a_lot[0] / a_few[0], a_lot[1] / a_few[1]
    print(f"  ratio                              {ratios[0]:8.2f} {ratios[1]:12.2f}")
    if where == "disk":  # the other one's server takes 3 ms for each record
        timed("audit of all", partial(ledger.audit, many))


def timed(what: str, work: Callable[[], Ledger]) -> Ledger:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    took = time.perf_counter() - wall, time.process_time() - cpu
    print(f"  {what:33} {took[0]:8.3f} {took[1]:12.3f}")
    return result


def timed_appends(store: Store) -> tuple[float, float]:
    """Median wall and processor seconds of an append by somebody who knows the state."""
    state, walls, cpus = ledger.read(store), [], []
    for number in range(APPENDS):
        event = RetrainingStarted(key=f"append {number}", cause="hand", why="")
        wall, cpu = time.perf_counter(), time.process_time()
        state = ledger.append(store, lambda _state, e=event: e, by="a benchmark", known=state)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def memory_of(work: Callable[[], object]) -> float:
    """Megabytes that this process has more after the work."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    kept = work()
    gc.collect()
    grown = process.memory_info().rss - before
    del kept
    return grown / 1e6


def follow(store: Store, put: Put, state: Ledger, total: int) -> Ledger:
    """Somebody reads along while the last records are written, 100 at a time."""
    writing = state
    while writing.number < total:
        writing = write(put, writing.number + 100, writing)
        state = ledger.read(store, state)
    return state


def write(put: Put, total: int, state: Ledger | None = None) -> Ledger:
    """Records up to `total`, with the snapshots that writers would have left."""
    state = state or Ledger()
    while state.number < total:
        blobs = list(_chained(state, min(SNAPSHOT_EVERY, total - state.number)))
        for name, data in blobs:
            put(name, data)
        state = fold(blobs, state)
        if state.number >= state.snapshot + SNAPSHOT_EVERY:
            state = _snapshot(put, state)
    return state


def _snapshot(put: Put, state: Ledger) -> Ledger:
    data = b"%d\n" % STATE_VERSION + state.model_dump_json().encode()
    sha = hashlib.sha256(data).hexdigest()
    put(f"ledger-snapshots/{state.number:08d}-{sha[:12]}.json", data)
    event = Snapshotted(version=STATE_VERSION, number=state.number, sha256=sha)
    record = next_record(state, event, at=NOW, by="ledger", run="")
    put(key(record.number), record.encode())
    return fold([(key(record.number), record.encode())], state)


def _chained(state: Ledger, count: int) -> Iterator[tuple[str, bytes]]:
    """The next records: bodies that are made once for each rollout, under new heads."""
    previous = state.head
    for number in range(state.number + 1, state.number + 1 + count):
        head = f'{{\n "schema_version": 2,\n "number": {number},\n "previous": "{previous}",\n'
        data = head.encode() + _body(number)
        previous = hashlib.sha256(data).hexdigest()
        yield key(number), data


_LONG = RECORDS // ROLLOUTS
_bodies: dict[str, bytes] = {}


def _body(number: int) -> bytes:
    """All of a record but its head, by its place in its rollout."""
    turn, place = divmod(number, _LONG)
    phase = "registered" if place < 5 else Phase.DONE if place >= _LONG - 10 else Phase.STEP
    name = f"{turn} {place if place < 5 else phase}"
    if name not in _bodies:
        _bodies.clear() if place == 0 else None
        record = next_record(
            Ledger(), _event(turn, place, phase), at=NOW, by="a benchmark", run=""
        )
        _bodies[name] = record.encode().split(b'"previous": "' + NO_RECORD.encode() + b'",\n')[
            1
        ]
    return _bodies[name]


def _event(turn: int, place: int, phase: str) -> Event:
    version, id = f"2026.11.22-{turn:07x}", f"production-{turn}"
    match place:
        case 0:
            return RetrainingStarted(key=f"{turn:012x}", cause="schedule", why="weekly")
        case 1:
            return Registered(
                version=version, digest=f"{turn:064x}", accuracy=0.95,
                families={"all": 0.95}, reasons=("better than stable",), signed_by="a" * 64,
                lineage={"key": f"{turn:012x}"},
            )  # fmt: skip
        case 3:
            return Told(what=f"production-{turn}:{Phase.PENDING}", channel="")
        case 4:
            return Told(what=f"production-{turn - 1}:{Phase.DONE}", channel="")
    stable = f"2026.11.22-{turn - 1:07x}"
    begun = start(
        id,
        "production",
        version,
        stable,
        make_plan(),
        "a person",
        NOW,
        request=f"request {turn}",
    )
    if place == 2:
        request = Request(
            id=f"request {turn}", kind="rollout", endpoint="production", by="a person",
            why="a benchmark", version=version, plan=begun.plan,
        )  # fmt: skip
        return Requested(answer=Answer(request=request, rollout=id), rollout=begun)
    return RolloutChanged(rollout=begun.model_copy(update={"phase": Phase(phase)}))


def on_disk(folder: Path, name: str) -> tuple[Store, Put]:
    """A store on this disk, and a way to fill it without waiting for the disk."""
    root = folder / name

    def put(key: str, data: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return open_store(str(root)), put


def in_bucket(name: str) -> tuple[Store, Put]:
    """A store in moto's bucket, and a way to fill it without the wire."""
    from moto.backends import get_backend
    from moto.core.models import DEFAULT_ACCOUNT_ID

    backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
    root = f"s3://{BUCKET}/{name}"
    return open_store(root), lambda key, data: backend.put_object(BUCKET, f"{name}/{key}", data)


if __name__ == "__main__":
    main()
