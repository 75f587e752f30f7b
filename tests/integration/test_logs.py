"""The output of stages on the disk: bounded, masked, compressed, and read by offsets that never change."""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters._handed import Handed
from penstock.adapters._output import Output
from penstock.adapters.bubblewrap import Bubblewrap
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.steplog import KEPT, Bounds
from penstock.core.workload import Mount, Step
from penstock.engine.logs import ATTEMPTS, finish, keeping, make_room, read, reopen
from penstock.errors import Broken, Invalid, Unavailable
from penstock.ports import Sandbox

SMALL = Bounds(head=1000, tail=600, segment=200)
SECRET = "hunter2-is-secret"


@pytest.fixture(params=["bubblewrap", "none"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "none":
        return Unsandboxed()
    try:
        return Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("needs bubblewrap")


def opened(log: Path, *secrets: bytes) -> Output:
    output = Output(secrets)
    output.open(log, SMALL)
    return output


def write(log: Path, data: bytes, *secrets: bytes) -> None:
    output = opened(log, *secrets)
    for at in range(0, len(data), 170):
        output.write(data[at : at + 170])
    output.close()


def numbered(count: int) -> bytes:
    return b"".join(b"%09d\n" % number for number in range(count))


def whole(log: Path, limit: int = 333) -> tuple[bytes, list[int]]:
    """Everything that is kept, read piece by piece, and the offsets at which the pieces began."""
    said, offset, begun = b"", 0, []
    while (piece := read(log, offset, limit)).next > offset:
        said += piece.data
        begun.append(piece.begin)
        offset = piece.next
    return said, begun


@pytest.mark.parametrize("size", [0, 1, 100, 101, 120, 121, 180, 181, 500])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_beginning_and_the_end_are_kept(tmp_path: Path, size: int, compressed: bool) -> None:
    log, data = tmp_path / "build.log", numbered(size)
    write(log, data)
    if compressed:
        finish(log)
    said, _ = whole(log)
    if size <= 180:
        assert said == data
        return
    end = {181: 1200, 500: 4200}[size]
    words = f"{end - 1000:,} bytes of output are not kept: from byte 1,000 to byte {end:,}"
    assert said == data[:1000] + f"\n--- {words} ---\n".encode() + data[end:]
    assert read(log, None, 50).data == data[-50:]
    assert read(log, 4990, 50).data == data[4990:]
    assert read(log, 10**9, 50) == read(log, 5000, 50)


def test_a_range_says_what_it_stands_for(tmp_path: Path) -> None:
    log, data = tmp_path / "build.log", numbered(500)
    write(log, data)
    inside = read(log, 2000, 2500)
    assert (inside.begin, inside.next) == (1000, 4500)
    assert inside.data.endswith(b"---\n" + data[4200:4500])
    before = read(log, 900, 100)
    assert (before.begin, before.next, before.data) == (900, 1000, data[900:1000])
    across = read(log, 900, 3400)
    assert (across.begin, across.next) == (900, 4300)
    assert across.data.startswith(data[900:1000] + b"\n--- 3,200")
    only = read(log, 1000, 10)
    assert (only.begin, only.next) == (1000, 4200)


def test_offsets_keep_their_meaning_while_the_end_rolls_on(tmp_path: Path) -> None:
    log, data = tmp_path / "build.log", numbered(2000)
    output = opened(log)
    output.write(data[:5000])
    last = read(log, None, 100)
    assert last.data == data[4900:5000]
    output.write(data[5000:5300])
    assert read(log, last.next, 1000).data == data[5000:5300]
    output.write(data[5300:])
    missed = read(log, last.next, 1000)
    assert b"are not kept" in missed.data
    assert read(log, missed.next, 1000).data == data[missed.next : missed.next + 1000]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1000 + 600 + 200
    output.close()


def test_a_step_goes_on_where_the_one_before_it_ended(tmp_path: Path) -> None:
    log, data = tmp_path / "build.log", numbered(700)
    for begin, end in ((0, 900), (900, 1150), (1150, 4000), (4000, 7000)):
        write(log, data[begin:end])
        finish(log)
        assert read(log, None, 100).data == data[end - 100 : end]
        reopen(log, SMALL)
    assert read(log, 0, 1000).data == data[:1000]
    assert read(log, None, 600).data == data[-600:]


def test_a_finished_log_is_a_gzip_file_and_the_rest_is_gone(tmp_path: Path) -> None:
    log, data = tmp_path / "build.log", numbered(500)
    write(log, data)
    before, _ = whole(log)
    finish(log)
    assert [path.name for path in tmp_path.iterdir()] == ["build.log.gz"]
    assert gzip.decompress((tmp_path / "build.log.gz").read_bytes()) == before
    finish(log)
    reopen(log, SMALL)
    assert whole(log)[0] == before


def test_a_log_is_not_compressed_under_the_hands_of_its_writer(tmp_path: Path) -> None:
    log, data = tmp_path / "build.log", numbered(500)
    output = opened(log)
    output.write(data[:3000])
    finish(log)
    output.write(data[3000:])
    assert read(log, None, 500).data == data[-500:]
    output.close()
    finish(log)
    assert [path.name for path in tmp_path.iterdir()] == ["build.log.gz"]
    assert read(log, None, 500).data == data[-500:]


def test_a_small_log_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "build.log").write_bytes(b"few words\n")
    finish(tmp_path / "build.log")
    assert (tmp_path / "build.log").read_bytes() == b"few words\n"


@pytest.mark.parametrize("leftover", ["draft", "both", "tail"])
def test_a_crash_at_any_point_leaves_something_to_read(tmp_path: Path, leftover: str) -> None:
    log, data = tmp_path / "build.log", numbered(500)
    write(log, data)
    before, _ = whole(log)
    if leftover == "draft":
        (tmp_path / "build.log.draft").write_bytes(b"half")
    else:
        kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        finish(log)
        (tmp_path / "build.log.tail").mkdir()
        for path, content in kept.items():
            if leftover == "both" or path != log:
                path.write_bytes(content)
    assert whole(log)[0] == before
    reopen(log, SMALL)
    assert whole(log)[0] == before
    finish(log)
    assert whole(log)[0] == before


async def test_a_damaged_log_is_told_and_does_not_stop_a_delivery(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    for damage in (b"", b"\x1f\x8b\x08\x04", b"not gzip at all" * 10):
        (tmp_path / "build.log.gz").write_bytes(damage)
        with pytest.raises(Broken, match="damaged"):
            read(log, 0, 10)
        async with keeping(log):
            log.write_bytes(b"goes on\n")
        assert read(log, 0, 100).data == b"goes on\n"
        log.unlink()
        assert (tmp_path / "build.log.damaged").read_bytes() == damage
    assert ATTEMPTS > 1


@given(st.lists(st.binary(max_size=700), max_size=12), st.integers(1, 2000), st.booleans())
def test_what_is_kept_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, writes: list[bytes], limit: int, compressed: bool
) -> None:
    log, data = tmp_path_factory.mktemp("log") / "x.log", b"".join(writes)
    output = opened(log)
    for each in writes:
        output.write(each)
    output.close()
    if compressed:
        finish(log)
    offset = 0
    while (piece := read(log, offset, limit)).next > offset:
        if b"bytes of output are not kept" not in piece.data:
            assert piece.data == data[piece.begin : piece.next]
        offset = piece.next
    assert offset == len(data)


SHOWN: dict[str, Callable[[str], str]] = {
    "in two writes": lambda s: f"printf %s {s[:5]}; sleep 0.05; echo {s[5:]}",
    "at once": lambda s: f"echo {s}",
    "in base64": lambda s: f"echo {base64.b64encode(b'user:' + s.encode()).decode()}",
    "cut off at the end": lambda s: f"printf %s {s[:9]}",
    "in its environment": lambda _: "env",
}


@pytest.mark.parametrize("how", SHOWN)
async def test_a_secret_of_a_step_does_not_reach_the_disk(sandbox: Sandbox, tmp_path: Path, how: str) -> None:
    step = Step(("/bin/sh", "-c", SHOWN[how](SECRET)), "/", env={"KEY": SECRET}, secrets=(SECRET,))
    result = await sandbox.run(step, tmp_path / "log")
    kept = (tmp_path / "log").read_text()
    assert result.tail == kept
    assert "***" in kept
    encoded = base64.b64encode(b"user:" + SECRET.encode()).decode()[8:-4]
    assert [word for word in (SECRET, SECRET[:9], encoded) if word in kept] == []


async def test_a_step_that_is_ended_leaks_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    step = Step(("/bin/sh", "-c", f"printf %s {SECRET[:9]}; sleep 60"), "/", seconds=0.7, secrets=(SECRET,))
    result = await sandbox.run(step, tmp_path / "log")
    assert result.timed_out
    assert (tmp_path / "log").read_text() == "***"


async def test_our_own_token_and_passwords_in_addresses_are_secrets(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "token-of-ours")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://reader:pass%2Fword@127.0.0.1:1/simple")
    monkeypatch.setenv("http_proxy", "http://me:short@127.0.0.1:1/")
    script = "env; echo token-of-ours pass/word"
    result = await sandbox.run(Step(("/bin/sh", "-c", script), "/", network=True), tmp_path / "log")
    assert "UV_DEFAULT_INDEX=http://reader:***@127.0.0.1:1/simple" in result.tail
    assert result.tail.endswith("*** ***\n")
    assert "a secret in http_proxy has fewer than 6 bytes: it is not masked" in result.tail


async def test_a_secret_that_is_too_short_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="fewer than 6 bytes"):
        await sandbox.run(Step(("/bin/true",), "/", secrets=("12345",)), tmp_path / "log")


