"""What every `Sandbox` does with a step, and what only a real one keeps from other people's code."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fakes.jobs import jobs_of, ready_for_jobs
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.workload import Isolation, Mount, Step, StepResult
from penstock.errors import Invalid
from penstock.ports import Sandbox
from penstock.testing.kubernetes import FakeCluster
from penstock.testing.kubernetes.kinds import JOBS, PODS


class SandboxContract:
    """True of every sandbox, also of none. Subclass it and give it a fixture ``sandbox``."""

    async def test_a_step_sees_its_mounts_and_its_environment(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "input").write_text("given")
        result = await run(sandbox, tmp_path, 'cat input; echo " $COLOUR"; echo made > output')
        assert (result.exit_code, result.tail) == (0, "given blue\n")
        assert (tmp_path / "output").read_text() == "made\n"

    async def test_a_failing_step_is_a_result(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, "echo out; echo err >&2; exit 7")
        assert (result.exit_code, result.timed_out) == (7, False)
        assert sorted(result.tail.splitlines()) == ["err", "out"]

    async def test_what_is_not_there_is_a_result(self, sandbox: Sandbox, tmp_path: Path) -> None:
        step = Step(("/no/such/program",), "/work", (Mount(str(tmp_path), "/work", writable=True),))
        result = await sandbox.run(step, tmp_path / "log")
        assert result.exit_code != 0
        assert "/no/such/program" in result.tail

    async def test_it_sees_nothing_of_our_environment(
        self, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PENSTOCK_TOKEN", "the secret")
        result = await run(sandbox, tmp_path, "env")
        assert "COLOUR=blue" in result.tail
        assert "the secret" not in result.tail

    async def test_the_log_grows_and_the_tail_is_of_this_step(self, sandbox: Sandbox, tmp_path: Path) -> None:
        await run(sandbox, tmp_path, "echo first")
        result = await run(sandbox, tmp_path, "echo second")
        assert result.tail == "second\n"
        assert (tmp_path / "log").read_text() == "first\nsecond\n"

    async def test_the_tail_is_bounded(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, "yes line | head -n 100000; echo the end")
        assert len(result.tail) <= 8000
        assert result.tail.endswith("line\nthe end\n")

    async def test_the_log_is_bounded_and_the_tail_is_still_the_end(
        self, sandbox: Sandbox, short_tmp: Path
    ) -> None:
        result = await run(sandbox, short_tmp, "head -c 80000000 /dev/zero; echo; echo the end")
        assert result.tail.endswith("the end\n")
        assert (short_tmp / "log").stat().st_size < 70_000_000

    async def test_the_network_brings_settings_but_no_right_to_publish(
        self, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_DEFAULT_INDEX", "the index")
        monkeypatch.setenv("UV_PUBLISH_TOKEN", "the secret")
        step = Step(("/bin/sh", "-c", "env"), "/", network=True)
        said = (await sandbox.run(step, tmp_path / "log")).tail
        assert "the index" in said
        assert "the secret" not in said
        without = await sandbox.run(replace(step, network=False), tmp_path / "log")
        assert "the index" not in without.tail

    async def test_time_over_ends_all_of_it(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, f"sleep {NAP} & echo started; sleep {NAP}", seconds=1.0)
        assert result.timed_out
        assert result.tail.startswith("started\n")
        await self.nobody_naps()

    async def test_what_a_step_leaves_behind_is_ended(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, f"sleep {NAP} & echo done")
        assert (result.exit_code, result.timed_out) == (0, False)
        await self.nobody_naps()

    async def test_a_step_ends_with_whoever_waits_for_it(self, sandbox: Sandbox, tmp_path: Path) -> None:
        running = asyncio.create_task(run(sandbox, tmp_path, f"sleep {NAP}"))
        async with asyncio.timeout(SECONDS):
            while not await self.naps():
                await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await self.nobody_naps()

    async def naps(self) -> bool:
        """Whether a process of a step is there still."""
        return bool(nappers())

    async def nobody_naps(self) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.naps():
                await asyncio.sleep(0.02)


class TestUnsandboxed(SandboxContract):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return Unsandboxed()

    async def test_a_source_may_begin_like_another_mounts_target(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        mounts = (Mount("/app/store/1", "/app"), Mount("/app/data", "/app/data/of/it"), Mount("/", "/work"))
        step = Step(("/bin/echo", "/app/x", "/app/data/of/it/y", "/apple", "a=/app"), "/work", mounts)
        result = await sandbox.run(step, tmp_path / "log")
        assert result.tail.split() == ["/app/store/1/x", "/app/data/y", "/apple", "a=/app/store/1"]

    def test_it_does_not_pretend(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation is Isolation.NONE


class TestBubblewrap(SandboxContract):
    @pytest.fixture
    def sandbox(self, bubblewrap: Bubblewrap) -> Sandbox:
        return bubblewrap

    def test_it_says_what_it_enforces(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation is Isolation.BUBBLEWRAP

    async def test_files_outside_its_mounts_are_not_there(
        self, sandbox: Sandbox, tmp_path: Path, short_tmp: Path
    ) -> None:
        for path in (short_tmp / "keys" / "private.pem", short_tmp / "data" / "other-release" / "file"):
            path.parent.mkdir(parents=True)
            path.write_text("the secret")
            path.chmod(0o644)
            result = await run(sandbox, tmp_path, f"cat {path}")
            assert result.exit_code != 0
            assert "the secret" not in result.tail

    async def test_homes_are_not_there(self, sandbox: Sandbox, tmp_path: Path) -> None:
        mine = {path.name for path in Path.home().iterdir()}
        result = await run(sandbox, tmp_path, f'ls -A "$HOME"; ls -A {Path.home()} /home; true')
        toolchain = set(Path(sys.base_prefix).parts)  # which may live in a home
        assert mine & set(result.tail.split()) <= toolchain

    async def test_other_processes_are_not_there(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, "ls /proc | grep -c '^[0-9]'; ls /proc; cat /proc/[0-9]*/comm")
        assert int(result.tail.split()[0]) < 10
        assert str(os.getpid()) not in result.tail.split()
        assert set(result.tail.split()) & {"bwrap", "sh"}
        assert not set(result.tail.split()) & {"python", "python3", "pytest"}

    async def test_it_cannot_signal_us(self, sandbox: Sandbox, tmp_path: Path) -> None:
        assert (await run(sandbox, tmp_path, f"kill -0 {os.getpid()}")).exit_code != 0

    async def test_the_hosts_loopback_is_out_of_reach(
        self, sandbox: Sandbox, tmp_path: Path, listening: int
    ) -> None:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {listening}), 3); print('reached')"
        assert (await run(Unsandboxed(), tmp_path, f'python3 -c "{connect}"')).tail == "reached\n"
        result = await run(sandbox, tmp_path, f'python3 -c "{connect}"')
        assert result.exit_code != 0
        assert "ConnectionRefusedError" in result.tail

    async def test_only_writable_mounts_can_be_written(
        self, sandbox: Sandbox, tmp_path: Path, short_tmp: Path
    ) -> None:
        tmp_path.chmod(0o777)
        short_tmp.chmod(0o777)
        mounts = (Mount(str(tmp_path), "/work", writable=True), Mount(str(short_tmp), "/given"))
        for place in ("/given", "/usr", "/bin"):
            step = Step(("/bin/sh", "-c", f"echo x > {place}/planted"), "/work", mounts)
            assert (await sandbox.run(step, tmp_path / "log")).exit_code != 0, place
        # These are its own and vanish with it: what matters is that the host's stay as they are.
        script = (
            "echo x > planted; for d in / /etc /tmp /var/tmp; do echo x > $d/planted-by-a-step; done; true"
        )
        step = Step(("/bin/sh", "-c", script), "/work", mounts)
        assert (await sandbox.run(step, tmp_path / "log")).exit_code == 0
        assert (tmp_path / "planted").exists()
        assert not list(short_tmp.iterdir())
        for folder in ("/", "/etc", "/tmp", "/var/tmp"):
            assert not (Path(folder) / "planted-by-a-step").exists()

    async def test_the_systems_private_keys_are_not_there(self, sandbox: Sandbox, tmp_path: Path) -> None:
        folders = "/etc/ssl/private /etc/pki/tls/private"
        result = await run(sandbox, tmp_path, f"find {folders} -mindepth 1 2>/dev/null")
        assert result.tail == ""

    async def test_its_root_is_not_writable(self, sandbox: Sandbox, tmp_path: Path) -> None:
        assert "Read-only" in (await run(sandbox, tmp_path, "echo x > /planted")).tail

    async def test_what_outlives_us_dies_as_one(self, sandbox: Sandbox, tmp_path: Path) -> None:
        step = Step(("sleep", NAP), "/")
        for victim in (0, 1):
            with subprocess.Popen(sandbox.enclose(step, outlives_us=True), start_new_session=True) as first:
                await until(lambda: bool(nappers()))
                outer = psutil.Process(first.pid)
                (outer, *outer.children())[victim].kill()
            await self.nobody_naps()

    async def test_it_has_no_powers(self, sandbox: Sandbox, tmp_path: Path) -> None:
        result = await run(sandbox, tmp_path, "id -u; grep CapEff /proc/self/status")
        assert result.tail.split() == ["65534", "CapEff:", "0" * 16]


class TestKubernetesJobs(SandboxContract):
    """Against the fake cluster: its containers are in bubblewrap, which here stands for a node's runtime."""

    @pytest.fixture
    async def sandbox(self, bubblewrap: Bubblewrap, short_tmp: Path) -> AsyncIterator[Sandbox]:
        async with FakeCluster() as cluster:
            ready_for_jobs(cluster, bubblewrap)
            (short_tmp / "kubeconfig").mkdir()
            async with jobs_of(cluster, short_tmp / "kubeconfig") as sandbox:
                yield sandbox
                assert cluster.api.all(JOBS) == [], "a step has left its Job behind"
                assert cluster.api.all(PODS) == [], "a step has left its pod behind"

    def test_it_says_what_it_enforces(self, sandbox: Sandbox) -> None:
        assert sandbox.isolation is Isolation.CONTAINER

    def test_there_is_no_command_line_for_it_here(self, sandbox: Sandbox) -> None:
        with pytest.raises(Invalid, match="runs in the cluster") as raised:
            sandbox.enclose(Step(("true",), "/"))
        assert raised.value.next_move

    async def test_only_its_mounts_are_there_and_only_writable_ones_come_back(
        self, sandbox: Sandbox, tmp_path: Path, short_tmp: Path
    ) -> None:
        (short_tmp / "given").mkdir()
        (short_tmp / "given/file").write_text("as it was")
        (short_tmp / "secret").write_text("the secret")
        mounts = (Mount(str(tmp_path), "/work", writable=True), Mount(str(short_tmp / "given"), "/given"))
        script = f"cat {short_tmp}/secret; cat /given/file; echo x > /given/file; echo ok > made"
        result = await sandbox.run(Step(("/bin/sh", "-c", script), "/work", mounts), tmp_path / "log")
        assert "as it was" in result.tail
        assert "the secret" not in result.tail
        assert (tmp_path / "made").read_text() == "ok\n"
        assert (short_tmp / "given/file").read_text() == "as it was"


#: A number of seconds that tells our naps from everybody else's.
NAP = f"3600.{os.getpid()}"
SECONDS = 20.0


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


async def run(sandbox: Sandbox, folder: Path, script: str, seconds: float = 30.0) -> StepResult:
    """Run a shell script with *folder* as its writable ``/work``."""
    folder.chmod(0o777)
    mounts = (Mount(str(folder), "/work", writable=True),)
    step = Step(("/bin/sh", "-c", script), "/work", mounts, {"COLOUR": "blue"}, seconds=seconds)
    return await sandbox.run(step, folder / "log")


def nappers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        live = process.info["status"] != psutil.STATUS_ZOMBIE
        if live and (process.info["cmdline"] or [])[:2] == ["sleep", NAP]:
            found.append(process)
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)
