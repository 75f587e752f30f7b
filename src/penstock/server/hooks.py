"""The API for webhooks: who is told of events, how far each has been told, and a test.

Called by `server.app`. It sends nothing but tests; `engine.webhooks` does, in the background.
"""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request
from pydantic import BaseModel

from penstock.bootstrap.control import ControlPlane
from penstock.bootstrap.outgoing import drop_webhook_secret, new_webhook_secret
from penstock.bootstrap.plugins import find
from penstock.core.webhook import name_of
from penstock.ledger import hooks
from penstock.server.guard import login_of
from penstock.server.parameters import Text
from penstock.server.people import demand_administrator
from penstock.server.views import View


class NewWebhook(BaseModel):
    name: Text
    url: Text


def routes(control: ControlPlane) -> APIRouter:
    router = APIRouter(prefix="/v1/webhooks")
    _kept(router, control)

    @router.post("/{name}/test")
    async def test(name: str, request: Request) -> View:
        """Send one test event now. *delivered* if the receiver said yes."""
        await demand_administrator(control, login_of(request))
        status = await control.outgoing.webhooks.try_out(name_of(name), secrets.token_hex(8))
        return {"name": name, "status": status, "delivered": 200 <= status < 300}

    return router


def _kept(router: APIRouter, control: ControlPlane) -> None:
    @router.get("")
    async def every() -> View:
        """Who is told, how many entries each is behind, and what is wrong with it now."""
        async with control.store.transaction(write=False) as tx:
            found = await hooks.every(tx)
            behind = await control.outgoing.webhooks.behind(tx)
        problems = control.outgoing.webhooks.problems
        return {
            "webhooks": [
                {
                    "name": hook.name,
                    "url": hook.url,
                    "behind": behind[hook.name],
                    "disabled": hook.disabled,
                    "problem": hook.disabled or problems.get(hook.name, ""),
                }
                for hook in found
            ]
        }

    @router.post("")
    async def add(given: NewWebhook, request: Request) -> View:
        """Tell one more of what happens from now on. The secret is shown this once."""
        await demand_administrator(control, login_of(request))
        name = name_of(given.name)
        find("receiver", "http")(given.url)
        async with control.store.transaction() as tx:
            await hooks.add(control.ledger, tx, name, given.url)
            # Within: two who add the same name at once must not overwrite each other's secret.
            secret = new_webhook_secret(control.home, name)
        return {"name": name, "url": given.url, "secret": secret}

    @router.delete("/{name}")
    async def remove(name: str, request: Request) -> View:
        """Tell it no more, and forget its secret."""
        await demand_administrator(control, login_of(request))
        async with control.store.transaction() as tx:
            await hooks.remove(tx, name_of(name))
            drop_webhook_secret(control.home, name)
        return {"name": name}
