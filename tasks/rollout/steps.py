"""Steps of a rollout: make the request, drive until it is decided, say whether it came true.

The request is a record with an id of its own, made of the flow run's: a run that is started
again makes the same request and finds the same outcome. Who drives, and until when, is in
controller.py; if this process dies, the reconciler goes on.
"""

from typing import Any
from uuid import uuid4

from prefect.runtime import flow_run

from deployments import command, ledger
from policy.config import Config
from policy.errors import (
    ArrCocError,
    Refused,
    RolledBack,
)
from policy.ledger import Ledger
from policy.rollout.plans import plan_for, plan_of
from policy.rollout.requests import Answer, Kind, Request
from tasks.logs import logger
from tasks.places import place_of
from tasks.retries import patient, remote
from tasks.rollout.controller import drive
from tasks.rollout.people import people_told
from tasks.rollout.replays import replay_of


@remote
def request_rollout(
    config: Config,
    endpoint: str,
    version: str,
    by: str,
    why: str = "asked for",
    against: str = "",
) -> str:
    """Ask for `version` on `endpoint`; returns the id of the request.

    Args:
        against: the version that the gate compared with, or "none"; "" checks nothing.

    Raises:
        NotFound: if there is no such version.
        Refused: if the endpoint cannot do what the plan needs; nothing was started.
    """
    plan = plan_for(config, endpoint)
    asked = Request(
        id=_id("rollout", endpoint, version), kind="rollout", endpoint=endpoint, by=by, why=why,
        version=version, plan=plan, against=against,
    )  # fmt: skip
    return make(config, asked)


@remote
def request_rollback(config: Config, endpoint: str, by: str, why: str) -> str:
    """Ask for the version before, at once. Raises Refused if there is none."""
    config.endpoint(endpoint)
    asked = Request(
        id=_id("rollback", endpoint), kind="rollback", endpoint=endpoint, by=by, why=why,
        plan=plan_of(config.rollout),
    )  # fmt: skip
    return make(config, asked)


def make(config: Config, request: Request) -> str:
    """Write a request into the ledger; returns its id."""
    return command.make(place_of(config), request, run=_run()).request.id


@patient
def follow(config: Config, request: str, file: str) -> Answer:
    """Drive the endpoint until `request` is decided; returns how it was.

    Args:
        file: the configuration's, for those who answer in a terminal.
    """
    place = place_of(config)
    asked = _answer(ledger.read(place.store), request).request
    with people_told(config, place, asked, file) as between:
        state = drive(
            place,
            asked.endpoint,
            lambda state: _answer(state, request).decided,
            by=asked.by,
            run=_run(),
            say=logger().info,
            replay=replay_of(config, place, logger().warning),
            between=between,
        )
    return _answer(state, request)


@patient
def wait_until_free(config: Config, endpoint: str) -> str:
    """Drive until no rollout is under way on `endpoint`; what serves there, or "none"."""
    place = place_of(config)

    def free(state: Ledger) -> bool:
        return state.endpoint(endpoint).unfinished is None and state.waiting(endpoint) is None

    state = drive(
        place, endpoint, free, by="retrain", run=_run(), say=logger().info,
        replay=replay_of(config, place, logger().warning),
    )  # fmt: skip
    return state.endpoint(endpoint).stable or "none"


@remote
def require_came_true(answer: Answer) -> str:
    """Turn the run red if the request did not come true; returns why it did.

    Raises:
        RolledBack: if a rollout ended on another version than was asked for.
        Refused: if it was decided without a rollout.
    """
    request = answer.request
    if answer.came_true:
        logger().info("%s: %s", request.endpoint, answer.reason)
        return answer.reason
    found = f"{request.kind} {request.version} on {request.endpoint}: {answer.reason}"
    if answer.rollout:
        raise RolledBack(found)
    raise Refused(
        found,
        holds="nothing was started",
        do="retrain again: the gate compares with what serves then",
    )


def request_id(run: str, kind: Kind, endpoint: str, version: str = "") -> str:
    """The id of a request that a flow run makes: the run's id first, for whoever cancels it."""
    return ":".join(filter(None, (run, kind, endpoint, version)))


def _answer(state: Ledger, request: str) -> Answer:
    if request not in state.requests:
        raise ArrCocError(
            f"the request {request} is not in the ledger any more",
            expected="one of the newest",
            holds="`make history` still shows its outcome",
        )
    return state.requests[request]


def _id(kind: Kind, endpoint: str, version: str = "") -> str:
    return request_id(_run() or uuid4().hex, kind, endpoint, version)


def _run() -> str:
    run: Any = flow_run.id
    return str(run or "")
