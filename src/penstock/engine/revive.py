"""What is live, and lost by its node, comes back from the ledger and the artifacts: no delivery, no sign-off.

Called when the control plane starts, before its worker works. A node that still knows what it ran needs none
of this: it starts that by itself. Coming back is no transition, so no policy is asked; that users were on
nothing is drift, and evidence. Must not touch a service whose users are on something else: a delivery may
have moved them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.actions import deploy
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.fence import Fence
from penstock.core.pipeline import GOOD, Intent
from penstock.core.predicates import Drifted
from penstock.core.release import Change
from penstock.engine.journal import Journal
from penstock.errors import PenstockError, Unavailable
from penstock.ledger.live import Live, live, places
from penstock.ledger.log import Ledger, attest
from penstock.ports import Artifacts, Platform, Router, Signer, Store, Task

log = logging.getLogger(__name__)

#: How long the node is waited for: it starts beside the control plane.
NODE_SECONDS = 30.0
POLL_SECONDS = 0.2
INTENT = Intent("revive", "revive")


@dataclass(frozen=True)
class Revival:
    """*signer* is the worker's."""

    store: Store
    ledger: Ledger
    journal: Journal
    platform: Platform
    router: Router
    artifacts: Artifacts
    signer: Signer

    async def run(self) -> tuple[str, ...]:
        """Look at each service once, those first that were promoted first; returns what came back."""
        async with self.store.transaction(write=False) as tx:
            named = await places(tx)
            found = [await live(self.ledger, tx, *place) for place in named]
        back = []
        deadline = asyncio.get_running_loop().time() + NODE_SECONDS
        for pair in (pair for pair in found if pair is not None):
            try:
                back += [pair.release.id] * await self._once_there(pair, deadline)
            except PenstockError as error:  # the others come back all the same
                log.error("%s does not come back: %s", pair.release.id, error)
        return tuple(back)

    async def _once_there(self, pair: Live, deadline: float) -> bool:
        while True:
            try:
                return await self._lost(pair) and await self._bring_back(pair)
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(POLL_SECONDS)

    async def _lost(self, pair: Live) -> bool:
        """Whether nobody is served, or everybody by a release that the node does not have."""
        release = pair.release
        state = await self.router.read(release.service, release.environment)
        if state.plan.serving:
            return state.plan.serving == {release.id} and await self.platform.observe(release.id) is None
        return True

    async def _bring_back(self, pair: Live) -> bool:
        release = pair.release
        image = await self.artifacts.describe(release.artifact)
        scope = f"{release.service}/{release.environment}"
        # Whoever works on this service lets go of it, and reads how things are now.
        fence = Fence(scope, await self.journal.raise_fence(scope), f"{pair.delivery}/{INTENT.key}")
        task = Task(
            delivery=pair.delivery,
            intent=INTENT,
            change=Change(
                "rollback", release.service, release.environment, "", release.digest, "", "revived"
            ),
            config=image.config,
            fence=fence,
            work=Path(),
            log=Path(),
            data=pair.data,
            release=release,
        )
        outcome = await deploy.perform(task, **self._powers)
        if outcome.state not in GOOD:
            log.error("%s does not come back: %s", release.id, outcome.reason)
            return False
        state = await self.router.read(release.service, release.environment)
        await self.router.apply(state.settling(release.id), fence=fence)
        await self._say(pair)
        return True

    @property
    def _powers(self) -> Mapping[str, Any]:
        return {"platform": self.platform, "router": self.router, "artifacts": self.artifacts}

    async def _say(self, pair: Live) -> None:
        service, environment = pair.release.service, pair.release.environment
        said = Drifted(pair.delivery, service, environment, f"the node had lost {pair.release.id}")
        name = f"{service}/{environment}"
        statement = Statement((Subject(name, digest(name.encode())),), said)
        async with self.store.transaction() as tx:
            await self.ledger.append(tx, [attest(self.signer, statement)])
        log.info("%s is back: its node had lost it", pair.release.id)
