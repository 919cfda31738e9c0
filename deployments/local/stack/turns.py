"""One command at a time changes the stack: `up` beside `up` or `down` waits for its end."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from deployments.files import locked_now
from deployments.local.layout import Layout
from deployments.local.stack.waiting import Say
from policy.errors import Busy

_WAIT_S = 900.0  # longer than an `up` can take
_TELL_S = 10.0
_POLL_S = 0.2


@contextmanager
def turn(layout: Layout, say: Say, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Hold the stack; whoever has it is waited for, and told of. A killed one has it no more.

    Raises Busy.
    """
    path, started, told = layout.supervisor / "turn.lock", time.monotonic(), 0.0
    while True:
        with locked_now(path) as file:
            if file is not None:
                _sign(file)
                yield
                return
        now = time.monotonic()
        other = path.read_text() if path.exists() else ""
        if now - started > wait_s:
            raise Busy(
                f"process {other} has been starting or stopping this stack for {wait_s:.0f} s",
                holds="this command has changed nothing",
                do="end that one with Ctrl-C, then run this again",
            )
        if not told or now - told > _TELL_S:
            say(f"process {other} is starting or stopping this stack: waiting for its end")
            told = now
        time.sleep(_POLL_S)


def _sign(file: BinaryIO) -> None:
    """Tell those who wait who has it; `down` must not need room on the disk for that."""
    with suppress(OSError):
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
