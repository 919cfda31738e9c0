"""Cancelling a flow run means abort, whoever cancels; dying does not."""

from uuid import uuid4

import pytest

from deployments import command
from policy.rollout.plans import plan_for
from policy.rollout.record import Phase
from policy.rollout.requests import Request
from tasks.rollout.controller import drive
from tasks.rollout.steps import request_id
from tasks.runs import run_of, stop_cancelled

GOOD, NEXT, THIRD = "2026.11.22-aaaaaaa", "2026.11.22-bbbbbbb", "2026.11.22-ccccccc"


@pytest.fixture
def serving(world):
    """Production serves GOOD; two more are registered."""
    for version in (GOOD, NEXT, THIRD):
        world.register(version)
    asked = ask(world, GOOD)
    drive(world.place, "production", lambda s: s.requests[asked.id].decided, by="a test")
    return world


def ask(world, version="", kind="rollout", run=""):
    plan = plan_for(world.config, "production")
    request = Request(
        id=request_id(run or str(uuid4()), kind, "production", version), kind=kind,
        endpoint="production", by="a test", why="a test", version=version, plan=plan,
    )  # fmt: skip
    command.make(world.place, request)
    return request


def at_the_first_step(world):
    def there(state):
        rollout = state.endpoint("production").unfinished
        return rollout is not None and rollout.phase is Phase.STEP

    drive(world.place, "production", there, by="a test")


def cancelled(world, *requests, state="CANCELLING"):
    """One round in which the runs of these requests are `state`."""
    runs = {run_of(request): state for request in requests}
    return stop_cancelled(
        world.place, world.ledger, lambda ids: {id: runs[id] for id in ids if id in runs}
    )


@pytest.mark.parametrize("state", ["CANCELLING", "CANCELLED"])
def test_cancelling_a_run_aborts_its_rollout(serving, state):
    asked = ask(serving, NEXT)
    at_the_first_step(serving)
    [line] = cancelled(serving, asked, state=state)
    assert f"aborted by whoever cancelled flow run {run_of(asked)}" in line
    assert cancelled(serving, asked) == []  # once is enough
    drive(serving.place, "production", lambda s: s.requests[asked.id].decided, by="a test")
    answer = serving.ledger.requests[asked.id]
    assert not answer.came_true
    assert serving.place.endpoint("production").observe().weights == {GOOD: 100}


@pytest.mark.parametrize("state", ["CRASHED", "FAILED", "RUNNING", "PAUSED", "SCHEDULED"])
def test_whoever_died_did_not_cancel(serving, state):
    asked = ask(serving, NEXT)
    number = serving.ledger.number
    assert cancelled(serving, asked, state=state) == []
    assert serving.ledger.number == number


def test_a_rollout_that_still_waits_is_withdrawn_and_the_one_before_goes_on(serving):
    first, second = ask(serving, NEXT), ask(serving, THIRD)
    cancelled(serving, second)
    answer = serving.ledger.requests[second.id]
    assert (answer.decided, answer.came_true) == (True, False)
    assert "withdrawn by whoever cancelled" in answer.reason
    drive(serving.place, "production", lambda s: s.requests[first.id].decided, by="a test")
    assert serving.ledger.endpoint("production").stable == NEXT
    assert serving.ledger.waiting("production") is None


def test_a_cancelled_rollback_goes_on(serving):
    asked = ask(serving, NEXT)
    drive(serving.place, "production", lambda s: s.requests[asked.id].decided, by="a test")
    back = ask(serving, kind="rollback")
    assert cancelled(serving, back) == []
    drive(serving.place, "production", lambda s: s.requests[back.id].decided, by="a test")
    assert serving.ledger.endpoint("production").stable == GOOD


def test_a_rollout_that_joined_a_rollback_takes_nothing_back_with_it(serving):
    asked = ask(serving, NEXT)
    drive(serving.place, "production", lambda s: s.requests[asked.id].decided, by="a test")
    ask(serving, kind="rollback")
    joined = ask(serving, GOOD)
    assert cancelled(serving, joined) == []
    drive(serving.place, "production", lambda s: s.requests[joined.id].decided, by="a test")
    assert serving.ledger.endpoint("production").stable == GOOD


def test_what_was_decided_meanwhile_touches_no_other_rollout(serving):
    asked = ask(serving, NEXT)
    before = serving.ledger
    drive(serving.place, "production", lambda s: s.requests[asked.id].decided, by="a test")
    ask(serving, THIRD)
    found = stop_cancelled(serving.place, before, lambda ids: dict.fromkeys(ids, "CANCELLED"))
    assert found == []
    assert serving.ledger.endpoint("production").unfinished is not None


def test_prefect_is_not_asked_while_no_run_waits_for_anything(serving):
    request = Request(
        id="by-hand", kind="rollout", endpoint="production", by="a test", why="a test",
        version=NEXT, plan=plan_for(serving.config, "production"),
    )  # fmt: skip
    command.make(serving.place, request)

    def never(_ids):
        raise AssertionError("asked")

    assert stop_cancelled(serving.place, serving.ledger, never) == []
