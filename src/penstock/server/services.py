"""The API for one service: taking back what is live, why it is live, and what it wrote.

Called by `api`.
"""

from __future__ import annotations

import functools

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from penstock.bootstrap.control import ControlPlane
from penstock.core.nearest import did_you_mean
from penstock.core.release import PRODUCTION
from penstock.errors import Invalid
from penstock.server import views
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.views import View

#: Lines of each release, at most.
MOST_LINES = 5000


class RollBack(BaseModel):
    """*together*: with all that came in the same change set."""

    reason: Text = ""
    environment: Text = PRODUCTION
    together: bool = False


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.post("/services/{service}/rollback")
    async def rollback(service: str, given: RollBack, request: Request) -> View:
        """Take back what is live; if *together*, with all that came in its change set."""
        identity = login_of(request).identity
        permit = functools.partial(control.operators.demand, identity, "roll back")
        await permit([service])
        asked = (service, given.environment, identity, given.reason)
        if given.together:
            started = await control.shipping.roll_back_together(*asked, permit)
            return {"delivery": started[0], "deliveries": started}
        found = await control.shipping.roll_back(*asked)
        return {"delivery": found, "deliveries": [found]}

    @api.get("/services/{service}")
    async def one(service: str, environment: str = PRODUCTION) -> View:
        """What runs of it, and where users find it."""
        await _demand_known(control, service, environment)
        return await views.service(control, service, environment)

    @api.get("/services/{service}/why")
    async def why(service: str, environment: str = PRODUCTION) -> View:
        return await views.why(control, service, environment)

    @api.get("/services/{service}/logs")
    async def workload_logs(
        service: str, lines: int = 100, environment: str = PRODUCTION
    ) -> PlainTextResponse:
        await _demand_known(control, service, environment)
        state = await control.router.read(service, environment)
        found = [
            f"{backend.release}  {line}"
            for backend in state.backends
            for line in await control.platform.logs(backend.release, max(1, min(lines, MOST_LINES)))
        ]
        return PlainTextResponse("\n".join(found) + "\n" if found else "")


async def _demand_known(control: ControlPlane, service: str, environment: str) -> None:
    """`Invalid` unless the service was ever in that environment."""
    there = await views.services(control)
    known = list(dict.fromkeys(name for name, _ in there))
    if service not in known:
        what = f"no service {service!r}; there are: {', '.join(known) or 'none yet'}"
        raise Invalid(what + did_you_mean(service, known), next_move="penstock status")
    if (service, environment) not in there:
        places = ", ".join(place for name, place in there if name == service)
        what = f"{service} was never in {environment}; it is in: {places}"
        raise Invalid(what, next_move="--environment NAME, with one of these")
