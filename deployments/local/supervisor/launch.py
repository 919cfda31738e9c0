"""Become a command, or watch the one that a killed supervisord has left running.

    python -I -S launch.py ALIVE LOG WHAT STOP_S COMMAND …

The command's process holds a lock on the file ALIVE for as long as it lives, and the file says
which process that is and WHAT it runs (a digest). Who finds the file locked by the same thing
stands in for it: passes on the signals to end, and ends when it does. Something else is ended
first. Output goes straight into LOG: a pipe would end with supervisord, and may take along
whoever writes into it.

Only the standard library is imported, and little of it: this stands between a server that
died and the next one.
"""

import fcntl
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

LOG_BYTES_MAX = 5_000_000
_RECORD_BYTES = 512  # always the same: on a full disk there is room for what was there
_WRITTEN_S = 2.0  # whoever has the lock has long written who it is
_KILLED_S = 5.0
_POLL_S = 0.05


class Holder(NamedTuple):
    """The process that holds a lock, when it began in the system's words, and what it runs."""

    pid: int
    started: str
    what: str

    @property
    def lives(self) -> bool:
        """Whether it is that very process, and no later one of the same number."""
        return bool(self.started) and started(self.pid) == self.started


NOBODY = Holder(0, "", "")


def main(alive: str, log: str, what: str, stop_s: str, *command: str) -> NoReturn:
    _write_to(Path(log))
    file = os.open(alive, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    holder = _lock_or_holder(file)
    if holder is not None and holder.lives and holder.what == what:
        _watch(file, holder, float(stop_s))
    if holder is not None:
        _end(file, holder, float(stop_s))
    _write_holder(file, what)
    os.set_inheritable(file, True)
    os.execv(command[0], command)  # noqa: S606  the words come from our own file


def holder_in(record: bytes) -> Holder:
    """Who says in the bytes of ALIVE that it runs; NOBODY if they are not whole."""
    try:
        pid, began, what = json.loads(record)
        return Holder(int(pid), str(began), str(what))
    except (ValueError, TypeError):
        return NOBODY


def started(pid: int) -> str:
    """When a process began; "" if there is none."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        except (FileNotFoundError, ProcessLookupError):
            return ""
    import subprocess  # takes longer to import than all the rest

    asked = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _lock_or_holder(file: int) -> Holder | None:
    """Lock the file; or else who has it."""
    deadline = time.monotonic() + _WRITTEN_S
    while not _locked(file):
        holder = holder_in(os.pread(file, _RECORD_BYTES, 0))
        if holder.lives or time.monotonic() > deadline:
            return holder
        time.sleep(_POLL_S)
    return None


def _watch(file: int, holder: Holder, stop_s: float) -> NoReturn:
    """End when the process does, and end it when told to."""

    def end(_number: int, _frame: object) -> None:
        _signal(holder, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, stop_s)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGALRM, lambda *_: _signal(holder, signal.SIGKILL))
    _say(f"process {holder.pid} runs this already: it goes on, and is watched")
    fcntl.flock(file, fcntl.LOCK_EX)  # free once the process is gone, whatever ended it
    sys.exit(f"process {holder.pid} has ended")


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk ends nobody
        print(text, flush=True)


def _end(file: int, holder: Holder, stop_s: float) -> None:
    """End what runs in its place, with its children, and lock the file."""
    for number, wait_s in ((signal.SIGTERM, stop_s), (signal.SIGKILL, _KILLED_S)):
        _signal(holder, number)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if _locked(file):
                return
            time.sleep(_POLL_S)
    sys.exit(f"somebody holds the lock, last known as {holder}, and does not end")


def _signal(holder: Holder, number: int) -> None:
    """Signal its group, whose number no other process gets while one of the group lives."""
    if holder == NOBODY or started(holder.pid) not in ("", holder.started):
        return
    try:
        os.killpg(holder.pid, number)
    except ProcessLookupError:
        return  # it has ended


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_holder(file: int, what: str) -> None:
    record = json.dumps([os.getpid(), started(os.getpid()), what])
    os.pwrite(file, record.ljust(_RECORD_BYTES).encode(), 0)


def _write_to(log: Path) -> None:
    """Send what this process and the command say into the log, moving a long one aside."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(f"{log}.1")
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
