"""How `make contract-kubernetes` uses a real cluster: on an API that answers as Kubernetes does. Nobody here
has one, so what it asks is held against the API's own words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from contracts.real import RealCluster
from fakes.answers import Answer, Answering, Question
from penstock.adapters._kubernetes import Access
from penstock.errors import Invalid

POD = {"metadata": {"name": "web-1-abc"}, "status": {"podIP": "10.1.2.3", "phase": "Running"}}
GONE = {"metadata": {"name": "web-1-old"}, "status": {"podIP": "10.1.2.3", "phase": "Succeeded"}}


@dataclass
class Api:
    """What it says; each request as it came."""

    minor: str = "31"
    may: bool = True
    proxied: Answer = field(default_factory=lambda: Answer(b"hello"))
    asked: list[str] = field(default_factory=list)
    made: dict[str, object] = field(default_factory=dict)

    def __call__(self, question: Question) -> Answer:
        self.asked.append(f"{question.method} {question.path}")
        if question.path == "/version":
            return _json({"major": "1", "minor": self.minor})
        if question.method == "POST":
            self.made = json.loads(question.body)
            return _json({}, 201) if self.may else _json({"message": "namespaces is forbidden"}, 403)
        if "/proxy/" in question.path:
            return self.proxied
        if question.path.endswith("/pods"):
            return _json({"items": [GONE, POD]})
        return _json({})


def _json(said: object, status: int = 200) -> Answer:
    return Answer(json.dumps(said).encode(), status)


@pytest.fixture
async def server() -> AsyncIterator[Answering]:
    found = Answering(Api())
    await found.start()
    yield found
    await found.stop()


def cluster(server: Answering, api: Api, namespace: str = "") -> RealCluster:
    server.answer = api
    return RealCluster(Access(f"http://{server.address}"), namespace)


async def test_each_test_has_a_namespace_of_its_own_which_goes(server: Answering) -> None:
    api = Api()
    async with cluster(server, api) as real:
        name = real.namespace
        metadata = api.made["metadata"]
        assert isinstance(metadata, dict)
        assert metadata["name"] == name
        assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert api.asked[-1] == f"DELETE /api/v1/namespaces/{name}"


async def test_a_namespace_that_is_named_is_used_and_stays(server: Answering) -> None:
    api = Api(may=False)
    async with cluster(server, api, "mine") as real:
        assert real.namespace == "mine"
    assert not [asked for asked in api.asked if not asked.startswith("GET ")]


async def test_who_may_make_no_namespace_is_told_what_to_do(server: Answering) -> None:
    with pytest.raises(Invalid, match="we may make no namespace") as caught:
        async with cluster(server, Api(may=False)):
            pass
    assert "PENSTOCK_CONTRACT_NAMESPACE" in caught.value.next_move


async def test_a_cluster_that_is_too_old_is_named(server: Answering) -> None:
    with pytest.raises(Invalid, match=r"this cluster is Kubernetes 1\.30"):
        async with cluster(server, Api(minor="30+")):
            pass


async def test_pods_are_asked_by_way_of_the_api(server: Answering) -> None:
    api = Api()
    async with cluster(server, api, "mine") as real:
        assert await real.ask("10.1.2.3:8080", "/env") == "hello"
        assert "GET /api/v1/namespaces/mine/pods/web-1-abc:8080/proxy/env" in api.asked
        with pytest.raises(ConnectionError, match="no pod has the address"):
            await real.ask("10.1.2.4:8080", "/env")
        api.proxied = Answer(b"error trying to reach service", 503)
        with pytest.raises(ConnectionError, match="error trying to reach service"):
            await real.ask("10.1.2.3:8080", "/env")
