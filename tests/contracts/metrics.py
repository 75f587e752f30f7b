"""What a `Metrics` must do: subclass `CountersContract`, give it a fixture ``subject`` as for a router.

What can tell previews from users subclasses `PreviewsContract` too. Must not know which source it tests.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from contracts.router import ENVIRONMENT, SERVICE, Subject
from penstock.core.traffic import PREVIEW_HEADER, TOKEN_HEADER, Counters, Mirror, Weight


async def counted(subject: Subject) -> dict[str, Counters]:
    """By release."""
    return {c.release: c for c in await subject.metrics.counters(SERVICE, ENVIRONMENT)}


class CountersContract:
    """What users asked of each release is counted."""

    async def test_nothing_is_counted_of_an_unknown_service(self, subject: Subject) -> None:
        assert await subject.metrics.counters(SERVICE, ENVIRONMENT) == ()

    async def test_requests_and_errors_are_counted_for_each_release(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        for path in ("/", "/", "/err"):
            await subject.fetch(state.address, {}, path)
        found = await counted(subject)
        assert {name: (c.requests, c.errors) for name, c in found.items()} == {
            "web-1": (3, 1),
            "web-2": (0, 0),
        }
        again = await counted(subject)
        assert again["web-1"].epoch == found["web-1"].epoch
        assert again["web-1"].at >= found["web-1"].at
        assert found["web-1"].at == found["web-2"].at, "both arms of one moment"

    async def test_counts_of_one_epoch_never_shrink(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        await subject.who(state.address, 5)
        before = (await counted(subject))["web-1"]
        state = await subject.apply(state.shifting(Weight("web-1", 999), Weight("web-2", 1)))
        after = (await counted(subject))["web-1"]
        assert (after.epoch, after.requests) == (before.epoch, 5)  # moving users must not end a window
        await subject.apply(state.exposing(await subject.world.backend("web-1")))
        after = (await counted(subject))["web-1"]
        assert after.epoch != before.epoch or after.requests >= before.requests

    async def test_copies_for_a_mirror_are_nobody_s_requests(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        state = await subject.apply(replace(state.plan, mirror=Mirror("web-2", 1000)))
        await subject.who(state.address, 5)
        async with asyncio.timeout(10):
            while len(subject.world.seen("web-2")) < 5:
                await asyncio.sleep(0.01)
        found = await counted(subject)
        assert {name: c.requests for name, c in found.items()} == {"web-1": 5, "web-2": 0}


class PreviewsContract:
    """Previews of a dark release are told from its users."""

    async def test_previews_are_not_counted(self, subject: Subject) -> None:
        state = await subject.serving("web-1", "web-2")
        await subject.fetch(state.address, {}, "/")
        await subject.who(state.address, 4, {PREVIEW_HEADER: "web-2", TOKEN_HEADER: state.preview_token})
        found = await counted(subject)
        assert {name: c.requests for name, c in found.items()} == {"web-1": 1, "web-2": 0}
