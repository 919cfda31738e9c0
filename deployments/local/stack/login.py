"""The login of this stack's Prefect server: who has it may start anything as this user.

Made at the first `up`, 256 random bits, and kept beside Prefect's own files for its owner's
eyes alone. The server, the worker and the reconciler are told it in their environment, our
commands read the file, and a person sees it with `make login`. To change it, delete the file
and `make up` again while no flow runs: a run keeps the login that it started with.
"""

import base64
import os
import re
import secrets
import stat
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from uuid import uuid4

import httpx

from deployments.files import create_private, open_plain
from deployments.local import loopback
from deployments.local.layout import layout_of
from deployments.local.servers import local_of
from deployments.local.stack.ports import require_ours
from policy.config import Config
from policy.errors import ConfigError

USER = "arr-coc"
_FORM = re.compile(rf"{USER}:[\w-]{{43}}", re.ASCII)
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_TOKEN, _CLIENT = "Prefect-Csrf-Token", "Prefect-Csrf-Client"
_HAS_NONE = (404, 422)  # a server without this protection

Exchange = Generator[httpx.Request, httpx.Response, None]


def make_login(config: Config) -> str:
    """The login, `user:password`, made now if there is none yet. Raises ConfigError."""
    path = layout_of(config).login
    if not path.exists():
        create_private(path, f"{USER}:{secrets.token_urlsafe(32)}\n".encode())
    return read_login(config)


def read_login(config: Config) -> str:
    """The login. Raises ConfigError if there is none, or if others may know it."""
    path = layout_of(config).login
    try:
        with open_plain(path) as file:
            seen, text = os.fstat(file.fileno()), file.read(1000)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no login for Prefect's server yet: {path}", do="make up makes it"
        ) from error
    except OSError as error:
        raise _unusable(path, f"it cannot be read: {error}") from error
    if seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        mode = f"{stat.S_IMODE(seen.st_mode):o}"
        raise _unusable(path, f"it belongs to user {seen.st_uid} and has mode {mode}")
    login = text.decode(errors="replace").strip()
    if not _FORM.fullmatch(login):
        raise _unusable(path, "it holds no login")
    return login


def _unusable(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"the login of Prefect's server in {path} is not safe: {found}",
        expected="what `make up` made: a plain file of this user, mode 600",
        holds="it was not used",
        do=f"delete {path}, then make up",
    )


def client(config: Config) -> httpx.Client:
    """A client of the API of this stack's Prefect server that is logged in; see `LoggedIn`."""

    def login() -> str:
        require_ours_to_listen(config)
        return read_login(config)

    made = loopback.client(local_of(config).prefect_port)
    made.base_url = api_url(config)
    made.auth = LoggedIn(api_url(config), login)
    return made


def require_ours_to_listen(config: Config) -> None:
    """Raises PortTaken if another user has the server's port, who would be told the login."""
    require_ours(local_of(config).prefect_port, "local.prefect_port")


def api_url(config: Config) -> str:
    return f"{loopback.url(local_of(config).prefect_port)}/api"


class LoggedIn(httpx.Auth):
    """Each request with the login, and with Prefect's token against forged ones.

    Args:
        api: the URL below which the API lies.
        login: tells the login, "" if the server wants none. It is asked before each request,
            so that nothing is sent to a stranger who took the port meanwhile; what it raises
            is raised by the request.
    """

    requires_response_body = True

    def __init__(self, api: str, login: Callable[[], str]) -> None:
        self._tokens, self._login = f"{api}/csrf-token", login
        self._client, self._token = uuid4().hex, ""

    def auth_flow(self, request: httpx.Request) -> Exchange:
        """See httpx. Raises HTTPStatusError if the server refuses the login."""
        login = self._login()
        own = {"Authorization": f"Basic {_base64(login)}"} if login else {}
        request.headers.update(own)
        if request.method not in _CHANGING:
            yield request
            return
        if not self._token:
            yield from self._renew(own)
        reply = yield self._signed(request)
        if reply.status_code == httpx.codes.FORBIDDEN:  # a token ends after an hour
            yield from self._renew(own)
            yield self._signed(request)

    def _renew(self, headers: Mapping[str, str]) -> Exchange:
        wanted = {"client": self._client}
        reply = yield httpx.Request("GET", self._tokens, params=wanted, headers=headers)
        if reply.status_code not in _HAS_NONE:
            self._token = reply.raise_for_status().json()["token"]

    def _signed(self, request: httpx.Request) -> httpx.Request:
        request.headers.update({_TOKEN: self._token, _CLIENT: self._client})
        return request


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
