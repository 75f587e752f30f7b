"""Deploy: place a release and prove it ready at the data plane, dark, without user traffic.

Called by the engine. Must not give anybody's traffic to it: weights stay exactly as they are read, and a
mirror gets copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace

from penstock.config import ServiceConfig
from penstock.core.drift import drift
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.mesh import Mesh
from penstock.core.pipeline import State
from penstock.core.predicates import Deployed
from penstock.core.traffic import Backend, TrafficState
from penstock.core.workload import Placement, Workload
from penstock.errors import Broken, Unavailable
from penstock.ports import Artifacts, Image, Outcome, Platform, Router, Task

POLL_SECONDS = 0.1


async def perform(task: Task, /, *, platform: Platform, router: Router, artifacts: Artifacts) -> Outcome:
    """Place → wait until its own probes pass → make it known to the proxy → read back that it is ready."""
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("deploy without a release", where=task.delivery)
    image = await artifacts.describe(release.artifact)
    workload = _workload(task, image)
    placement = await platform.place(workload, fence=task.fence)
    count = max(workload.begin_with, len(placement.instances))
    if min(placement.floor, len(placement.instances)) < workload.begin_with:  # it was on its way out
        placement = await platform.scale(workload.release, count, fence=task.fence)
    placement = await _settle(platform, placement, workload.start_seconds)
    if not placement.ready:
        # The workload's own last words are in it, and they may tell what it was given.
        reason = masked(placement.reason, task.secrets)
        return Outcome(State.FAILURE, reason or "never became ready")
    state = await router.read(task.change.service, task.change.environment)
    found = drift(task.delivery, state)
    backend = replace(_meshed(placement.backend, data.mesh), handling=image.config.traffic.handling)
    if release.id not in state.plan.serving:  # what it calls while it is dark
        backend = replace(backend, chain=tuple(link.release.id for link in task.chain))
    await router.apply(state.exposing(backend), fence=task.fence)
    outcome = await _proven(task, router, platform, placement)
    here = [way.callee for way in backend.egress if way.remote is None]
    if outcome.state is State.SUCCESS:
        hint = await _not_let_in(task, router, artifacts, here) + _shut_out(task, image.config)
        outcome = replace(outcome, reason=outcome.reason + hint)
    return replace(outcome, statements=(*outcome.statements, *found))


async def _not_let_in(task: Task, router: Router, artifacts: Artifacts, callees: Sequence[str]) -> str:
    """Which of these, that it calls on this machine, will refuse it: as they are now, or as those will be
    that go out together with it. Better told here than found by users."""
    refusing, coming = [], {link.release.service: link.release for link in task.chain}
    for callee in callees:
        with contextlib.suppress(Unavailable):  # it is a hint
            if callee in coming:
                admission = (await artifacts.describe(coming[callee].artifact)).config.traffic.admission
            else:
                admission = (await router.read(callee, task.change.environment)).admission
            refusing += [] if admission.allows(task.change.service) else [callee]
    return f"; {', '.join(refusing)} will refuse its calls (traffic.callers)" if refusing else ""


def _shut_out(task: Task, config: ServiceConfig) -> str:
    """Which of those that call it now, or will, its own rules refuse once it has the users."""
    out = [caller for caller in task.callers if not config.traffic.admission.allows(caller)]
    return f"; it will refuse the calls of {', '.join(out)} (traffic.callers)" if out else ""


def _meshed(backend: Backend, mesh: Mesh | None) -> Backend:
    """The same, with calls to services at peers led there, and with who of the peers may call."""
    if mesh is None:
        return backend
    egress = tuple(replace(way, remote=mesh.calls.get(way.callee)) for way in backend.egress)
    return replace(backend, egress=egress, export=mesh.export)


async def _mirrored(task: Task, router: Router, state: TrafficState, release: str) -> str:
    """Let the new release see copies of what users ask, if that is wanted and there are users. In words."""
    mirror = task.config.traffic.mirror_to(release)
    if mirror is None or release in state.plan.serving or not state.weights:
        return ""
    await router.apply(replace(state.plan, mirror=mirror), fence=task.fence)
    return f", a mirror of {mirror.share / 10:g}% of user requests"


async def _proven(task: Task, router: Router, platform: Platform, placement: Placement) -> Outcome:
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("deploy without a release", where=task.delivery)
    for _ in range(100):
        state = await router.read(release.service, release.environment)
        if state.ready(release.id):
            deployed = Deployed(
                task.delivery, release, data, placement.isolation.value, len(placement.instances)
            )
            words = f"dark: {len(placement.instances)} ready, isolation {placement.isolation}"
            if placement.advisory:
                words += f"; not enforced here: {', '.join(placement.advisory)}"
            words += await _mirrored(task, router, state, release.id)
            subjects = (Subject(release.id, release.digest),)
            return Outcome(State.SUCCESS, words, (Statement(subjects, deployed),))
        await asyncio.sleep(POLL_SECONDS)
        now = await platform.observe(release.id)
        if now is not None and now.verdict:
            return Outcome(State.FAILURE, masked(now.verdict, task.secrets))
    return Outcome(State.FAILURE, "it answers on its own, but the proxy cannot reach it")


def _workload(task: Task, image: Image) -> Workload:
    if task.release is None or task.data is None:
        raise Broken("deploy without a release", where=task.delivery)
    config = image.config
    return Workload(
        service=task.change.service,
        environment=task.change.environment,
        release=task.release.id,
        artifact=task.release.artifact,
        command=image.command,
        env={name: _text(value) for name, value in task.data.values.items()},
        calls=config.calls,
        health_path=config.health,
        replicas=config.replicas,
        start_seconds=config.start_seconds,
        liveness=config.liveness,
        drain_seconds=config.drain_seconds,
        limits=config.limits,
        protocol=config.protocol,
        secrets=task.secrets,
        admission=config.traffic.admission,
        breakers=config.traffic.breakers,
        begin_with=_copies(task, config),
        scaling=config.scaling,
    )


def _copies(task: Task, config: ServiceConfig) -> int:
    """Enough to be tested, and for what is mirrored to it; all of them if it is to serve everybody next."""
    mirrored = config.traffic.mirror / 100 if task.baseline else 0.0
    share = 1.0 if task.change.kind == "rollback" else mirrored
    return max(1, math.ceil(config.replicas * share))


async def _settle(platform: Platform, placement: Placement, seconds: float) -> Placement:
    """Poll until the placement is ready or failed. The platform itself gives up after *seconds*."""
    polls = int((seconds + 5.0) / POLL_SECONDS)
    for _ in range(polls):
        if placement.ready or placement.failed:
            break
        await asyncio.sleep(POLL_SECONDS)
        placement = await platform.observe(placement.release) or placement
    return placement


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
