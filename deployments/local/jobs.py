"""Programs run on this machine, one for each key, each on a leash.

    <scratch>/jobs/<key>/lock         held by whoever runs it, until the program has ended
    <scratch>/jobs/<key>/run          the name of the present run
    <scratch>/jobs/<key>/cancel-<run> whoever makes it stops that run
    <scratch>/jobs/<key>/failed.json  how the last run failed, for those who wait for it
    <scratch>/jobs/<key>/output       what is written until it is uploaded (root in a bucket)

Where the store is a folder on this disk the program writes straight into its output.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deployments import Job, Json
from deployments.files import locked_now, remove
from deployments.job import finished, inputs_of, prepare
from deployments.local.job_folder import Desk
from deployments.local.job_program import Program, cancelled
from deployments.local.job_progress import Display
from deployments.stores.bucket import BucketStore
from deployments.stores.disk import DiskStore
from policy.config import Compute
from policy.errors import Busy, StoreError

_POLL_S = 0.1
_CANCEL_S = 30  # the leash's grace, and room for a busy machine


class LocalJobs:
    """`deployments.Jobs` on this machine; see the protocol.

    A crash or a spot warning is followed by the same command again, at most
    `compute.restarts_max` times: the programs go on from what they have written. Everything
    together may take `compute.timeout_s`. `on_progress` gets the latest record, in the
    caller's thread; that it fails or hangs does not touch the program.
    """

    def __init__(self, compute: Compute, store: DiskStore | BucketStore, scratch: Path) -> None:
        self._compute, self._store, self._scratch = compute, store, scratch

    def run(self, job: Job, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        """See the protocol. Raises JobFailed, StoreError, NotFound (an input is not there)."""
        try:
            self._run(job, on_progress)
        except OSError as error:
            work = self._work(job, self._desk(job.key))
            raise StoreError(
                f"the job {job.key} cannot be run: {error}",
                holds=f"what it wrote before is unchanged in {work}",
                do="make room on the disk and run it again: it goes on from there",
            ) from error

    def _run(self, job: Job, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        desk, display = self._desk(job.key), Display(on_progress)
        log = self._work(job, desk) / "job.log"
        failed_before, waited = desk.failure(), False
        while True:
            with locked_now(desk.lock) as lock:
                if lock is not None:
                    if finished(self._store, job):
                        return None
                    if waited and desk.failure() not in ("", failed_before):
                        raise desk.failed()
                    return self._bring_to_end(job, desk, lock.fileno(), display)
            display.follow(log)
            waited = True
            time.sleep(_POLL_S)

    def cancel(self, key: str) -> None:
        """See the protocol. Returns once the program has ended; Busy if it does not."""
        desk = self._desk(key)
        failed_before, asked = desk.failure(), False
        deadline = time.monotonic() + _CANCEL_S
        while desk.lock.exists():
            with locked_now(desk.lock) as lock:
                if lock is not None:
                    if asked and desk.failure() in ("", failed_before):
                        desk.tell(cancelled(key, "where it wrote"))  # who ran it was killed
                    return
            desk.cancel()
            asked = True
            if time.monotonic() > deadline:
                raise Busy(
                    f"the job {key} has not ended {_CANCEL_S} s after it was cancelled",
                    holds="its program was told to end; whoever runs it has not come back",
                    do=f"look for the process that holds {desk.lock}",
                )
            time.sleep(_POLL_S)

    def _bring_to_end(self, job: Job, desk: Desk, lock: int, display: Display) -> None:
        work = self._work(job, desk)
        with desk.running():
            inputs = inputs_of(self._store, job)
            prepare(self._store, job, work)
            if desk.cancelled:
                raise cancelled(job.program, f"in {work}")
            program = Program(job, inputs, work, self._compute)
            program.run(desk.stop_file, lock, display)
            self._store.upload(work, job.output)
        if work == desk.output:
            remove(work)

    def _desk(self, key: str) -> Desk:
        return Desk(self._scratch / "jobs", key)

    def _work(self, job: Job, desk: Desk) -> Path:
        """The folder into which the program writes."""
        return Path(job.output) if isinstance(self._store, DiskStore) else desk.output
