"""The client of the Kubernetes API against the fake one: what each answer becomes, and what watches
survive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fakes.cluster import IMAGE, cluster_and_client, config_map, deployment, service
from penstock.adapters._kubernetes import Access, Change, Client, Listed, Object
from penstock.adapters._kubernetes.failures import Drift
from penstock.adapters._kubernetes.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    PODS,
    SERVICES,
    Kind,
)
from penstock.errors import Conflict, Invalid, PenstockError, Refused, Unavailable
from penstock.testing.kubernetes import Behaviour, FakeCluster, Fault
from penstock.testing.kubernetes.problems import Problem

SECONDS = 10.0
ROUTES = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")


class World:
    def __init__(self, cluster: FakeCluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client

    async def until(self, kind: Kind, name: str, wanted: Callable[[Object], bool]) -> Object:
        found = await self.client.get(kind, name)
        async with asyncio.timeout(SECONDS):
            while found is None or not wanted(found):
                await asyncio.sleep(0.01)
                found = await self.client.get(kind, name)
        return found

    async def pods(self) -> tuple[Object, ...]:
        return (await self.client.list(PODS)).items


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with cluster_and_client(tmp_path) as (cluster, client):
        yield World(cluster, client)


# --- objects ---------------------------------------------------------------------------------------------


async def test_what_is_made_can_be_read_changed_and_removed(world: World) -> None:
    made = await world.client.create(CONFIG_MAPS, config_map(colour="blue"))
    assert await world.client.get(CONFIG_MAPS, "notes") == made
    changed = await world.client.apply(CONFIG_MAPS, config_map(colour="red"))
    assert changed["data"] == {"colour": "red"}
    assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert await world.client.delete(CONFIG_MAPS, "notes")
    assert not await world.client.delete(CONFIG_MAPS, "notes")
    assert await world.client.get(CONFIG_MAPS, "notes") is None


async def test_a_field_that_is_applied_no_more_goes_and_others_stay(world: World) -> None:
    await world.client.apply(CONFIG_MAPS, config_map(ours="1", both="1"))
    world.cluster.api.apply(
        world.cluster.api.named("configmaps"),  # type: ignore[arg-type]
        {"apiVersion": "v1", "kind": "ConfigMap", **config_map(theirs="1", both="1")},
        manager="kubectl",
    )
    left = await world.client.apply(CONFIG_MAPS, config_map(new="1"))
    assert left["data"] == {"theirs": "1", "both": "1", "new": "1"}


async def test_a_list_comes_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.adapters._kubernetes.client.LIST_PAGE", 2)
    for number in range(5):
        await world.client.create(CONFIG_MAPS, config_map(f"notes-{number}"))
    listed = await world.client.list(CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in listed.items] == [f"notes-{n}" for n in range(5)]
    assert {item["kind"] for item in listed.items} == {"ConfigMap"}


# --- no -----------------------------------------------------------------------------------------------


async def told(kind: type[PenstockError], asking: object, *words: str) -> PenstockError:
    with pytest.raises(kind) as caught:
        await asking  # type: ignore[misc]
    said = str(caught.value)
    assert [word for word in words if word not in said] == []
    assert caught.value.where
    return caught.value


async def test_a_version_that_has_moved_on_is_a_conflict(world: World) -> None:
    old = await world.client.create(CONFIG_MAPS, config_map(colour="blue"))
    await world.client.apply(CONFIG_MAPS, config_map(colour="red"))
    version = old["metadata"]["resourceVersion"]
    again = config_map(colour="green")
    again["metadata"]["resourceVersion"] = version
    await told(Conflict, world.client.apply(CONFIG_MAPS, again), "has been modified", "next: read it again")
    await told(Conflict, world.client.delete(CONFIG_MAPS, "notes", version=version), "notes")
    await told(Conflict, world.client.delete(CONFIG_MAPS, "notes", uid="another"), "UID")
    await told(Conflict, world.client.create(CONFIG_MAPS, config_map()), "there already")
    assert (await world.client.get(CONFIG_MAPS, "notes") or {})["data"] == {"colour": "red"}


async def test_what_is_gone_is_not_made_again_by_a_change(world: World) -> None:
    made = await world.client.create(CONFIG_MAPS, config_map(colour="blue"))
    await world.client.delete(CONFIG_MAPS, "notes")
    again = config_map(colour="red")
    again["metadata"] |= {name: made["metadata"][name] for name in ("uid", "resourceVersion")}
    await told(Conflict, world.client.apply(CONFIG_MAPS, again), "notes")
    assert await world.client.get(CONFIG_MAPS, "notes") is None


async def test_what_another_tool_changed_is_drift_and_stays(world: World) -> None:
    await world.client.apply(DEPLOYMENTS, deployment(replicas=1))
    world.cluster.edit("deployments.apps", "web", {"spec": {"replicas": 3}})
    drift = await told(
        Drift, world.client.apply(DEPLOYMENTS, deployment(replicas=2)), "kubectl", ".spec.replicas"
    )
    assert isinstance(drift, Drift)
    assert drift.managers == ("kubectl",)
    assert (await world.client.get(DEPLOYMENTS, "web") or {})["spec"]["replicas"] == 3


async def test_a_field_that_is_not_known_is_named(world: World) -> None:
    wrong = deployment()
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    unknown = 'unknown field "spec.template.spec.containers[0].imagee"'
    await told(Invalid, world.client.create(DEPLOYMENTS, wrong), unknown, "deployments.apps default/web")
    wrong = deployment()
    wrong["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    await told(Invalid, world.client.create(DEPLOYMENTS, wrong), "spec.template.metadata.labels")


async def test_a_kind_without_its_crd_says_so(world: World) -> None:
    for asking in (world.client.get(ROUTES, "web"), world.client.list(ROUTES)):
        await told(Invalid, asking, "does not know httproutes.gateway.networking.k8s.io/v1", "CRD")


async def test_a_namespace_that_is_not_there_says_how_to_make_it(world: World) -> None:
    there = config_map()
    there["metadata"]["namespace"] = "shop"
    await told(Invalid, world.client.create(CONFIG_MAPS, there), "kubectl create namespace shop")


async def test_who_we_are_is_not_believed(world: World, tmp_path: Path) -> None:
    world.cluster.token = "another"
    client = Client(Access.of_files([world.cluster.kubeconfig(tmp_path)]))
    await told(Refused, client.get(PODS, "web"), "credentials", "renew")
    await client.close()


async def test_a_missing_right_is_named_with_verb_and_resource(world: World) -> None:
    world.cluster.allow([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}])
    assert await world.client.get(DEPLOYMENTS, "web") is None
    refused = "create on deployments.apps in namespace default"
    await told(Refused, world.client.create(DEPLOYMENTS, deployment()), refused, "docs/guides/kubernetes.md")
    await told(Refused, world.client.logs("web-1", lines=3), "get on pods/log in namespace default")


async def test_a_used_up_quota_is_no_missing_right(world: World) -> None:
    quota = {"metadata": {"name": "small", "namespace": "default"}, "spec": {"hard": {"configmaps": "1"}}}
    await world.client.create(Kind("", "v1", "resourcequotas", "ResourceQuota"), quota)
    await world.client.create(CONFIG_MAPS, config_map("one"))
    full = world.client.create(CONFIG_MAPS, config_map("two"))
    await told(Unavailable, full, "quota is used up", "kubectl describe quota -n default")


async def test_a_busy_api_is_asked_again_within_our_patience(world: World, tmp_path: Path) -> None:
    world.cluster.fail(Fault("get", "configmaps", status=429))
    assert await world.client.get(CONFIG_MAPS, "notes") is None
    world.cluster.fail(Fault("get", "configmaps", status=429, retry_after=60))
    await told(Unavailable, world.client.get(CONFIG_MAPS, "notes"), "too much to do", "after 60 s")


async def test_a_quota_that_is_being_counted_is_no_conflict_of_ours(world: World, tmp_path: Path) -> None:
    """The API says so of what is made, which nobody else has changed."""
    answers = [quota_problem(), quota_problem(retry_after=60)]

    async def say(what: str, moment: str) -> None:
        if moment == "before" and answers:
            raise answers.pop()

    world.cluster.at_write(say)
    late = world.client.create(CONFIG_MAPS, config_map("notes"))
    await told(Unavailable, late, "resourcequotas", "after 60 s")
    made = await world.client.create(CONFIG_MAPS, config_map("notes"))
    assert made["metadata"]["name"] == "notes"
    assert not answers


def quota_problem(retry_after: int = 0) -> Problem:
    said = 'Operation cannot be fulfilled on resourcequotas "small": the object has been modified'
    return Problem(409, said, details={"name": "small", "kind": "resourcequotas"}, retry_after=retry_after)


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_an_api_that_fails_is_unavailable(world: World, status: int) -> None:
    world.cluster.fail(Fault("list", "pods", status=status))
    await told(Unavailable, world.client.list(PODS), f"failed ({status})")


async def test_no_answer_is_unavailable(world: World, tmp_path: Path) -> None:
    hasty = Client(Access.of_files([world.cluster.kubeconfig(tmp_path)]), seconds=0.2)
    world.cluster.fail(Fault("get", "pods", how="hang"))
    await told(Unavailable, hasty.get(PODS, "web"), "does not answer")
    world.cluster.fail(Fault("patch", "configmaps", how="cut-after"))
    await told(Unavailable, hasty.create(CONFIG_MAPS, config_map()), "does not answer")
    assert await hasty.get(CONFIG_MAPS, "notes"), "it was made all the same"
    await world.cluster.disconnect()
    await told(Unavailable, hasty.get(PODS, "web"), "does not answer", world.cluster.url)
    await hasty.close()


async def test_a_write_waits_for_whoever_wants_to_know_of_it(world: World) -> None:
    told_of: list[str] = []
    cut: list[asyncio.Future[None]] = []

    async def at_write(what: str, moment: str) -> None:
        there = world.cluster.api.storage.get("configmaps", "default", "notes") is not None
        told_of.append(f"{what} {moment}: {there}")
        if len(told_of) == 5:
            cut.append(asyncio.ensure_future(world.cluster.disconnect()))
            await asyncio.Event().wait()

    world.cluster.at_write(at_write)
    await world.client.create(CONFIG_MAPS, config_map())
    await world.client.get(CONFIG_MAPS, "notes")
    await world.client.delete(CONFIG_MAPS, "notes")
    moments = ("patch configmaps before: False", "patch configmaps after: True")
    assert told_of == [*moments, "delete configmaps before: True", "delete configmaps after: False"]
    await told(Unavailable, world.client.create(CONFIG_MAPS, config_map()), "does not answer")
    await cut[0]
    assert told_of[4:] == [moments[0]], "cut off before it is done, it is not done"
    assert world.cluster.api.storage.get("configmaps", "default", "notes") is None


# --- watches ------------------------------------------------------------------------------------------


class Picture:
    """What a watch has told so far: how often everything, and each name's last value."""

    def __init__(self, client: Client) -> None:
        self.lists = 0
        self.known: dict[str, str] = {}
        self._task = asyncio.ensure_future(self._follow(client))

    async def _follow(self, client: Client) -> None:
        async for seen in client.watch(CONFIG_MAPS, labels="!hidden"):
            if isinstance(seen, Listed):
                self.lists += 1
                self.known = {o["metadata"]["name"]: o.get("data", {}).get("value", "") for o in seen.items}
            elif seen.gone:
                self.known.pop(seen.object["metadata"]["name"])
            else:
                assert isinstance(seen, Change)
                self.known[seen.object["metadata"]["name"]] = seen.object["data"]["value"]

    async def shows(self, **wanted: str) -> None:
        async with asyncio.timeout(SECONDS):
            while self.known != wanted or not self.lists:
                assert not self._task.done(), self._task
                await asyncio.sleep(0.01)

    async def ends_with(self, kind: type[PenstockError]) -> None:
        with pytest.raises(kind):
            await asyncio.wait_for(self._task, SECONDS)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
