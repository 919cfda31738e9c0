"""Cancelling a flow run means: abort what it asked for.

A request's id starts with the id of the flow run that made it (`tasks.rollout.steps`). While
such a request is undecided, the reconciler looks at the state of its run. A run that died is
no wish of anybody's: its rollout goes on. A rollback is never aborted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from deployments import Place, ledger
from policy.ledger import Ledger
from policy.records import Decided, Requested
from policy.rollout.requests import Answer, Request, ask, withdrawn

CANCELLED = ("CANCELLING", "CANCELLED")
States = Callable[[Collection[str]], Mapping[str, str]]


def stop_cancelled(place: Place, state: Ledger, states: States) -> Sequence[str]:
    """Abort or withdraw every rollout whose flow run was cancelled; one line for each.

    Args:
        states: returns the type of the state of each flow run, such as CANCELLED, by its id.
            It is not called while no run waits for anything.

    Raises:
        LedgerError, StoreError, and what `states` raises: it is to be tried again.
    """
    asked = [(answer, run) for answer in undecided(state) if (run := run_of(answer.request))]
    if not asked:
        return []
    found = states({run for _, run in asked})
    stopped = [
        _stop(place, state, answer.request, run)
        for answer, run in asked
        if found.get(run) in CANCELLED
    ]
    return [line for line in stopped if line]


def undecided(state: Ledger) -> Sequence[Answer]:
    """The rollouts that somebody asked for and still waits for, without those told to abort."""
    return [
        answer
        for id, answer in state.requests.items()
        if answer.request.kind == "rollout"
        and not answer.decided
        and _abort_id(id) not in state.requests
    ]


def run_of(request: Request) -> str:
    """The id of the flow run that made a request; "" if none did."""
    first = request.id.partition(":")[0]
    try:
        return first if str(UUID(first)) == first else ""
    except ValueError:
        return ""


def _stop(place: Place, known: Ledger, request: Request, run: str) -> str:
    by = f"whoever cancelled flow run {run}"
    wish = Request(
        id=_abort_id(request.id), kind="abort", endpoint=request.endpoint, by=by,
        why="the flow run was cancelled",
    )  # fmt: skip

    def decide(state: Ledger) -> Decided | Requested | None:
        """Held against the state at the moment of writing: never another's rollout."""
        answer, at = state.requests[request.id], state.endpoint(request.endpoint)
        if answer.decided or wish.id in state.requests:
            return None
        if answer.rollout and at.unfinished is not None and at.unfinished.rollback:
            return None  # it joined a rollback to the same version
        if not answer.rollout:
            return Decided(answer=withdrawn(answer, f"withdrawn by {by}"))
        effect = ask(wish, at.unfinished, at.promoted, place.clock.now(), "")
        return Requested(answer=effect.answer, rollout=effect.rollout)

    if decide(ledger.read(place.store, known)) is None:
        return ""
    after = ledger.append(place.store, decide, by=by, run=run, now=place.clock.now)
    told = after.requests.get(wish.id, after.requests[request.id]).reason
    return f"{request.version} on {request.endpoint}: {told}"


def _abort_id(request: str) -> str:
    return f"{request}:cancelled"
