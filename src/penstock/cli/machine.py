"""Commands about this machine: up, down, doctor, demo, and the processes themselves.

Called by `main`. Thin: what they do is in ``bootstrap`` and `demo`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from penstock.bootstrap.down import down as stop
from penstock.bootstrap.home import IN_CLUSTER, LONGEST, AdmissionSettings, Home
from penstock.bootstrap.plugins import find, open_sandbox
from penstock.bootstrap.processes import is_held
from penstock.bootstrap.target import check_around, check_cluster
from penstock.bootstrap.up import Wanted, prepare
from penstock.bootstrap.up import up as start
from penstock.cli.show import document, mark, say
from penstock.core.codec import encode
from penstock.errors import Invalid, PenstockError

ROOM = 1024**3


def up(given: argparse.Namespace) -> int:
    wanted = Wanted(
        given.unsandboxed_workloads,
        given.port,
        given.ingress_port,
        given.workers,
        given.prometheus,
        given.prometheus_token,
        given.cluster,
        _admission(given),
    )
    if given.foreground:
        prepare(Home.find(), wanted)
        return _serve(replica=given.replica, awaited=False)
    if given.replica:
        what = "one of several control planes is a container's only process"
        raise Invalid(what, where="--replica", next_move="--foreground --replica")
    started = start(Home.find(), wanted)
    if given.format == "json":
        document(encode(started))
        return 0
    say(f"✓ Penstock is up: {started.url}")
    whose = "builds and checks" if started.cluster else "workloads"
    isolation = "in the cluster" if started.isolation == IN_CLUSTER else started.isolation
    say(f"  data folder: {started.home}   {whose}: isolation {isolation}")
    if started.cluster:
        say(f"  releases run in a cluster: {started.cluster}")
    if started.isolation == "none":
        say(f"  ✗ {whose} run without a sandbox: they can read keys and one another's data")
    if started.token:
        say(f"  token (shown once, kept only as a hash): {started.token}")
    say("  next: penstock ship PATH_OR_GIT_URL")
    return 0


def _admission(given: argparse.Namespace) -> AdmissionSettings | None:
    port, files = given.admission_port, (given.admission_cert, given.admission_key)
    if port and None in files:
        what = "an API server speaks TLS: a certificate and its key are needed"
        raise Invalid(what, where="--admission-port", next_move="--admission-cert FILE --admission-key FILE")
    if port is None:
        if any((*files, given.admission_also)):
            raise Invalid("it is not said at which port", where="--admission-port")
        return None
    certificate, key = (str(file or "") for file in files)
    return AdmissionSettings(port, certificate, key, tuple(given.admission_also))


def down(given: argparse.Namespace) -> int:
    home = Home.find()
    stop(home)
    if given.format == "json":
        document({"home": str(home.path), "up": False})
    else:
        goes_on = ", and releases go on in their cluster" if home.settings.cluster else ""
        say(f"✓ everything is down; data stays in {home.path}{goes_on}")
    return 0


def node(given: argparse.Namespace) -> int:
    from penstock.bootstrap.tend import tend  # the agent and its drivers: no other command waits for them

    tend(Home.find())
    return 0


def serve(given: argparse.Namespace) -> int:
    return _serve()


def _serve(*, replica: bool = False, awaited: bool = True) -> int:
    from penstock.bootstrap.serve import serve as run  # a web framework: no other command waits for it

    run(Home.find(), replica=replica, awaited=awaited)
    return 0


def worker(given: argparse.Namespace) -> int:
    from penstock.bootstrap.work import work  # as above

    work(Home.find(), given.name, given.slots)
    return 0


def demo(given: argparse.Namespace) -> int:
    from penstock.cli.demo import demo as run_demo  # as above

    quiet = given.format == "json"
    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        happened, good = run_demo(keep=given.keep, unsandboxed=given.unsandboxed_workloads)
    if given.json is not None:
        given.json.write_text(json.dumps(happened, indent=2) + "\n")
    if quiet:
        document(happened)
    return 0 if good else 1


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. *next_move* is "" if all is well."""

    what: str
    good: bool
    found: str
    next_move: str = ""


