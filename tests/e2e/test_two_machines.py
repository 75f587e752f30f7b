"""Two whole installations on this machine: a service of one calls one of the other, and neither knows."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.machine import CONFIG, SERVICE, Machine, git, machine
from tests.fakes.web import free_port

QUICK = CONFIG.replace("steps: [20, 50], seconds_per_step: 3", "steps: [50], seconds_per_step: 1")
CALLS = "calls: [catalog]\n"
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


def ship(m: Machine, name: str, version: str, serve: str, more: str = "") -> str:
    config = QUICK.replace("service: shop", f"service: {name}") + more
    m.commit(
        version, serve__py=serve.replace('VERSION = "v1"', f'VERSION = "{version}"'), penstock__yaml=config
    )
    return m.ship()


def declare(m: Machine, document: str) -> str:
    """Ship an organisation repository with this environment document."""
    repository = m.folder / "organisation"
    (repository / "environments").mkdir(parents=True)
    git(repository, "init", "--quiet", "--initial-branch=main")
    (repository / "environments" / "production.yaml").write_text(document)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Declare the mesh")
    (delivery,) = m.client.post("/v1/ship", {"location": str(repository)})["deliveries"]
    return str(delivery)


def promoted(m: Machine, delivery: str) -> None:
    ended = m.follow(delivery)
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


@pytest.mark.timeout(300)  # two installations, six deliveries
@pytest.mark.long
def test_a_call_from_machine_to_machine(short_tmp: Path) -> None:
    (short_tmp / "w").mkdir()
    (short_tmp / "e").mkdir()
    west_at, east_at = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with machine(short_tmp / "w") as west, machine(short_tmp / "e") as east:
        west.up()
        east.up()
        first = ship(west, "storefront", "v1", CALLING, CALLS), ship(east, "catalog", "v1", SERVICE)
        promoted(west, first[0])
        promoted(east, first[1])
        assert through(west).status_code == 503  # nobody has said where the catalog is

        at_east, at_west = ("east", east_at, trust_of(east)), ("west", west_at, trust_of(west))
        calling = document("west", west_at, at_east, "storefront: {peers: {catalog: east}}")
        exporting = document("east", east_at, at_west, "catalog: {exports: {west: [storefront]}}")
        with west.load(50), east.load(50):  # or there would be nothing to judge the canaries by
            declared = declare(west, calling), declare(east, exporting)
            promoted(west, declared[0])
            promoted(east, declared[1])
        assert version(through(west)) == "v1"

        # New code goes on calling the peer, and being called by it.
        with west.load(50), east.load(50):
            second = ship(west, "storefront", "v2", CALLING, CALLS), ship(east, "catalog", "v2", SERVICE)
            promoted(west, second[0])
            promoted(east, second[1])
        answer = through(west)
        assert version(answer) == "v2"

        # Control planes and node agents may die: calls go on, and the next agents renew certificates.
        for m in (west, east):
            m.kill(m.home.run / "server.lock")
            m.kill(m.home.node / "agent.lock")
        assert version(httpx.get(answer.url, timeout=15)) == "v2"
        for m in (west, east):
            m.up()
        west.penstock("mesh", "rotate")
        west.penstock("mesh", "rotate", "--switch")
        shown = west.home.node / "envoy" / "sds-west%2Fproduction%2Fstorefront.json"
        deadline = time.monotonic() + 20
        while "mesh-0002" not in shown.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for m in (west, east):
            assert m.penstock("ledger", "verify").returncode == 0


def version(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["version"])
