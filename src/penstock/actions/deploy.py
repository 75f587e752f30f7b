"""Deploy: place a release and prove it ready at the data plane, dark, without user traffic.

Called by the engine. Must not give anybody's traffic to it: weights stay exactly as they are read, and a
mirror gets copies.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace

from penstock.actions._placing import backend, placed, unproven, workload
from penstock.config import ServiceConfig
from penstock.core.drift import drift
from penstock.core.evidence import Statement, Subject
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.predicates import Deployed
from penstock.core.workload import Placement
from penstock.errors import Broken, Unavailable
from penstock.ports import Artifacts, Outcome, Platform, Router, Task


async def perform(task: Task, /, *, platform: Platform, router: Router, artifacts: Artifacts) -> Outcome:
    """Place → wait until its own probes pass → make it known to the proxy → read back that it is ready."""
    release, data = task.release, task.data
    if release is None or data is None:
        raise Broken("deploy without a release", where=task.delivery)
    image = await artifacts.describe(release.artifact)
    asked = replace(workload(release, data, image), begin_with=_copies(task, image.config))
    placement = await placed(task, asked, platform)
    if not placement.ready:
        # The workload's own last words are in it, and they may tell what it was given.
        reason = masked(placement.reason, task.secrets)
        return Outcome(State.FAILURE, reason or "never became ready")
    state = await router.read(release.service, release.environment)
    found = drift(task.delivery, state)
    known = backend(placement, data, image)
    if release.id not in state.plan.serving:  # what it calls while it is dark
        known = replace(known, chain=tuple(link.release.id for link in task.chain))
    exposed = await router.apply(state.exposing(known), fence=task.fence)
    if why := await unproven(exposed, release.id, router, platform):
        return Outcome(State.FAILURE, masked(why, task.secrets), found)
    isolation, count = placement.isolation.value, len(placement.instances)
    words = _dark(placement) + await _mirrored(task, router, release.id)
    here = [way.callee for way in known.egress if way.remote is None]
    words += await _not_let_in(task, router, artifacts, here) + _shut_out(task, image.config)
    deployed = Deployed(task.delivery, release, data, isolation, count, base=placement.base or None)
    statement = Statement((Subject(release.id, release.digest),), deployed)
    return Outcome(State.SUCCESS, words, (statement, *found))


def _dark(placement: Placement) -> str:
    words = f"dark: {len(placement.instances)} ready, isolation {placement.isolation}"
    words += f", on {placement.base}" if placement.base else ""
    advisory = ", ".join(placement.advisory)
    return f"{words}; not enforced here: {advisory}" if advisory else words


async def _mirrored(task: Task, router: Router, release: str) -> str:
    """Let the new release see copies of what users ask, if that is wanted and there are users. In words."""
    mirror = task.config.traffic.mirror_to(release)
    if mirror is None:
        return ""
    state = await router.read(task.change.service, task.change.environment)
    if release in state.plan.serving or not state.weights:
        return ""
    await router.apply(replace(state.plan, mirror=mirror), fence=task.fence)
    return f", a mirror of {mirror.share / 10:g}% of user requests"


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


def _copies(task: Task, config: ServiceConfig) -> int:
    """Enough to be tested, and for what is mirrored to it; all of them if it is to serve everybody next."""
    mirrored = config.traffic.mirror / 100 if task.baseline else 0.0
    share = 1.0 if task.change.kind == "rollback" else mirrored
    return max(1, math.ceil(config.replicas * share))
