"""A fake Kubernetes cluster and a client of it, for tests of whatever drives one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from penstock.adapters._kubernetes import Access, Client, Object
from penstock.testing.kubernetes import Behaviour, FakeCluster
from penstock.testing.kubernetes.kinds import SERVICES, SLICES

DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
IMAGE = "registry.test/web@sha256:" + "1" * 64


def rules(name: str) -> list[dict[str, Any]]:
    """Those of the Role in a file of ``deploy/kubernetes``."""
    documents = yaml.safe_load_all((DEPLOY / name).read_text())
    return next(document["rules"] for document in documents if document["kind"] == "Role")


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


def put_endpoint(
    cluster: FakeCluster,
    name: str,
    address: str,
    *,
    ready: bool = True,
    annotations: Mapping[str, str] | None = None,
) -> None:
    """A Service, as a platform makes those of releases, whose only endpoint is there already, at HOST:PORT;
    nothing happens if there is one."""
    if cluster.api.storage.get(SERVICES.full, cluster.namespace, name) is not None:
        return
    host, _, port = address.rpartition(":")
    labels = {"app.kubernetes.io/managed-by": "penstock"}
    metadata = {"name": name, "namespace": cluster.namespace, "labels": labels}
    spec = {"ports": [{"name": "http", "port": 8080}]}
    head = {"apiVersion": "v1", "kind": "Service"}
    told = {**metadata, "annotations": dict(annotations or {})}
    cluster.api.create(SERVICES, {**head, "metadata": told, "spec": spec}, manager="platform")
    piece = {
        "apiVersion": SLICES.api_version,
        "kind": SLICES.kind,
        "metadata": {
            **metadata,
            "name": f"{name}-1",
            "labels": {**labels, "kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": ready}}],
        "ports": [{"name": "http", "port": int(port)}],
    }
    cluster.api.create(SLICES, piece, manager="platform")
