"""Two whole installations on this machine: a service of one calls one of the other, and neither knows."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path

import httpx

from penstock.core.mesh import identity
from tests.e2e.machine import CONFIG, SERVICE, Machine, free_port, git, machine

QUICK = CONFIG.replace("steps: [20, 50], seconds_per_step: 3", "steps: [50], seconds_per_step: 1")
#: At /through, what the catalog answers, with its status.
CALLING = SERVICE.replace(
    "    def do_GET(self):\n",
    """\
    def do_GET(self):
        if self.path == "/through":
            import urllib.error, urllib.request
            try:
                with urllib.request.urlopen(os.environ["CATALOG_URL"], timeout=10) as answer:
                    status, body = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, body = error.code, error.read()
            head = b"HTTP/1.1 %d Through\\r\\nContent-Length: %d\\r\\n\\r\\n" % (status, len(body))
            self.wfile.write(head + body)
            return
""",
)


def deliver(m: Machine, name: str, serve: str, more: str = "") -> None:
    m.commit("v1", serve__py=serve, penstock__yaml=QUICK.replace("service: shop", f"service: {name}") + more)
    ended = m.deliver()
    assert ended["outcome"] == "promoted", [(s["key"], s["reason"]) for s in ended["steps"]]


def declare(m: Machine, document: str) -> None:
    """Ship an organisation repository with this environment document, to the end of its one delivery."""
    repository = m.folder / "organisation"
    if not repository.exists():
        (repository / "environments").mkdir(parents=True)
        git(repository, "init", "--quiet", "--initial-branch=main")
    (repository / "environments" / "production.yaml").write_text(document)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Declare the mesh")
    with m.load(50):  # or there would be nothing to judge the canary by
        (delivery,) = m.client.post("/v1/ship", {"location": str(repository)})["deliveries"]
        ended = m.follow(str(delivery))
    assert ended["outcome"] == "promoted", [(s["key"], s["reason"]) for s in ended["steps"][-3:]]


def document(domain: str, listen: str, peer: tuple[str, str, str], services: str) -> str:
    name, address, trust = peer
    head = f"environment: production\nmesh:\n  domain: {domain}\n  listen: {listen}\n  peers:\n    {name}:\n"
    head += f"      address: {address}\n      trust: |\n{textwrap.indent(trust, ' ' * 8)}\n"
    return f"{head}services:\n  {services}\n"


def trust_of(m: Machine) -> str:
    return str(json.loads(m.penstock("mesh", "trust", "-o", "json").stdout)["trust"])


def through(m: Machine) -> httpx.Response:
    return httpx.get(f"{m.address()}/through", timeout=15)


def test_a_call_from_machine_to_machine(short_tmp: Path) -> None:
    (short_tmp / "w").mkdir()
    (short_tmp / "e").mkdir()
    west_at, east_at = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with machine(short_tmp / "w") as west, machine(short_tmp / "e") as east:
        west.up()
        east.up()
        deliver(west, "storefront", CALLING, "calls: [catalog]\n")
        deliver(east, "catalog", SERVICE)
        assert through(west).status_code == 503  # nobody has said where the catalog is

        at_east = ("east", east_at, trust_of(east))
        calling = document("west", west_at, at_east, "storefront: {peers: {catalog: east}}")
        declare(west, calling)
        assert through(west).status_code == 503  # and nobody there has let it in

        at_west = ("west", west_at, trust_of(west))
        exporting = document("east", east_at, at_west, "catalog: {exports: {west: [storefront]}}")
        declare(east, exporting)
        answer = through(west)
        assert (answer.status_code, answer.json()["version"]) == (200, "v1"), answer.text

        # Control planes and node agents may die: calls go on, and certificates are renewed by the next agent.
        for m in (west, east):
            m.kill(m.home.run / "server.lock")
            m.kill(m.home.node / "agent.lock")
        assert through_proxy(west, answer).status_code == 200
        for m in (west, east):
            m.up()
        west.penstock("mesh", "rotate")
        west.penstock("mesh", "rotate", "--switch")
        shown = (
            west.home.node
            / "envoy"
            / f"sds-{identity('west', 'production', 'storefront')[9:]}.json".replace("/", "%2F")
        )
        deadline = time.monotonic() + 20
        while "mesh-0002" not in shown.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for m in (west, east):
            assert m.penstock("ledger", "verify").returncode == 0


def through_proxy(m: Machine, answer: httpx.Response) -> httpx.Response:
    """Where it was asked before: nobody is there who could tell."""
    return httpx.get(answer.url, timeout=15)
