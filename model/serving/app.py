"""The HTTP side of serving: two routes, and a clear 400 for whatever cannot be answered.

FastAPI finds the route and answers what is none. Both routes are plain ASGI endpoints: what a
framework does for a declared body costs a request as much as reading it, and `parse` does it.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from model.program.errors import BadInput
from model.serving.predictor import Predictor, parse

BODY_BYTES_MAX = 32_000_000
# What is answered at once holds up the health checks meanwhile: some twenty small pictures
# may, if the network is as quick as this. The rest goes to a thread, which costs a batch of
# 16 a third on a busy machine.
AT_ONCE_BYTES = 256_000
AT_ONCE_S = 0.02


def application(predictor: Predictor, version: str, health: str, predict: str) -> FastAPI:
    """Every response carries `x-arr-version`. Large requests are computed one at a time."""
    app = FastAPI(title="ARR-COC", version=version, docs_url=None, openapi_url=None)
    respond = Responder(version)
    app.router.routes += [
        Route(health, Health(respond), methods=["GET"]),
        Route(predict, Predict(respond, predictor), methods=["POST"]),
    ]

    @app.exception_handler(HTTPException)
    async def _refuse(request: Request, error: HTTPException) -> Response:
        path, named = request.url.path, (error.headers or {}).get("Allow", "")
        allowed = ", ".join(sorted(filter(None, named.split(", "))))  # of a set: any order
        text = (
            f"{path} takes {allowed}, not {request.method}" if allowed else f"no route {path}"
        )
        return respond(error.status_code, {"error": text}, allowed)

    @app.exception_handler(Exception)
    async def _fault(_request: Request, error: Exception) -> Response:
        return respond(500, {"error": f"fault: {type(error).__name__}"})  # uvicorn logs it

    return app


class Responder:
    """Makes responses that name the version."""

    def __init__(self, version: str) -> None:
        self.version = version

    def __call__(self, status: int, told: object, allow: str = "") -> Response:
        headers = {"x-arr-version": self.version} | ({"allow": allow} if allow else {})
        body = json.dumps(told, allow_nan=False)
        return Response(body, status, headers, media_type="application/json")


class Health:
    def __init__(self, respond: Responder) -> None:
        self._ready = respond(200, {"status": "ready", "version": respond.version})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._ready(scope, receive, send)


class Predict:
    def __init__(self, respond: Responder, predictor: Predictor) -> None:
        self._respond_with, self._predictor = respond, predictor
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(Request(scope, receive))
        except ClientDisconnect:
            return
        response = await self._answer(body)
        await response(scope, receive, send)

    async def _answer(self, body: bytes) -> Response:
        if len(body) > BODY_BYTES_MAX:
            return self._respond_with(
                400, {"error": f"the body is larger than {BODY_BYTES_MAX} bytes"}
            )
        if len(body) <= AT_ONCE_BYTES and self._predictor.seconds <= AT_ONCE_S:
            return self._respond(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._respond, body)

    def _respond(self, body: bytes) -> Response:
        try:
            found = self._predictor.answer(parse(body, self._predictor.instances_max))
        except BadInput as error:
            return self._respond_with(400, {"error": str(error)})
        predictions = [{"answer": p.answer, "confidence": p.confidence} for p in found]
        return self._respond_with(
            200, {"predictions": predictions, "deployedModelId": self._respond_with.version}
        )


async def _read(request: Request) -> bytes:
    """The whole body, or what came until it was too large. Raises ClientDisconnect."""
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES_MAX:
            break
    return b"".join(parts)
