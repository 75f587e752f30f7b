"""What an acceptance run and a workload are given in confidence is not in what is kept of their words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from building import task_for, write

from penstock.actions import deploy
from penstock.checks import acceptance
from penstock.config import AcceptanceConfig, ServiceConfig
from penstock.core.pipeline import State
from penstock.core.release import EnvironmentData, Release
from penstock.core.traffic import Backend, BackendState, TrafficPlan, TrafficState
from penstock.core.workload import Instance, Phase, Placement, Workload
from penstock.ports import Image, Prepared, Sandbox, Task

TOKEN, KEY = "preview-token-5ad1", "payment-key-77c2"
SCRIPT = """
import os, sys
headers = os.environ["PENSTOCK_PREVIEW_HEADERS"]
print("curl -H", headers, flush=True)
sys.stdout.write("and the service said %s" % KEY[:9]); sys.stdout.flush(); sys.stdout.write(KEY[9:])
"""


class Told:
    """A router and a platform that know one release; its workload prints what it was given."""

    async def read(self, service: str, environment: str) -> TrafficState:
        backend = BackendState(Backend(RELEASE.id, ("127.0.0.1:1",)), 1, 1)
        return TrafficState(service, environment, (), (backend,), "http://127.0.0.1:1", TOKEN)

    async def apply(self, plan: TrafficPlan, *, fence: object) -> TrafficState:
        raise NotImplementedError

    async def place(self, workload: Workload, *, fence: object) -> Placement:
        said = " ".join(f"{name}={value}" for name, value in workload.env.items())
        return Placement(RELEASE.id, (Instance("0", "", Phase.FAILED),), reason=f"it ended: {said}")


class Nothing:
    """Tools of a project that needs none, and its image."""

    async def prepare(self, task: Task) -> Prepared:
        return Prepared()

    async def describe(self, artifact: str) -> Image:
        return Image(("serve",), ServiceConfig("shop"))


DATA = EnvironmentData("shop", "production", {"KEY": KEY, "COLOUR": "blue"}, secret=("KEY",))
RELEASE = Release("shop", "production", "sha256:" + "a" * 64, DATA.digest)


def task(folder: Path, config: ServiceConfig) -> Task:
    return replace(task_for(folder, config), data=DATA, release=RELEASE)


async def test_acceptance_keeps_the_preview_token_and_the_values_to_itself(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    write(tmp_path / "tree", {"check.py": f"KEY = {KEY!r}\n{SCRIPT}"})
    config = ServiceConfig("shop", acceptance=AcceptanceConfig("python3 check.py", "gone.xml", requests=0))
    given = task(tmp_path, config)
    outcome = await acceptance.perform(
        given,
        router=Told(),  # type: ignore[arg-type]
        metrics=Nothing(),  # type: ignore[arg-type]
        demands=Nothing(),  # type: ignore[arg-type]
        platform=Told(),  # type: ignore[arg-type]
        sandbox=sandbox,
        tools=Nothing(),  # type: ignore[arg-type]
    )
    kept = given.log.read_text()
    assert kept == outcome.reason.partition("\n")[2]
    assert '"penstock-preview-token": "***"}' in kept
    assert kept.endswith("and the service said ***")


async def test_the_last_words_of_a_workload_are_masked(tmp_path: Path) -> None:
    given = task(tmp_path, ServiceConfig("shop"))
    outcome = await deploy.perform(given, platform=Told(), router=Told(), artifacts=Nothing())  # type: ignore[arg-type]
    assert (outcome.state, outcome.reason) == (State.FAILURE, "it ended: KEY=*** COLOUR=blue")
