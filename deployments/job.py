"""A job: what it is made of, when it has ended, and the entry of the image elsewhere.

    python -m deployments.job --store ROOT --job ORDER [--scratch FOLDER]

ORDER is an `Order` as JSON, or the URI of one in the store. The inputs are downloaded, the
program runs, its progress is written beside the output, the output is uploaded, its done file
last. Ends with the program's own exit code; 75 if it was told to stop and can go on.

    <parent>/<name>/…                      the output; .order.json says what was asked for
    <parent>/.<name>.progress/00000001.json the progress, one object every few seconds
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ValidationError

from deployments import Job, Json, Store
from deployments.files import remove, write_whole
from deployments.store import open_store
from deployments.stores.bucket import BucketStore
from deployments.stores.disk import DiskStore
from deployments.stores.done import key_below
from policy.config import Compute
from policy.errors import (
    AlreadyExists,
    ArrCocError,
    ConfigError,
    JobFailed,
    NotFound,
    StoreError,
)

ORDER = ".order.json"
_PROGRESS_S = 5
_GO_ON = 75  # by model/README.md: stopped, run it again and it goes on


class Order(BaseModel, frozen=True, extra="forbid"):
    """A job and on how much it runs, as it travels to a machine elsewhere."""

    job: Job
    compute: Compute

    def encode(self) -> str:
        return self.model_dump_json()


def finished(store: DiskStore | BucketStore, job: Job) -> bool:
    """Whether this very job (its program, configuration and inputs) ended well before."""
    if not store.is_whole(job.output):
        return False
    try:
        return store.read(f"{key_below(store.root, job.output)}/{ORDER}") == _content(job)
    except NotFound:
        return False


def inputs_of(store: Store, job: Job) -> dict[str, str]:
    """The inputs as the program takes them: what lies in the store as a folder here.

    Raises NotFound, StoreError.
    """
    return {name: _here(store, value) for name, value in job.inputs.items()}


def prepare(store: DiskStore | BucketStore, job: Job, work: Path) -> None:
    """Make `work` ready for the program: it goes on with what an earlier start left there.

    Not with what belongs to another job: that would find itself finished and do nothing.
    """
    path = work / ORDER
    old = path.read_bytes() if path.exists() else b""
    if old and old != _content(job) and (store.is_whole(job.output) or _is_other(old, job)):
        remove(work)
    if isinstance(store, DiskStore):
        store.withdraw(job.output)  # the program writes into what lies there
    write_whole(path, _content(job).decode())


def progress_of(
    store: Store, output: str, after: str = ""
) -> tuple[Mapping[str, Json] | None, str]:
    """The latest progress of a job elsewhere, and its key to ask for later ones.

    None if there is nothing after `after`. Raises StoreError.
    """
    keys = store.list(_progress_folder(key_below(store.root, output)), after)
    return (json.loads(store.read(keys[-1])), keys[-1]) if keys else (None, after)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deployments.job", description=__doc__)
    parser.add_argument("--store", required=True, help="the URI below which everything lies")
    parser.add_argument("--job", required=True, help="the order as JSON, or its URI")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir(), "arr-coc"))
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_GO_ON))  # it saves its work first
    try:
        _run(asked.store, asked.job, asked.scratch)
    except JobFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code if error.exit_code > 0 else 128 - error.exit_code
    except ArrCocError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _run(root: str, order: str, scratch: Path) -> None:
    from deployments.local.jobs import LocalJobs

    store = open_store(root, scratch)
    told = _order(store, order)
    progress = _Progress(store, key_below(store.root, told.job.output))
    LocalJobs(told.compute, store, scratch).run(told.job, progress.tell)


class _Progress:
    """Writes progress beside the output, at most one object every few seconds."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._folder = store, _progress_folder(key)
        self._number, self._told = len(store.list(self._folder)), -float(_PROGRESS_S)

    def tell(self, record: Mapping[str, Json]) -> None:
        last = "of" in record and record.get("done") == record["of"]
        if time.monotonic() - self._told < _PROGRESS_S and not last:
            return
        self._told = time.monotonic()
        while True:
            self._number += 1
            try:
                key = f"{self._folder}/{self._number:08}.json"
                self._store.create(key, json.dumps(record).encode())
            except AlreadyExists:
                continue  # of an earlier start
            return


def _order(store: DiskStore | BucketStore, text: str) -> Order:
    if not text.startswith("{"):
        text = store.read(key_below(store.root, text)).decode(errors="replace")
    try:
        return Order.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(
            f"--job is not an order: {error}", expected="what Order.encode() made"
        ) from error


def _here(store: Store, value: str) -> str:
    if value.startswith(f"{store.root}/"):
        return str(store.download(value))
    if "://" in value:
        raise StoreError(
            f"the input {value} is not in the store at {store.root}",
            expected=f"{store.root}/…",
            holds="nothing was started",
        )
    return value


def _content(job: Job) -> bytes:
    told = asdict(job)
    del told["key"], told["output"]
    return json.dumps(told, sort_keys=True).encode()


def _is_other(old: bytes, job: Job) -> bool:
    """Whether unfinished work belongs to another program or other inputs."""
    try:
        told = json.loads(old)
        return (told["program"], told["inputs"]) != (job.program, dict(job.inputs))
    except (ValueError, LookupError, TypeError):
        return True


def _progress_folder(key: str) -> str:
    parent, _, name = key.rpartition("/")
    return f"{parent}/.{name}.progress".removeprefix("/")


if __name__ == "__main__":
    sys.exit(main())
