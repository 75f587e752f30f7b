"""Where the cluster's file has steps, builds and checks run there: it is asked before, kept, and opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.adapters.kubernetes.jobs import KubernetesJobs
from penstock.bootstrap.home import IN_CLUSTER, Home, Settings
from penstock.bootstrap.target import open_target
from penstock.cluster import Steps
from penstock.clusterfile import load_cluster
from penstock.errors import Invalid, Refused
from penstock.testing.kubernetes import FakeCluster

STEPS = Steps(f"registry.test/steps@sha256:{'5' * 64}", namespace="steps", memory_mb=512)
TEXT = """\
kubeconfig: kubeconfig
images: {push: "http://127.0.0.1:1/shop"}
gateway: {name: public, host: "{service}.example.org"}
metrics: {prometheus: "http://127.0.0.1:1"}
"""


async def test_a_cluster_with_steps_is_where_they_run(tmp_path: Path, short_tmp: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(f'{TEXT}steps: {{image: "{STEPS.image}", namespace: steps, memory_mb: 512}}\n')
    home = Home(short_tmp)
    async with FakeCluster() as fake:
        fake.kubeconfig(tmp_path)
        home.keep(Settings(cluster=load_cluster(file), sandbox=IN_CLUSTER))
        assert home.settings.cluster is not None
        assert home.settings.cluster.steps == STEPS
        assert home.settings.sandbox_here == "bubblewrap"
        target = open_target(home)
        assert isinstance(target.sandbox, KubernetesJobs)
        await target.close()


async def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(TEXT)
    async with FakeCluster() as fake:
        fake.kubeconfig(tmp_path)
        fake.allow([])
        cluster = load_cluster(file)
        with pytest.raises(Invalid, match="has no steps"):
            KubernetesJobs.of(cluster)
        sandbox = KubernetesJobs.of(replace(cluster, steps=STEPS))
        with pytest.raises(Refused, match=r"list on jobs\.batch in namespace steps"):
            await sandbox.check()
        await sandbox.close()
