"""Who may call whom, on a real machine under load, over a canary and a rollback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.machine import CONFIG, SERVICE, Machine, machine

QUICK = "\n".join(line for line in CONFIG.splitlines() if not line.startswith("canary:"))
CANARY = "canary: {steps: [50], seconds_per_step: 3, look_every: 1, patience: 30}"
#: Says what it was told; of the caller that is let in, anything but success is an error.
CALLS = """\
    def do_GET(self):
        import urllib.request, urllib.error
        if self.path == "/healthz":  # asked before it can call anybody
            self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            return
        try:
            with urllib.request.urlopen(os.environ["SHOP_URL"], timeout=10) as answer:
                told, words = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            told, words = error.code, error.read().decode()
        body = json.dumps({"told": told, "words": words}).encode()
        status = b"200 OK" if told == 200 or NAME != "cart" else b"502 Bad"
        self.wfile.write(b"HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (status, len(body), body))
"""


def commit(m: Machine, service: str, version: str, more: str) -> None:
    m.repository = m.folder / service
    config = f"{QUICK.replace('service: shop', f'service: {service}')}\n{CANARY}\n{more}\n"
    m.commit(version, penstock__yaml=config, serve__py=serving(service, version))


def serving(service: str, version: str) -> str:
    found = SERVICE.replace('VERSION = "v1"', f'VERSION = "{version}"\nNAME = "{service}"')
    if service == "shop":
        return found
    start, end = found.index("    def do_GET"), found.index("    def log_message")
    return found[:start] + CALLS + found[end:]


def addresses(m: Machine) -> dict[str, str]:
    return {row["service"]: row["address"] for row in m.client.get("/v1/status")["services"]}


def told(address: str) -> dict[str, Any]:
    """What a caller was told by the service it calls."""
    found: dict[str, Any] = httpx.get(address, timeout=20).json()
    return found


@pytest.mark.long
def test_only_the_callers_of_the_live_release_get_in(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        commit(m, "shop", "v1", "traffic: {callers: [cart]}")
        assert m.deliver()["outcome"] == "promoted"
        for service in ("cart", "till"):
            commit(m, service, "v1", "calls: [shop]")
            ended = m.deliver()
            assert ended["outcome"] == "promoted", ended["steps"][-3:]
        where = addresses(m)
        cart, till = where["cart"], where["till"]
        assert told(cart)["told"] == 200
        refused = told(till)
        assert (refused["told"], refused["words"]) == (
            403,
            "till may not call shop: its traffic.callers lets in cart\n",
        )
        (row,) = [row for row in m.client.get("/v1/status")["services"] if row["service"] == "shop"]
        assert row["refused"]["callers"] > 0
        commit(m, "shop", "v2", "traffic: {callers: [cart, till], public: false}")
        with m.load(60, cart, "cart.json") as file, m.load(60, till, "till.json"):
            delivery = m.ship()
            m.await_step(delivery, "canary/shift/0")
            during = [told(till)["told"] for _ in range(10)]
            ended = m.follow(delivery)
            after = (told(cart)["told"], told(till)["told"], httpx.get(where["shop"]).status_code)
            back = m.penstock("rollback", "shop", "--reason", "not yet", "-o", "json")
            again = (told(cart)["told"], told(till)["told"], httpx.get(where["shop"]).status_code)
        assert ended["outcome"] == "promoted", "what the proxy refuses is no error of the release"
        assert (during, after) == ([403] * 10, (200, 200, 403))
        assert (back.returncode, again) == (0, (200, 403, 200))
        counts = json.loads(file.read_text())
        assert counts["requests"] > 200
        assert (counts["failed_by_switching"], counts["errors"]) == (0, {})
        assert sum(of["errors"] for of in counts["by_release"].values()) == 0
        assert m.penstock("ledger", "verify").returncode == 0
