"""Copies that are asked for later, and copies on their way out, when the agent dies in the middle."""

from __future__ import annotations

import json
from dataclasses import replace

import psutil
import pytest
from tests.integration.processes.house import FENCE, House, workload

from penstock.core.workload import Later, Placement
from penstock.errors import Unavailable

RECORD = "w/releases/web-1.json"


async def placed(house: House, replicas: int) -> Placement:
    wanted = replace(workload(house.artifact), replicas=replicas, drain_seconds=1.0)
    await house.platform.place(wanted, fence=FENCE)
    return await house.until(lambda p: p.ready)


async def restarted(house: House) -> None:
    """As by ``penstock down`` and ``up``."""
    await house.platform.stop()
    house.new_driver()


async def test_what_is_asked_for_later_outlives_the_agent(house: House) -> None:
    await placed(house, 2)
    await house.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 0.3),))
    await restarted(house)
    found = await house.platform.observe("web-1")
    assert found is not None
    assert (found.asked, found.later) == (2, (Later(1, 0.3),))
    assert len((await house.until(lambda p: p.asked == 1)).instances) == 2
    await restarted(house)
    found = await house.platform.observe("web-1")
    assert found is not None
    assert (found.asked, found.later) == (1, ())


async def test_a_copy_that_cannot_be_written_down_is_asked_for_again(house: House) -> None:
    await placed(house, 1)
    in_the_way = (house.folder / RECORD).with_suffix(".new")
    in_the_way.mkdir()
    for _ in range(2):
        with pytest.raises(Unavailable, match="cannot be written down"):
            await house.platform.scale("web-1", 2, fence=FENCE)
    in_the_way.rmdir()
    assert len((await house.platform.scale("web-1", 2, fence=FENCE)).instances) == 2
    assert (await house.until(lambda p: p.ready)).able == 2


async def test_a_clock_that_is_set_forward_lets_no_copy_go_too_early(house: House) -> None:
    """Nothing of it is a time of day: what was kept is what has passed."""
    await placed(house, 2)
    await house.platform.scale("web-1", 2, fence=FENCE, then=(Later(1, 1000.0),))
    for _ in range(20):
        await house.platform.tend()
    kept = json.loads((house.folder / RECORD).read_text())["asked"]
    assert kept == {"replicas": 2, "then": [{"replicas": 1, "seconds": 1000.0}], "waited": 0.0}


async def test_a_copy_whose_end_an_agent_had_begun_is_ended_by_the_next(
    house: House, killed_agent: set[psutil.Process]
) -> None:
    kept = json.loads((house.folder / RECORD).read_text())
    # As an agent leaves it that died right after it had written this down.
    kept |= {"leaving": kept["instances"], "instances": [], "asked": {"replicas": 0}}
    (house.folder / RECORD).write_text(json.dumps(kept))
    assert killed_agent
    house.new_driver()
    await house.until_gone(killed_agent)
    await house.until(lambda _: not json.loads((house.folder / RECORD).read_text())["leaving"])
    grown = await house.platform.scale("web-1", 1, fence=FENCE)
    assert len(grown.instances) == 1
    await house.until(lambda p: p.ready)


async def test_what_was_placed_by_an_older_agent_is_wanted_as_it_is(house: House) -> None:
    await placed(house, 2)
    await house.platform.stop()
    kept = json.loads((house.folder / RECORD).read_text())
    for name in ("asked", "leaving"):
        kept.pop(name)
    for name in ("begin_with", "scaling"):
        kept["workload"].pop(name)
    (house.folder / RECORD).write_text(json.dumps(kept))
    house.new_driver()
    found = await house.until(lambda p: p.ready)
    assert (len(found.instances), found.asked, found.full, found.later) == (2, 2, 2, ())
