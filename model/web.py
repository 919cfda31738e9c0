"""The HTTP side of serving: two routes, and a clear 400 for whatever cannot be answered.

An ASGI application without a framework. Two routes need none, and one would cost each
request as much as reading it does, each server a fifth of its start.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from model.answering import Answerer, parse
from model.errors import BadInput

BODY_BYTES_MAX = 32_000_000
# What is answered at once holds up the health checks meanwhile: some twenty small pictures
# may, if the network is as quick as this. The rest goes to a thread, which costs a batch of
# 16 a third on a busy machine.
AT_ONCE_BYTES = 256_000
AT_ONCE_S = 0.02

Message = MutableMapping[str, Any]  # as the ASGI specification has it
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Disconnected(Exception):
    """The client went away before it had sent its whole request."""


class Reply(NamedTuple):
    status: int
    body: bytes
    allow: str = ""


class Application:
    """Every response carries `x-arr-version`. Large requests are computed one at a time."""

    def __init__(self, answerer: Answerer, version: str, health: str, predict: str) -> None:
        self._answerer, self._version = answerer, version
        self._routes = {
            health: (("GET", "HEAD"), self._health),
            predict: (("POST",), self._predict),
        }
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as uvicorn hands it over."""
        try:
            reply = await self._route(scope["method"], scope["path"], receive)
        except Disconnected:
            return
        except Exception as error:
            await self._send(send, Reply(500, _error(f"fault: {type(error).__name__}")))
            raise  # uvicorn logs it
        await self._send(send, reply)

    async def _route(self, method: str, path: str, receive: Receive) -> Reply:
        if path not in self._routes:
            return Reply(404, _error(f"no route {path}"))
        methods, answer = self._routes[path]
        if method not in methods:
            allow = ", ".join(methods)
            return Reply(405, _error(f"{path} takes {allow}, not {method}"), allow)
        return await answer(receive)

    async def _health(self, _receive: Receive) -> Reply:
        return Reply(200, _json({"status": "ready", "version": self._version}))

    async def _predict(self, receive: Receive) -> Reply:
        body = await _read(receive)
        if body is None:
            return Reply(400, _error(f"the body is larger than {BODY_BYTES_MAX} bytes"))
        if len(body) <= AT_ONCE_BYTES and self._answerer.seconds <= AT_ONCE_S:
            return self._respond(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._respond, body)

    def _respond(self, body: bytes) -> Reply:
        try:
            found = self._answerer.answer(parse(body, self._answerer.instances_max))
        except BadInput as error:
            return Reply(400, _error(str(error)))
        predictions = [{"answer": p.answer, "confidence": p.confidence} for p in found]
        body = _json({"predictions": predictions, "deployedModelId": self._version})
        return Reply(200, body)

    async def _send(self, send: Send, reply: Reply) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-arr-version", self._version.encode()),
        ]
        if reply.allow:
            headers.append((b"allow", reply.allow.encode()))
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": reply.body})


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large. Raises Disconnected."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _error(text: str) -> bytes:
    return _json({"error": text})


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
