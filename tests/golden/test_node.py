"""What the node agent of an earlier release kept is read by this one: the proxy's plans, and what runs.

The files are as that release wrote them, and are never written again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from penstock.adapters.envoy.state import State
from penstock.adapters.processes import Processes
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.traffic import Backend, Egress, Handling, Mirror, Rule, TrafficPlan, Weight
from penstock.core.workload import Phase
from tests.golden.make import HERE

NODE = HERE / "0.1.0" / "node"


def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NODE, tmp_path / "node"))


def test_plans_of_the_proxy_are_read_and_kept_on(tmp_path: Path) -> None:
    folder = kept(tmp_path) / "envoy"
    egress = (Egress("cart", "127.0.0.1:18610"),)
    web = TrafficPlan(
        "web",
        "production",
        (
            Backend("web-1", ("127.0.0.1:18601",), "/", egress, drain_seconds=5.0),
            Backend("web-2", ("127.0.0.1:18602",), "/"),
        ),
        (Weight("web-1", 900), Weight("web-2", 100)),
        rules=(Rule((Weight("web-2", 1000),), "/beta"),),
        sticky="web-2",
        handling=Handling(7.0, 1),
    )
    state = State.of(folder, 8600)
    assert state.plans["web.production"] == web
    assert state.plans["cart.production"].mirror == Mirror("cart-2", 50)
    assert state.next() == "v11"
    again = State.of(folder, 8600)
    assert (again.plans, again.token, again.port("web.production")) == (state.plans, "golden", 18600)


async def test_what_runs_is_read_as_it_was_asked_for(tmp_path: Path) -> None:
    placement = await Processes(kept(tmp_path), tmp_path / "artifacts", Unsandboxed()).observe("web-1")
    assert placement is not None
    assert [instance.phase for instance in placement.instances] == [Phase.READY, Phase.STARTING]
    assert (placement.full, placement.asked, placement.floor, placement.most) == (2, 2, 2, 2)
    assert placement.backend.drain_seconds == 20.0
    assert placement.advisory == ("cpus",)
