"""Baseline: put up fresh copies of the stable release for a canary to be compared with.

Called by the engine before anything of the canary is measured, if ``canary.baseline`` asks for it. As many as
the new release has, started as late, dark: so that neither has warm caches or old memory. `shift` gives them
users, and whatever ends the canary takes them away. Must not give anybody's traffic to them.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.actions._afresh import change
from penstock.actions._farewell import take_away
from penstock.actions._placing import backend, placed, unproven, workload
from penstock.core.drift import drift, in_brackets
from penstock.core.evidence import Statement
from penstock.core.masking import masked
from penstock.core.pipeline import State
from penstock.core.release import EnvironmentData, Release
from penstock.core.wording import plural
from penstock.errors import Broken, Conflict
from penstock.ledger.live import live
from penstock.ledger.log import Ledger
from penstock.ports import Artifacts, Outcome, Platform, Router, Store, Task


async def perform(
    task: Task, /, *, platform: Platform, router: Router, artifacts: Artifacts, store: Store, ledger: Ledger
) -> Outcome:
    """Place them, and prove at the proxy that they are ready. That they are not is no fault of the change."""
    new, stable = task.release, task.baseline
    if new is None or stable is None or not task.fresh:
        raise Broken("a fresh baseline without two releases", where=task.delivery)
    data = await _data(stable, store, ledger)
    old, image = [await artifacts.describe(pair.artifact) for pair in (stable, new)]
    found = await _cleared(task, (new.id, stable.id), router, platform)
    like = await platform.observe(new.id)
    asked = replace(
        workload(stable, data, old),
        release=task.fresh,
        replicas=image.config.replicas,
        scaling=image.config.scaling,
        begin_with=len(like.instances) if like else 1,
    )
    placement = await placed(task, asked, platform)
    why = "" if placement.ready else placement.reason or "they never became ready"
    if not why:
        known = backend(placement, data, old)
        exposed = await change(task, router, lambda state: state.exposing(known))
        why = await unproven(exposed, task.fresh, router, platform)
    if why:
        said = f"fresh copies of {stable.id}, which is live, do not serve: {why}"
        return Outcome(State.ERROR, masked(said, (*task.secrets, *data.secrets)), found)
    copies = plural(len(placement.instances), "fresh copy")
    return Outcome(State.SUCCESS, f"{copies} of {stable.id}, dark{in_brackets(found)}", found)


async def _cleared(
    task: Task, expected: tuple[str, str], router: Router, platform: Platform
) -> tuple[Statement, ...]:
    """What is left of an attempt before this one, or of what could not be undone, is fresh no more: its users
    go back, and then it goes. Gives back the drift that was found."""
    state = await router.read(task.change.service, task.change.environment)
    found = drift(task.delivery, state, expected)
    if found:
        await router.apply(state.settling(expected[-1]), fence=task.fence)
    await take_away(task, [task.fresh], router, platform)
    return found


async def _data(stable: Release, store: Store, ledger: Ledger) -> EnvironmentData:
    """The other half of the pair, which its promotion tells."""
    async with store.transaction(write=False) as tx:
        now_live = await live(ledger, tx, stable.service, stable.environment)
    if now_live is None or now_live.release != stable:
        raise Conflict(f"{stable.id} is not what is live any more", next_move="ship the change again")
    return now_live.data
