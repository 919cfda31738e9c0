"""Live progress in the Prefect UI, from the progress lines of the programs.

A thread of its own shows it: a server that fails or hangs costs the display, never the work.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.logs import logger

EVERY_S = 2.0
_LAST_WORDS_S = 10.0
Record = Mapping[str, Any]


@contextmanager
def reporter(program: str) -> Iterator[Callable[[Record], None]]:
    """Give a callback for progress records that never blocks and never raises.

    The latest record is shown every two seconds in one progress artifact and in the log.
    """
    latest: list[Record] = []
    came, ended, failed = threading.Event(), threading.Event(), threading.Event()

    def report(record: Record) -> None:
        latest[:] = [record]
        came.set()

    def work() -> None:
        display = _Display(program)
        while not ended.is_set():
            came.wait()
            came.clear()
            display.show(latest[0] if latest else None)
            ended.wait(EVERY_S)
        display.end(latest[0] if latest else None, done=not failed.is_set())

    # A thread has no context of its own; Prefect finds the run that it belongs to there.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    came.set()
    try:
        yield report
    except BaseException:
        failed.set()
        raise
    finally:
        ended.set()
        came.set()
        thread.join(_LAST_WORDS_S)


class _Display:
    """One progress artifact; what fails is told once and tried again with the next record."""

    def __init__(self, program: str) -> None:
        self._program, self._artifact, self._said, self._away = program, None, "", False

    def show(self, record: Record | None) -> None:
        text = describe(record) if record is not None else "starting"
        if text == self._said:  # programs say their last record once more when they end
            return
        self._said = text
        if record is not None:
            logger().info("%s: %s", self._program, text)
        self._update(percent(record) if record is not None else 0.0, text)

    def end(self, record: Record | None, *, done: bool) -> None:
        if record is not None:
            self.show(record)
        share = 100.0 if done else percent(record or {"done": 0, "of": 1})
        self._update(share, "done" if done else f"ended early: {self._said}")

    def _update(self, share: float, text: str) -> None:
        told = f"{self._program}: {text}"
        try:
            if self._artifact is None:
                created = create_progress_artifact(
                    progress=share, key=self._program.replace(".", "-"), description=told
                )
                # Outside of async code it is not a coroutine.
                self._artifact = cast(UUID, created)
            else:
                update_progress_artifact(self._artifact, progress=share, description=told)
            self._away = False
        except Exception as error:  # whatever it is, the work does not depend on it
            if not self._away:
                logger().warning("the progress is not shown now: %r", error)
            self._away = True


def percent(record: Record) -> float:
    return 100.0 * min(1.0, record["done"] / max(1, record["of"]))


def describe(record: Record) -> str:
    """For example `train 120/600, loss 0.81, accuracy 0.62`."""
    figures = [
        f"{name} {value:.3g}"
        for name, value in record.items()
        if name not in ("phase", "done", "of") and isinstance(value, int | float)
    ]
    return ", ".join([f"{record['phase']} {record['done']}/{record['of']}", *figures])
