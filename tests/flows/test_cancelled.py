"""A program ends with the run that wants it, however that run is cancelled."""

import threading
from dataclasses import replace

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Cancelling, Running

from policy.errors import JobFailed
from tasks.cancelled import ends_with_its_run

KEY = "train-runs-1234"


class Jobs:
    """One job that runs until it is cancelled."""

    def __init__(self):
        self.cancelled, self.ended = [], threading.Event()

    def run(self, job, on_progress):
        assert self.ended.wait(30)
        raise JobFailed("cancelled", exit_code=-15)

    def cancel(self, key):
        self.cancelled.append(key)
        self.ended.set()


@pytest.fixture
def jobs():
    return Jobs()


@pytest.fixture
def place(world, jobs):
    return replace(world.place, jobs=jobs)


def state_becomes(state):
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, state, force=True)


def test_a_program_is_cancelled_with_its_run_though_no_worker_tells_it(place, jobs):
    @flow
    def trains():
        with ends_with_its_run(place, KEY, every_s=0.1):
            state_becomes(Cancelling())
            place.jobs.run(None, print)

    trains(return_state=True)
    assert jobs.cancelled == [KEY]


def test_a_flow_that_is_ended_by_its_worker_takes_its_program_with_it(place, jobs):
    """As the worker does it: the run is cancelling, then its process gets a signal."""

    @flow
    def trains():
        with ends_with_its_run(place, KEY, every_s=60):
            state_becomes(Cancelling())
            raise KeyboardInterrupt

    with pytest.raises(BaseException):  # noqa: B017, PT011  Prefect decides on the kind
        trains()
    assert jobs.cancelled == [KEY]


@pytest.mark.parametrize("error", [None, JobFailed("diverged", exit_code=3)])
def test_no_other_end_cancels_anything(place, jobs, error):
    @flow
    def trains():
        with ends_with_its_run(place, KEY, every_s=0.05):
            state_becomes(Running())
            threading.Event().wait(0.5)
            if error is not None:
                raise error

    trains(return_state=True)
    assert jobs.cancelled == []


def test_without_a_run_nobody_is_asked(place, jobs):
    with ends_with_its_run(place, KEY, every_s=0.05):
        threading.Event().wait(0.2)
    assert jobs.cancelled == []
