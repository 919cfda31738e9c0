"""Nothing that a job started outlives the process that asked for it, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deployments.local.jobs import LocalJobs
from deployments.store import open_store
from policy.errors import JobFailed
from tests.places.jobs import CHORES, COMPUTE, Job

CALLER = """
import json
import sys
from pathlib import Path
from deployments.local.jobs import LocalJobs
from deployments.store import open_store
from tests.places.jobs import COMPUTE, Job

root = Path(sys.argv[1])
job = Job(**json.loads(sys.argv[2]))
store = open_store(str(root / "store"), root / "scratch")
shown = root / sys.argv[3]
LocalJobs(COMPUTE, store, root / "scratch").run(job, lambda record: shown.touch())
"""


def chores(root, told) -> Job:
    return Job("k", CHORES, told, {}, str(root / "store/out"))


@pytest.fixture
def caller(tmp_path):
    """Starts a process that runs a job; returns once that shows its progress."""
    started = []

    def start(job: Job) -> subprocess.Popen:
        shown = f"shown-{len(started)}"
        arguments = [str(tmp_path), json.dumps(vars(job)), shown]
        started.append(subprocess.Popen([sys.executable, "-c", CALLER, *arguments]))
        wait_for(tmp_path / shown)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def jobs(root) -> LocalJobs:
    return LocalJobs(COMPUTE, open_store(str(root / "store")), root / "scratch")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "store/out"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_the_caller_ends_the_program_and_its_children(caller, tmp_path, out, end):
    process = caller(chores(tmp_path, {"steps": 600, "grandchild": True}))
    mine = family(process, out)
    os.kill(process.pid, end)
    process.wait()
    _, alive = psutil.wait_procs(mine, timeout=30)
    assert alive == []


def test_a_leash_that_is_killed_leaves_nothing_behind_either(caller, tmp_path, out):
    process = caller(chores(tmp_path, {"steps": 60, "grandchild": True}))
    mine = family(process, out)
    psutil.Process(process.pid).children()[0].kill()
    assert process.wait(timeout=90) == 0, "the program was started again"
    assert len((out / "starts").read_text().splitlines()) == 2
    _, alive = psutil.wait_procs(mine, timeout=30)
    assert alive == []


def test_a_leash_killed_together_with_who_started_it_leaves_nothing_behind(
    caller, tmp_path, out
):
    """Then nobody is left but the guard; and the job is free only when all is over."""
    process = caller(chores(tmp_path, {"steps": 600, "grandchild": True}))
    mine = family(process, out)
    leash = leash_of(process)
    process.kill()
    leash.kill()
    process.wait()
    jobs(tmp_path).run(chores(tmp_path, {"steps": 1}), lambda record: None)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in mine)


def test_a_guard_that_is_killed_costs_nothing(caller, tmp_path, out):
    process = caller(chores(tmp_path, {"steps": 20, "grandchild": True}))
    mine = family(process, out)
    leash = leash_of(process)
    (guard,) = (p for p in leash.children() if p.cmdline() == leash.cmdline())
    guard.kill()
    assert process.wait(timeout=90) == 0
    assert not psutil.wait_procs(mine, timeout=30)[1]


def leash_of(process: subprocess.Popen) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


def test_whoever_waits_goes_on_when_the_one_who_runs_is_killed(caller, tmp_path, out):
    with pytest.raises(JobFailed):  # a failure long ago is not that of the one who runs now
        jobs(tmp_path).run(chores(tmp_path, {"exit": 2, "until_start": 2}), lambda record: None)
    job = chores(tmp_path, {"steps": 100, "save_s": 2})
    first = caller(job)
    wait_for(out / "alive")
    second = caller(job)
    first.kill()
    assert second.wait(timeout=60) == 0
    log = (out / "job.log").read_text()
    saved = log.index("the checkpoint is saved")
    assert saved < log.rindex("a line of log"), "it began after the first had saved its work"
    assert len((out / "starts").read_text().splitlines()) == 3
    assert (out / "done").exists()


def test_the_last_lines_of_a_killed_caller_s_program_are_in_its_log(caller, tmp_path, out):
    process = caller(chores(tmp_path, {"steps": 600, "save_s": 0.2}))
    wait_for(out / "alive")
    process.kill()
    wait_for(out / "checkpoint")
    assert "the checkpoint is saved" in (out / "job.log").read_text()


def test_any_process_cancels_a_job_within_seconds(caller, tmp_path, out):
    process = caller(chores(tmp_path, {"steps": 600, "grandchild": True}))
    mine, start = family(process, out), time.monotonic()
    jobs(tmp_path).cancel("k")
    assert time.monotonic() - start < 5
    assert process.wait(timeout=5) == 1
    _, alive = psutil.wait_procs(mine, timeout=1)
    assert alive == []
    assert jobs(tmp_path).run(chores(tmp_path, {}), lambda record: None) is None


def test_a_cancel_reaches_those_who_wait_for_a_run_that_was_killed(caller, tmp_path, out):
    job = chores(tmp_path, {"steps": 600, "save_s": 1.5})
    first = caller(job)
    wait_for(out / "alive")
    second = caller(job)
    first.kill()
    jobs(tmp_path).cancel("k")
    assert second.wait(timeout=15) == 1
    before = (out / "alive").read_text()
    time.sleep(0.5)
    assert (out / "alive").read_text() == before


def test_a_cancel_after_a_killed_run_does_not_touch_the_next_one(caller, tmp_path, out):
    process = caller(chores(tmp_path, {"steps": 600}))
    wait_for(out / "alive")
    process.kill()
    process.wait()
    jobs(tmp_path).cancel("k")
    jobs(tmp_path).run(chores(tmp_path, {"steps": 2}), lambda record: None)
    assert (out / "done").exists()


def test_a_hanging_display_does_not_keep_a_program_beyond_its_time(tmp_path, out):
    limited = COMPUTE.model_copy(update={"timeout_s": 1.5})
    store = open_store(str(tmp_path / "store"))
    ended = []

    def hang(record):
        if not ended:
            time.sleep(4)
            ended.append((out / "alive").stat().st_mtime)

    with pytest.raises(JobFailed, match="was not done"):
        LocalJobs(limited, store, tmp_path / "scratch").run(
            chores(tmp_path, {"steps": 600}), hang
        )
    assert time.time() - ended[0] > 1.5


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_the_leash_ends_as_its_command_did(program, code):
    leash = [sys.executable, "deployments/local/leash.py", sys.executable, "-c", program]
    assert subprocess.Popen(leash, stdin=subprocess.PIPE).wait() == code


def family(process: subprocess.Popen, out: Path) -> list[psutil.Process]:
    """The leash, the program, and what the program started."""
    wait_for(out / "alive")
    mine = psutil.Process(process.pid).children(recursive=True)
    mine.append(psutil.Process(int((out / "grandchild").read_text())))
    assert len(mine) >= 3
    return mine


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
