"""What real copies expose and write, in both kinds of sandbox: counted, also after one of them has ended."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from tests.integration.processes.house import FENCE, House, workload

from penstock.analysis.series import growth
from penstock.core.canaryconfig import Metric

PROGRAM = """
import http.server, json, os
paid = 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global paid
        if self.path == "/crash":
            os._exit(3)
        if self.path == "/pay":
            paid += 1
            print(json.dumps({"level": "error", "message": "not paid"}), flush=True)
        body = f'paid_total{{outcome="failed"}} {paid}\\npaid_total{{outcome="ok"}} 5\\n'.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
EXPOSED = Metric("payments", "exposed", 'paid_total{outcome="failed"}', "paid_total")
LOGGED = Metric("errors", "logs", level="error")


async def test_a_copy_speaks_for_its_own_release(house: House) -> None:
    wanted = replace(workload(house.artifact), command=("python3", "-c", PROGRAM))
    await house.platform.place(wanted, fence=FENCE)
    await house.until(lambda p: p.ready)
    before, logged = [await house.platform.count(metric, "web-1") for metric in (EXPOSED, LOGGED)]
    for _ in range(3):
        await house.answer("/pay")
    after, told = [await house.platform.count(metric, "web-1") for metric in (EXPOSED, LOGGED)]
    assert before is not None
    assert after is not None
    assert logged is not None
    assert told is not None
    assert (growth(before, after), growth(logged, told)) == ((3, 3), (0, 3))
    assert await house.platform.count(EXPOSED, "web-2") is None

    # Its next life counts from zero, and is known to be another one.
    await house.answer("/pay")
    with pytest.raises(httpx.HTTPError):
        await house.answer("/crash")
    await house.until_restarted(1)
    await house.answer("/pay")
    anew, all_told = [await house.platform.count(metric, "web-1") for metric in (EXPOSED, LOGGED)]
    assert anew is not None
    assert all_told is not None
    assert growth(after, anew) == (6, 1)
    assert growth(told, all_told) == (0, 2), "what it wrote before it ended is on record"
