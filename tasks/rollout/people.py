"""What a run shows to people while it drives: messages, reports and the approval form.

All of it happens in a thread of its own, which may fail or hang without touching the rollout.
What was not told when a run ends, or dies, the reconciler tells.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from deployments import Place, ledger
from policy.config import Config
from policy.ledger import Ledger
from policy.rollout.requests import Request
from tasks.logs import logger
from tasks.rollout.approval import ApprovalForm
from tasks.rollout.channels import channels_of
from tasks.rollout.telling import tell

EVERY_S = 1.0
_LAST_WORDS_S = 20.0


@contextmanager
def people_told(
    config: Config, place: Place, request: Request, file: str
) -> Iterator[Callable[[Ledger], None]]:
    """Give a function that takes the state after each look; never blocks, never raises."""
    latest: list[Ledger] = []
    changed, stop = threading.Event(), threading.Event()

    def between(state: Ledger) -> None:
        latest[:] = [state]
        changed.set()

    def work() -> None:
        form = ApprovalForm(place, request, file) if flow_run.id else None
        while not stop.is_set():
            changed.wait(EVERY_S)
            changed.clear()
            if latest:
                _show(latest[0], form)
                _tell(config, place, request, file)
            stop.wait(EVERY_S)
        if form is not None:
            form.withdraw()
        _tell(config, place, request, file)  # the end, which no look after it could show

    # A thread has no context of its own; Prefect finds the run that it belongs to there.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    try:
        yield between
    finally:
        stop.set()
        changed.set()
        thread.join(_LAST_WORDS_S)


def _show(state: Ledger, form: ApprovalForm | None) -> None:
    try:
        if form is not None:
            form.update(state)
    except Exception as error:  # whatever it is, the rollout does not depend on it
        logger().warning("not shown to people now, tried again later: %r", error)


def _tell(config: Config, place: Place, request: Request, file: str) -> None:
    """What became of this run's own request; the reconciler tells all the rest."""
    try:
        state = ledger.read(place.store)
        answer = state.requests.get(request.id)
        if answer is None or answer.rollout not in {one.rollout for one in state.untold}:
            return
        channels, run = channels_of(config, file), str(flow_run.id or "")
        tell(place, channels, run=run, rollout=answer.rollout)
    except Exception as error:  # the same
        logger().warning("not told to people now, tried again later: %r", error)
