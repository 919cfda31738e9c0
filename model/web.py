"""The HTTP side of serving: two routes, and a clear 400 for whatever cannot be answered."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from model.answering import Answerer, parse
from model.errors import BadInput

BODY_BYTES_MAX = 32_000_000


def application(answerer: Answerer, version: str, health: str, predict: str) -> FastAPI:
    """Every response carries `x-arr-version`. Only one request is computed at a time."""
    app = FastAPI(title="ARR-COC", version=version, docs_url=None, redoc_url=None)
    headers = {"x-arr-version": version}
    worker = ThreadPoolExecutor(max_workers=1)

    def respond(body: bytes) -> Response:
        try:
            found = answerer.answer(parse(body, answerer.instances_max))
        except BadInput as error:
            return JSONResponse({"error": str(error)}, 400, headers)
        predictions = [{"answer": p.answer, "confidence": p.confidence} for p in found]
        return JSONResponse(
            {"predictions": predictions, "deployedModelId": version}, 200, headers
        )

    @app.exception_handler(HTTPException)
    async def _refuse(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, headers)

    @app.exception_handler(Exception)
    async def _fault(_request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"fault: {type(error).__name__}"}, 500, headers)

    async def _health(_request: Request) -> Response:
        return JSONResponse({"status": "ready", "version": version}, 200, headers)

    async def _predict(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                message = f"the body is larger than {BODY_BYTES_MAX} bytes"
                return JSONResponse({"error": message}, 400, headers)
        return await asyncio.get_running_loop().run_in_executor(worker, respond, body)

    # plain routes: what FastAPI would do for each request is done by `parse`
    app.add_route(health, _health, methods=["GET"])
    app.add_route(predict, _predict, methods=["POST"])
    return app
