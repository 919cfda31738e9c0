"""Nothing that a job started outlives the process that asked for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

CALLER = """
import sys
from pathlib import Path
from deployments.local.jobs import LocalJobs
from policy.config import load_config

compute = load_config(Path("deployments/local.yaml")).compute
told = {"steps": 600, "grandchild": True}
LocalJobs(compute).run("tests.local.chores", told, {}, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_the_caller_ends_the_program_and_its_children(tmp_path, end):
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path)])
    wait_for(tmp_path / "alive")
    mine = psutil.Process(caller.pid).children(recursive=True)
    mine.append(psutil.Process(int((tmp_path / "grandchild").read_text())))
    assert len(mine) >= 3  # the leash, the program, what the program started
    os.kill(caller.pid, end)
    caller.wait()
    _, alive = psutil.wait_procs(mine, timeout=5)
    assert alive == []


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


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)