async def picture(world: World) -> AsyncIterator[Picture]:
    picture = Picture(world.client)
    await picture.shows()
    yield picture
    await picture.close()


async def test_a_watch_tells_what_comes_changes_and_goes(world: World, picture: Picture) -> None:
    await world.client.create(CONFIG_MAPS, config_map("a", value="1"))
    await picture.shows(a="1")
    await world.client.apply(CONFIG_MAPS, config_map("a", value="2"))
    await picture.shows(a="2")
    hidden = config_map("a", value="2")
    hidden["metadata"]["labels"] = {"hidden": "yes"}
    await world.client.apply(CONFIG_MAPS, hidden)
    await picture.shows()
    await world.client.apply(CONFIG_MAPS, config_map("a", value="3"))
    await picture.shows(a="3")
    await world.client.delete(CONFIG_MAPS, "a")
    await picture.shows()
    assert picture.lists == 1


async def test_a_watch_goes_on_where_it_broke_off(world: World, picture: Picture) -> None:
    await world.client.create(CONFIG_MAPS, config_map("a", value="1"))
    await picture.shows(a="1")
    await world.cluster.disconnect()
    world.cluster.edit("configmaps", "a", {"data": {"value": "2"}})
    await world.cluster.reconnect()
    await picture.shows(a="2")
    assert picture.lists == 1, "it went on from the version that it had"


