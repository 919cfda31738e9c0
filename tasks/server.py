"""Prefect's server for commands in a terminal: this stack's, with its login, whatever the shell
says. Elsewhere it is the one of the environment.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments import console
from deployments.local.servers import local_of
from deployments.local.stack import listener, login
from deployments.secrets import PREFECT_LOGIN
from policy.config import Config, load_config
from policy.errors import ArrCocError, Unsupported


def run_in_terminal(flow: Flow[..., Any], doc: str, *names: str) -> None:
    """`python -m flows.NAME ARGUMENT … [CONFIG]`: run a flow in this process, and end it.

    Args:
        doc: the docstring of the flow's module.
        names: of the flow's first parameters, which have to be given.
    """
    program = f"flows.{flow.name}"
    *given, file = console.arguments(program, doc, *names, config="deployments/local.yaml")

    def run() -> int:
        with reached(load_config(Path(file))), told_once():
            flow(*given, config=file)
        return 0

    sys.exit(console.exit_code_of(run))


@contextmanager
def told_once() -> Iterator[None]:
    """Within, an error of ours ends a flow without a traceback: the command tells it, once."""

    def short(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, ArrCocError)

    loggers = [logging.getLogger(f"prefect.{kind}_runs") for kind in ("flow", "task")]
    for one in loggers:
        one.addFilter(short)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(short)


@contextmanager
def reached(config: Config) -> Iterator[None]:
    """Within, Prefect's own clients talk to the server of this configuration.

    Raises:
        ConfigError: if there is no login, or none that is safe.
        PortTaken: if another user of this machine has the server's port.
        Unsupported: if no server answers, or if it refuses the login.
    """
    with ExitStack() as stack:
        if config.local is not None:
            login.require_ours_to_listen(config)
            listener.guard(local_of(config).prefect_port)
            own, url = login.read_login(config), login.api_url(config)
            here = temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: own})
            stack.enter_context(here)
        _require_answer()
        yield


def _require_answer() -> None:
    url = PREFECT_API_URL.value()
    if not url:
        return  # Prefect starts a server of its own
    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except httpx.TransportError as error:
        raise Unsupported(
            f"no Prefect server answers at {url}", holds="nothing was started", do="make up"
        ) from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code != httpx.codes.UNAUTHORIZED:
            raise
        raise Unsupported(
            f"the Prefect server at {url} does not take the login",
            holds="nothing was started",
            do=f"make up, or, elsewhere, set {PREFECT_LOGIN}",
        ) from error
