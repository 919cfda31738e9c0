"""Who of several processes on this machine looks at an endpoint, and when one last looked."""

import fcntl
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from deployments import Clock

_LOOKS = 5  # so many looks may be missed before the time counts as unwatched
_AT_LEAST_S = 10.0


class Lead:
    """A lock that the system frees when its holder dies, however that happens."""

    def __init__(self, scratch: Path, endpoint: str, clock: Clock) -> None:
        self._path = lock_path(scratch, endpoint)
        self._clock, self._file = clock, None

    def take(self) -> bool:
        """Whether this process looks now; asked again, it may get the lead later."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not for appending: what is written there would always go to the end.
        file: IO[str] = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

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
