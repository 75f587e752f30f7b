"""The example versions are what the demo says of them: each is written out, started and asked."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from fakes.web import free_port
from penstock.checks.reports import JUnit, parse_junit
from penstock.checks.sarif import parse_sarif
from penstock.cli.examples import FOLDER, materialise
from penstock.config import load_service
from penstock.errors import Invalid

WAIT = 30.0
SERVICES = ("catalog", "storefront")
VERSIONS = [
    ("catalog", "v1"),
    ("catalog", "v2-good"),
    ("catalog", "v3-contention"),
    ("catalog", "v4-failing-tests"),
    ("catalog", "v5-critical-finding"),
    ("storefront", "v1"),
]


@dataclass(frozen=True)
class Running:
    """A version that listens on *port*."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)

    def get(self, path: str) -> tuple[int, str]:
        connection = self.connect()
        try:
            return ask(connection, path)
        finally:
            connection.close()


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Materialise a version, let *changed* edit it, and start it as its penstock.yaml says."""
    running: list[subprocess.Popen[bytes]] = []

    def one(service: str, version: str, changed: Callable[[Path], None] | None = None, **env: str) -> Running:
        folder = written(service, version, tmp_path / f"{service}-{len(running)}")
        if changed:
            changed(folder)
        port = free_port()
        words = str(declared(folder)["run"]).split()
        assert words[0] == "python3"
        process = subprocess.Popen(
            [sys.executable, *words[1:]], cwd=folder, env=clean_env(PORT=str(port), **env)
        )
        running.append(process)
        await_that(lambda: listens(port) or process.poll() is not None, "it listens")
        assert process.poll() is None
        return Running(process, port)

    yield one
    for process in running:
        process.kill()
        process.wait(WAIT)


def written(service: str, version: str, folder: Path) -> Path:
    materialise(service, version, folder)
    return folder


def declared(folder: Path) -> dict[str, object]:
    return dict(yaml.safe_load((folder / "penstock.yaml").read_text()))


def clean_env(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK", "PYTEST"))}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_that(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


def pytest_in(folder: Path, what: str, **env: str) -> JUnit:
    """Run the version's own tests with our pytest. Coverage is the build's affair: we lack pytest-cov."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", what, "--junitxml=report.xml"]
    done = subprocess.run(
        command, cwd=folder, env=clean_env(**env), capture_output=True, text=True, timeout=90, check=False
    )
    report = parse_junit((folder / "report.xml").read_bytes(), "report.xml")
    assert (done.returncode == 0) == (report.failed == 0), done.stdout
    return report


# --- the services answer ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [version for service, version in VERSIONS if service == "catalog"])
def test_the_catalog_answers(start: Start, version: str) -> None:
    catalog = start("catalog", version, CURRENCY="CHF")
    status, text = catalog.get("/items")
    assert status == 200
    items = json.loads(text)
    assert len(items) == (3 if version == "v1" else 4)
    assert all(item["price"].endswith(" CHF") for item in items)
    assert json.loads(catalog.get("/?page=1")[1]) == items
    assert json.loads(catalog.get("/items/2")[1]) == items[1]
    assert catalog.get("/healthz")[0] == 200
    assert [catalog.get(path)[0] for path in ("/items/99", "/items/x", "/nothing")] == [404] * 3


def test_the_storefront_shows_what_the_catalog_has(start: Start) -> None:
    catalog = start("catalog", "v2-good")
    storefront = start("storefront", "v1", CATALOG_URL=catalog.url)
    status, page = storefront.get("/")
    assert (status, page.count("<tr>")) == (200, 4)
    assert "Runner" in page
    assert "880.00 EUR" in page
    assert storefront.get("/nothing")[0] == 404


def test_the_storefront_is_well_without_a_catalog_and_says_what_it_lacks(start: Start) -> None:
    storefront = start("storefront", "v1", CATALOG_URL=f"http://127.0.0.1:{free_port()}")
    assert storefront.get("/healthz")[0] == 200
    assert storefront.get("/")[0] == 502


