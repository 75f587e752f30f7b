"""Places a release: makes its workload, and waits until it is proven ready.

Shared by the actions that place copies; not an action. No traffic is moved here.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from penstock.core.masking import masked
from penstock.core.mesh import Mesh
from penstock.core.release import EnvironmentData, Release
from penstock.core.traffic import Backend
from penstock.core.workload import Placement, Workload
from penstock.errors import Unavailable
from penstock.ports import Image, Platform, Router, Task

POLL_SECONDS = 0.1
#: How long the proxy may take until it has seen that all copies are ready.
PROOF_SECONDS = 10.0


def workload(release: Release, data: EnvironmentData, image: Image) -> Workload:
    """What runs of a pair, as its own image and data say."""
    config = image.config
    return Workload(
        service=release.service,
        environment=release.environment,
        release=release.id,
        artifact=release.artifact,
        command=image.command,
        env={name: _text(value) for name, value in data.values.items()},
        calls=config.calls,
        health_path=config.health,
        replicas=config.replicas,
        start_seconds=config.start_seconds,
        liveness=config.liveness,
        drain_seconds=config.drain_seconds,
        limits=config.limits,
        protocol=config.protocol,
        secrets=data.secrets,
        admission=config.traffic.admission,
        breakers=config.traffic.breakers,
        scaling=config.scaling,
    )


async def placed(task: Task, asked: Workload, platform: Platform) -> Placement:
    """As many copies as it is to begin with, or more if there are: once they are ready, or have failed.
    `Unavailable` if that says nothing of the release."""
    placement = await platform.place(asked, fence=task.fence)
    count = max(asked.begin_with, len(placement.instances))
    if min(placement.floor, len(placement.instances)) < asked.begin_with:  # it was on its way out
        placement = await platform.scale(asked.release, count, fence=task.fence)
    for _ in range(int((asked.start_seconds + 5.0) / POLL_SECONDS)):  # the platform gives up before
        if placement.ready or placement.failed:
            break
        await asyncio.sleep(POLL_SECONDS)
        placement = await platform.observe(placement.release) or placement
    if not placement.ready and placement.lacks:
        raise Unavailable(masked(placement.reason, task.secrets), where=placement.release)
    return placement


def backend(placement: Placement, data: EnvironmentData, image: Image) -> Backend:
    """What the proxy is told of it, dark or not."""
    meshed = _meshed(placement.backend, data.mesh)
    return replace(meshed, handling=image.config.traffic.handling)


async def unproven(task: Task, release: str, router: Router, platform: Platform) -> str:
    """Wait until the proxy itself has found every copy ready; why it has not, "" if it has."""
    for _ in range(int(PROOF_SECONDS / POLL_SECONDS)):
        if (await router.read(task.change.service, task.change.environment)).ready(release):
            return ""
        await asyncio.sleep(POLL_SECONDS)
        now = await platform.observe(release)
        if now is not None and now.verdict:
            return now.verdict
    return "it answers on its own, but the proxy cannot reach it"


def _meshed(known: Backend, mesh: Mesh | None) -> Backend:
    """The same, with calls to services at peers led there, and with who of the peers may call."""
    if mesh is None:
        return known
    egress = tuple(replace(way, remote=mesh.calls.get(way.callee)) for way in known.egress)
    return replace(known, egress=egress, export=mesh.export)


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
