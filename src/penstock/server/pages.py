"""The pages: server-rendered views of what the API answers. They work without the one script.

Called by `app`. The script (``static/live.js``) only fetches the page again when something was committed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from penstock.analysis.budget import span
from penstock.bootstrap.control import ControlPlane
from penstock.core.workload import Isolation
from penstock.errors import PenstockError
from penstock.server import canaries, experiments, flaky, logs, slos, views
from penstock.server.chart import picture, picture_of
from penstock.server.guard import COOKIE, identity_of

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%d %b %H:%M:%S")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def _size(count: int) -> str:
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1e3:,.0f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def _rate(arm: dict[str, Any]) -> str:
    return f"{100 * arm['reached'] / arm['users']:.2f}%" if arm["users"] else "–"


def _change(variant: dict[str, Any]) -> str:
    """The interval of the ratio of two rates, as a relative change."""
    high = f"{100 * (variant['high'] - 1):+.1f}%" if variant["high"] is not None else "more"
    return f"{100 * (variant['low'] - 1):+.1f}% to {high}"


TEMPLATES.filters["rate"] = _rate
TEMPLATES.filters["change"] = _change
TEMPLATES.filters["size"] = _size
TEMPLATES.filters["span"] = span
TEMPLATES.filters["picture"] = slos.picture
TEMPLATES.filters["when"] = _when
TEMPLATES.filters["duration"] = _duration


def _page(template: str, title: str, isolation: Isolation, **values: Any) -> HTMLResponse:
    text = TEMPLATES.get_template(template).render(title=title, isolation=isolation.value, **values)
    return HTMLResponse(text)


def wanted(request: Request) -> bool:
    """Whether the answer is for somebody who looks at pages."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")


def problem(error: PenstockError, status: int, isolation: Isolation) -> HTMLResponse:
    """What went wrong, as a page."""
    answer = _page("problem.html", "That did not work", isolation, error=error)
    answer.status_code = status
    return answer


def routes(control: ControlPlane) -> APIRouter:
    pages = APIRouter(include_in_schema=False)

    def page(template: str, title: str, **values: Any) -> HTMLResponse:
        return _page(template, title, control.isolation, **values)

    @pages.get("/")
    async def deliveries() -> HTMLResponse:
        found = await views.deliveries(control, "", 100)
        return page("deliveries.html", "Deliveries", deliveries=found)

    @pages.get("/deliveries/{delivery}")
    async def delivery(delivery: str) -> HTMLResponse:
        found = await views.delivery(control, delivery)
        seen = await canaries.picture(control, found)
        weighed = await experiments.variants(control, found) if found["kind"] == "experiment" else []
        shown = {"canary": picture(seen) if seen else None, "logs": await logs.overview(control, found)}
        drawn = [(one, picture_of(one)) for one in weighed]
        return page("delivery.html", found["id"], delivery=found, variants=drawn, **shown)

    @pages.get("/environments")
    async def environments() -> HTMLResponse:
        return page("environments.html", "What runs where", status=await views.status(control))

    @pages.get("/policies")
    async def policies() -> HTMLResponse:
        return page("policies.html", "Policies", policies=await views.policies(control))

    @pages.get("/slos")
    async def objectives(after: str = "") -> HTMLResponse:
        found = await slos.every(control, after)
        more = found[-1]["service"] if len(found) == slos.PAGE else ""
        return page("slos.html", "What users were promised", services=found, more=more)

    @pages.get("/services/{service}")
    async def why(service: str) -> HTMLResponse:
        return page("why.html", f"Why is {service} live?", why=await views.why(control, service))

    @pages.get("/services/{service}/flaky")
    async def tests(service: str) -> HTMLResponse:
        return page("flaky.html", f"Flaky tests of {service}", tests=await flaky.view(control, service))

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
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=7 * 86400)
        return answer

    return pages
