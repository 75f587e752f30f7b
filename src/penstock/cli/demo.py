"""``penstock demo``: six stories with real repositories, a real proxy and a steady load, in a fresh folder.

Called by the CLI. It uses the product from outside, as a user would: `up`, the HTTP API, git. Must not
reach into the control plane; what it reports is read back from the API and from the load's own counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.bootstrap.down import down
from penstock.bootstrap.home import Home
from penstock.bootstrap.up import Started, Wanted, up
from penstock.cli.appointments import appoint, try_to_weaken
from penstock.cli.client import Client
from penstock.cli.examples import materialise
from penstock.cli.follow import first_line, follow, print_step
from penstock.cli.show import say, table
from penstock.errors import Broken, Unavailable

RATE = 80
LOAD_SECONDS = 600
DELIVERY_SECONDS = 120.0


@dataclass(frozen=True)
class Story:
    """One delivery and how it must end. *repository* is a folder name, *version* the example's."""

    title: str
    service: str
    repository: str
    version: str
    outcome: str
    refused_by: str | None = None


FIRST = (
    Story("first version of catalog", "catalog", "catalog", "v1", "promoted"),
    Story("first version of storefront", "storefront", "storefront", "v1", "promoted"),
)
THEN = (
    Story("a good second version", "catalog", "catalog", "v2-good", "promoted"),
    Story("slow and failing under real traffic only", "catalog", "catalog", "v3-contention", "rolled-back"),
    Story("unit tests fail", "catalog", "catalog", "v4-failing-tests", "refused", "development-lead"),
    Story("a critical finding", "catalog", "catalog", "v5-critical-finding", "refused", "security-lead"),
    Story("a configuration change alone", "catalog", "organisation", "v2", "promoted"),
)


@dataclass
class Told:
    """How the stories ended, in the order in which they were told."""

    deliveries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def demo(*, keep: bool = False, unsandboxed: bool = False) -> tuple[dict[str, Any], bool]:
    """Run the demo. Returns what happened, and whether every story ended as told, no request was lost by
    switching and the ledger holds."""
    home, temporary = _home()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _machine(home, keep, temporary, unsandboxed) as (started, client):
        say(f"control plane, node agent and Envoy are up: {started.url} (data in {home.path})")
        report = _tell(home, client)
        _print(report, started, time.monotonic() - began)
        if keep:
            say(f"kept up, pages: {started.url}  token: {started.token}")
            say(f"stop it with: PENSTOCK_HOME={home.path} {sys.argv[0]} down")
    return report["document"], not report["wrong"]


def _home() -> tuple[Home, bool]:
    if os.environ.get("PENSTOCK_HOME"):
        home = Home.find()
        if home.trust.exists():
            raise Broken(
                "the demo wants a fresh data folder, and this one has a ledger",
                where=str(home.path),
                next_move="choose another PENSTOCK_HOME, or unset it",
            )
        return home, False
    return Home(Path(tempfile.mkdtemp(prefix="penstock-demo-"))), True


@contextlib.contextmanager
def _machine(home: Home, keep: bool, temporary: bool, unsandboxed: bool) -> Iterator[tuple[Started, Client]]:
    """Everything up; on the way out, however that comes about, everything down."""
    finished = False
    try:
        started = up(home, Wanted(unsandboxed, _free_port(7070), _free_port(8600)))
        client = Client.local(home)
        with contextlib.closing(client):
            yield started, client
        finished = True
    finally:
        if not (keep and finished):
            down(home)
            if temporary and finished:
                shutil.rmtree(home.path, ignore_errors=True)


def _tell(home: Home, client: Client) -> dict[str, Any]:
    told = Told()
    folder = home.path / "demo"
    appoint(home, client)
    told.wrong += [] if try_to_weaken(home, client) else ["a test lead changed the security lead's policy"]
    _repository(folder / "organisation", "environments", "v1")
    for story in FIRST:
        _deliver(told, client, folder, story)
    if told.wrong:
        raise Broken("the stories cannot go on: " + "; ".join(told.wrong), next_move=f"see {home.logs}")
    with _load(home, client) as counts:
        for story in THEN:
            _deliver(told, client, folder, story)
        _roll_back(told, client)
        time.sleep(2.0)  # let the load see the last switch
    traffic = counts()
    ledger = client.post("/v1/ledger/verify")
    if traffic["failed_by_switching"]:
        told.wrong.append(
            f"{traffic['failed_by_switching']} requests failed by switching: {traffic['errors']}"
        )
    if not ledger["verified"]:
        told.wrong.append(f"the ledger does not verify: {ledger['problems'][:3]}")
    document = {
        "deliveries": told.deliveries,
        "traffic": {name: traffic[name] for name in ("requests", "failed_by_switching", "by_release")},
        "ledger": {name: ledger[name] for name in ("entries", "root", "verified")},
    }
    return {"document": document, "notes": told.notes, "wrong": told.wrong}


def _deliver(told: Told, client: Client, folder: Path, story: Story) -> None:
    say(f"\n▸ {story.title}")
    repository = folder / story.repository
    source = "environments" if story.repository == "organisation" else story.service
    revision = _repository(repository, source, story.version)
    (delivery,) = client.post("/v1/ship", {"location": str(repository)})["deliveries"]
    _follow(told, client, delivery, story, revision)


