"""A service's flaky tests and who quarantined which: what the API answers and the page shows.

Called by `api` and `pages`. Quarantines come in through `people`, like everything that is signed.
"""

from __future__ import annotations

from fastapi import APIRouter

from penstock.bootstrap.control import ControlPlane
from penstock.core.codec import encode
from penstock.core.predicates import Accepted, TestResult
from penstock.core.saying import about_tests
from penstock.errors import Invalid
from penstock.projections import flaky
from penstock.server import views
from penstock.server.views import View


def routes(api: APIRouter, control: ControlPlane) -> None:
    @api.get("/services/{service}/flaky")
    async def tests(service: str) -> View:
        """The tests that both failed and passed on the same artifact, and those that are quarantined."""
        return await view(control, service)


async def view(control: ControlPlane, service: str) -> View:
    known = [name for name, _ in await views.services(control)]
    if service not in known:
        raise Invalid(f"no service {service!r}; there are: {', '.join(known) or 'none yet'}")
    async with control.store.transaction(write=False) as tx:
        now = await tx.now()
        ran = await control.ledger.tagged(tx, f"type:{TestResult.TYPE}")
        accepted = await control.ledger.tagged(tx, f"type:{Accepted.TYPE}")
        said = await control.ledger.tagged(tx, f"about:{about_tests(service).digest}")
    held = {one.test: encode(one) for one in flaky.quarantines(said, service, now)}
    found = flaky.flaky(sorted((*ran, *accepted), key=lambda entry: entry.index), service)
    return {
        "service": service,
        "flaky": [{**encode(one), "quarantine": held.get(one.test)} for one in found],
        "quarantines": list(held.values()),
    }
