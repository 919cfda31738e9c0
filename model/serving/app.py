"""The HTTP side of serving: two routes, and a clear 400 for whatever cannot be answered.

FastAPI finds the route and answers what is none. Both routes are plain ASGI endpoints: what a
framework does for a declared body costs a request as much as reading it, and `parse` does it.

Nothing but HTTP happens on the event loop. Small requests and large ones have a thread each, so
that none of the small waits behind a large one; which it is the small one's thread finds out,
from the headers of the pictures.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.program.errors import BadInput
from model.serving.body import parse
from model.serving.inbox import BODY_S, Held, Inbox, TooSlow
from model.serving.lane import Gone, Job, Lane, Overloaded
from model.serving.predictor import Asked, Prediction, Predictor

SMALL_BYTES = 1_000_000
SMALL_PIXELS = 1_000_000  # 20 to 40 ms of decoding
SMALL_S = 0.1  # of the network
SMALL_WAITING_MAX, LARGE_WAITING_MAX = 200, 8
WAITING_S = 1.5  # expected seconds
# Who waits longer is refused: how long a request waits is up to the other clients, and must
# neither look like a slow version nor end in the time-out of a proxy in front (6 s).
WAITED_MAX_S = 2.0
RETRY_AFTER_S = 1
CLOSED = "the handler is closed"  # uvloop's words


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
        headers = {"allow": allowed} if allowed else {}
        return respond(error.status_code, {"error": text}, headers)

    @app.exception_handler(Exception)
    async def _fault(_request: Request, error: Exception) -> Response:
        return respond(500, {"error": f"fault: {type(error).__name__}"})  # uvicorn logs it

    return app


class Responder:
    """Makes responses that name the version."""

    def __init__(self, version: str) -> None:
        self.version = version

    def __call__(
        self, status: int, told: object, headers: dict[str, str] | None = None
    ) -> Response:
        body = json.dumps(told, allow_nan=False)
        every = {"x-arr-version": self.version} | (headers or {})
        return Response(body, status, every, media_type="application/json")


class Health:
    def __init__(self, respond: Responder) -> None:
        self._ready = respond(200, {"status": "ready", "version": respond.version})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._ready(scope, receive, send)


def unless_gone(app: ASGIApp) -> ASGIApp:
    """`app`, for which an answer to a client that has just left is not a fault.

    Between the end of a connection and its notice uvloop refuses to write, and uvicorn would
    log a traceback for each such client.
    """

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_if_there(message: Message) -> None:
            try:
                await send(message)
            except RuntimeError as error:
                if CLOSED not in str(error):
                    raise

        await app(scope, receive, send_if_there)

    return asked


class Predict:
    def __init__(self, respond: Responder, predictor: Predictor) -> None:
        self._respond_with, self._predictor = respond, predictor
        self._inbox = Inbox()
        self._small = Lane("small", SMALL_WAITING_MAX, WAITING_S, watched=False)
        self._large = Lane("large", LARGE_WAITING_MAX, WAITING_S, watched=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._inbox.one() as held:
                response = await self._response(held, receive)
        except Gone:
            return
        await response(scope, receive, send)

    async def _response(self, held: Held, receive: Receive) -> Response:
        """Raises Gone."""
        try:
            await self._inbox.read(held, receive)
            return self._told(await self._answer(held, receive))
        except BadInput as error:
            return self._respond_with(400, {"error": str(error)})
        except TooSlow:
            told = {"error": f"the body was not complete after {BODY_S} s"}
            return self._respond_with(408, told, {"connection": "close"})
        except Overloaded:
            # No 5xx: it is not this version's fault, and elsewhere it would be as much work.
            told = {"error": "too many requests wait", "retry_after_s": RETRY_AFTER_S}
            return self._respond_with(429, told, {"retry-after": str(RETRY_AFTER_S)})

    async def _answer(self, held: Held, receive: Receive) -> Sequence[Prediction]:
        until = asyncio.get_running_loop().time() + WAITED_MAX_S  # in both lanes together
        if held.size > SMALL_BYTES:
            return await self._large.do(
                lambda job: self._predictor.answer(self._open(held), job.check_wanted),
                receive,
                until,
            )
        found = await self._small.do(lambda job: self._if_small(held, job), receive, until)
        if not isinstance(found, Large):
            return found
        return await self._large.do(
            lambda job: self._predictor.answer(found.asked, job.check_wanted), receive, until
        )

    def _if_small(self, held: Held, job: Job) -> "Sequence[Prediction] | Large":
        asked = self._open(held)
        pixels = sum(one.opened.pixels for one in asked)
        seconds = len(asked) * self._predictor.seconds
        if pixels > SMALL_PIXELS or (len(asked) > 1 and seconds > SMALL_S):
            return Large(asked)
        return self._predictor.answer(asked, job.check_wanted)

    def _open(self, held: Held) -> Sequence[Asked]:
        body = b"".join(held.parts)
        held.parts.clear()
        return self._predictor.open(parse(body, self._predictor.instances_max))

    def _told(self, found: Sequence[Prediction]) -> Response:
        predictions = [{"answer": p.answer, "confidence": p.confidence} for p in found]
        return self._respond_with(
            200, {"predictions": predictions, "deployedModelId": self._respond_with.version}
        )


@dataclass(frozen=True)
class Large:
    """What looked small and is not."""

    asked: Sequence[Asked]
