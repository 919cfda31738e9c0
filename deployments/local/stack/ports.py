"""Ports on 127.0.0.1, asked of the system by really binding to them."""

import socket
from collections.abc import Container

import psutil

from policy.errors import PortTaken


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


def find_free(first: int, last: int, count: int, reserved: Container[int]) -> range:
    """The first `count` free ports in a row within [first, last]. Raises PortTaken."""
    for start in range(first, last - count + 2):
        row = range(start, start + count)
        if not any(port in reserved for port in row) and all(map(is_free, row)):
            return row
    raise PortTaken(
        f"no {count} free ports in a row in local.model_ports (={[first, last]})",
        holds="nothing was started",
        do="widen local.model_ports, or undeploy a version",
    )


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr[1] == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f" by process {process.pid} ({process.name()})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass  # macOS tells only root; the port and its setting are named all the same
    return ""
