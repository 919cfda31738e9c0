"""HTTP clients for servers of this machine: plain HTTP on 127.0.0.1 or over a unix socket.

Every client of the project that calls this machine is made here. The environment is not
asked: a proxy that it names would be sent pictures and bearer tokens, and never reach us.
"""

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx

TIMEOUT_S = 5.0


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def client(port: int, *, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """A client with time-outs of 5 s that trusts no certificate at all.

    httpx reads the certificates of the whole world for each client, 50 ms of processor time
    that every task would spend six times before its first call.
    """
    return httpx.Client(
        base_url=url(port),
        headers=headers,
        timeout=TIMEOUT_S,
        verify=_trusting_nobody(),
        trust_env=False,
    )


def client_at(path: Path) -> httpx.Client:
    """A client of the server at a unix socket, like `client`."""
    way = httpx.HTTPTransport(uds=str(path), verify=_trusting_nobody(), trust_env=False)
    return httpx.Client(
        base_url="http://localhost", timeout=TIMEOUT_S, transport=way, trust_env=False
    )


def _trusting_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def listens(where: int | Path) -> bool:
    """Whether somebody takes connections at a port or a unix socket, however busily."""
    family = socket.AF_INET if isinstance(where, int) else socket.AF_UNIX
    with socket.socket(family) as probe:
        probe.settimeout(TIMEOUT_S)
        try:
            probe.connect(("127.0.0.1", where) if isinstance(where, int) else str(where))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # nobody refuses: whoever is there has no time
    return True


def answers(port: int, path: str) -> bool:
    """Whether a GET of `path` is answered with 200."""
    return _answers(client(port), path)


def answers_at(socket: Path, path: str) -> bool:
    """As `answers`, of the server at a unix socket."""
    return _answers(client_at(socket), path)


def _answers(client: httpx.Client, path: str) -> bool:
    with client as asking:
        try:
            return asking.get(path).status_code == 200
        except httpx.TransportError:
            return False


def reacts(port: int, path: str, wait_s: float = TIMEOUT_S) -> bool:
    """Whether a GET of `path` is answered in this time, or refused by closing the connection.

    A process that was stopped or hangs does neither.
    """
    return _reacts(client(port), path, wait_s)


def reacts_at(socket: Path, path: str, wait_s: float = TIMEOUT_S) -> bool:
    """As `reacts`, of the server at a unix socket."""
    return _reacts(client_at(socket), path, wait_s)


def _reacts(client: httpx.Client, path: str, wait_s: float) -> bool:
    with client as asking:
        try:
            asking.get(path, timeout=wait_s)
        except (httpx.TimeoutException, httpx.ConnectError):
            return False
        except httpx.TransportError:
            return True
    return True