def test_the_storefront_gets_over_a_kept_connection_that_was_closed(start: Start) -> None:
    def impatient(folder: Path) -> None:
        edit(folder / "catalog/web.py", "timeout = 30", "timeout = 0.05")

    storefront = start("storefront", "v1", CATALOG_URL=start("catalog", "v1", impatient).url)
    assert storefront.get("/")[0] == 200
    await_that(lambda: "CLOSE_WAIT" in connections(storefront), "the catalog closes the idle connection")
    assert storefront.get("/")[0] == 200


def connections(running: Running) -> list[str]:
    return [found.status for found in psutil.Process(running.process.pid).net_connections()]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has changed: {old!r}"
    file.write_text(text.replace(old, new))


# --- the end ----------------------------------------------------------------------------------------


def test_sigterm_finishes_what_has_begun_and_keeps_nothing(start: Start, tmp_path: Path) -> None:
    begun, told = tmp_path / "begun", tmp_path / "told"

    def thoughtful(folder: Path) -> None:
        """The price list answers when it is told to."""
        wait = f"while not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)"
        ask = f"pathlib.Path({str(begun)!r}).touch()\n    {wait}"
        edit(folder / "catalog/items.py", "time.sleep(LOOKUP_SECONDS)", ask)
        edit(folder / "catalog/items.py", "import time", "import pathlib, time")

    catalog = start("catalog", "v1", thoughtful)
    idle, busy = catalog.connect(), catalog.connect()
    assert ask(idle, "/healthz")[0] == 200
    assert ask(busy, "/healthz")[0] == 200
    busy.request("GET", "/items")
    await_that(begun.exists, "the request is under way")
    catalog.process.send_signal(signal.SIGTERM)
    await_that(lambda: not listens(catalog.port), "no more are taken")
    assert catalog.process.poll() is None
    told.touch()
    response = busy.getresponse()
    assert (response.status, len(json.loads(response.read()))) == (200, 3)
    assert response.headers["Connection"] == "close"
    assert catalog.process.wait(WAIT) == 0
    idle.close()
    busy.close()


@pytest.mark.parametrize("service", SERVICES)
def test_sigterm_ends_an_idle_service_well(start: Start, service: str) -> None:
    running = start(service, "v1")
    assert running.get("/healthz")[0] == 200
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(WAIT) == 0


# --- their faults -----------------------------------------------------------------------------------


