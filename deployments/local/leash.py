"""Run a command until it ends, or until whoever started this lets go of standard input.

    python leash.py COMMAND …

The start of a pipe is closed by the system however its holder dies, kill -9 included. Then
the command gets SIGTERM and some seconds to save its work, then SIGKILL. What descends from
it is found by a mark in the environment, so that workers in sessions of their own (as
torchrun starts them) end too. Ends as the command did, by the same signal if by one.
"""

import os
import resource
import select
import signal
import subprocess
import sys
import uuid

import psutil

GRACE_S = 10
_MARK = "ARR_COC_LEASH"


def main(command: list[str]) -> None:
    mark = uuid.uuid4().hex
    child = subprocess.Popen(
        command,
        env={**os.environ, _MARK: mark},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: _end(child, mark))
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.1)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            _end(child, mark)
    _kill_rest(mark)
    if child.returncode < 0:
        _die_by(-child.returncode)
    sys.exit(child.returncode)


def _end(child: subprocess.Popen, mark: str) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    _kill_rest(mark)


def _die_by(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _kill_rest(mark: str) -> None:
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
    main(sys.argv[1:])
