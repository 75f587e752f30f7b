"""A release that does not come up for want of something around it: that is no word on the release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.copies import DATA, Images, scene
from fakes.platform import FakePlatform
from penstock.actions import deploy
from penstock.core.fence import Fence
from penstock.core.pipeline import State
from penstock.core.workload import Phase, Placement, Workload
from penstock.errors import Unavailable

WHY = "no node takes pod web-1-x; its token is sesame-open; next: ask for less"


class Full(FakePlatform):
    """No copy comes up; *lacks* says whose fault that is."""

    def __init__(self, lacks: bool | None) -> None:
        super().__init__()
        self.lacks = lacks

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        placed = await super().place(workload, fence=fence)
        failed = tuple(replace(one, phase=Phase.FAILED) for one in placed.instances)
        return replace(placed, instances=failed, reason=WHY, lacks=self.lacks)


async def test_what_the_surroundings_lack_is_tried_again() -> None:
    async with scene() as s:
        task = replace(
            s.task("deploy"), data=replace(DATA, values={"TOKEN": "sesame-open"}, secret=("TOKEN",))
        )
        with pytest.raises(Unavailable, match="no node takes pod") as raised:
            await deploy.perform(task, platform=Full(True), router=s.router, artifacts=Images(s.config))
        assert raised.value.where == task.release.id  # type: ignore[union-attr]
        assert "sesame" not in str(raised.value)


async def test_what_the_release_lacks_is_its_failure() -> None:
    async with scene() as s:
        images = Images(s.config)
        outcome = await deploy.perform(
            s.task("deploy"), platform=Full(None), router=s.router, artifacts=images
        )
        assert (outcome.state, outcome.reason) == (State.FAILURE, WHY)