def _roll_back(told: Told, client: Client) -> None:
    say("\n▸ rolled back by hand: the pair of artifact and configuration")
    delivery = client.post("/v1/services/catalog/rollback", {"reason": "prices must be in EUR"})["delivery"]
    story = Story("rollback of the pair", "catalog", "", "", "restored")
    _follow(told, client, delivery, story, "")


def _follow(told: Told, client: Client, delivery: str, story: Story, revision: str) -> None:
    view = follow(client, delivery, print_step, DELIVERY_SECONDS)
    refused_by = ", ".join(view["refused_by"]) or None
    row = {
        "service": story.service,
        "revision": revision or view["change"]["revision"].removeprefix("sha256:"),
        "outcome": view["outcome"],
        "refused_by": refused_by,
        "seconds": round(view["seconds"], 1),
    }
    told.deliveries.append(row)
    by, why = f" by {refused_by}" if refused_by else "", first_line(view["reason"])
    say(f"  → {view['outcome']}{by}" + (f": {why}" if why else ""))
    if view["outcome"] == "rolled-back":
        told.notes.append(f"{story.title}: {view['steps'][-1]['reason']}")
    if view["outcome"] != story.outcome or (story.refused_by or "") not in (refused_by or ""):
        told.wrong.append(f"{story.title}: expected {story.outcome} {story.refused_by or ''}, got {row}")


# --- repositories -----------------------------------------------------------------------------------


def _repository(path: Path, source: str, version: str) -> str:
    """Commit an example version into a git repository made at first use. Returns the commit's id."""
    if not (path / ".git").exists():
        path.mkdir(parents=True, exist_ok=True)
        _git(path, "init", "--quiet", "--initial-branch=main")
    for item in path.iterdir():
        if item.is_file():
            item.unlink()
        elif item.name != ".git":
            shutil.rmtree(item)
    materialise(source, version, path)
    _git(path, "add", "--all")
    _git(path, "commit", "--quiet", "--allow-empty", "--message", _message(source, version))
    return _git(path, "rev-parse", "HEAD").strip()


def _message(source: str, version: str) -> str:
    return (
        f"{source} {version}\n\nRefs: DEMO-{version.split('-')[0]}\nReviewed-by: Rae Viewer <rae@example.com>"
    )


def _git(path: Path, *arguments: str) -> str:
    identity = {"NAME": "Dana Developer", "EMAIL": "dana@example.com"}
    env = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in identity.items()}
    command = [
        "git",
        "-C",
        str(path),
        "-c",
        "commit.gpgsign=false",
        "-c",
        "core.hooksPath=/dev/null",
        *arguments,
    ]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Broken(f"git {arguments[0]} failed: {done.stderr.strip()}", where=str(path))
    return done.stdout


# --- load -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _load(home: Home, client: Client) -> Iterator[Callable[[], dict[str, Any]]]:
    """A steady load on both services from a process of its own; yields its counts, final once it left."""
    file = home.path / "load.json"
    addresses = {row["service"]: row["address"] for row in client.get("/v1/status")["services"]}
    urls = [f"{addresses['storefront']}/", f"{addresses['catalog']}/items"]
    command = [sys.executable, "-m", "penstock.cli.load", "--rate", str(RATE), "--seconds", str(LOAD_SECONDS)]
    for url in urls:
        command += ["--url", url]
    log = (home.logs / "load.log").open("wb")
    process = subprocess.Popen([*command, "--json", str(file)], stdout=log, stderr=log)
    say(f"\nsteady load through Envoy: {RATE} requests a second to {' and '.join(urls)}")
    try:
        yield lambda: dict(json.loads(file.read_text()))
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        log.close()


def _free_port(first: int) -> int:
    for port in range(first, first + 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise Unavailable(f"no free port from {first} on")


# --- telling ----------------------------------------------------------------------------------------


def _print(report: dict[str, Any], started: Started, seconds: float) -> None:
    document = report["document"]
    rows = [
        (
            row["service"],
            row["revision"][:12],
            row["outcome"],
            row["refused_by"] or "",
            f"{row['seconds']:.1f} s",
        )
        for row in document["deliveries"]
    ]
    say("\n" + table(("service", "revision", "outcome", "refused by", "time"), rows))
    traffic, ledger = document["traffic"], document["ledger"]
    say(f"\ntraffic: {traffic['requests']} requests, {traffic['failed_by_switching']} failed by switching")
    for release, counts in sorted(traffic["by_release"].items()):
        say(f"  {release:<28} {counts['requests']:>7} requests {counts['errors']:>5} errors")
    for note in report["notes"]:
        say(f"  {note}")
    verdict = "verified" if ledger["verified"] else "DOES NOT VERIFY"
    say(f"ledger: {ledger['entries']} entries, root {ledger['root'][:16]}…, {verdict}")
    say(f"{seconds:.0f} s in all, isolation {started.isolation}")
    for problem in report["wrong"]:
        say(f"✗ {problem}")
