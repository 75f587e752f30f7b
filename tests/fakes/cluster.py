"""A fake Kubernetes cluster and a client of it, for tests of whatever drives one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.adapters._kubernetes import Access, Client, Object
from penstock.testing.kubernetes import Behaviour, FakeCluster

IMAGE = "registry.test/web@sha256:" + "1" * 64


@asynccontextmanager
async def cluster_and_client(folder: Path) -> AsyncIterator[tuple[FakeCluster, Client]]:
    """Pods of `IMAGE` are stubs that serve."""
    async with FakeCluster() as cluster:
        cluster.kubelet.behaviours[IMAGE] = Behaviour()
        client = Client(Access.of_files([cluster.kubeconfig(folder)]))
        try:
            yield cluster, client
        finally:
            await client.close()


def deployment(name: str = "web", replicas: int = 1, image: str = IMAGE) -> Object:
    labels = {"app": name}
    container = {"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def service(name: str = "web") -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    }


def config_map(name: str = "notes", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}
