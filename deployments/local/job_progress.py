"""Progress on its way from a program's log to whoever asked: it can hurt nobody."""

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deployments import Json

_LOG = logging.getLogger(__name__)
_TAIL = 20
_AT_ONCE_BYTES = 1 << 20


class Log:
    """What is appended to a job's log from now on: progress records and other lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, b""
        self._offset = path.stat().st_size if path.exists() else 0
        self._last: deque[str] = deque(maxlen=_TAIL)

    @property
    def last(self) -> Sequence[str]:
        """The last lines that were no progress."""
        return self._last

    def latest(self) -> Mapping[str, Json] | None:
        """Read what is new; the last progress record in it, None if there is none."""
        found = None
        while piece := self._read():
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                record = _progress(line)
                found = found if record is None else record
                if record is None:
                    self._last.append(line.decode(errors="replace").rstrip())
        return found

    def end(self) -> None:
        """Count what stands after the last newline as a line: the program has ended."""
        if self._rest:
            self._last.append(self._rest.decode(errors="replace").rstrip())
            self._rest = b""

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset = 0  # another job began in this folder
                file.seek(self._offset)
                piece = file.read(_AT_ONCE_BYTES)
        except FileNotFoundError:
            return b""  # the other process has not begun, or has uploaded it
        self._offset += len(piece)
        return piece


class Display:
    """Hands progress to the caller of a job, whatever that does with it."""

    def __init__(self, on_progress: Callable[[Mapping[str, Json]], None]) -> None:
        self._on_progress, self._failed = on_progress, False
        self._followed: Log | None = None

    def show(self, record: Mapping[str, Json] | None) -> None:
        """Show one record. What ends a process (an interrupt, a cancellation) passes."""
        if record is None:
            return
        try:
            self._on_progress(record)
        # Whatever a display stumbles over, the program that it shows is well.
        except Exception:
            if not self._failed:
                _LOG.warning("progress could not be shown; the job goes on", exc_info=True)
            self._failed = True

    def follow(self, path: Path) -> None:
        """Show what another process's job has told since the last call."""
        if self._followed is None:
            self._followed = Log(path)
        self.show(self._followed.latest())


def _progress(line: bytes) -> Mapping[str, Json] | None:
    if not line.startswith(b'{"progress"'):
        return None
    try:
        record = json.loads(line)["progress"]
    except ValueError:
        return None  # a line cut short by a crash
    return record if isinstance(record, dict) else None
