"""Who of several processes on this machine looks at an endpoint, and when one last looked.

    <scratch>/driving/<endpoint>.lock   locked by who looks; holds the time of the last look
    <scratch>/driving/<endpoint>.turn   who looks, changed at each turn

The system frees the lock of a process that dies. One that hangs or was stopped keeps it, but
its turn stands still: then another passes it over and looks without the lock, and the first,
should it go on, sees that and gives the lock up. Two who look at once do no harm.
"""

import fcntl
import os
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO
from uuid import uuid4

from deployments import Clock

PASSED_OVER_S = 20.0  # more than a turn takes, and no canary is left alone for longer
_LOOKS = 5  # so many looks may be missed before the time counts as unwatched
_AT_LEAST_S = 10.0


class Lead:
    """A lock that the system frees when its holder dies, and that none keeps who hangs."""

    def __init__(self, scratch: Path, endpoint: str, clock: Clock) -> None:
        self._path = lock_path(scratch, endpoint)
        self._clock, self._file = clock, None
        self._locked = self._marked = False
        self._turn = _Turn(self._path.with_suffix(".turn"))
        self._seen: tuple[bytes, float] | None = None

    def take(self, look_s: float = 0.0) -> bool:
        """Whether this process looks now; asked again, it may get the lead later.

        Args:
            look_s: seconds between two looks of who has the lead.
        """
        if self._passed_over():
            self.release()
            return False
        if not self._locked:
            self._lock()
        if self._locked or self._marked or self._stands_still(look_s):
            self._marked = self._turn.write()
            return True
        self.release()
        return False

    def is_ours(self) -> bool:
        """Whether this process has the lead still: it may have been stopped for a while."""
        return self._file is not None and not self._passed_over()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._locked, self._marked = None, False, False

    def looked(self) -> None:
        """Remember that somebody looked just now, if the disk has room for it."""
        if self._file is not None:
            text = self._clock.now().isoformat()
            with suppress(OSError):  # the same process knows it anyway
                os.pwrite(self._file.fileno(), text.ljust(40).encode(), 0)

    def last_look(self) -> datetime | None:
        """When a process of this machine last looked; None if none did, or without the lead."""
        if self._file is None:
            return None
        return _time_in(os.pread(self._file.fileno(), 40, 0))

    def _lock(self) -> None:
        """Try to; the file is opened anew, for somebody may have cleared the folder."""
        if self._file is not None:
            self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not for appending: what is written there would always go to the end.
        file: IO[str] = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._locked = True
        self._file = file

    def _passed_over(self) -> bool:
        return self._marked and self._turn.is_anothers()

    def _stands_still(self, look_s: float) -> bool:
        """By the clock that is never set, so that setting the other one looks like nothing."""
        turn, now = self._turn.read(), self._clock.monotonic()
        if self._seen is None or self._seen[0] != turn:
            self._seen = turn, now
        return now - self._seen[1] > max(PASSED_OVER_S, tolerated_s(look_s))


class _Turn:
    """The file that says whose turn it is, and changes as long as that one goes on."""

    def __init__(self, path: Path) -> None:
        self._path, self._me, self._number = path, uuid4().hex.encode(), count()

    def write(self) -> bool:
        """Whether the disk took it."""
        text = b"%s %012d\n" % (self._me, next(self._number))
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                return os.pwrite(file, text, 0) == len(text)
            finally:
                os.close(file)
        except OSError:
            return False

    def read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def is_anothers(self) -> bool:
        turn = self.read()
        return bool(turn) and not turn.startswith(self._me)


def last_look(scratch: Path, endpoint: str) -> datetime | None:
    """When a process of this machine last looked at `endpoint`; None if none ever did."""
    try:
        return _time_in(lock_path(scratch, endpoint).read_bytes()[:40])
    except FileNotFoundError:
        return None


def lock_path(scratch: Path, endpoint: str) -> Path:
    return scratch / "driving" / f"{endpoint}.lock"


def tolerated_s(look_s: float) -> float:
    """Nobody may look for so long before that time counts as unwatched."""
    return max(_LOOKS * look_s, _AT_LEAST_S)


def _time_in(data: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(data.decode(errors="replace").strip())
    except ValueError:
        return None  # nobody has looked yet
