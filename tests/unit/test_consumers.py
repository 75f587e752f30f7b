"""What live consumers need of a service, against its dark release: who is named when it is not given."""

from __future__ import annotations

from fakes.shop import Reply, Shop
from penstock.checks import consumers
from penstock.checks.consumers import Demand
from penstock.checks.preview import Part
from penstock.core.acceptance import Contract

NEEDS = """\
openapi: 3.1.0
paths:
  /items:
    get:
      responses:
        200: {description: x, content: {application/json: {schema: {$ref: '#/components/schemas/Items'}}}}
components:
  schemas:
    Items: {type: array, items: {type: object, required: [PRICE], properties: {PRICE: {type: number}}}}
"""
PRICED, NAMED = NEEDS.replace("PRICE", "price"), NEEDS.replace("PRICE", "name").replace("number", "string")


class Town:
    """Who demands what of the shop, and what its own image demands of others."""

    def __init__(self, *live: Demand, own: tuple[Demand, ...] = ()) -> None:
        self._live = live
        self._own = own

    async def of(self, service: str, environment: str) -> tuple[Demand, ...]:
        return self._live if (service, environment) == ("shop", "production") else ()

    async def by(self, artifact: str) -> tuple[Demand, ...]:
        return self._own


async def checked(shop: Shop, *live: Demand) -> tuple[tuple[Contract, ...] | None, Part]:
    async with shop.open():
        return await consumers.check(Town(*live), shop.way, ("shop", "production"), 60.0)


async def test_who_needs_what_is_gone_is_named() -> None:
    shop = Shop(items=Reply([{"price": 1.5, "more": 1}]))
    found, part = await checked(shop, Demand("storefront", PRICED), Demand("mobile", NAMED))
    assert found is not None
    assert [(one.consumer, one.failed) for one in found] == [("storefront", 0), ("mobile", 1)]
    assert (part.passed, part.failed) == (1, 1)
    what = "GET /items: answered 200 with a body that does not fit: $[0] lacks 'name'"
    assert part.failing == (f"contract of mobile: {what}",)
    assert "1 of 1 operations as storefront needs them" in part.words
    assert shop.asked == ["GET /items", "GET /items"]


async def test_nobody_needs_anything() -> None:
    assert await checked(Shop()) == (None, Part())


async def test_a_consumer_cannot_have_effects() -> None:
    text = "openapi: 3.1.0\npaths: {/items: {post: {responses: {201: {description: x}}}}}"
    shop = Shop(items=Reply(status=201))
    _, part = await checked(shop, Demand("storefront", text))
    assert shop.asked == []
    assert part.failing[0].startswith(
        "contract of storefront: contracts/shop.openapi of storefront: the document has"
    )


async def test_what_cannot_be_read_names_its_consumer() -> None:
    found, part = await checked(Shop(), Demand("storefront", "<html>"), Demand("mobile", PRICED))
    assert found is not None
    assert len(found) == 1
    assert part.failing[0].startswith("contract of storefront: ")
    assert "not an OpenAPI 3.x document" in part.failing[0]
    assert part.failing[1].startswith("contract of mobile: GET /items: answered 404")


async def test_a_consumer_is_told_first_that_its_contract_cannot_be_read() -> None:
    own = (Demand("catalog", PRICED), Demand("payments", "{"))
    part = await consumers.readable(Town(own=own), "sha256:1")
    assert (part.passed, part.failed) == (1, 1)
    assert part.failing[0].startswith("contract with payments: contracts/payments.openapi: not JSON")
    assert await consumers.readable(Town(), "sha256:1") == Part()
