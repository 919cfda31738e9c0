"""The log of the flow run that is under way; the program's own where none is."""

from logging import Logger, LoggerAdapter

from prefect import get_run_logger
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger


def logger() -> "Logger | LoggerAdapter[Logger]":
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("arr-coc")