@pytest.mark.parametrize("midway", [True, False])
async def test_a_watch_whose_version_is_too_old_lists_again(
    world: World, picture: Picture, midway: bool
) -> None:
    await world.client.create(CONFIG_MAPS, config_map("a", value="1"))
    await picture.shows(a="1")
    if midway:  # an event of the open watch says so
        world.cluster.fail(Fault("watch", "configmaps", status=410, how="break"))
        await world.client.apply(CONFIG_MAPS, config_map("a", value="2"))
    else:  # the next watch is refused
        await world.cluster.disconnect()
        world.cluster.edit("configmaps", "a", {"data": {"value": "2"}})
        world.cluster.compact()
        await world.cluster.reconnect()
    await picture.shows(a="2")
    assert picture.lists == 2


async def test_a_watch_that_may_not_be_ends(world: World, picture: Picture) -> None:
    world.cluster.allow([])
    world.cluster.fail(Fault("watch", "configmaps", status=410, how="break"))
    await picture.ends_with(Refused)


# --- what a cluster does --------------------------------------------------------------------------------


async def test_a_deployment_becomes_pods_and_endpoints(world: World) -> None:
    await world.client.create(SERVICES, service())
    await world.client.create(DEPLOYMENTS, deployment(replicas=2))
    await world.until(DEPLOYMENTS, "web", lambda d: d.get("status", {}).get("availableReplicas") == 2)
    found = await world.until(ENDPOINT_SLICES, "web-slice", lambda s: len(s["endpoints"]) == 2)
    pods = await world.pods()
    addresses = {tuple(end["addresses"]) for end in found["endpoints"]}
    assert addresses == {(pod["status"]["podIP"],) for pod in pods}
    assert found["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert [end["conditions"]["ready"] for end in found["endpoints"]] == [True, True]
    await world.client.apply(DEPLOYMENTS, deployment(replicas=1))
    await world.until(ENDPOINT_SLICES, "web-slice", lambda s: len(s["endpoints"]) == 1)


async def test_what_lost_its_owner_goes(world: World) -> None:
    await world.client.create(DEPLOYMENTS, deployment())
    await world.until(DEPLOYMENTS, "web", lambda d: d.get("status", {}).get("availableReplicas") == 1)
    await world.client.delete(DEPLOYMENTS, "web")
    async with asyncio.timeout(SECONDS):
        while await world.pods():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(trouble="image-pull"), "ImagePullBackOff"),
        (Behaviour(life="crash", exit_code=3), "CrashLoopBackOff"),
    ],
)
async def test_a_pod_tells_what_it_waits_for(world: World, behaviour: Behaviour, reason: str) -> None:
    world.cluster.kubelet.behaviours[IMAGE] = behaviour
    await world.client.create(DEPLOYMENTS, deployment())

    def waits(pod: Object) -> bool:
        (status,) = pod["status"].get("containerStatuses") or ({"state": {}},)
        return status["state"].get("waiting", {}).get("reason") == reason

    async with asyncio.timeout(SECONDS):
        while not any(waits(pod) for pod in await world.pods() if "status" in pod):
            await asyncio.sleep(0.01)
