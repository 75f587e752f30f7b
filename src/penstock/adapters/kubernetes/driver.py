"""Places releases as Deployments, and tells what the cluster makes of them.

Called by the engine, and by several workers at once: each change carries the version that it was made from
and the fence of who asked, and a lower fence than the object has is refused. What is asked often is answered
from a mirror that watches keep current. Must not know how users get there: that is the router's.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from penstock.adapters._kubernetes import Access, Client, Object
from penstock.adapters._kubernetes.failures import Moved
from penstock.adapters._kubernetes.kinds import DEPLOYMENTS, ENDPOINT_SLICES, PODS
from penstock.adapters._kubernetes.mirror import Mirror
from penstock.adapters.kubernetes import accounts, bases, children, manifests, reading, record
from penstock.adapters.kubernetes.autoscaling import Autoscaling
from penstock.adapters.kubernetes.bases import Pulled
from penstock.adapters.kubernetes.copies import Copies
from penstock.adapters.kubernetes.ends import Ends
from penstock.adapters.kubernetes.manifests import Settings
from penstock.adapters.kubernetes.reading import Seen
from penstock.adapters.kubernetes.record import BASE, COMPLETE, RELEASE
from penstock.adapters.kubernetes.roll import Copy
from penstock.adapters.kubernetes.tending import Tending
from penstock.adapters.kubernetes.words import Words
from penstock.cluster import Cluster
from penstock.core.fence import Fence
from penstock.core.workload import Afterwards, Phase, Placement, Workload
from penstock.errors import Conflict, Invalid
from penstock.ports import Artifacts, Images

T = TypeVar("T")

#: A change that somebody else's came before is made again from what is there then, so often.
TRIES = 5


class Kubernetes:
    """Platform on the cluster that *access* names (None: ``KUBECONFIG``, or the pod's own account). With
    *images*, an artifact is where nodes pull it before anything names it; else ``settings.images`` says where
    it is already. *artifacts* say what they were built for; without, they are run as they are, anywhere."""

    def __init__(
        self,
        settings: Settings,
        access: Access | None = None,
        images: Images | None = None,
        artifacts: Artifacts | None = None,
    ) -> None:
        self._settings = settings
        self._images = images
        self._artifacts = artifacts
        self._client = Client(access or Access.of_environment())
        self._client.namespace = settings.namespace or self._client.namespace
        kinds = (DEPLOYMENTS, PODS, ENDPOINT_SLICES)
        self._mirror = Mirror(self._client, kinds, f"{record.MANAGED}=penstock")
        self._autoscaling = Autoscaling(self._client)
        self._copies = Copies(self._client, self._mirror, self._autoscaling)
        self._tending = Tending(self._client, self._mirror, self._copies, self._autoscaling)
        self._ends = Ends()
        self._words = Words(self._client)

    @classmethod
    def of(cls, cluster: Cluster, images: Images, artifacts: Artifacts) -> Kubernetes:
        settings = Settings(
            neighbour=cluster.neighbour, pull_secrets=cluster.pull_secrets, bases=cluster.bases
        )
        return cls(settings, Access.of(cluster), images, artifacts)

    @property
    def namespace(self) -> str:
        """Where releases are."""
        return self._client.namespace

    async def check(self) -> None:
        """Raise what would keep everybody from anything: an API that is away, a right that is missing."""
        await self._mirror.ready()

    async def close(self) -> None:
        """Stop watching. What runs goes on."""
        await self._mirror.close()
        await self._autoscaling.close()
        await self._client.close()

    # --- Platform ------------------------------------------------------------------------------------

    async def place(self, workload: Workload, *, fence: Fence) -> Placement:
        scope = f"{workload.service}/{workload.environment}"
        if fence.scope != scope:
            raise Conflict(f"a fence for {fence.scope}", where=scope)
        manifests.check(workload)
        await self._mirror.ready()
        self._words.keep(workload.release, workload.secrets)
        live = await self._client.get(DEPLOYMENTS, workload.release)
        if live is None:
            live = await self._created(workload, fence)
        _check(live, fence)
        if COMPLETE not in live["metadata"]["annotations"]:
            await self._check_kept(live)
            live = await self._completed(workload, live, fence)
        self._mirror.put(DEPLOYMENTS, live)
        await self._revive(live)
        return await self._placement(live)

    async def observe(self, release: str) -> Placement | None:
        await self._mirror.ready()
        found = self._mirror.get(DEPLOYMENTS, release)
        return await self._placement(found) if found else None

    async def scale(self, release: str, replicas: int, *, fence: Fence, then: Afterwards = ()) -> Placement:
        if replicas < 0:
            raise Invalid(f"{replicas} copies", where=release, next_move="ask for 0 or more")
        await self._mirror.ready()

        async def once() -> tuple[Object, Sequence[Copy]]:
            live = await self._known(release)
            _check(live, fence)
            asked = record.read_asked(live).said(replicas, then, time.time())
            return await self._copies.set(live, fence, asked, replicas)

        live, leaving = await _until_unmoved(once)
        await self._copies.ended(live, leaving)
        return await self._placement(live)

    async def remove(self, release: str, *, fence: Fence) -> None:
        await self._mirror.ready()

        async def once() -> Object | None:
            live = await self._client.get(DEPLOYMENTS, release)
            if live is not None:
                _check(live, fence)
                uid, version = live["metadata"]["uid"], live["metadata"]["resourceVersion"]
                await self._client.delete(DEPLOYMENTS, release, uid=uid, version=version)
                self._mirror.drop(DEPLOYMENTS, live)
            return live

        live = await _until_unmoved(once)
        if live is not None:
            await self._copies.ended(live, self._copies.of(live))
        for known in (self._copies, self._ends, self._words, self._tending):
            known.forget(release)

    async def logs(self, release: str, lines: int) -> tuple[str, ...]:
        await self._mirror.ready()
        live = self._mirror.get(DEPLOYMENTS, release)
        if live is None:
            return ()
        return await self._words.lines(release, [copy.pod for copy in self._copies.of(live)], lines)

    # --- looking after -------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Take away what is too much by now, as `scale` was told, and mend autoscalers. Every worker may, at
        any time."""
        await self._mirror.ready()
        await self._tending.once()

    # --- placing -------------------------------------------------------------------------------------

    async def _created(self, workload: Workload, fence: Fence) -> Object:
        """The Deployment, made by us or by whoever came first."""
        pulled = await self._pulled(workload)
        wanted = manifests.deployment(workload, pulled, self._settings, self._client.namespace, fence)
        try:
            return await self._client.create(DEPLOYMENTS, wanted)
        except Moved:
            return await self._known(workload.release)
        except Invalid as error:
            raise bases.too_old(error) from error

    async def _pulled(self, workload: Workload) -> Pulled:
        """What its pods are to pull, and that it is there for them."""
        image = await self._artifacts.describe(workload.artifact) if self._artifacts else None
        base = bases.base_of(image, self._settings.bases, workload.release) if image else ""
        if self._images is None:
            name = self._settings.image(workload)
        else:
            name = await self._images.publish(workload.service, workload.artifact)
        return Pulled(name, base, image.env, image.platform) if image else Pulled(name)

    async def _check_kept(self, live: Object) -> None:
        """`Invalid`, and nothing is left, if the API has dropped the volume that holds the artifact."""
        metadata = live["metadata"]
        if bases.is_kept(live, BASE in metadata["annotations"]):
            return
        await self._client.delete(DEPLOYMENTS, metadata["name"], uid=metadata["uid"])
        raise bases.dropped(f"{DEPLOYMENTS.full} {metadata['namespace']}/{metadata['name']}")

    async def _completed(self, workload: Workload, live: Object, fence: Fence) -> Object:
        """Give it what its pods need, and only then copies. Whoever did not come to the end begins anew."""
        await accounts.demand(self._client, workload)
        for kind, child in manifests.children(workload, live):
            await children.make(self._client, kind, child)

        async def once() -> Object:
            found = await self._known(workload.release)
            _check(found, fence)
            asked = record.read_asked(found)
            found, _ = await self._copies.set(found, fence, asked, asked.replicas)
            return found

        return await _until_unmoved(once)

    async def _revive(self, live: Object) -> None:
        """Being asked for again, what had been given up gets a new start: the cluster makes a new pod."""
        placement = await self._placement(live)
        failed = {instance.id for instance in placement.instances if instance.phase is Phase.FAILED}
        for copy in self._copies.of(live):
            if str(copy.number) in failed:
                metadata = copy.pod["metadata"]
                await self._client.delete(PODS, metadata["name"], uid=metadata["uid"])
                self._copies.dismiss(copy.pod)

    async def _known(self, release: str) -> Object:
        live = await self._client.get(DEPLOYMENTS, release)
        if live is None:
            raise Invalid(f"{release} is not placed", where=f"namespace {self._client.namespace}")
        return live

    # --- telling -------------------------------------------------------------------------------------

    async def _placement(self, live: Object) -> Placement:
        release = live["metadata"]["name"]
        copies, now = self._copies.of(live), datetime.datetime.now(datetime.UTC)
        ends = {copy.pod["metadata"]["uid"]: await self._words.end(release, copy.pod) for copy in copies}
        seen = Seen(
            deployment=live,
            copies=copies,
            slices=self._mirror.all(ENDPOINT_SLICES, RELEASE, release),
            ends={uid: end for uid, end in ends.items() if end is not None},
            recent=self._ends.look(release, [copy.pod for copy in copies], now),
            words={},
            asked=record.read_asked(live).at(time.time()),
            settings=self._settings,
            now=now,
            cut=self._copies.cut(release),
        )
        late = [copy.pod for copy in copies if seen.is_late(copy)]
        words = {pod["metadata"]["uid"]: await self._words.last(release, pod) for pod in late}
        return reading.placement(replace(seen, words=words))


async def _until_unmoved(once: Callable[[], Awaitable[T]]) -> T:
    """Read and write again while somebody else is faster; the cluster itself writes into what it is told
    of."""
    for _ in range(TRIES):
        with contextlib.suppress(Moved):
            return await once()
    return await once()


def _check(live: Object, fence: Fence) -> None:
    """`Conflict` if the release is not this fence's, or a higher one has been here."""
    children.check_ours(DEPLOYMENTS, live)
    last, name = record.read_fence(live), live["metadata"]["name"]
    if last.scope != fence.scope:
        raise Conflict(f"{name} belongs to {last.scope}, the fence to {fence.scope}", where=name)
    if fence.number < last.number:
        raise Conflict(
            f"fence {fence.number} is stale: {last.number} has been seen", where=f"{fence.scope}: {fence.key}"
        )
