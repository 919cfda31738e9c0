"""Buckets for the tests: a real S3 protocol by moto's server, and one that is careless."""

import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
from moto.server import ThreadedMotoServer

KEY = "test"  # the server takes any
BUCKET = "bucket"


@cache
def s3() -> dict[str, str]:
    """The environment of an S3 with one bucket; its server lives as long as this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    environment = environment_of(server.get_host_and_port()[1])
    client(environment).create_bucket(Bucket=BUCKET)
    return environment


def environment_of(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_REGION": "us-east-1",
    }


def client(environment: dict[str, str]) -> Any:
    """Another hand than the store's own, to look into the bucket with."""
    return boto3.client(
        "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id=KEY, aws_secret_access_key=KEY,
    )  # fmt: skip


class Careless:
    """A server of S3's and GCS's objects that knows no conditions: the last writer wins.

    Whatever else is asked than putting and getting one object is refused.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.conditions: list[str] = []
        handler = type("Handler", (_Handler,), {"server_of_objects": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> "Careless":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_objects: Careless

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for name in ("If-None-Match", "x-goog-if-generation-match"):
            if name in self.headers:
                self.server_of_objects.conditions.append(name)
        self.server_of_objects.objects[self._name] = body
        self._answer(200, b"")

    def do_GET(self) -> None:
        data = self.server_of_objects.objects.get(self._name)
        self._answer(404 if data is None else 200, data or b"")

    def do_POST(self) -> None:
        self._answer(400, b"")

    def do_DELETE(self) -> None:
        self._answer(400, b"")

    @property
    def _name(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("x-goog-generation", "1")
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The tests look at the answers."""
