"""Waiting for a server to become healthy, telling those who wait."""

import time
from collections.abc import Callable
from pathlib import Path

from deployments.local.supervisor.programs import tail
from policy.errors import EndpointError

Say = Callable[[str], None]


def wait_for(
    what: str,
    healthy: Callable[[], bool],
    limit_s: float,
    log: Path,
    say: Say,
    hopeless: Callable[[], str] = lambda: "",
) -> None:
    """Return once `healthy`. Raises EndpointError after `limit_s` with the tail of `log`.

    Args:
        hopeless: says why it will never be healthy, "" if it may yet be; it is told at once.
    """
    started = told = time.monotonic()
    while not healthy():
        now = time.monotonic()
        if why := hopeless():
            raise EndpointError(
                f"{what}: {why}\n{tail(log)}\n",
                holds="what is up stays up",
                do=f"read {log}, mend that, then `make up` again or `make down`",
            )
        if now - started > limit_s:
            raise EndpointError(
                f"{what} is not healthy after {limit_s:.0f} s\n{tail(log)}\n",
                holds="what is up stays up",
                do=f"read {log}, then `make up` again or `make down`",
            )
        if now - told > 5:
            say(f"waiting for the {what} … {now - started:.0f} s")
            told = now
        time.sleep(0.1)
    say(f"{what} is up ({time.monotonic() - started:.1f} s)")
