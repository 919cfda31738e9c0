"""Live progress in the Prefect UI, from the progress lines of the programs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

EVERY_S = 2.0


@contextmanager
def reporter(program: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a callback for progress records; it keeps one progress artifact up to date."""
    log = get_run_logger()
    created = create_progress_artifact(
        progress=0.0, key=program.replace(".", "-"), description=f"{program} is starting"
    )
    artifact = cast(UUID, created)  # outside of async code it is no coroutine
    shown, said = 0.0, ""

    def report(record: Mapping[str, Any]) -> None:
        nonlocal shown, said
        if time.monotonic() - shown < EVERY_S and record["done"] < record["of"]:
            return
        text = describe(record)
        if text == said:  # programs say their last record once more when they end
            return
        shown, said = time.monotonic(), text
        log.info("%s: %s", program, text)
        update_progress_artifact(artifact, progress=percent(record), description=text)

    yield report
    update_progress_artifact(artifact, progress=100.0, description=f"{program} is done")


def percent(record: Mapping[str, Any]) -> float:
    return 100.0 * min(1.0, record["done"] / max(1, record["of"]))


def describe(record: Mapping[str, Any]) -> str:
    """For example `train 120/600, loss 0.81, accuracy 0.62`."""
    figures = [
        f"{name} {value:.3g}"
        for name, value in record.items()
        if name not in ("phase", "done", "of") and isinstance(value, int | float)
    ]
    return ", ".join([f"{record['phase']} {record['done']}/{record['of']}", *figures])
