"""HTTP clients for servers of this machine, which speak plain HTTP on 127.0.0.1."""

import ssl
from collections.abc import Mapping

import httpx


def client(url: str, *, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """A client with time-outs of 5 s that trusts no certificate at all.

    httpx reads the certificates of the whole world for each client, 50 ms of processor time
    that every task would spend six times before its first call.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(base_url=url, headers=headers, timeout=5, verify=nobody)
