"""A small strict server of Google Cloud Storage's XML API, as far as checkpoints need it.

After https://cloud.google.com/storage/docs/xml-api/reference-methods: objects put whole or in
parts, got, deleted and listed. Whatever else is asked, or asked without the token, is refused
and noted.
"""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from model.program.files import sha256_hex

TOKEN = "-".join(["a", "token", "of", "the", "test"])
BUCKET = "bucket"
ELEMENTS = {
    name: re.compile(f"<{name}>(.*?)</{name}>", re.DOTALL)
    for name in ("Part", "PartNumber", "ETag")
}


class FakeGcs:
    """One bucket; `objects` is what it holds, `refused` what it did not understand."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.refused: list[str] = []
        handler = type("Handler", (_Handler,), {"gcs": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> "FakeGcs":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def answer(
        self, method: str, name: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Status and body."""
        match method, name, query:
            case "GET", "", {"list-type": "2", "prefix": prefix}:
                return 200, self._listed(prefix)
            case "PUT", name, {} if name and not query:
                self.objects[name] = body
                return 200, b""
            case "POST", name, {"uploads": ""} if name and not body:
                upload = f"upload-{len(self.uploads)}"
                self.uploads[upload] = {}
                return 200, _xml("InitiateMultipartUploadResult", name, UploadId=upload)
            case "PUT", name, {"partNumber": number, "uploadId": upload}:
                self.uploads[upload][int(number)] = body
                return 200, b""
            case "POST", name, {"uploadId": upload}:
                self.objects[name] = self._joined(self.uploads.pop(upload), body)
                return 200, _xml("CompleteMultipartUploadResult", name, ETag='"joined"')
            case "GET", name, {} if name in self.objects and not query:
                return 200, self.objects[name]
            case "DELETE", name, {} if name in self.objects and not query:
                del self.objects[name]
                return 204, b""
        self.refused.append(f"{method} {name} {query}")
        return 400, b""

    def _listed(self, prefix: str) -> bytes:
        found = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{_etag(data)}</ETag></Contents>"
            for name, data in sorted(self.objects.items())
            if name.startswith(prefix)
        )
        return f"<ListBucketResult><Name>{BUCKET}</Name>{found}</ListBucketResult>".encode()

    def _joined(self, parts: dict[int, bytes], body: bytes) -> bytes:
        """The parts that the client lists, each with the tag it was given for it."""
        listed = []
        for part in ELEMENTS["Part"].findall(unescape(body.decode(), {"&quot;": '"'})):
            (number,) = map(int, ELEMENTS["PartNumber"].findall(part))
            if ELEMENTS["ETag"].findall(part) != [_etag(parts[number])]:
                self.refused.append(f"part {number} has another tag")
            listed.append(number)
        if listed != sorted(parts):
            self.refused.append(f"parts {listed} of {sorted(parts)}")
        return b"".join(parts[number] for number in listed)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gcs: FakeGcs

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        bucket, _, name = unquote(url.path).removeprefix("/").partition("/")
        asked = parse_qs(url.query, keep_blank_values=True)
        query = {key: values[0] for key, values in asked.items()}
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status, reply = 401, b""
        elif bucket != BUCKET:
            status, reply = 404, b""
        else:
            status, reply = self.gcs.answer(self.command, name, query, body)
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(reply)))
        self.send_header("ETag", _etag(reply if self.command == "GET" else body))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(reply)

    def do_GET(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:
        """The tests look at the answers."""


def _etag(data: bytes) -> str:
    return f'"{sha256_hex(data)[:32]}"'


def _xml(root: str, name: str, **more: str) -> bytes:
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in more.items())
    return (
        f"<{root}><Bucket>{BUCKET}</Bucket><Key>{escape(name)}</Key>{inner}</{root}>".encode()
    )
