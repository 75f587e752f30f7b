"""The application: API, pages, static files, and errors as problem documents.

Called by bootstrap, which puts a `Guard` around it for each listener.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles

from penstock.bootstrap.control import ControlPlane
from penstock.errors import Broken, Invalid, PenstockError
from penstock.server import api, pages

log = logging.getLogger(__name__)
STATIC = Path(__file__).with_name("static")


def create_app(control: ControlPlane) -> FastAPI:
    """The whole application, without its guard."""
    app = FastAPI(
        title="Penstock", version="1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.include_router(api.routes(control))
    app.include_router(api.ledger_routes(control))
    app.include_router(pages.routes(control))
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.exception_handler(PenstockError)
    async def problem(request: Request, error: PenstockError) -> JSONResponse:
        if isinstance(error, Broken):
            log.error("%s %s: %s", request.method, request.url.path, error)
        return _problem(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _problem(Invalid(str(first["msg"]), where=where))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("%s %s", request.method, request.url.path)
        return _problem(
            Broken(f"{type(error).__name__}: {error}", next_move="see log/serve.log, and report it")
        )

    return app


def _problem(error: PenstockError) -> JSONResponse:
    return JSONResponse(error.to_wire(), error.http_status, media_type="application/problem+json")
