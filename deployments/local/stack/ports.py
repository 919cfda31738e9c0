"""Ports on 127.0.0.1, asked of the system by really binding to them."""

import os
import socket
from pathlib import Path

import psutil

from deployments.local import loopback
from policy.errors import PortTaken

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""Linux tells everybody who listens on which port."""

# In these tables: the state of who listens, and the addresses by which 127.0.0.1 is
# reached, of the older and of the newer protocol.
_LISTENS = "0A"
_HERE = ("0100007F", "00000000", "0000000000000000FFFF00000100007F", "0" * 32)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only dying away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int, setting: str) -> None:
    """Raises PortTaken naming the port, the setting and, where the system tells, the owner."""
    if not is_free(port):
        raise PortTaken(
            f"port {port} ({setting}) is taken{_owner(port)}",
            expected="a free port on 127.0.0.1",
            holds="nothing was started",
            do=f"end that process, or set {setting} to another port",
        )


def require_ours(port: int, setting: str) -> None:
    """Raises PortTaken if another user of this machine listens there, who would be told
    secrets. Linux tells who listens; where the system does not, nobody is refused.
    """
    strangers = listeners(port) - {os.getuid(), 0}
    if strangers:
        raise PortTaken(
            f"port {port} ({setting}) belongs to user {min(strangers)} of this machine",
            expected=f"a server of user {os.getuid()}",
            holds="nothing was sent to it",
            do=f"make down, set {setting} to another port, then make up",
        )


def listeners(port: int) -> set[int]:
    """The users whose processes listen on a port of 127.0.0.1."""
    found = set()
    for table in TABLES:
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for _, local, _, state, _, _, _, user, *_ in map(str.split, lines):
            address, _, number = local.partition(":")
            if state == _LISTENS and address in _HERE and int(number, 16) == port:
                found.add(int(user))
    return found


def held_by_another(port: int, pid: int) -> bool:
    """Whether somebody listens there who is neither this process nor a child of it."""
    try:
        ours = psutil.Process(pid)
        return loopback.listens(port) and not any(
            connection.status == psutil.CONN_LISTEN and connection.laddr[1] == port
            for process in (ours, *ours.children(recursive=True))
            for connection in process.net_connections("tcp")
        )
    except psutil.Error:
        return False  # it ended meanwhile, or the system does not tell


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by process {process.pid} ({process.name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass  # macOS tells only root; the port and its setting are named all the same
    return ""
