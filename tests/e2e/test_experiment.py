"""The story of ``examples/04-experiment``, with real Envoy and real users who keep their cookies: a variant
that more of them order from is found, the verdict can be recomputed, and a policy asks for it."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.machine import Machine, git, machine

EXAMPLE = Path(__file__).parents[2] / "examples" / "04-experiment"
FILE = EXAMPLE / "experiments/button.yaml"
#: How many of those order who are shown what the button says.
TASTE = {"Buy": 0.2, "Buy in one click": 0.7}
SEEN_FIRST = """\
policy: product
owner: operations-lead
scope: service/shop
guards: [deploy]
environments: [production]
rules:
  - id: experiment
    when: change.kind != 'configuration' || evidence.experiment.verdict == 'PASS'
    say: "change.kind != 'configuration' ? 'code is not asked for one' : evidence.experiment.explanation"
    else: evidence.experiment.explanation
"""


def shop(m: Machine) -> None:
    shutil.copytree(EXAMPLE / "shop", m.repository)
    git(m.repository, "init", "--quiet", "--initial-branch=main")
    git(m.repository, "add", "--all")
    git(m.repository, "commit", "--quiet", "--message", "Sell things")


def environment(m: Machine, button: str) -> str:
    """A repository of environment data."""
    folder = m.folder / "environments"
    if not folder.exists():
        (folder / "environments").mkdir(parents=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
    text = f"environment: production\nservices:\n  shop:\n    values: {{BUTTON: {button}}}\n"
    (folder / "environments/production.yaml").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", f"Say {button}")
    return str(folder)


def users(address: str, count: int, taste: random.Random) -> None:
    """Each comes, and orders if he likes what he sees; some come back, and order once more."""
    for _ in range(count):
        with httpx.Client(base_url=address) as user:
            button = user.get("/").json()["button"]
            if taste.random() < TASTE[button]:
                for _ in range(taste.choice((1, 1, 2))):
                    assert user.post("/orders").json()["thanks"] == button


def until_ended(m: Machine, delivery: str) -> dict[str, Any]:
    """Send users until it has seen enough of them."""
    taste, deadline = random.Random(4), time.monotonic() + 90
    while time.monotonic() < deadline:
        users(m.address(), 20, taste)
        view: dict[str, Any] = m.client.get(f"/v1/deliveries/{delivery}")
        if view["ended"]:
            return view
    raise AssertionError(view)


@pytest.mark.timeout(300)
@pytest.mark.long
def test_users_decide_and_a_policy_asks_what_they_said(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        shop(m)
        assert m.deliver()["outcome"] == "promoted"
        started = m.penstock("experiment", "start", str(FILE), "-o", "json")
        delivery = json.loads(started.stdout)["delivery"]
        m.await_step(delivery, "experiment/assign/0")
        ended = until_ended(m, delivery)
        assert (ended["state"], ended["outcome"]) == ("success", "concluded"), ended["reason"]
        assert ended["reason"].startswith("fast: PASS, more users reach the goal: fast ")

        # Whatever was shown, everybody is back where he was.
        with httpx.Client(base_url=m.address()) as user:
            assert {user.get("/").json()["button"] for _ in range(20)} == {"Buy"}

        told = json.loads(m.penstock("experiment", "status", delivery, "-o", "json").stdout)
        (fast,) = told["variants"]
        assert (fast["verdict"], fast["ended"], fast["low"] > 1) == ("PASS", True, True)
        assert 0 < fast["reached"] <= fast["users"]
        assert 'id="variant-fast"' in m.client.text(f"/deliveries/{delivery}")

        # What was shown can now be asked for: the very release that users preferred, and no other.
        (short_tmp / "product.yaml").write_text(SEEN_FIRST)
        m.penstock("policy", "publish", str(short_tmp / "product.yaml"))
        for button, outcome in (("Buy now", "refused"), ("Buy in one click", "promoted")):
            place = {"location": environment(m, button)}
            (shipped,) = m.client.post("/v1/ship", place)["deliveries"]
            with m.load(60):
                done = m.follow(shipped)
            assert done["outcome"] == outcome, done["reason"]

        assert m.penstock("ledger", "verify").returncode == 0
        bundle = short_tmp / "bundle.json"
        m.penstock("evidence", "export", delivery, "--file", str(bundle))
        verified = m.penstock("verify", str(bundle), "--trust", str(m.home.trust))
        assert "look at button" in verified.stdout


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_variant_that_fails_its_users_is_ended_at_once_and_so_is_one_that_somebody_stops(
    short_tmp: Path,
) -> None:
    with machine(short_tmp) as m:
        m.up()
        shop(m)
        serve = m.repository / "serve.py"
        broken = 'self._answer(500 if (BUTTON, self.path) == ("!", "/other") else 200, page())'
        serve.write_text(serve.read_text().replace("self._answer(200, page())", broken))
        git(m.repository, "commit", "--quiet", "--all", "--message", "Fail for some buttons")
        assert m.deliver()["outcome"] == "promoted"
        file = short_tmp / "broken.yaml"
        file.write_text(FILE.read_text().replace("Buy in one click", '"!"'))
        delivery = json.loads(m.penstock("experiment", "start", str(file), "-o", "json").stdout)["delivery"]
        m.await_step(delivery, "experiment/assign/0")
        deadline = time.monotonic() + 60
        with httpx.Client(base_url=m.address()) as user:
            while not (view := m.client.get(f"/v1/deliveries/{delivery}"))["ended"]:
                assert time.monotonic() < deadline, view
                for _ in range(20):
                    user.cookies.clear()
                    user.get("/other")
        assert (view["state"], view["outcome"]) == ("failure", "rolled-back")
        assert view["reason"].startswith("fast: FAIL, guardrail: worse than the stable release")

        delivery = json.loads(m.penstock("experiment", "start", str(FILE), "-o", "json").stdout)["delivery"]
        m.await_step(delivery, "experiment/assign/0")
        m.penstock("experiment", "stop", delivery)
        assert m.follow(delivery)["outcome"] == "aborted"
        assert m.penstock("ledger", "verify").returncode == 0
