"""A flow that is run as a program ends with one clear error, not with a traceback."""

import logging

import pytest
from prefect import flow, task

from policy.errors import NotFound
from tasks.server import told_once


@task
def ask(error):
    raise error


@flow
def asks(error):
    ask(error)


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.tracebacks = []

    def emit(self, record):
        if record.exc_info:
            self.tracebacks.append(record.exc_info[1])


@pytest.fixture
def heard():
    """Errors whose traceback Prefect logs."""
    handler, loggers = (
        Heard(),
        [logging.getLogger(f"prefect.{k}_runs") for k in ("flow", "task")],
    )
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def test_an_error_of_ours_has_no_traceback(heard):
    with told_once(), pytest.raises(NotFound):
        asks(NotFound("there is no version 'v9' in the ledger"))
    assert heard.tracebacks == []


def test_a_fault_of_the_program_keeps_its_own(heard):
    with told_once(), pytest.raises(ZeroDivisionError):
        asks(ZeroDivisionError())
    assert len(heard.tracebacks) == 2
