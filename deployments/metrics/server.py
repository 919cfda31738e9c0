"""GET /metrics on 127.0.0.1, for a process that has more to do than that.

Whoever connects takes little from it: a few connections at a time, each a few seconds long
whatever it sends, and more are closed at once. Only requests that name this machine as their
host are answered: the page of a stranger in somebody's browser names its own.
"""

import io
import re
import socket
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

CONNECTIONS_MAX = 16
REQUEST_S = 5.0  # for the whole of it to arrive, and again for the answer to be taken
_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)


class MetricsServer(ThreadingHTTPServer):
    """Answers from the start on, in threads of its own that end with the process.

    Args:
        port: 0 for any that is free; `server_port` says which.
    """

    daemon_threads = True
    request_queue_size = 128  # to be closed at once they must be accepted first

    def __init__(self, port: int, registry: CollectorRegistry) -> None:
        super().__init__(("127.0.0.1", port), partial(_Handler, registry))
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self.thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self.thread.start()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the name service who 127.0.0.1 is
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be had
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that left is not a fault
            super().handle_error(request, client_address)


class _Arriving(io.RawIOBase):
    """What a connection sends until its time is over, however slowly."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._until = connection, time.monotonic() + REQUEST_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    def __init__(self, registry: CollectorRegistry, *connection: Any) -> None:
        self._registry = registry
        super().__init__(*connection)  # answers

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Arriving(self.connection))

    def do_GET(self) -> None:
        hosts = self.headers.get_all("host", [])
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0].strip()):
            self._answer(403, b"only localhost, 127.0.0.1 and [::1] are answered\n")
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"there is /metrics and nothing else\n")
        else:
            encode, kind = choose_encoder(self.headers.get("accept") or "")
            self._answer(200, encode(self._registry), kind)

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.connection.settimeout(REQUEST_S)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not each scrape."""
