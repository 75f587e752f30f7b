"""What do those who call this service need of it? Their contracts, and whether the dark release keeps them.

Called by `acceptance`. A consumer's repository says what it needs of a callee, in
``contracts/catalog.openapi.yaml``; the document travels in its image, and the image of what is live counts.
Must ask only operations that are safe: a consumer cannot declare effects on somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.checks.contract import Asked, examine
from penstock.checks.preview import Dark, Part
from penstock.checks.reader import Reader
from penstock.core.acceptance import Contract
from penstock.errors import Invalid
from penstock.ledger.live import live, places
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Store

#: So many are asked; a service that more depend on has other troubles.
MOST_CONSUMERS = 50


@dataclass(frozen=True)
class Demand:
    """What the live release of *consumer* needs: the text of an OpenAPI document."""

    consumer: str
    document: str


class Demands(Protocol):
    """Knows what is demanded of a service, and what an image demands of others."""

    async def of(self, service: str, environment: str) -> tuple[Demand, ...]:
        """The demands of everybody who is live and has a contract with *service*, by name."""

    async def by(self, artifact: str) -> tuple[Demand, ...]:
        """What the image demands of others; here *consumer* is the callee."""


class LiveDemands:
    """By the ledger, which knows what is live, and the images of it."""

    def __init__(self, store: Store, ledger: Ledger, artifacts: Artifacts) -> None:
        self._store = store
        self._ledger = ledger
        self._artifacts = artifacts

    async def of(self, service: str, environment: str) -> tuple[Demand, ...]:
        """See `Demands`."""
        async with self._store.transaction(write=False) as tx:
            names = {name for name, there in await places(tx) if there == environment} - {service}
            now_live = [await live(self._ledger, tx, name, environment) for name in sorted(names)]
        found = []
        for one in now_live:
            if one is not None:
                image = await self._artifacts.describe(one.release.artifact)
                if service in image.contracts:
                    found.append(Demand(one.release.service, image.contracts[service]))
        return tuple(found[:MOST_CONSUMERS])

    async def by(self, artifact: str) -> tuple[Demand, ...]:
        """See `Demands`."""
        image = await self._artifacts.describe(artifact)
        return tuple(Demand(callee, text) for callee, text in sorted(image.contracts.items()))


async def check(
    demands: Demands, way: Dark, place: tuple[str, str], seconds: float, reader: Reader | None = None
) -> tuple[tuple[Contract, ...] | None, Part]:
    """Whether the dark release of the service in *place* (service, environment) gives what consumers need.

    None if nobody has a contract with it. What is not kept, or cannot be read, names its consumer.
    """
    contracts, parts = [], []
    for demand in await demands.of(*place):
        name = f"contracts/{place[0]}.openapi of {demand.consumer}"
        asked = Asked(name, demand.document.encode(), consumer=demand.consumer)
        contract, part = await examine(asked, way, seconds, reader)
        contracts += [contract] if contract is not None else []
        parts.append(part)
    if not parts:
        return None, Part()
    words = "; ".join(part.words for part in parts if part.words)
    failing = tuple(name for part in parts for name in part.failing)
    return tuple(contracts), Part(sum(p.passed for p in parts), sum(p.failed for p in parts), failing, words)


async def readable(demands: Demands, artifact: str, reader: Reader | None = None) -> Part:
    """Whether the service's own contracts with others can be read: told to it, and not to them one day."""
    reader, failing, count = reader or Reader(), [], 0
    for demand in await demands.by(artifact):
        count += 1
        try:
            await reader.plan(Asked(f"contracts/{demand.consumer}.openapi", demand.document.encode()).call)
        except Invalid as error:
            failing.append(f"contract with {demand.consumer}: {error}"[:500])
    words = f"{count - len(failing)} of {count} contracts with others can be checked" if count else ""
    return Part(count - len(failing), len(failing), tuple(failing), words)
