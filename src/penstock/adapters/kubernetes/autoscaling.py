"""Has the autoscaler of a release do what was asked for last, wherever that went wrong or was undone.

Called by `copies` after each change of what is asked for, and by `tending`. What it is to do follows from the
Deployment alone, so whoever looks may mend it. Releases without one cost nothing: autoscalers are watched
once there is a release that has one. Must not change the number of copies.
"""

from __future__ import annotations

from penstock.adapters._kubernetes import Client, Object
from penstock.adapters._kubernetes.kinds import AUTOSCALERS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters.kubernetes import children, manifests, record
from penstock.adapters.kubernetes.bounds import has


class Autoscaling:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._mirror = Mirror(client, (AUTOSCALERS,), f"{record.MANAGED}=penstock")

    async def close(self) -> None:
        await self._mirror.close()

    def known(self, release: str) -> object:
        """What the autoscaler of *release* was told, as far as we know; another value once that changed."""
        found = self._mirror.get(AUTOSCALERS, release)
        return found and found["spec"]

    async def is_behind(self, owner: Object) -> bool:
        """Whether the autoscaler of the Deployment *owner* is missing, or does not do what was asked for."""
        wanted = manifests.autoscaler(owner)
        if wanted is None:
            return False
        await self._mirror.ready()
        return not _does(self._mirror.get(AUTOSCALERS, owner["metadata"]["name"]), wanted)

    async def follow(self, owner: Object) -> None:
        """Have it do that. `Drift` if somebody else has set what is to be changed, `Conflict` if there is one
        that is not ours."""
        wanted = manifests.autoscaler(owner)
        if wanted is None or not await self.is_behind(owner):
            return
        name, metadata = owner["metadata"]["name"], wanted["metadata"]
        live = await self._client.get(AUTOSCALERS, name)
        if live is None or not children.is_of_the_same(live, wanted):
            await children.make(self._client, AUTOSCALERS, wanted)
        elif not _does(live, wanted):
            was = {part: live["metadata"][part] for part in ("uid", "resourceVersion")}
            live = await self._client.apply(AUTOSCALERS, {**wanted, "metadata": {**metadata, **was}})
            self._mirror.put(AUTOSCALERS, live)


def _does(found: Object | None, wanted: Object) -> bool:
    return found is not None and children.is_of_the_same(found, wanted) and has(found["spec"], wanted["spec"])
