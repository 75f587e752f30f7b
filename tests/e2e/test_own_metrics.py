"""The story of ``examples/03-own-metrics``: users are thanked whether or not they have paid, and every answer
is 200. The shop's own counters and its log, asked in its sandbox, stop the release all the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, git, machine

EXAMPLE = Path(__file__).parents[2] / "examples" / "03-own-metrics"


def commit(m: Machine, message: str, fee: str = "0.02") -> None:
    if not m.repository.exists():
        shutil.copytree(EXAMPLE / "shop", m.repository)
        git(m.repository, "init", "--quiet", "--initial-branch=main")
    serve = (EXAMPLE / "shop/serve.py").read_text()
    (m.repository / "serve.py").write_text(serve.replace("FEE = 0.02", f"FEE = {fee}"))
    git(m.repository, "add", "--all")
    git(m.repository, "commit", "--quiet", "--message", message)


@pytest.mark.timeout(240)
@pytest.mark.long
def test_payments_that_fail_in_silence_stop_a_release(short_tmp: Path) -> None:
    with machine(short_tmp) as m:
        m.up()
        commit(m, "Sell things")
        assert m.deliver()["outcome"] == "promoted"
        with m.load(60):
            plan = json.loads(m.penstock("canary", "plan", "shop", "-o", "json", check=False).stdout)
            assert [metric["metric"] for metric in plan["metrics"]] == ["payments", "log-errors"]
            assert "events a second, 0.00% of them bad" in plan["metrics"][0]["words"]
            commit(m, "Take no fee", "None")
            stopped = m.deliver()
        assert stopped["outcome"] == "rolled-back", stopped["reason"]
        # Whichever shows it first: each failed payment is counted, and logged.
        assert re.search("bad by (payments|log-errors) against 0 of", stopped["reason"]), stopped["reason"]
        (look, *_) = [step for step in stopped["steps"] if step["state"] == "failure"]
        assert look["key"].startswith("canary/look/")
        again = m.penstock("canary", "replay", stopped["id"], check=False)
        assert (again.returncode, "FAIL" in again.stdout) == (1, True)
        assert m.penstock("ledger", "verify").returncode == 0
