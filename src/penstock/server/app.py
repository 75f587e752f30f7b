"""The application: API, pages, static files, and errors as problem documents.

Called by bootstrap, which puts a `Guard` (or `Bounds`) around it for each listener.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from penstock.bootstrap.control import ControlPlane
from penstock.errors import Broken, Invalid, PenstockError
from penstock.server import admission, api, hooks, metrics, pages, rendering, tlog

log = logging.getLogger(__name__)
STATIC = Path(__file__).with_name("static")


def create_app(control: ControlPlane) -> FastAPI:
    """The whole application, without its guard."""
    app = FastAPI(
        title="Penstock", version="1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.include_router(api.routes(control))
    app.include_router(tlog.routes(control))
    app.include_router(hooks.routes(control))
    app.include_router(metrics.routes(control))
    app.include_router(admission.routes(control))
    app.include_router(pages.routes(control))
    app.mount("/static", StaticFiles(directory=STATIC))
    _say_healthy(app)
    _answer_errors(app, control)
    return app


def create_admission_app(control: ControlPlane) -> FastAPI:
    """What a cluster's API server may ask without a token, and nothing else; without its bounds."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(admission.routes(control))
    _say_healthy(app)
    _answer_errors(app, control)
    return app


def _say_healthy(app: FastAPI) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")


def _answer_errors(app: FastAPI, control: ControlPlane) -> None:
    """Every error is a problem document, and a page for those who look at pages."""

    def answer(request: Request, error: PenstockError, status: int) -> Response:
        if pages.wanted(request):
            return rendering.problem(error, status, control.isolation.value)
        return JSONResponse(error.to_wire(), status, media_type="application/problem+json")

    @app.exception_handler(PenstockError)
    async def problem(request: Request, error: PenstockError) -> Response:
        if isinstance(error, Broken):
            log.error("%s %s: %s", request.method, request.url.path, error)
        return answer(request, error, error.http_status)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(request, Invalid(str(first["msg"]), where=where), Invalid.http_status)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        """No such path, or not with this method."""
        where = f"{request.method} {request.url.path}"
        move = "the calls are listed in /v1/openapi.json"
        return answer(request, Invalid(str(error.detail), where=where, next_move=move), error.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log.exception("%s %s", request.method, request.url.path)
        move = "see log/serve.log, and report it"
        return answer(request, Broken(f"{type(error).__name__}: {error}", next_move=move), 500)
