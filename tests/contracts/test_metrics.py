"""The counts of a cluster's proxy: real users, a real Prometheus that scrapes it, and the adapter on that.

`contracts.test_router` runs the same suite on the embedded Envoy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.metrics import CountersContract, PreviewsContract, counted
from contracts.router import ENVIRONMENT, SERVICE, Subject
from contracts.test_router_cluster import ClusterWorld, over_gateway
from fakes.prometheus import Scraped, gateway_job, real_prometheus
from penstock.adapters.istio_metrics import IstioMetrics
from penstock.core.experiment import Goal
from penstock.errors import Unavailable


@contextlib.asynccontextmanager
async def counting(folder: Path) -> AsyncIterator[tuple[Subject, ClusterWorld, IstioMetrics]]:
    async with contextlib.AsyncExitStack() as stack:
        subject, world, _ = await stack.enter_async_context(over_gateway(folder))
        job = gateway_job(world.proxy.metrics_port)
        url = await stack.enter_async_context(real_prometheus(folder, [job]))
        metrics = IstioMetrics(url, subject.router, "default", proxies='source_workload="public-istio"')
        stack.push_async_callback(metrics.close)
        yield replace(subject, metrics=Scraped(metrics)), world, metrics


class TestIstio(CountersContract, PreviewsContract):
    @pytest.fixture
    async def subject(self, short_tmp: Path) -> AsyncIterator[Subject]:
        async with counting(short_tmp) as (subject, _, _):
            yield subject


async def test_from_the_first_request_to_a_proxy_that_begins_anew(short_tmp: Path) -> None:
    async with counting(short_tmp) as (subject, world, metrics):
        state = await subject.serving("web-1", "web-2")
        with pytest.raises(Unavailable, match="no istio_requests_total of requests to namespace default"):
            await metrics.counters(SERVICE, ENVIRONMENT)
        await subject.who(state.address, 4)
        before = await counted(subject)
        assert before["web-1"].latency["+Inf"] == 4
        assert set(before["web-2"].latency) == set(before["web-1"].latency), "no user yet is not unknown"

        async with world.proxy.unread(), asyncio.timeout(30):
            said = await until_unavailable(metrics)
        assert f"it cannot scrape 127.0.0.1:{world.proxy.metrics_port}" in said
        after = await counted(subject)
        assert (after["web-1"].requests, after["web-1"].epoch) == (4, before["web-1"].epoch)

        world.proxy.counted.restart()
        await subject.who(state.address, 2)
        anew = await counted(subject)
        assert anew["web-1"].requests == 2
        assert anew["web-1"].epoch != before["web-1"].epoch

        with pytest.raises(Unavailable, match="do not tell users apart"):
            await metrics.users(SERVICE, ENVIRONMENT, "salt", Goal("/"))


async def until_unavailable(metrics: IstioMetrics) -> str:
    """What it says then."""
    while True:
        try:
            await metrics.counters(SERVICE, ENVIRONMENT)
        except Unavailable as error:
            return str(error)
        await asyncio.sleep(0.05)
