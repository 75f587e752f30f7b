"""The story of ``examples/02-error-budget``, with real Envoy and real requests: a budget that its users' own
failing requests have burnt blocks the promotion and says why; an override lets the fix through."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.machine import Machine, git, machine

EXAMPLE = Path(__file__).parents[2] / "examples" / "02-error-budget"
FIX = '"CHF": 0.94, "SEK": 11.2}'
FAILING = 800


def commit(m: Machine, message: str, currencies: str = '"CHF": 0.94}') -> None:
    if not m.repository.exists():
        shutil.copytree(EXAMPLE / "shop", m.repository)
        git(m.repository, "init", "--quiet", "--initial-branch=main")
    serve = (EXAMPLE / "shop/serve.py").read_text()
    (m.repository / "serve.py").write_text(serve.replace('"CHF": 0.94}', currencies))
    git(m.repository, "add", "--all")
    git(m.repository, "commit", "--quiet", "--allow-empty", "--message", message)


def slos(m: Machine) -> dict[str, dict[str, Any]]:
    return {one["objective"]: one for one in m.client.get("/v1/slos/shop")["objectives"]}


def wait_for(m: Machine, met: Callable[[dict[str, dict[str, Any]]], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met(found := slos(m)):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def ask(m: Machine, path: str, times: int) -> set[int]:
    with httpx.Client(base_url=m.address()) as user:
        return {user.get(path).status_code for _ in range(times)}


@pytest.mark.timeout(420)
@pytest.mark.long
def test_a_burnt_budget_blocks_until_somebody_overrides(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        # What nobody has promised, nobody is asked for.
        commit(m, "Sell things")
        first = m.deliver()
        assert (first["outcome"], "slo" in [stage["name"] for stage in first["stages"]]) == (
            "promoted",
            False,
        )
        for name in ("availability", "latency"):
            m.penstock("slo", "publish", str(EXAMPLE / f"slos/shop-{name}.yaml"))
        wait_for(m, lambda found: all(one["state"] == "quiet" for one in found.values()))
        with m.load(60):
            wait_for(m, lambda found: all(one["state"] == "ok" for one in found.values()))
            commit(m, "Say that nothing has changed")
            kept = m.deliver()
            assert kept["outcome"] == "promoted", kept["reason"]
            (step,) = [step for step in kept["steps"] if step["key"] == "slo/slo/0"]
            assert step["reason"].startswith("PASS: availability: ")

            # Users of another country come, and the shop does not know their money.
            assert ask(m, "/?currency=SEK", FAILING) == {500}
            wait_for(m, lambda found: found["availability"]["state"] == "exhausted")
            commit(m, "Take Swedish crowns", FIX)
            refused = m.deliver()
            assert (refused["outcome"], refused["refused_by"]) == ("refused", ["operations-lead"])
            assert "of the budget of 1 h is used (counted for" in refused["reason"]
            assert "14.4 is too fast" in refused["reason"]
            told = json.loads(m.penstock("slo", "show", "shop", "-o", "json").stdout)
            assert {one["objective"]: one["state"] for one in told["objectives"]} == {
                "availability": "exhausted",
                "latency": "ok",
            }

            # It is the fix: the operations lead lets it pass, and says why.
            m.penstock("identity", "add", "operator", "--address", "op@example.org")
            words = ("--policy", "operations-lead", "--action", "promote", "--reason", "it ends the errors")
            m.penstock("override", refused["id"], *words)
            again = m.follow(
                m.client.post(f"/v1/deliveries/{refused['id']}/retry", {"whole": True})["delivery"]
            )
            assert again["outcome"] == "promoted", again["reason"]
            assert again["overridden"] == ["operations-lead by operator"]
            assert ask(m, "/?currency=SEK", 20) == {200}

            # Nobody is asked for a budget on the way back.
            back = m.client.post("/v1/services/shop/rollback", {"reason": "to see"})["delivery"]
            assert m.follow(back)["outcome"] == "restored"
        assert m.penstock("ledger", "verify").returncode == 0
        bundle = short_tmp / "bundle.json"
        m.penstock("evidence", "export", refused["id"], "--file", str(bundle))
        assert m.penstock("verify", str(bundle), "--trust", str(m.home.trust)).returncode == 0