async def test_the_environment_of_a_step_is_not_in_the_list_of_processes(tmp_path: Path) -> None:
    try:
        sandbox = Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("needs bubblewrap")
    tmp_path.chmod(0o777)
    seen: list[str] = []

    def look() -> None:
        for process in psutil.process_iter(["cmdline"]):
            seen.extend(process.info["cmdline"] or [])

    go = tmp_path / "go"
    script = 'echo up > /w/up; while [ ! -e /w/go ]; do sleep 0.05; done; echo "$KEY"'
    mounts = (Mount(str(tmp_path), "/w", writable=True),)
    step = Step(("/bin/sh", "-c", script), "/", mounts, {"KEY": SECRET}, seconds=30)
    running = asyncio.create_task(sandbox.run(step, tmp_path / "log"))
    async with asyncio.timeout(20):
        while not (tmp_path / "up").exists():
            await asyncio.sleep(0.02)
    look()
    go.touch()
    assert (await running).tail == f"{SECRET}\n"
    assert script in seen
    assert [word for word in seen if SECRET in word] == []


def test_an_environment_that_no_process_can_have_is_refused() -> None:
    with Handed() as handed, pytest.raises(Invalid, match="too large"):
        handed.hand(b"x" * 8_000_000)


async def test_a_gigabyte_of_output_is_bounded_and_served_by_range(short_tmp: Path) -> None:
    log = short_tmp / "tests.log"
    script = "echo first; yes 'the same line again and again' | head -c 1G; echo; echo last"
    async with keeping(log):
        result = await Unsandboxed().run(Step(("/bin/sh", "-c", script), "/", secrets=(SECRET,)), log)
        on_disk = sum(path.stat().st_size for path in short_tmp.rglob("*") if path.is_file())
        assert on_disk <= KEPT.head + KEPT.tail + KEPT.segment
    assert result.tail.endswith("\nlast\n")
    total = 6 + 2**30 + 1 + 5
    end = read(log, None, 65536)
    assert (end.total, end.next, len(end.data)) == (total, total, 65536)
    assert read(log, 0, 65536).data.startswith(b"first\nthe same line")
    gap = read(log, total // 2, 1000)
    assert b"bytes of output are not kept: from byte 16,777,216" in gap.data
    assert gap.next >= total - KEPT.tail - KEPT.segment
    assert [path.name for path in short_tmp.iterdir()] == ["tests.log.gz"]
    assert (short_tmp / "tests.log.gz").stat().st_size < 1_000_000


async def test_the_environment_of_a_workload_is_not_in_the_list_of_processes(tmp_path: Path) -> None:
    try:
        sandbox = Bubblewrap.detect()
    except Unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("needs bubblewrap")
    step = Step(("/bin/sh", "-c", 'echo "$KEY"; read line'), "/", env={"KEY": SECRET})
    with Handed() as handed:
        started = subprocess.Popen(
            sandbox.enclose(step, outlives_us=True, hand=handed.hand),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=handed.descriptors,
            env={},
        )
    assert started.stdin
    assert started.stdout
    assert started.stdout.readline() == f"{SECRET}\n".encode()
    outer = psutil.Process(started.pid)
    words = [word for process in (outer, *outer.children(recursive=True)) for word in process.cmdline()]
    started.communicate(b"\n", timeout=20)
    assert "--args" in words
    assert [word for word in words if SECRET in word] == []


def test_a_step_goes_on_where_no_log_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "deliveries").write_text("no folder, as when there is no room for one")
    log = tmp_path / "deliveries" / "shop-1" / "build.log"
    make_room(log)
    output = opened(log)
    output.write(b"built\n")
    output.close()
    assert output.last_words.startswith("built\n")
    assert "its log ends early: Not a directory" in output.last_words
