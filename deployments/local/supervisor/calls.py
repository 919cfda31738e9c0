"""supervisord's own calls, over its unix socket; one that hangs is given up."""

import http.client
import socket
import xmlrpc.client
from typing import Any

from typing_extensions import override

SLOW_S = 120.0  # a call to stop a program is answered once that has ended


def calls(url: str, timeout_s: float = SLOW_S) -> Any:  # its methods exist only over there
    """The methods of the supervisord at `url`. Each raises OSError if it does not answer."""
    transport = _Transport(url.removeprefix("unix://"), timeout_s)
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path, self._timeout_s = path, timeout_s

    @override
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._timeout_s)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost")
        self._path, self._timeout_s = path, timeout_s

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)
