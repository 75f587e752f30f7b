"""The containers of our own manifests, as processes on this machine: they start, are probed, answer, and end.

What cannot be had here is a cluster's: the image, the volumes, and who the user is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.certificates import Authority
from fakes.kustomize import rendered
from fakes.web import free_port
from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.gateway import use_gateway

DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
SECONDS = 60.0
HOST = "penstock-admission.penstock.svc"


class Pod:
    """Its containers' commands, with the paths and ports of this machine instead of the pod's."""

    def __init__(self, folder: Path, home: Path, kubeconfig: Path) -> None:
        objects = {one["kind"]: one for one in rendered(DEPLOY)}
        self.containers = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
        self.ports = {"7070": str(free_port()), "8443": str(free_port())}
        self.folder, self.home, self.kubeconfig = folder, home, kubeconfig
        text = objects["ConfigMap"]["data"]["cluster.yaml"]
        text = text.replace("namespace: shop", "namespace: default").replace("ingress", "default", 1)
        (folder / "cluster").mkdir()
        (folder / "cluster/cluster.yaml").write_text(text.replace("/etc/penstock", str(folder)))
        (folder / "registry").mkdir()
        (folder / "registry/password").write_text("penstock:sesame\n")
        (folder / "registry/password").chmod(0o600)

    def here(self, word: str) -> str:
        for port, own in self.ports.items():
            word = word.replace(port, own)
        return word.replace("/etc/penstock", str(self.folder))

    async def start(self, container: dict[str, Any], *more: str) -> Process:
        words = [self.here(word) for word in container["args"]]
        env = {**os.environ, "PENSTOCK_HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        command = (sys.executable, "-m", "penstock.cli.main", *words, *more)
        return await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=STDOUT)

    async def probed(self, process: Process, probe: dict[str, Any]) -> None:
        """Return once its probe's own command says that it is well."""
        _, *words = map(self.here, probe["exec"]["command"])
        async with asyncio.timeout(SECONDS):
            while True:
                if process.returncode is not None and process.stdout:
                    raise AssertionError((await process.stdout.read()).decode())
                asked = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=PIPE)
                if (await asked.communicate()) and asked.returncode == 0:
                    return


@pytest.fixture
async def pod(tmp_path: Path, short_tmp: Path) -> AsyncIterator[Pod]:
    async with FakeCluster() as cluster:
        use_gateway(cluster)
        yield Pod(tmp_path, short_tmp / "h", cluster.kubeconfig(tmp_path))


@contextlib.asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_the_server_starts_answers_the_cluster_and_ends_and_a_worker_beside_it(pod: Pod) -> None:
    server, worker = pod.containers
    authority = Authority.new()
    (pod.folder / "admission").mkdir()
    authority.issue(pod.folder / "admission", HOST)
    early = await pod.start(worker)
    async with running(early):
        assert await asyncio.wait_for(early.wait(), SECONDS) != 0, "it is started again by its node"
    serving = await pod.start(server, "--port", pod.ports["7070"])
    async with running(serving):
        await pod.probed(serving, server["startupProbe"])
        trust = ssl.create_default_context(cadata=authority.certificate.public_bytes(Encoding.PEM).decode())
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "7", "operation": "DELETE"},
        }
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            url = f"https://127.0.0.1:{pod.ports['8443']}/v1/admission/kubernetes/production"
            answer = await client.post(url, json=review, extensions={"sni_hostname": HOST})
        assert answer.json()["response"] == {"uid": "7", "allowed": True}
        kept = json.loads((pod.home / "settings.json").read_text())
        assert kept["cluster"]["namespace"] == "default"
        working = await pod.start(worker)
        async with running(working):
            lock = pod.home / "run/worker-2.lock"
            async with asyncio.timeout(SECONDS):
                while not lock.exists() or not lock.read_text():
                    assert working.returncode is None
                    await asyncio.sleep(0.05)
            for process in (working, serving):
                process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(serving.wait(), SECONDS) == 0
            # It may only just have begun, and not listen to signals yet.
            assert await asyncio.wait_for(working.wait(), SECONDS) in (0, -signal.SIGTERM)
    assert not (pod.home / "node/agent.lock").exists(), "nobody tends this machine"


async def test_workers_are_not_started_in_the_foreground(pod: Pod) -> None:
    server, _ = pod.containers
    process = await pod.start(server, "--workers", "2")
    said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 2
    assert b"--workers: workers are processes of their own" in said


async def test_several_control_planes_need_a_database_server(pod: Pod) -> None:
    server, _ = pod.containers
    process = await pod.start(server, "--port", pod.ports["7070"], "--admission-port", "0", "--replica")
    said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 2
    assert b"--replica: several control planes need one database server" in said


async def test_only_what_is_alone_in_its_container_is_one_of_several(pod: Pod) -> None:
    process = await pod.start({"args": ["up", "--replica"]})
    said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 2
    assert b"--replica: one of several control planes" in said
