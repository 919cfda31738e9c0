"""Who listens is looked at before each connection to Prefect's server, whoever makes it.

Prefect's own clients send the login with all that they send, over HTTP and over websockets. In
a process that is guarded no socket connects to the server's port unless this user listens
there (or root), so that nobody who took the port of a dead server is told anything. A
connection that stands stays with the process that accepted it. Linux tells who listens; where
the system does not, nobody is refused.
"""

import os
import re
import sys
from typing import Any

_HERE = re.compile(r"http://127\.0\.0\.1:(\d{1,5})(/.*)?", re.ASCII)
_guarded: set[int] = set()


def guard_login() -> None:
    """Guard the server that the environment names, if it is one of this machine."""
    if here := _HERE.fullmatch(os.environ.get("PREFECT_API_URL", "")):
        guard(int(here[1]))


def guard(port: int) -> None:
    """From now on no connection of this process goes to another user at `port`.

    Whoever would connect there gets ConnectionRefusedError, as if nobody listened: Prefect's
    clients try again.
    """
    if not _guarded:
        sys.addaudithook(_before)  # for good: Python has no way to take it back
    _guarded.add(port)


def _before(event: str, details: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    match details[1]:
        case (str(host), int(port), *_) if port in _guarded and host.startswith("127."):
            _require_ours(port)


def _require_ours(port: int) -> None:
    from deployments.local.stack import ports  # not at the start of every process

    if not any(table.exists() for table in ports.TABLES):
        return
    found = ports.listeners(port)
    if strangers := found - {os.getuid(), 0}:
        raise ConnectionRefusedError(
            f"port {port} belongs to user {min(strangers)} of this machine; nothing was sent"
        )
    if not found:  # who comes between this look and the call is not served either
        raise ConnectionRefusedError(f"nobody listens on port {port}")
