"""`up` beside `up` or `down`: one works, the other waits for its end and says so."""

import multiprocessing
import os
import signal
import threading

import pytest

from deployments.local.layout import Layout
from deployments.local.stack.turns import turn
from policy.errors import Busy
from tests.local.fixtures import until


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path, tmp_path)


def hold(layout, ready):
    with turn(layout, print):
        ready.set()
        threading.Event().wait()


@pytest.fixture
def other(layout):
    """A process that has the turn."""
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    process = context.Process(target=hold, args=(layout, ready))
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def test_the_second_waits_says_so_and_goes_on(layout, other):
    said, entered = [], threading.Event()

    def second():
        with turn(layout, said.append):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    until(lambda: said)
    assert said == [
        f"process {other.pid} is starting or stopping this stack: waiting for its end"
    ]
    assert not entered.is_set()
    os.kill(other.pid, signal.SIGKILL)  # a killed one has no turn
    assert entered.wait(10)
    thread.join()


def test_one_that_does_not_end_is_named(layout, other):
    wanted = f"process {other.pid} .*has changed nothing.*Ctrl-C"
    with pytest.raises(Busy, match=wanted), turn(layout, lambda line: None, wait_s=0.3):
        pass


def test_a_turn_in_a_folder_that_was_deleted_is_none(layout):
    """`make clean` deletes the folder with its own lock in it while others wait."""
    with turn(layout, print):
        (layout.supervisor / "turn.lock").unlink()
        with turn(layout, print, wait_s=0):
            pass
