"""Dead runs lose their slots, living ones keep them; cancelling a run means abort."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL
from prefect.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Paused,
    Pending,
    Running,
    Scheduled,
    Suspended,
)

from deployments import command
from deployments.local.stack.runs import POOL, DeadRuns, Run, Seen, Server, judge
from policy.rollout.plans import plan_for
from policy.rollout.record import Phase
from policy.rollout.requests import Request
from tasks.rollout.controller import drive
from tasks.rollout.steps import request_id
from tasks.runs import run_of, stop_cancelled

WORKER, NEXT_WORKER = os.getpid(), 1
GONE = Seen(for_s=5, processes=0, worker=True, owned=False)
ALIVE = Seen(for_s=5, processes=2, worker=True, owned=True)
ORPHAN = replace(ALIVE, owned=False)


@pytest.mark.parametrize(
    ("state", "seen", "verdict"),
    [
        ("RUNNING", ALIVE, "leave"),
        ("RUNNING", ORPHAN, "leave"),  # its worker died, it goes on
        ("RUNNING", GONE, "over"),
        ("PAUSED", ALIVE, "leave"),  # it asks a person
        ("PAUSED", GONE, "over"),
        ("PENDING", ALIVE, "leave"),
        ("PENDING", GONE, "leave"),  # it is just being started
        ("PENDING", replace(GONE, for_s=61), "over"),
        ("PENDING", replace(GONE, worker=False), "over"),
        ("CANCELLING", GONE, "over"),
        ("CANCELLING", ALIVE, "leave"),  # its worker is on it
        ("CANCELLING", replace(ALIVE, for_s=61), "end"),
        ("CANCELLING", ORPHAN, "end"),
    ],
)
def test_only_what_has_no_process_is_over(state, seen, verdict):
    run = Run(id="r", name="n", state_id="s", state=state, suspended=False)
    assert judge(run, seen) == verdict


def test_a_suspended_run_needs_no_process():
    run = Run(id="r", name="n", state_id="s", state="PAUSED", suspended=True)
    assert judge(run, GONE) == "leave"


@flow
def nothing():
    """Stands for a flow with one slot."""


class Runs:
    """Runs of a deployment with one slot, on a real server; nobody runs them."""

    def __init__(self, client):
        self.client = client
        self.port = int(PREFECT_API_URL.value().split(":")[2].split("/")[0])
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        self.deployment = client.create_deployment(
            flow_id=client.create_flow(nothing),
            name=f"one-slot-{uuid4().hex}",
            work_pool_name=POOL,
            concurrency_limit=1,
        )
        self.made, self.processes = [], []

    def run(self, *states):
        """A run that went through these states."""
        run = self.client.create_flow_run_from_deployment(self.deployment, state=Scheduled())
        for state in states:
            self.client.set_flow_run_state(run.id, state)
        self.made.append(run.id)
        return run.id

    def state(self, run):
        return self.client.read_flow_run(run).state.name

    def process(self, run, name="prefect.engine"):
        """A process of a run, as the worker starts it, or of one of its programs."""
        sleep = [sys.executable, "-c", "import time; time.sleep(600)", name]
        env = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run)}
        self.processes.append(subprocess.Popen(sleep, env=env))
        return self.processes[-1]

    def look(self, worker=WORKER):
        return DeadRuns(Server(self.port), lambda: worker)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for run in self.made:
            self.client.delete_flow_run(run)


@pytest.fixture
def runs():
    with get_client(sync_client=True) as client:
        made = Runs(client)
        yield made
        made.close()


def test_a_run_whose_process_is_gone_gives_its_slot_to_the_next_at_once(runs):
    dead, next_ = runs.run(Pending(), Running()), runs.run()
    runs.client.set_flow_run_state(next_, Pending())
    assert runs.state(next_) == "AwaitingConcurrencySlot"
    [line] = runs.look().round()
    assert str(dead) in line
    assert runs.state(dead) == "Crashed"
    runs.client.set_flow_run_state(next_, Pending())
    assert runs.state(next_) == "Pending"


def test_what_lives_is_never_marked_a_paused_run_that_asks_a_person_included(runs):
    paused, running = runs.run(Pending(), Running()), runs.run(Pending(), Running())
    runs.client.set_flow_run_state(paused, Paused(timeout_seconds=600))
    runs.process(paused)
    runs.process(running)
    look = runs.look()
    assert [*look.round(), *look.round()] == []
    assert runs.state(paused) == "Paused"


def test_a_suspended_run_is_left_alone(runs):
    run = runs.run(Pending(), Running())
    runs.client.set_flow_run_state(run, Suspended(timeout_seconds=600))
    assert runs.look().round() == []
    assert runs.state(run) == "Suspended"


def test_a_run_that_is_being_started_is_left_until_its_worker_is_another(runs):
    run, worker = runs.run(Pending()), WORKER
    look = DeadRuns(Server(runs.port), lambda: worker)
    assert look.round() == []
    worker = NEXT_WORKER
    assert len(look.round()) == 1
    assert runs.state(run) == "Crashed"


def test_without_a_worker_nobody_starts_anything(runs):
    run = runs.run(Pending())
    runs.look(worker=None).round()
    assert runs.state(run) == "Crashed"


def test_a_cancelled_run_that_no_worker_ends_is_ended_and_is_cancelled(runs):
    run = runs.run(Pending(), Running())
    process, program = runs.process(run), runs.process(run, "a program on its leash")
    runs.client.set_flow_run_state(run, Cancelling())
    look = runs.look(worker=NEXT_WORKER + 10_000_000)
    assert "its process ends" in look.round()[0]
    process.wait(10)
    assert program.poll() is None  # it saves its work first
    assert look.round() == []
    assert runs.state(run) == "Cancelling"
    program.kill()
    program.wait()
    look.round()
    assert runs.state(run) == "Cancelled"


@pytest.mark.parametrize(
    ("before", "end", "named"),
    [
        (Cancelling(), Crashed(), "Cancelled"),  # it lost its worker just then
        (Running(), Crashed(), "Crashed"),
        (Cancelling(), Cancelled(), "Cancelled"),
        (Running(), Completed(), "Completed"),
    ],
    ids=["cancelled-then-crashed", "crashed", "cancelled", "completed"],
)
def test_what_crashes_while_it_is_cancelled_was_cancelled(runs, before, end, named):
    run = runs.run(Pending(), Running())
    runs.process(run)
    look = runs.look()
    assert look.round() == []
    runs.client.set_flow_run_state(run, before, force=True)
    runs.client.set_flow_run_state(run, end, force=True)
    look.round()
    assert runs.state(run) == named


def test_a_run_that_ended_meanwhile_keeps_its_end(runs):
    run = runs.run(Pending(), Running())
    server = Server(runs.port)
    [seen] = [found for found in server.under_way() if found.id == str(run)]
    runs.client.set_flow_run_state(run, Running(message="it went on"))
    assert server.end(seen) == ""
    assert runs.state(run) == "Running"


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
