"""What people, schedules and flows ask of an endpoint, and what comes of it.

A request is a record with an id of its own, so that one made twice (by a retry, after a crash,
after an answer of the store was lost) is one request and gives its own outcome. What it changes
at once stands in the same record. A rollout that finds the endpoint busy waits: whoever drives
the endpoint starts it when the one before has ended.

    rollout    came true if the version was promoted, or serves already
    rollback   came true if the version before serves again
    abort, reject   came true if stable serves again
    promote, pause, resume, approve   came true when they were accepted
"""

from typing import Literal

from pydantic import AwareDatetime, BaseModel

from policy.errors import Refused
from policy.rollout import commands
from policy.rollout.plans import Plan, at_once
from policy.rollout.record import Phase, Rollout, start
from policy.words import one_line

Kind = Literal[
    "rollout", "rollback", "abort", "promote", "pause", "resume", "approve", "reject"
]
COMMANDS = {
    "abort": commands.abort,
    "promote": commands.promote_now,
    "pause": commands.pause,
    "resume": commands.resume,
    "approve": commands.approve,
    "reject": commands.reject,
}
_UNTIL_THE_END = ("rollout", "rollback", "abort", "reject")


class Request(BaseModel, frozen=True):
    """`against`: the version that the gate compared with; if another serves by the time that
    the rollout would begin, it does not. "" asks for no such check, "none" for an endpoint at
    which nothing serves.
    """

    id: str
    kind: Kind
    endpoint: str
    by: str
    why: str
    version: str = ""
    plan: Plan | None = None
    against: str = ""

    def same_as(self, other: "Request") -> bool:
        """Whether both ask for the same thing, whoever says it in whatever words."""
        return (self.kind, self.endpoint, self.version) == (
            other.kind,
            other.endpoint,
            other.version,
        )


class Answer(BaseModel, frozen=True):
    """How a request stands. `rollout` is the id of the one that answers it; "" has none yet."""

    request: Request
    number: int = 0
    rollout: str = ""
    decided: bool = False
    came_true: bool = False
    reason: str = ""


class Effect(BaseModel, frozen=True):
    """What a request does at once: its answer, and the rollout that it changes, if any."""

    answer: Answer
    rollout: Rollout | None = None


def ask(
    request: Request,
    unfinished: Rollout | None,
    promoted: tuple[str, ...],
    at: AwareDatetime,
    id: str,
) -> Effect:
    """Decide what a new request does at once.

    Args:
        unfinished: the rollout under way at its endpoint.
        promoted: the versions that became stable there, in order.
        id: of a rollout that it starts.

    Raises:
        Refused: if it cannot come true now and never will; nothing is to be written.
    """
    commands.require_signed(request.by, request.why)
    by, why = one_line(request.by), one_line(request.why)
    commands.require_signed(by, why)
    request = request.model_copy(update={"by": by, "why": why})
    match request.kind:
        case "rollout":
            _plan(request)
            return _rollout(request, unfinished, promoted, at, id)
        case "rollback":
            return _rollback(request, unfinished, promoted, at, id)
        case _:
            return _command(request, unfinished, promoted, at)


def start_waiting(
    request: Request, promoted: tuple[str, ...], at: AwareDatetime, id: str
) -> Effect:
    """What a rollout that waited does now that the endpoint is free."""
    return _rollout(request, None, promoted, at, id)


def settle(answer: Answer, rollout: Rollout) -> Answer:
    """The answer once the rollout that it waits for has ended."""
    if rollout.phase not in (Phase.DONE, Phase.ROLLED_BACK):
        return answer
    done, request = rollout.phase is Phase.DONE, answer.request
    match request.kind:
        case "rollout":
            came_true = done and rollout.version == request.version
        case "rollback":
            came_true = done if rollout.rollback else not done
        case _:
            came_true = not done
    return answer.model_copy(
        update={"decided": True, "came_true": came_true, "reason": rollout.reason}
    )


def withdrawn(answer: Answer, reason: str) -> Answer:
    """The answer of a request that still waited when nobody wanted it any more."""
    asked = answer.request.model_copy(update={"plan": None})
    update = {"request": asked, "decided": True, "came_true": False, "reason": reason}
    return answer.model_copy(update=update)


def _rollout(
    request: Request,
    unfinished: Rollout | None,
    promoted: tuple[str, ...],
    at: AwareDatetime,
    id: str,
) -> Effect:
    if unfinished is not None:
        goes_there = unfinished.version == request.version
        goes_there = goes_there and unfinished.phase is not Phase.ROLLING_BACK
        waits = f"waiting for the rollout of {unfinished.version}"
        joined = unfinished.id if goes_there else ""
        return Effect(answer=Answer(request=request, rollout=joined, reason=waits))
    stable = promoted[-1] if promoted else None
    if stable == request.version:
        return _at_once(request, f"{stable} serves {request.endpoint} already")
    if request.against and request.against != (stable or "none"):
        why = (
            f"{request.version} was compared with {request.against}, but "
            f"{stable or 'nothing'} serves now"
        )
        return _at_once(request, why, came_true=False)
    begun = start(
        id, request.endpoint, request.version, stable, _plan(request), request.by, at,
        request=request.id,
    )  # fmt: skip
    return Effect(answer=Answer(request=request, rollout=id), rollout=begun)


def _rollback(
    request: Request,
    unfinished: Rollout | None,
    promoted: tuple[str, ...],
    at: AwareDatetime,
    id: str,
) -> Effect:
    if unfinished is not None and unfinished.rollback:
        return Effect(answer=Answer(request=request, rollout=unfinished.id))
    if unfinished is not None:
        return _changing(request, unfinished, commands.abort, at)
    if len(promoted) < 2:
        serves = promoted[-1] if promoted else "the first"
        raise Refused(
            f"{request.endpoint} has no version before {serves}",
            expected="a version that served before",
            holds="the weights are unchanged",
            do="roll out a version instead: python -m flows rollout VERSION --why …",
        )
    back = start(
        id, request.endpoint, promoted[-2], promoted[-1], at_once(_plan(request)), request.by,
        at, rollback=True, request=request.id,
    )  # fmt: skip
    begun = commands.promote_now(back, request.by, request.why, at)
    return Effect(answer=Answer(request=request, rollout=id), rollout=begun)


def _command(
    request: Request,
    unfinished: Rollout | None,
    promoted: tuple[str, ...],
    at: AwareDatetime,
) -> Effect:
    if unfinished is None:
        serves = promoted[-1] if promoted else "nothing"
        raise Refused(
            f"there is no rollout under way on {request.endpoint} to {request.kind}",
            holds=f"{serves} serves there",
            do="see `make status`",
        )
    return _changing(request, unfinished, COMMANDS[request.kind], at)


def _changing(request: Request, unfinished: Rollout, command, at: AwareDatetime) -> Effect:
    after = command(unfinished, request.by, request.why, at)
    until_the_end = request.kind in _UNTIL_THE_END
    answer = Answer(
        request=request,
        rollout=unfinished.id,
        decided=not until_the_end,
        came_true=not until_the_end,
        reason=after.reason,
    )
    return Effect(answer=answer, rollout=None if after == unfinished else after)


def _at_once(request: Request, reason: str, *, came_true: bool = True) -> Effect:
    answer = Answer(request=request, decided=True, came_true=came_true, reason=reason)
    return Effect(answer=answer)


def _plan(request: Request) -> Plan:
    if request.plan is None:
        raise Refused(f"the request {request.id} has no plan", holds="nothing was started")
    return request.plan
