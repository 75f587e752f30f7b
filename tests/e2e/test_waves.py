"""One commit for two environments in two clusters: the second has it once users of the first have kept it for
a while."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.kinds import JOBS
from penstock.testing.kubernetes.proxy import Proxy
from tests.e2e.clustered import town
from tests.e2e.machine import CONFIG, Machine
from tests.e2e.test_kubernetes import decision, shop, there

WAVES = Path(__file__).parents[2] / "examples/05-waves/policies/waves.yaml"
SECONDS = 5
#: The service's own acceptance test.
ASK = """\
import json, os, urllib.request
headers = json.loads(os.environ["PENSTOCK_PREVIEW_HEADERS"])
request = urllib.request.Request(os.environ["PENSTOCK_BASE_URL"], headers=headers)
assert json.load(urllib.request.urlopen(request)) == {"version": "v1"}
"""
#: Of whatever else is asked there.
ANY = """\
policy: any
owner: operations-lead
guards: [deploy, shift, promote]
environments: [eu, us]
rules:
  - {id: any, when: "true", say: "'yes'", else: "'no'"}
"""


def publish(m: Machine, text: str) -> None:
    (m.folder / "policy.yaml").write_text(text)
    m.penstock("policy", "publish", str(m.folder / "policy.yaml"))


def deliver(m: Machine, environment: str) -> dict[str, Any]:
    done = m.penstock("ship", str(m.repository), "--environment", environment, "-o", "json")
    view: dict[str, Any] = json.loads(done.stdout)
    return view


def placed(cluster: FakeCluster) -> list[str]:
    return [str(found["metadata"]["name"]) for found in cluster.api.storage.all("deployments.apps")]


def answers(proxy: Proxy) -> str:
    return httpx.get(proxy.url, headers={"Host": "shop.example.org"}).text


@pytest.mark.timeout(240)
@pytest.mark.long
def test_a_wave_follows_once_the_one_before_has_soaked(short_tmp: Path) -> None:
    with town(short_tmp, elsewhere="us") as around, there(short_tmp / "c", around) as m:
        publish(m, ANY)
        publish(m, WAVES.read_text().replace("{eu: 600}", f"{{eu: {SECONDS}}}"))
        asks = "acceptance: {run: python3 ask.py, "
        m.commit(
            "v1", serve__py=shop("v1"), ask__py=ASK, penstock__yaml=CONFIG.replace("acceptance: {", asks)
        )
        first = deliver(m, "eu")
        assert first["outcome"] == "promoted"
        assert (len(placed(around.cluster)), placed(around.other)) == (1, [])
        second = deliver(m, "us")
        assert second["outcome"] == "promoted"

        assert placed(around.cluster) != placed(around.other) != []
        assert answers(around.proxy) == answers(around.other_proxy) == '{"version": "v1"}'
        # What asks a release did so from its own cluster; what builds one was in the usual one.
        jobs = [
            [asked for asked in cluster.asked if asked == "patch jobs"]
            for cluster in (around.cluster, around.other)
        ]
        assert len(jobs[1]) == (1 if around.runs_steps else 0)
        assert len(jobs[0]) >= (2 * 2 if around.runs_steps else 0)
        assert around.cluster.api.all(JOBS) == around.other.api.all(JOBS) == []

        rows = {row["environment"]: row for row in m.client.get("/v1/status")["services"]}
        assert rows["eu"]["artifact"] == rows["us"]["artifact"]
        assert [rows[name]["releases"][0]["ready"] for name in ("eu", "us")] == [1, 1]
        assert "shop in us" in m.penstock("status").stdout
        assert "shop in us: shop-" in m.penstock("why", "shop", "--environment", "us").stdout

        assert m.penstock("ledger", "verify").returncode == 0
        said = told(m, "SignOff")
        waves = [decision(one) for one in said if one["urn:penstock:decision:v1"]["policy"] == "waves"]
        assert waves[-1] == "waves of deploy: PASS"
        assert set(waves[:-1]) <= {"waves of deploy: UNKNOWN"}
        began = {one["release"]["environment"]: one["at"] for one in told(m, "Deployed")}
        ended = {one["release"]["environment"]: one["at"] for one in told(m, "Promoted")}
        assert began["us"] >= ended["eu"] + SECONDS


def told(m: Machine, what: str) -> list[dict[str, Any]]:
    entries = m.client.get("/v1/evidence", limit=500)["entries"]
    found = [entry["index"] for entry in entries if entry["what"] == what]
    return [m.client.get(f"/v1/evidence/{index}")["predicate"] for index in found]