def doctor(given: argparse.Namespace) -> int:
    if given.reference:
        say((files("penstock") / f"{given.reference}.reference.yaml").read_text(encoding="utf-8"))
        return 0
    if given.schema:
        from penstock.schemas import schema_text  # it reads all of the readers

        say(schema_text(given.schema))
        return 0
    home = Home.find()
    findings = [check(home) for check in CHECKS]
    if given.format == "json":
        document([encode(finding) for finding in findings])
    else:
        for finding in findings:
            move = f"\n    next: {finding.next_move}" if finding.next_move else ""
            say(f"{mark(finding.good)} {finding.what}: {finding.found}{move}")
    return 0 if all(finding.good for finding in findings) else 1


def _python(home: Home) -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("Python", good, sys.version.split()[0], "" if good else "install Python 3.11 or newer")


def _git(home: Home) -> Finding:
    path = shutil.which("git")
    return Finding("git", bool(path), path or "not found", "" if path else "apt install git")


def _sandbox(home: Home) -> Finding:
    if home.settings.sandbox == IN_CLUSTER:
        return Finding("sandbox", True, "not needed: builds and checks run in the cluster")
    try:
        open_sandbox("bubblewrap")
    except PenstockError as error:
        move = f"{error.next_move}; or: penstock up --unsandboxed-workloads"
        return Finding("sandbox", False, error.what, move)
    return Finding("sandbox", True, "bubblewrap works")


def _envoy(home: Home) -> Finding:
    if home.settings.cluster:
        return Finding("Envoy", True, "not needed: users come through the cluster's gateway")
    try:
        find("router", "envoy")
    except PenstockError as error:
        return Finding("Envoy", False, error.what, error.next_move)
    return Finding("Envoy", True, "installed")


def _folder(home: Home) -> Finding:
    if len(os.fsencode(home.path)) > LONGEST:
        move = "set PENSTOCK_HOME to a shorter path"
        return Finding("data folder", False, f"{home.path} is longer than {LONGEST} bytes", move)
    existing = next(path for path in (home.path, *home.path.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("data folder", False, f"{existing} cannot be written to", "set PENSTOCK_HOME")
    free = shutil.disk_usage(existing).free
    found = f"{home.path}, {free / ROOM:.0f} GiB free"
    return Finding("data folder", free > ROOM, found, "" if free > ROOM else "free at least 1 GiB")


def _cluster(home: Home) -> Finding:
    cluster = home.settings.cluster
    if cluster is None:
        return Finding("cluster", True, "none: releases run on this machine")
    try:
        asyncio.run(check_cluster(home, cluster))
        asyncio.run(check_around(home, cluster))
    except PenstockError as error:
        return Finding("cluster", False, f"{error.where}: {error.what}", error.next_move)
    found = f"{cluster.name}, its registry and its Prometheus answer, and we may do what we must"
    return Finding("cluster", True, found)


def _running(home: Home) -> Finding:
    serving = is_held(home.run / "server.lock")
    if home.settings.cluster:
        return Finding("processes", True, "the control plane runs" if serving else "nothing runs")
    tending = is_held(home.node / "agent.lock")
    words = {
        (True, True): "control plane and node agent run",
        (True, False): "the control plane runs, the node agent does not",
        (False, True): "the node agent runs, the control plane does not: traffic goes on",
        (False, False): "nothing runs",
    }
    good = serving == tending
    return Finding(
        "processes", good, words[serving, tending], "" if good else "penstock up starts what is missing"
    )


CHECKS: tuple[Callable[[Home], Finding], ...] = (_python, _git, _sandbox, _envoy, _folder, _cluster, _running)
