"""Dark releases of several services that meet in their tests: in a change set, and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import CONFIG, Machine, machine
from tests.e2e.test_together import step, together
from tests.fault.rig import POLICY

MEETS = "python3 accept.py"

#: Asks those that it calls, and answers with all that was answered. Whoever FORWARDS passes the baggage on.
RELAY = """\
import json, os, signal, threading, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION, CALLS, FORWARDS = {version!r}, {calls!r}, {forwards!r}

def ask(callee, heard):
    baggage = {{"baggage": heard}} if FORWARDS and heard else {{}}
    request = urllib.request.Request(os.environ[callee.upper() + "_URL"] + "/", headers=baggage)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        heard = ",".join(self.headers.get_all("baggage", []))
        asked = CALLS if self.path != "/healthz" else []
        found = {{"version": VERSION, **{{callee: ask(callee, heard) for callee in asked}}}}
        body = json.dumps(found).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.05)
"""
#: The tests of the storefront pass only if it meets this catalog.
ACCEPT = """\
import json, os, urllib.request
headers = json.loads(os.environ["PENSTOCK_PREVIEW_HEADERS"])
request = urllib.request.Request(os.environ["PENSTOCK_BASE_URL"] + "/", headers=headers)
with urllib.request.urlopen(request, timeout=5) as answer:
    found = json.load(answer)["catalog"]["version"]
assert found == {catalog!r}, found
"""


def commit(m: Machine, service: str, version: str, *calls: str, forwards: bool = False, run: str = "") -> str:
    m.repository = m.folder / service
    accept = f"acceptance: {{paths: [/], requests: 20, p95_ms: 5000{', run: ' + run if run else ''}}}"
    kept = [
        line for line in CONFIG.splitlines() if not line.startswith(("service:", "canary:", "acceptance:"))
    ]
    own = [f"service: {service}", f"calls: [{', '.join(calls)}]", accept]
    canary = "canary: {steps: [50], seconds_per_step: 0.3, look_every: 0.3, patience: 0}"
    m.commit(
        version,
        serve__py=RELAY.format(version=version, calls=calls, forwards=forwards),
        accept__py=ACCEPT.format(catalog=version),
        penstock__yaml="\n".join([*own, canary, *kept]),
    )
    return str(m.repository)


def words_of(view: dict[str, Any]) -> str:
    assert view["outcome"] == "promoted", view["reason"]
    return str(step(view, "acceptance/acceptance/0")["reason"])


@contextmanager
def shops(folder: Path, *carts_calls: str) -> Iterator[Machine]:
    """A storefront, a catalog and, if it calls anybody, a cart: all have users; nobody waits for a canary."""
    with machine(folder) as m:
        m.up()
        policy = m.folder / "operations-lead.yaml"
        policy.write_text(POLICY)
        m.penstock("policy", "publish", str(policy))
        places = [commit(m, "catalog", "v1")]
        places += [commit(m, "cart", "v1", *carts_calls)] if carts_calls else []
        storefront = commit(m, "storefront", "v1", *(["cart"] if carts_calls else []), "catalog", run=MEETS)
        assert all(words_of(view) for view in together(m, "ship", storefront, *places).values())
        yield m
        assert m.penstock("ledger", "verify").returncode == 0


@pytest.mark.long
def test_dark_releases_are_tested_together(short_tmp: Path) -> None:
    with shops(short_tmp) as m:
        # With the catalog that has users, the tests of the storefront would fail.
        places = [commit(m, "storefront", "v2", "catalog", run=MEETS), commit(m, "catalog", "v2")]
        views = together(m, "ship", *places)
        dark = views["catalog"]["release"]
        assert f"together with {dark} (" in words_of(views["storefront"])
        commit(m, "storefront", "v3", "catalog", run=MEETS)
        alone = m.deliver()
        assert alone["outcome"] == "refused", "its tests have met a catalog that is not there"
        assert "1 failed" in step(alone, "acceptance/acceptance/0")["reason"]


@pytest.mark.long
def test_it_is_told_where_a_chain_is_lost(short_tmp: Path) -> None:
    with shops(short_tmp, "catalog") as m:
        views = together(m, "ship", commit(m, "storefront", "v2", "cart"), commit(m, "catalog", "v2"))
        dark = views["catalog"]["release"]
        lost = f"the chain was lost after cart: {dark} saw none of 20 requests; forward the baggage header"
        assert lost in words_of(views["storefront"])
        assert "together" not in words_of(views["catalog"])

        commit(m, "cart", "v3", "catalog", forwards=True)
        assert m.deliver()["outcome"] == "promoted"
        views = together(m, "ship", commit(m, "storefront", "v3", "cart"), commit(m, "catalog", "v3"))
        dark = views["catalog"]["release"]
        assert f"together with {dark} (20 requests)" in words_of(views["storefront"])


@pytest.mark.long
def test_a_dark_release_is_named_by_hand(short_tmp: Path) -> None:
    with shops(short_tmp) as m:
        # Its own tests go on until it is aborted, and so it stays dark.
        commit(m, "catalog", "v2", run="sleep 90")
        catalog = m.ship()
        m.await_step(catalog, "deploy/deploy/0")
        place = commit(m, "storefront", "v2", "catalog", run=MEETS)
        done = m.penstock("ship", place, "--with", catalog, "-o", "json", check=False)
        assert "together with catalog-" in words_of(json.loads(done.stdout))
        m.penstock("abort", catalog)
        assert m.follow(catalog)["outcome"] == "aborted"
        refused = m.penstock("ship", place, "--with", catalog, check=False)
        assert (refused.returncode, "has ended: its release is not dark" in refused.stderr) == (1, True)
