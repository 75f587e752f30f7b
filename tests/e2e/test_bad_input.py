"""What users get wrong, told back to them: what, where, the next move. And nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import CONFIG, Machine, git, machine


@pytest.fixture(scope="module")
def m(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    with machine(folder) as made:
        made.up()
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def test_a_second_up_on_one_folder(m: Machine) -> None:
    done = m.penstock("up", check=False)
    assert done.returncode == 1
    assert "running already" in done.stderr
    assert "penstock status" in done.stderr


def test_a_token_that_nobody_was_told_is_told_by_the_next_up(m: Machine) -> None:
    """The first one gave up waiting, on a machine that had too much to do."""
    (m.home.run / "token.once").write_text("pst_kept")
    assert json.loads(m.penstock("up", "-o", "json").stdout)["token"] == "pst_kept"
    assert m.penstock("up", check=False).returncode == 1


def test_a_folder_that_is_no_repository(m: Machine) -> None:
    done = m.penstock("ship", str(m.folder / "nothing-here"), check=False)
    assert done.returncode == 2
    assert "nothing-here" in done.stderr


def test_a_repository_without_commits(m: Machine) -> None:
    empty = m.folder / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    done = m.penstock("ship", str(empty), check=False)
    assert done.returncode == 2
    assert "commit" in done.stderr


def test_a_broken_penstock_yaml_names_file_and_line(m: Machine) -> None:
    m.commit("v1", penstock__yaml="service: shop\nrun: python3 serve.py\nreplicas: two\n")
    done = m.penstock("ship", str(m.repository), check=False)
    assert done.returncode == 2
    assert "penstock.yaml:3" in done.stderr
    assert "expected a whole number, found 'two'" in done.stderr


def test_nothing_that_can_be_built(m: Machine) -> None:
    bare = m.folder / "prose"
    bare.mkdir()
    git(bare, "init", "--quiet")
    (bare / "README").write_text("words")
    git(bare, "add", "--all")
    git(bare, "commit", "--quiet", "--message", "Write")
    done = m.penstock("ship", str(bare), check=False)
    assert done.returncode == 2
    assert "Procfile" in done.stderr


@pytest.mark.long
def test_a_workload_that_never_becomes_ready_tells_its_own_output(m: Machine) -> None:
    m.commit("v1", serve__py="print('the database is not there', flush=True)\nraise SystemExit(4)\n")
    done = m.penstock("ship", str(m.repository), check=False)
    assert done.returncode == 1
    assert "the database is not there" in done.stdout
    assert "exit code 4" in done.stdout


def test_a_test_command_that_writes_no_report_never_passes(m: Machine) -> None:
    m.commit("v1", write_report__py="print('all fine, trust me')\n")
    done = m.penstock("ship", str(m.repository), check=False)
    assert done.returncode == 1
    assert "junit.xml" in done.stdout
    assert "promoted" not in done.stdout


def test_a_delivery_and_a_service_that_are_not_known(m: Machine) -> None:
    for arguments in (("status", "shop-nope"), ("why", "nobody"), ("rollback", "nobody"), ("abort", "nope")):
        done = m.penstock(*arguments, check=False)
        assert done.returncode in (1, 2), arguments
        assert "Traceback" not in done.stderr
        assert "✗" in done.stderr


def test_a_policy_with_a_misspelt_fact(m: Machine) -> None:
    source = m.penstock("policy", "show", "development-lead").stdout
    file = m.folder / "mine.yaml"
    file.write_text(source.replace("evidence.tests.blocking == 0", "evidence.tests.bloking == 0"))
    done = m.penstock("policy", "publish", str(file), check=False)
    assert done.returncode == 2
    assert "rule no-test-failed: when:1:" in done.stderr
    assert "evidence.tests.bloking" in done.stderr


def test_a_published_policy_holds_from_the_next_gate_on(m: Machine) -> None:
    source = m.penstock("policy", "show", "development-lead").stdout
    file = m.folder / "stricter.yaml"
    file.write_text(source.replace("evidence.tests.passed > 0", "evidence.tests.passed > 100"))
    m.penstock("policy", "publish", str(file))
    m.commit("v1", penstock__yaml=CONFIG)
    done = m.penstock("ship", str(m.repository), "-o", "json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["refused_by"] == ["development-lead"]


def test_nothing_of_all_this_hurt_the_ledger(m: Machine) -> None:
    assert json.loads(m.penstock("ledger", "verify", "-o", "json").stdout)["verified"]


def test_a_port_that_is_taken(short_tmp: Path) -> None:
    other = Machine(short_tmp)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = [] if Machine.sandboxed() else ["--unsandboxed-workloads"]
        for option in ("--port", "--ingress-port"):
            done = other.penstock("up", "--port", "0", option, port, *options, check=False)
            assert done.returncode == 1
            assert f"{option}: port {port} is taken (pid {os.getpid()}, " in done.stderr
            assert f"next: penstock up {option} <another one>" in done.stderr
    done = other.penstock("up", "--ingress-port", "70000", *options, check=False)
    assert (done.returncode, "70000 is no port: from 1 to 65535" in done.stderr) == (2, True)


def test_no_server(short_tmp: Path) -> None:
    other = Machine(short_tmp)
    done = other.penstock("status", check=False)
    assert done.returncode == 3
    assert "penstock up" in done.stderr


def test_a_data_folder_with_too_long_a_path(short_tmp: Path) -> None:
    other = Machine(short_tmp / ("x" * 70))
    done = other.penstock("up", check=False)
    assert done.returncode == 2
    assert "PENSTOCK_HOME" in done.stderr


def test_ctrl_c_in_the_demo_leaves_nothing_behind(short_tmp: Path) -> None:
    home = short_tmp / "home"
    env = {**os.environ, "PENSTOCK_HOME": str(home)}
    options = [] if Machine.sandboxed() else ["--unsandboxed-workloads"]
    command = [sys.executable, "-m", "penstock.cli.main", "demo", *options]
    # A shell has what it starts in the background ignore Ctrl-C, and these tests may be in the background.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    signal.signal(signal.SIGINT, former)
    watched = Machine(short_tmp)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "acceptance" in line:
                break
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130, said
        deadline = time.monotonic() + 10
        while watched.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert watched.processes() == []
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
        watched.penstock("down", check=False)
