"""Requests from a terminal: made, carried out, and told until they are decided.

Nobody else has to be alive: this process drives the endpoint itself, or reads along while
another one does. It starts without Prefect, for it may be needed in a hurry.
"""

from uuid import uuid4

from deployments import Place, command, connect
from deployments.console import complain, say
from flows.terminal.plan import longest_s
from policy.config import Config
from policy.ledger import Ledger
from policy.rollout.plans import plan_for, plan_of
from policy.rollout.record import stayed_s
from policy.rollout.requests import Answer, Kind, Request
from policy.words import duration, one_line
from tasks.rollout.controller import drive
from tasks.rollout.lead import last_look, tolerated_s
from tasks.rollout.replays import replay_of

KINDS = ("rollout", "rollback", "abort", "promote", "pause", "resume", "approve", "reject")
DECIDED_AT_ONCE = ("promote", "pause", "resume", "approve")
WAY_BACK_S = 600.0
_PULSE_S = 15.0


def request_of(
    config: Config, kind: Kind, endpoint: str, by: str, why: str, version: str = ""
) -> Request:
    """A new request with an id of its own; a rollout and a rollback take the plan along.

    Raises ConfigError if there is no such endpoint.
    """
    config.endpoint(endpoint)
    plans = {"rollout": plan_for(config, endpoint), "rollback": plan_of(config.rollout)}
    return Request(
        id=uuid4().hex, kind=kind, endpoint=endpoint, by=by, why=why, version=version,
        plan=plans.get(kind),
    )  # fmt: skip


def give(config: Config, request: Request, wait_s: float | None) -> int:
    """Carry out `request` at the configured place; see `fulfil`."""
    return fulfil(config, connect(config), request, wait_s)


def fulfil(config: Config, place: Place, request: Request, wait_s: float | None) -> int:
    """Write `request` into the ledger, drive until it is decided, and tell how it was.

    Args:
        wait_s: at most so many seconds; None: as long as its plan may take; 0: not at all.

    Returns:
        0 if it came true, or if it was written and nobody wanted to wait; else 1.

    Raises:
        Refused, NotFound, Unsupported: if it can never come true; nothing was written.
    """
    answer = command.make(place, request)
    if answer.decided and request.kind in DECIDED_AT_ONCE:
        say(f"{request.endpoint}: {answer.reason}")
        _warn_if_nobody_looks(place, request)
        return 0
    if answer.decided:
        return _tell(answer)
    say(f"{request.endpoint}: asked for: {_wish(request)}; {answer.reason or 'taken up'}")
    if wait_s == 0:
        say("not waited for: whoever drives the endpoint goes on; make status tells how it is")
        _warn_if_nobody_looks(place, request)
        return 0
    return _follow(config, place, request, longest(request) if wait_s is None else wait_s)


def longest(request: Request) -> float:
    """Seconds that carrying it out may take if everything uses its deadline."""
    return WAY_BACK_S + (longest_s(request.plan) if request.plan is not None else 0.0)


def _follow(config: Config, place: Place, request: Request, wait_s: float) -> int:
    ends, pulse = place.clock.monotonic() + wait_s, _Pulse(place, request.endpoint)

    def over(state: Ledger) -> bool:
        return state.requests[request.id].decided or place.clock.monotonic() >= ends

    try:
        state = drive(
            place, request.endpoint, over, by=one_line(request.by), say=pulse.say,
            replay=replay_of(config, place, complain), between=pulse.beat,
        )  # fmt: skip
    except KeyboardInterrupt:
        say("not waited for any more; the request stays, whoever drives the endpoint goes on")
        raise
    return _tell(state.requests[request.id], waited_s=wait_s)


def _tell(answer: Answer, waited_s: float = 0.0) -> int:
    request = answer.request
    if not answer.decided:
        complain(
            f"error: {_wish(request)} is not decided after {duration(waited_s)}; the request "
            "stays in the ledger and whoever drives the endpoint goes on; to do: make status "
            "says what it waits for"
        )
    elif answer.came_true:
        say(f"{request.endpoint}: {_wish(request)} came true: {answer.reason}")
    else:
        complain(f"error: {_wish(request)} did not come true: {answer.reason}")
    return 0 if answer.came_true else 1


def _wish(request: Request) -> str:
    return " ".join(filter(None, (request.kind, request.version)))


def _warn_if_nobody_looks(place: Place, request: Request) -> None:
    """A request alone moves nothing."""
    look_s = request.plan.look_s if request.plan is not None else 0.0
    seen = last_look(place.scratch, request.endpoint)
    gap_s = (place.clock.now() - seen).total_seconds() if seen else None
    if gap_s is None or gap_s > tolerated_s(look_s):
        since = "ever" if gap_s is None else f"for {duration(gap_s)}"
        complain(
            f"warning: no process of this machine has looked at {request.endpoint} {since}; "
            "the request is carried out as soon as one does; to do: make up starts the "
            "reconciler"
        )


class _Pulse:
    """Prints what the controller says, and a sign of life where it says nothing for long."""

    def __init__(self, place: Place, endpoint: str) -> None:
        self._clock, self._endpoint = place.clock, endpoint
        self._last = place.clock.monotonic()

    def say(self, line: str) -> None:
        say(f"  {line}")
        self._last = self._clock.monotonic()

    def beat(self, state: Ledger) -> None:
        rollout, now = state.endpoint(self._endpoint).rollout, self._clock.now()
        if self._clock.monotonic() - self._last < _PULSE_S:
            return
        if rollout is not None:
            since = duration(stayed_s(rollout, now))
            self.say(f"{rollout.version} on {self._endpoint}: {rollout.phase} for {since}")
