"""Processes that descend from a supervisord, found and ended wherever they went.

supervisord puts its address into the environment of what it starts and everything below
inherits it, so this also finds sessions of their own and what a killed supervisord has left.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress

import psutil

from deployments.local.supervisor import launch

_MARK = "SUPERVISOR_SERVER_URL"


def descendants(url: str) -> Sequence[psutil.Process]:
    """Living processes that were started below the supervisord at `url`."""
    return [p for p in psutil.process_iter() if _mark(p) == url and _lives(p)]


def with_word(word: str) -> Sequence[psutil.Process]:
    """Living processes that were started with this word in their command line."""
    return [p for p in psutil.process_iter() if word in _words(p) and _lives(p)]


def families(pids: Collection[int]) -> frozenset[int]:
    """These processes and what they have started."""
    found = set(pids)
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return frozenset(found)


def end_all(url: str, wait_s: float = 10, spare: Collection[int] = ()) -> None:
    """End every process that descends from the supervisord at `url`, but for those to spare.

    Who only watches for a supervisord that is gone is killed: asked to end, it would pass that
    on to what it watches.
    """
    found = [p for p in descendants(url) if p.pid not in spare]
    end([p for p in found if launch.__file__ in _words(p)], wait_s, kill=True)
    for _ in range(2):  # what one of them started meanwhile goes with the second
        end([p for p in descendants(url) if p.pid not in spare], wait_s)


def end(processes: Sequence[psutil.Process], wait_s: float = 10, kill: bool = False) -> None:
    """Ask them to end, unless told to kill, then end them."""
    asking = () if kill else (psutil.Process.terminate,)
    for order in (*asking, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # it ended by itself, which is what we want
                order(process)
        _, processes = psutil.wait_procs(processes, timeout=wait_s)


def _words(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return ()  # another user's, or gone


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get(_MARK, "")
    except (psutil.Error, OSError):
        return ""  # another user's, or gone
