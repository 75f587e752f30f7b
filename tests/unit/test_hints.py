"""What a deployment says of calls that will be refused: it goes on, and somebody can still act."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fakes.copies import DATA, Images, Scene, scene
from penstock.actions import deploy
from penstock.core.chain import Link
from penstock.core.digest import digest
from penstock.core.pipeline import State
from penstock.core.release import Release
from penstock.core.trafficconfig import TrafficConfig

COMING = Link(Release("cart", "production", digest(b"coming"), DATA.digest))


async def said(s: Scene, **known: Any) -> str:
    """By a release that calls cart and lets in till alone; every other image here says the same."""
    config = replace(s.config, calls=("cart",), traffic=TrafficConfig(callers=("till",)))
    task = replace(s.task("deploy"), config=config, **known)
    outcome = await deploy.perform(task, platform=s.platform, router=s.router, artifacts=Images(config))
    assert outcome.state is State.SUCCESS
    return outcome.reason.partition("bubblewrap")[2] or outcome.reason.partition("none")[2]


async def test_whom_a_release_will_refuse_is_told_while_it_is_dark() -> None:
    async with scene() as s:
        assert await said(s, callers=("till",)) == ""
        assert (
            await said(s, callers=("cart", "till")) == "; it will refuse the calls of cart (traffic.callers)"
        )


async def test_what_goes_out_with_it_counts_by_its_new_rules() -> None:
    async with scene() as s:
        assert await said(s) == "", "the cart that is live lets everybody in"
        assert await said(s, chain=(COMING,)) == "; cart will refuse its calls (traffic.callers)"
