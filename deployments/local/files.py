"""Files that are whole at any moment, and a lock between processes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policy.errors import Busy


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, on the disk when this returns.

    The temporary file's name starts with a dot, so that no pattern such as `*.conf` sees it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def alone(path: Path, what: str, wait_s: float = 120) -> Iterator[None]:
    """Hold the lock `path`, which the system frees when its holder dies. Raises Busy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise Busy(
                        f"{what} has been busy for {wait_s:.0f} s with another call",
                        holds="nothing was changed",
                        do=f"find who holds {path}",
                    ) from error
            time.sleep(0.02)
        yield
