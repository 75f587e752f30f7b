"""The platform contract on a real cluster: the one that KUBECONFIG names, if an image for it is named too.

`test_platform` runs the same suite on the fake one. How to make the image: docs/guides/kubernetes.md.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator

import pytest

from contracts.platform import PlatformContract, Subject
from contracts.test_platform import ask
from penstock.adapters.kubernetes import Kubernetes, Settings

IMAGE = os.environ.get("PENSTOCK_CONTRACT_IMAGE", "")
if not IMAGE:  # said by hand, so that nobody's cluster is used because a shell happened to name it
    pytest.skip(
        "no cluster: export KUBECONFIG=FILE PENSTOCK_CONTRACT_IMAGE=PREFIX/web@sha256:…"
        " (docs/guides/kubernetes.md)",
        allow_module_level=True,
    )


class TestRealCluster(PlatformContract):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[Subject]:
        prefix, _, artifact = IMAGE.rpartition("/web@")
        assert prefix, "PENSTOCK_CONTRACT_IMAGE must be PREFIX/web@sha256:…"
        platform = Kubernetes(Settings(prefix))
        tend = functools.partial(asyncio.sleep, 0.1)
        subject = Subject(platform, artifact, tend, ask, neighbours="http://price-list.")
        try:
            yield subject
            await subject.remove_all()
        finally:
            await platform.close()
