"""Run a command until it ends, or until whoever started this lets go of standard input.

    python leash.py [--stop FILE] [--limit-s SECONDS] [--mark TEXT] COMMAND …

The start of a pipe is closed by the system however its holder dies, kill -9 included. The
command also ends once FILE exists, which any process may make, and once its time is over.
Then it gets SIGTERM and some seconds to save its work, then SIGKILL. What descends from it is
found by a mark in the environment, so that workers in sessions of their own (as torchrun
starts them) end too. Ends as the command did, by the same signal if by one.

If the leash itself is killed with -9, its guard, a fork of it that waits for nothing else,
kills all that has the mark, whether or not somebody is left who started the leash.
"""

import argparse
import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

GRACE_S = 10
_MARK = "ARR_COC_LEASH"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stop", type=Path)
    parser.add_argument("--limit-s", type=float, default=math.inf)
    parser.add_argument("--mark", default=uuid.uuid4().hex)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    mark, deadline = asked.mark, time.monotonic() + asked.limit_s
    guard = Guard(mark)
    child = subprocess.Popen(
        asked.command,
        env={**os.environ, _MARK: mark},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: _end(child, mark))
    while child.poll() is None:
        if _let_go() or time.monotonic() > deadline or (asked.stop and asked.stop.exists()):
            _end(child, mark)
    kill_rest(mark)
    guard.dismiss()
    if child.returncode < 0:
        _die_by(-child.returncode)
    sys.exit(child.returncode)


class Guard:
    """A process in a session of its own that outlives this one, to kill what has `mark`.

    It holds what this process holds, so that a job's lock is free only once all is over.
    """

    def __init__(self, mark: str) -> None:
        waits, self._held = os.pipe()  # neither end is inherited by a command
        self._pid = os.fork()
        if self._pid == 0:
            _wait_and_kill(waits, self._held, mark)
        os.close(waits)

    def dismiss(self) -> None:
        """There is nothing left to kill."""
        with suppress(BrokenPipeError):  # somebody has killed it
            os.write(self._held, b"x")
        os.close(self._held)
        os.waitpid(self._pid, 0)


def _wait_and_kill(waits: int, held: int, mark: str) -> NoReturn:
    try:
        os.setsid()
        os.close(held)
        if not os.read(waits, 1):
            kill_rest(mark)
    finally:
        os._exit(0)


def _let_go() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0.1)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1024)


def _end(child: subprocess.Popen, mark: str) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    kill_rest(mark)


def _die_by(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def kill_rest(mark: str) -> None:
    """Kill -9 whatever descends from the command of the leash with this mark."""
    while rest := [process for process in psutil.process_iter() if _has(process, mark)]:
        for process in rest:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(rest, timeout=1)


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):
        return False  # another user's, or gone


if __name__ == "__main__":
    main()
