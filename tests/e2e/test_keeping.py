"""A backup that is made while a delivery runs is restored elsewhere, and the delivery goes on to its end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from penstock.bootstrap.backup import back_up
from tests.e2e.machine import CONFIG, REPORT, Machine, machine
from tests.e2e.test_survival import verify_ledger, wait_until_ready

QUICK = CONFIG.replace("steps: [20, 50], seconds_per_step: 3", "steps: [50], seconds_per_step: 1")
SLOW_TESTS = f"import time\ntime.sleep(4)\n{REPORT}"


@pytest.mark.long
def test_a_backup_during_a_delivery_goes_on_elsewhere(short_tmp: Path) -> None:
    for name in ("first", "second"):
        (short_tmp / name).mkdir()
    file = short_tmp / "backup.tar"
    with machine(short_tmp / "first") as m:
        m.up()
        m.commit("v1", penstock__yaml=QUICK)
        assert m.deliver()["outcome"] == "promoted"
        m.commit("v2", penstock__yaml=QUICK, write_report__py=SLOW_TESTS)
        delivery = m.ship()
        m.await_step(delivery, "build/build/0")
        made = asyncio.run(back_up(m.home, file))
        # The world goes on, and the copy knows nothing of it.
        m.await_step(delivery, "deploy/deploy/0")
        refused = m.penstock("restore", str(file), check=False)
        assert (refused.returncode, "something runs here" in refused.stderr) == (1, True)
    with machine(short_tmp / "second") as m:
        done = json.loads(m.penstock("restore", str(file), "-o", "json").stdout)
        assert done["entries"] >= made.entries > 0
        assert done["deliveries"] == 1
        m.up()
        wait_until_ready(m)
        with m.load():
            view = m.follow(delivery)
        assert view["outcome"] == "promoted", view["reason"]
        assert_traffic_is_where_the_ledger_says(m)
        back = m.client.post("/v1/services/shop/rollback", {"reason": "as before"})["delivery"]
        assert m.follow(back)["outcome"] == "restored"
        assert_traffic_is_where_the_ledger_says(m)
        verify_ledger(m)


def assert_traffic_is_where_the_ledger_says(m: Machine) -> None:
    (row,) = m.client.get("/v1/status")["services"]
    assert [weight["release"] for weight in row["weights"]] == [row["live"]]
    assert not row["drift"]
