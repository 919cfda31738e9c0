"""A disk that fills up during a job: said, nothing held, and the next run goes on."""

import os
import shutil
import subprocess
from contextlib import suppress

import pytest

from deployments.files import locked_now
from deployments.local.jobs import LocalJobs
from deployments.store import open_store
from policy.errors import JobFailed, StoreError
from tests.places.jobs import CHORES, COMPUTE, Job

MOUNT, UNMOUNT = shutil.which("mount") or "mount", shutil.which("umount") or "umount"


@pytest.fixture
def disk(tmp_path):
    """Four megabytes."""
    small = ("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path))
    if subprocess.run([MOUNT, *small], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield tmp_path
    finally:
        subprocess.run([UNMOUNT, "--lazy", str(tmp_path)], check=True)


def fill(disk):
    with (disk / "filler").open("wb") as file, suppress(OSError):
        while os.write(file.fileno(), bytes(4096)):
            pass


def job(disk, **told):
    return Job("k", CHORES, told, {}, str(disk / "store/out"))


def run(disk, a_job, on_progress=lambda _record: None):
    store = open_store(str(disk / "store"), disk / "scratch")
    compute = COMPUTE.model_copy(update={"restarts_max": 0})
    LocalJobs(compute, store, disk / "scratch").run(a_job, on_progress)


def must_be_free(disk):
    with locked_now(disk / "scratch/jobs/k/lock") as lock:
        assert lock is not None


def starts(disk):
    return len((disk / "store/out/starts").read_text().splitlines())


def test_a_disk_that_is_full_at_the_start_is_told_and_holds_nothing(disk):
    with pytest.raises(JobFailed):
        run(disk, job(disk, exit=1))
    fill(disk)
    with pytest.raises(StoreError, match="No space left.*make room"):
        run(disk, job(disk, text="x" * 20_000))  # its configuration alone has no room
    must_be_free(disk)
    (disk / "filler").unlink()
    run(disk, job(disk))
    assert starts(disk) == 2, "it went on with what was there"


def test_a_disk_that_fills_up_on_the_way_is_told_and_the_next_run_goes_on(disk):
    """The program's own last words find no room either."""
    with pytest.raises(JobFailed, match="the disk is full"):
        run(disk, job(disk, spew=6000))
    must_be_free(disk)
    (disk / "store/out/job.log").unlink()
    run(disk, job(disk))
    assert starts(disk) == 2
