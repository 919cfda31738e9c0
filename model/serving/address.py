"""Where to serve and which version, from the environment; and the socket that listens there."""

import fcntl
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.program.errors import BadInput

BACKLOG = 2048
PIXELS_MAX = 50_000_000  # more is not decoded at all, in training neither (dataset/images.py)
NEEDED = (
    "AIP_HEALTH_ROUTE",
    "AIP_PREDICT_ROUTE",
    "ARR_COC_VERSION",
    "ARR_COC_PICTURE_PIXELS_MAX",
    "ARR_COC_REQUEST_PIXELS_MAX",
)
PRIVATE = 0o177  # umask: what is made is for its owner alone


@dataclass(frozen=True)
class Address:
    """Only host and threads default. `socket`: a path to listen on instead of a port."""

    host: str
    port: int
    socket: Path | None
    health_route: str
    predict_route: str
    version: str
    threads: int
    picture_pixels_max: int
    request_pixels_max: int


def read_address(environment: Mapping[str, str]) -> Address:
    """Raises BadInput naming the variable that is missing or wrong."""
    _check_present(environment)
    port, path = environment.get("AIP_HTTP_PORT", ""), environment.get("ARR_COC_SOCKET", "")
    if bool(port) == bool(path):
        raise BadInput(
            f"AIP_HTTP_PORT and ARR_COC_SOCKET are {'both' if port else 'not'} set",
            expected="exactly one of them",
        )
    _check_routes(environment["AIP_HEALTH_ROUTE"], environment["AIP_PREDICT_ROUTE"])
    return Address(
        host=environment.get("ARR_COC_HOST", "127.0.0.1"),
        port=_number("AIP_HTTP_PORT", port) if port else 0,
        socket=Path(path) if path else None,
        health_route=environment["AIP_HEALTH_ROUTE"],
        predict_route=environment["AIP_PREDICT_ROUTE"],
        version=environment["ARR_COC_VERSION"],
        threads=_number("ARR_COC_THREADS", environment.get("ARR_COC_THREADS", "1")),
        picture_pixels_max=_pixels("ARR_COC_PICTURE_PIXELS_MAX", environment),
        request_pixels_max=_pixels("ARR_COC_REQUEST_PIXELS_MAX", environment),
    )


def _check_present(environment: Mapping[str, str]) -> None:
    for name in NEEDED:
        if not environment.get(name):
            raise BadInput(f"{name} is not set", expected=f"all of {', '.join(NEEDED)}")


def _number(name: str, text: str, largest: int = 65535) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= largest):
        raise BadInput(f"{name} (={text})", expected=f"a whole number from 1 to {largest}")
    return int(text)


def _pixels(name: str, environment: Mapping[str, str]) -> int:
    return _number(name, environment[name], PIXELS_MAX)


def _check_routes(health: str, predict: str) -> None:
    for name, route in (("AIP_HEALTH_ROUTE", health), ("AIP_PREDICT_ROUTE", predict)):
        if not route.startswith("/"):
            raise BadInput(f"{name} (={route})", expected="a path that starts with /")
    if health == predict:
        raise BadInput(
            f"AIP_PREDICT_ROUTE (={predict}) is also the health route", expected="two routes"
        )


def listen(address: Address) -> socket.socket:
    """A socket that listens there. Raises BadInput if another server does, or nobody may."""
    try:
        if address.socket:
            return _listen_on_path(address.socket)
        return socket.create_server((address.host, address.port), backlog=BACKLOG)
    except OSError as error:
        where = address.socket or f"{address.host}:{address.port}"
        raise BadInput(
            f"cannot listen on {where} ({error.strerror or error})",
            expected="an address that is free, on this machine, and at most 107 bytes long",
            do="stop what listens there, or choose another",
        ) from error


def _listen_on_path(path: Path) -> socket.socket:
    """A unix socket that is the owner's alone from its first moment.

    A killed server leaves its socket behind, and only its lock tells that it is gone: the
    kernel drops that with the process. Whoever has the lock may replace the file.
    """
    before = os.umask(PRIVATE)
    try:
        _hold(path.with_name(f"{path.name}.lock"))
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    finally:
        os.umask(before)
    return listener


def _hold(path: Path) -> None:
    """Lock a file for as long as this process lives. Raises BadInput if another one does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise BadInput(
            f"a living server listens on {path.with_suffix('')}",
            expected="a path that is free",
            now="that server goes on",
            do="stop it, or choose another path",
        ) from error
