"""Dead runs lose their slots at once, living ones keep them."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import httpx
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

from deployments.local.stack.runs import POOL, DeadRuns, Run, Seen, Server, judge

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
        self.server = Server(httpx.Client(base_url=PREFECT_API_URL.value(), trust_env=False))
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
        return DeadRuns(self.server, lambda: worker)

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
    look = DeadRuns(runs.server, lambda: worker)
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
    [seen] = [found for found in runs.server.under_way() if found.id == str(run)]
    runs.client.set_flow_run_state(run, Running(message="it went on"))
    assert runs.server.end(seen) == ""
    assert runs.state(run) == "Running"
