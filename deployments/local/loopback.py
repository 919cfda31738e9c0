"""HTTP clients for servers of this machine, which speak plain HTTP on 127.0.0.1.

Every client of the project that calls this machine is made here. The environment is not
asked: a proxy that it names would be sent pictures and bearer tokens, and never reach us.
"""

import ssl
from collections.abc import Mapping

import httpx

TIMEOUT_S = 5.0


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def client(port: int, *, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """A client with time-outs of 5 s that trusts no certificate at all.

    httpx reads the certificates of the whole world for each client, 50 ms of processor time
    that every task would spend six times before its first call.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(
        base_url=url(port), headers=headers, timeout=TIMEOUT_S, verify=nobody, trust_env=False
    )


def answers(port: int, path: str) -> bool:
    """Whether a GET of `path` is answered with 200."""
    with client(port) as asking:
        try:
            return asking.get(path).status_code == 200
        except httpx.TransportError:
            return False