def failures(running: Running, clients: int, requests: int) -> int:
    """How many of *requests*, sent by *clients* at once over kept connections, are not answered 200."""

    def one(share: int) -> int:
        connection = running.connect()
        try:
            return sum(ask(connection, "/items")[0] != 200 for _ in range(share))
        finally:
            connection.close()

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(one, [requests // clients] * clients))


def test_contention_shows_only_when_requests_overlap(start: Start) -> None:
    catalog = start("catalog", "v3-contention")
    assert failures(catalog, 1, 100) == 0
    assert failures(catalog, 2, 100) > 30
    assert failures(catalog, 4, 200) > 20
    assert failures(catalog, 1, 20) == 0


def test_the_good_version_bears_what_contention_does_not(start: Start) -> None:
    assert failures(start("catalog", "v2-good"), 4, 100) == 0


@pytest.mark.parametrize(("service", "version"), VERSIONS)
def test_unit_tests(tmp_path: Path, service: str, version: str) -> None:
    report = pytest_in(written(service, version, tmp_path / "service"), "tests")
    wrong = 2 if version == "v4-failing-tests" else 0
    assert report.failed == wrong, report.failing
    assert report.passed >= 3


@pytest.mark.parametrize("version", ["v1", "v2-good", "v3-contention"])
def test_acceptance_passes_one_request_at_a_time(start: Start, tmp_path: Path, version: str) -> None:
    """Contention too: it is for the canary to find."""
    folder = written("catalog", version, tmp_path / "service")
    report = accepted(folder, start("catalog", version))
    assert (report.failed, report.passed) == (0, 2)


def test_acceptance_of_the_storefront(start: Start, tmp_path: Path) -> None:
    folder = written("storefront", "v1", tmp_path / "service")
    report = accepted(folder, start("storefront", "v1", CATALOG_URL=start("catalog", "v1").url))
    assert (report.failed, report.passed) == (0, 1)


def accepted(folder: Path, running: Running) -> JUnit:
    headers = json.dumps({"x-penstock-release": "some-release"})
    return pytest_in(folder, "acceptance", PENSTOCK_BASE_URL=running.url, PENSTOCK_PREVIEW_HEADERS=headers)


@pytest.mark.parametrize("version", [version for service, version in VERSIONS if service == "catalog"])
def test_audit(tmp_path: Path, version: str) -> None:
    folder = written("catalog", version, tmp_path / "service")
    audit = declared(folder)["checks"]["audit"]  # type: ignore[index]
    words = str(audit["run"]).split()
    subprocess.run([sys.executable, *words[1:]], cwd=folder, env=clean_env(), check=True, timeout=WAIT)
    (report,) = parse_sarif((folder / audit["sarif"]).read_bytes(), audit["sarif"], "self-reported")
    wrong = ["PSA-2026-0007"] if version == "v5-critical-finding" else []
    assert [finding.id for finding in report.findings] == wrong
    assert report.critical == len(wrong)


# --- the folders ------------------------------------------------------------------------------------


def test_every_version_is_tested_here() -> None:
    assert [(name, version) for name in SERVICES for version in in_order(name)] == VERSIONS
    for name in (*SERVICES, "environments"):
        folders = {entry.name for entry in (FOLDER / name).iterdir() if entry.is_dir()}
        assert folders == set(in_order(name))


def in_order(name: str) -> list[str]:
    lines = (FOLDER / name / "order").read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("version", in_order("catalog")[1:])
def test_an_overlay_holds_only_what_it_changes(tmp_path: Path, version: str) -> None:
    lines = (line.split() for line in (FOLDER / "catalog/order").read_text().splitlines())
    (below,) = next(words[1:] for words in lines if words[0] == version)
    base = written("catalog", below, tmp_path / "below")
    for file in (FOLDER / "catalog" / version).rglob("*"):
        beneath = base / file.relative_to(FOLDER / "catalog" / version)
        if file.is_file() and "__pycache__" not in file.parts and beneath.exists():
            assert file.read_bytes() != beneath.read_bytes(), file


@pytest.mark.parametrize(("service", "version"), VERSIONS)
def test_every_penstock_yaml_is_valid(tmp_path: Path, service: str, version: str) -> None:
    folder = written(service, version, tmp_path / "service")
    assert load_service(folder, "fallback").service == service


def test_both_services_share_one_server() -> None:
    first, second = ((FOLDER / name / "v1" / name / "web.py").read_text() for name in SERVICES)
    assert first == second


def test_what_running_by_hand_leaves_behind_is_not_copied(tmp_path: Path) -> None:
    examples, copied = tmp_path / "examples", tmp_path / "copied"
    written("catalog", "v1", examples / "catalog/v1")
    (examples / "catalog/order").write_text("v1\n")
    (examples / "catalog/v1/catalog/__pycache__").mkdir()
    (examples / "catalog/v1/reports").mkdir()
    materialise("catalog", "v1", copied, examples)
    assert (copied / "catalog/web.py").exists()
    assert not list(copied.rglob("__pycache__"))
    assert not (copied / "reports").exists()


@pytest.mark.parametrize(
    ("name", "version", "known"),
    [("catalogue", "v1", "catalog"), ("catalog", "v9", "v2-good"), ("..", "v1", "catalog")],
)
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, name: str, version: str, known: str) -> None:
    with pytest.raises(Invalid, match=known):
        materialise(name, version, tmp_path / "service")
    assert not (tmp_path / "service").exists()


def test_without_a_checkout_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="make demo"):
        materialise("catalog", "v1", tmp_path / "service", tmp_path / "absent")
