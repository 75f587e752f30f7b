"""The tests in production as a whole, behind the real proxy: contract, load, comparison, refusal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.machine import CONFIG, SERVICE, Machine, machine

DOCUMENT = """\
openapi: 3.1.0
info: {title: Shop, version: '1'}
paths:
  /:
    get:
      parameters: [{in: query, name: page, schema: {type: integer, minimum: 1}}]
      responses:
        200: {description: x, content: {application/json: {schema: {$ref: '#/components/schemas/V'}}}}
    post: {responses: {200: {description: x}}}
components:
  schemas: {V: {type: object, required: [version, colour], properties: {version: {type: string}}}}
"""
ACCEPTANCE = """\
acceptance:
  paths: [/, /about]
  requests: 30
  requests_per_second: 60
  weights: {/: 2}
  p95_ms: 1000
  openapi: openapi.yaml
  openapi_cases: 10
  load: {requests_per_second: 60, seconds: 2, p95_ms: 900, p99_ms: 1500, error_rate: 0.0}
  compare: {share: 50, seconds: 4, ignore: [/version]}
"""
WHOLE = CONFIG.replace("acceptance: {paths: [/], requests: 30, p95_ms: 1000}\n", ACCEPTANCE)
#: It says JSON, logs who copies, and has no copy without the mark.
JSON = """\
    def do_GET(self):
        if self.headers.get("penstock-mirror"):
            print("a copy of", self.path, flush=True)
"""
HEAD = 'b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n'


def service(version: str, **changed: str) -> str:
    text = SERVICE.replace('VERSION = "v1"', f'VERSION = "{version}"').replace(
        "    def do_GET(self):\n", JSON
    )
    text = text.replace('b"HTTP/1.1 200 OK\\r\\n', HEAD)
    for old, new in (pair.split(" => ") for pair in changed.values()):
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.long
def test_the_tests_in_production(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        first = deliver(m, service("v1"))
        assert first["outcome"] == "promoted"
        accepted = evidence(m, first)
        contract, load = accepted["contract"], accepted["load"]
        assert (contract["operations"], contract["failed"], contract["requests"]) == (1, 0, 11)
        assert contract["skipped"] == ["POST /"]
        assert (load["requests"], load["errors"], load["perSecond"]) == (120, 0, 60)
        assert sum(bucket["count"] for bucket in load["histogram"]) == 120
        assert {one["name"] for one in accepted["generated"]["paths"]} == {"/", "/about"}
        assert "compared" not in accepted

        with users(m), m.load():
            good = deliver(m, service("v2"))
        assert good["outcome"] == "promoted", good["reason"]
        compared = evidence(m, good)["compared"]
        assert (compared["different"], compared["ignored"]) == (0, ["/version"])
        assert compared["sampled"] > 0
        assert any("a copy of /cart" in log for log in service_logs(short_tmp))

        bad = deliver(m, service("v3", gone='"colour": os => "color": os'))
        assert bad["outcome"] == "refused"
        failed = evidence(m, bad)
        assert failed["contract"]["failed"] == 1
        assert "$ lacks 'colour'; curl -sS" in failed["contract"]["problems"][0]
        assert "/: body/color, body/colour" in failed["compared"]["first"]
        assert (
            "contract: GET /: answered 200 with a body that does not fit: $ lacks 'colour'" in bad["reason"]
        )
        assert "answers differ (100.00%, at most 0.00%)" in bad["reason"]
        assert "/: body/color, body/colour" in bad["reason"]
        log = m.penstock("logs", bad["id"], "acceptance").stdout
        assert "curl -sS -X GET -H" in log
        assert "$PENSTOCK_PREVIEW_TOKEN" in log
        assert m.penstock("ledger", "verify").returncode == 0


@pytest.mark.long
def test_a_consumer_is_named_by_what_it_needs(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        shop = m.repository
        m.commit("v1", serve__py=service("v1"))
        assert m.deliver()["outcome"] == "promoted"
        m.repository = m.folder / "front"
        (m.repository / "contracts").mkdir(parents=True)
        config = CONFIG.replace("service: shop\n", "service: front\ncalls: [shop]\n")
        needs = {"contracts/shop__openapi__yaml": DOCUMENT}
        m.commit("v1", penstock__yaml=config, **needs)
        front = m.deliver()
        assert front["outcome"] == "promoted", front["reason"]
        m.repository = shop
        m.commit("v2", serve__py=service("v2", gone='"colour": os => "color": os'))
        refused = m.deliver()
        assert refused["outcome"] == "refused"
        assert "contract of front: GET /: answered 200" in refused["reason"]
        (told,) = evidence(m, refused)["consumers"]
        assert (told["consumer"], told["failed"]) == ("front", 1)


def deliver(m: Machine, text: str) -> dict[str, Any]:
    m.commit("v1", serve__py=text, penstock__yaml=WHOLE, openapi__yaml=DOCUMENT)
    return m.deliver()


def evidence(m: Machine, delivery: dict[str, Any]) -> dict[str, Any]:
    (index,) = [one["index"] for one in delivery["evidence"] if one["what"] == "Accepted"]
    found: dict[str, Any] = m.client.get(f"/v1/evidence/{index}")["predicate"]
    return found


@contextmanager
def users(m: Machine) -> Iterator[None]:
    """People who look at their carts, with a session and a query that nobody else may see."""
    over = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=m.address(), headers={"cookie": "session=hunter2"}) as client:
            while not over.wait(0.1):
                client.get("/cart", params={"coupon": "hunter2"})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


def service_logs(folder: Path) -> list[str]:
    return [log.read_text(errors="replace") for log in folder.rglob("*.log*") if log.is_file()]
