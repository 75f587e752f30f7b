"""The pages: server-rendered views of what the API answers. They work without the one script.

Called by `app`. The script (``static/live.js``) only fetches the page again when something was committed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from penstock.bootstrap.control import ControlPlane
from penstock.core.release import PRODUCTION
from penstock.engine import sessions
from penstock.server import canaries, experiments, flaky, logs, policies, slos, views
from penstock.server.chart import picture, picture_of
from penstock.server.guard import COOKIE, identity_of
from penstock.server.rendering import TEMPLATES, page

#: So many deliveries are on one page.
PAGE = 100
#: Makes a page: template, title, and what the template shows.
Page = Callable[..., HTMLResponse]


TEMPLATES.filters["picture"] = slos.picture


def wanted(request: Request) -> bool:
    """Whether the answer is for somebody who looks at pages."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")


def routes(control: ControlPlane) -> APIRouter:
    pages = APIRouter(include_in_schema=False)
    shown = functools.partial(page, isolation=control.isolation.value)
    _deliveries(pages, control, shown)
    _services(pages, control, shown)
    _signing_in(pages, control, shown)
    return pages


def _deliveries(pages: APIRouter, control: ControlPlane, page: Page) -> None:
    @pages.get("/")
    async def deliveries(service: str = "", before: str = "") -> HTMLResponse:
        found = await views.deliveries(control, service, PAGE, before)
        older = found[-1]["id"] if len(found) == PAGE else ""
        title = f"Deliveries of {service}" if service else "Deliveries"
        return page("deliveries.html", title, deliveries=found, service=service, before=before, older=older)

    @pages.get("/deliveries/{delivery}")
    async def delivery(delivery: str) -> HTMLResponse:
        found = await views.delivery(control, delivery)
        seen = await canaries.picture(control, found)
        weighed = await experiments.variants(control, found) if found["kind"] == "experiment" else []
        shown = {"canary": picture(seen) if seen else None, "logs": await logs.overview(control, found)}
        drawn = [(one, picture_of(one)) for one in weighed]
        return page("delivery.html", found["id"], delivery=found, variants=drawn, **shown)


def _services(pages: APIRouter, control: ControlPlane, page: Page) -> None:
    @pages.get("/environments")
    async def environments() -> HTMLResponse:
        return page("environments.html", "What runs where", status=await views.status(control))

    @pages.get("/policies")
    async def in_force() -> HTMLResponse:
        return page("policies.html", "Policies", policies=await policies.every(control))

    @pages.get("/slos")
    async def objectives(after: str = "") -> HTMLResponse:
        found = await slos.every(control, after)
        more = found[-1]["service"] if len(found) == slos.PAGE else ""
        return page("slos.html", "What users were promised", services=found, more=more)

    @pages.get("/services/{service}")
    async def why(service: str, environment: str = PRODUCTION) -> HTMLResponse:
        told = await views.why(control, service, environment)
        return page("why.html", f"Why is {service} live?", why=told)

    @pages.get("/services/{service}/flaky")
    async def tests(service: str) -> HTMLResponse:
        return page("flaky.html", f"Flaky tests of {service}", tests=await flaky.view(control, service))


def _signing_in(pages: APIRouter, control: ControlPlane, page: Page) -> None:
    @pages.get("/login")
    async def login() -> HTMLResponse:
        return page("login.html", "Sign in", wrong=False)

    @pages.post("/login")
    async def sign_in(request: Request) -> Response:
        given = parse_qs((await request.body()).decode(errors="replace"))
        token = given.get("token", [""])[0].strip()
        if await identity_of(control.store, token) is None:
            response = page("login.html", "Sign in", wrong=True)
            response.status_code = 401
            return response
        word = await sessions.begin(control.store, hashlib.sha256(token.encode()).hexdigest())
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, word, httponly=True, samesite="strict", max_age=sessions.LASTS)
        return answer
