"""A program ends when the flow run that wants it is cancelled, with or without a worker.

A worker ends the flow's process, and on this machine the program with it. A flow that runs
without a worker is told by nobody, and elsewhere a program outlives its flow: so the run's own
state is looked at while the program runs, and once more when it is left early.
"""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from deployments import Place
from policy.errors import ArrCocError
from tasks.logs import logger

EVERY_S = 5.0


@contextmanager
def ends_with_its_run(place: Place, key: str, every_s: float = EVERY_S) -> Iterator[None]:
    """Cancel the job `key` of `place` once the run of this context is cancelled.

    What it wrote stays. That the server does not answer is not a cancellation.
    """
    if not flow_run.id:
        yield
        return
    run = UUID(str(flow_run.id))
    left, told = threading.Event(), threading.Event()

    def watch() -> None:
        while not left.wait(every_s):
            if _cancelled(run):
                told.set()
                _cancel(place, key)
                return

    # A thread has no context of its own; Prefect finds its settings there.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        if not told.is_set() and _cancelled(run):
            _cancel(place, key)
        raise
    finally:
        left.set()


def _cancelled(run: UUID) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run).state
    except (HTTPError, PrefectException):
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _cancel(place: Place, key: str) -> None:
    logger().info("the run was cancelled: the job %s ends", key)
    try:
        place.jobs.cancel(key)
    except ArrCocError as error:
        logger().warning("the job %s is not cancelled: %s", key, error)
