"""Local processes through the worst days: agents and workloads killed, machines restarted, images changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.integration.processes.house import (
    FENCE,
    SECONDS,
    House,
    ask,
    dialled,
    open_house,
    put_image,
    workload,
)

from penstock.adapters.processes import Processes
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.digest import digest, hex_of
from penstock.core.workload import Phase
from penstock.errors import Broken, Invalid
from penstock.ports import Sandbox


async def test_isolation_is_told(house: House) -> None:
    assert (await house.ready()).isolation is house.sandbox.isolation


async def test_a_killed_agent_takes_nothing_with_it_and_the_next_adopts(
    house: House, killed_agent: set[psutil.Process]
) -> None:
    house.new_driver()
    adopted = await house.until(lambda p: p.ready)
    await house.platform.tend()
    assert adopted.instances[0].restarts == 0
    assert house.processes() == killed_agent
    assert await ask(adopted.instances[0].address, "/") == "serve"
    await house.platform.remove("web-1", fence=FENCE)
    await house.until_gone(killed_agent)


async def test_what_died_while_nobody_looked_is_started_again(
    house: House, killed_agent: set[psutil.Process]
) -> None:
    for process in killed_agent:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    house.new_driver()
    await house.until_gone(killed_agent)
    await house.until_restarted(1)
    assert await house.answer("/") == "serve"


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
async def test_what_started_while_its_agent_died_is_not_left_alone(
    house: House, killed_agent: set[psutil.Process], pid: int
) -> None:
    """The record is that of before the start, or before a restart: nobody wrote down what runs now."""
    record = house.folder / "w" / "releases" / "web-1.json"
    kept = json.loads(record.read_text())
    kept["instances"][0].update(pid=pid, created=0.0, phase="starting")
    record.write_text(json.dumps(kept))
    house.new_driver()
    adopted = await house.until(lambda p: p.ready)
    assert adopted.instances[0].restarts == 0
    assert house.processes() == killed_agent
    await house.platform.remove("web-1", fence=FENCE)
    await house.until_gone(killed_agent)


async def test_what_was_stopped_is_not_ready_and_starts_with_the_next_agent(house: House) -> None:
    await house.ready()
    before = house.processes()
    await house.platform.stop()
    await house.platform.tend()
    assert house.processes() == set()
    stopped = await house.new_driver().observe("web-1")
    assert stopped is not None
    assert not stopped.ready
    back = await house.until(lambda p: p.ready)
    assert back.instances[0].restarts == 0
    assert not house.processes() & before


async def test_killing_any_process_of_a_workload_ends_all_of_it_and_starts_it_again(house: House) -> None:
    await house.ready("parent")
    # Not its last process, which is the workload's own child; and a fifth crash in a row would be the last.
    for number in range(min(4, len(house.processes()) - 1)):
        before = house.processes()
        sorted(before, key=lambda p: len(p.parents()))[number].send_signal(signal.SIGKILL)
        await house.until_restarted(number + 1)
        await house.until_gone(before)
        assert (await house.answer("/")) == "parent"


async def test_what_does_not_answer_keeps_nobody_waiting_and_is_not_brought_back(house: House) -> None:
    """Care goes on while two instances are asked; removing them then must be the last word."""
    two = replace(workload(house.artifact, "mute"), replicas=2)
    await house.platform.place(two, fence=FENCE)
    over = False

    async def care() -> None:
        while not over:
            await house.platform.tend()
            await asyncio.sleep(0.001)

    caring = asyncio.ensure_future(care())
    async with asyncio.timeout(SECONDS):
        while (await house.platform.logs("web-1", 2)).count("asked") < 2:
            await asyncio.sleep(0.01)
    await house.platform.remove("web-1", fence=FENCE)
    over = True
    await caring
    assert house.processes() == set()


async def test_what_is_removed_before_it_has_begun_is_gone_soon(house: House) -> None:
    await house.platform.place(workload(house.artifact), fence=FENCE)
    await house.platform.remove("web-1", fence=FENCE)
    assert house.processes() == set()


async def test_an_answer_under_way_is_given_before_it_ends(house: House) -> None:
    ready = await house.ready()
    answer = asyncio.ensure_future(ask(ready.instances[0].address, "/slow"))
    async with asyncio.timeout(SECONDS):
        while "slow has begun" not in await house.platform.logs("web-1", 5):
            await asyncio.sleep(0.01)
    await house.platform.remove("web-1", fence=FENCE)
    assert await answer == "z" * 1_000_000


async def test_it_is_ready_when_it_accepts_if_it_has_no_health_path(house: House) -> None:
    assert (await house.ready(health_path="")).instances[0].phase is Phase.READY


async def test_bytes_pass_both_ways_and_each_way_ends_by_itself(house: House) -> None:
    ready = await house.ready("echo", health_path="")
    reader, writer = await dialled(ready.instances[0].address)
    sent = bytes(range(256)) * 20_000

    async def send() -> None:
        writer.write(sent)
        await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(SECONDS):
        _, received = await asyncio.gather(send(), reader.read())
    assert received == sent + b"(the end)"
    writer.close()
    await writer.wait_closed()


async def test_connections_that_are_over_leave_nothing_open(sandboxed: House) -> None:
    ready = await sandboxed.ready()
    (shim,) = [p for p in sandboxed.processes() if "/run/shim.py" in p.cmdline()[:4]]
    await ask(ready.instances[0].address, "/")
    for _ in range(40):
        await ask(ready.instances[0].address, "/")
    async with asyncio.timeout(SECONDS):
        while shim.num_fds() > 20:
            await asyncio.sleep(0.05)


async def test_a_neighbour_is_reached_once_the_proxy_is_there(house: House) -> None:
    ready = await house.ready()
    assert (await ask(ready.instances[0].address, "/call")).startswith("refused")
    path = ready.egress[0].address

    async def neighbour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nseven")
        writer.close()

    if path.startswith("unix:"):
        server = await asyncio.start_unix_server(neighbour, path.removeprefix("unix:"))
    else:
        server = await asyncio.start_server(neighbour, "127.0.0.1", int(path.rpartition(":")[2]))
    try:
        assert await ask(ready.instances[0].address, "/call") == "seven"
    finally:
        server.close()


async def test_a_workload_cannot_choose_what_the_proxy_connects_to(sandboxed: House) -> None:
    ready = await sandboxed.ready()
    for path in ("/run/penstock/in.sock", "/run/penstock/out/0.sock", "/run/x", "/app/x", "/x"):
        assert (await ask(ready.instances[0].address, f"/plant{path}")).startswith("refused"), path
    assert await ask(ready.instances[0].address, "/plant/data/x") == "planted"
    assert Path(ready.instances[0].address.removeprefix("unix:")).is_socket()


async def test_a_folder_with_too_long_a_path_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    folder = tmp_path / ("long" * 25)
    platform = Processes(folder, tmp_path / "artifacts", sandbox)
    with pytest.raises(Invalid, match="too long"):
        await platform.place(workload(put_image(tmp_path / "artifacts")), fence=FENCE)
    assert await platform.observe("web-1") is None


async def test_a_changed_blob_is_never_run(house: House) -> None:
    for path in (house.folder / "artifacts" / "blobs" / "sha256").iterdir():
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(Broken):
            await house.platform.place(workload(house.artifact), fence=FENCE)
        path.write_bytes(kept)
    assert house.processes() == set()


async def test_what_is_not_an_image_for_this_machine_is_refused(house: House) -> None:
    layout = house.folder / "artifacts"
    other = put_image(layout, "cp27")
    plain = layout / "blobs" / "sha256" / hex_of(digest(b"not an image"))
    plain.write_bytes(b"not an image")
    with pytest.raises(Invalid, match="cp27"):
        await house.platform.place(workload(other), fence=FENCE)
    with pytest.raises(Invalid, match="does not have"):
        await house.platform.place(workload("sha256:" + "0" * 64), fence=FENCE)
    with pytest.raises(Broken, match="not JSON"):
        await house.platform.place(workload(digest(b"not an image")), fence=FENCE)


async def test_an_image_that_nobody_runs_is_forgotten(house: House) -> None:
    await house.ready()
    unpacked = house.folder / "w" / "images"
    assert [path.name for path in unpacked.iterdir()] == [hex_of(house.artifact)]
    await house.platform.remove("web-1", fence=FENCE)
    assert not list(unpacked.iterdir())


async def test_a_taken_port_is_said_in_the_workloads_own_words(short_tmp: Path) -> None:
    async with open_house(short_tmp, Unsandboxed()) as house:
        (instance,) = (await house.ready()).instances
        await house.platform.stop()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", int(instance.address.rpartition(":")[2])))
            taken.listen()
            house.new_driver()
            told = await house.until(lambda p: "Address already in use" in p.reason)
        assert not told.failed, "what once served is not given up"


async def test_what_does_not_come_up_at_one_port_tries_another(short_tmp: Path) -> None:
    async with open_house(short_tmp, Unsandboxed()) as house:
        ends_at_once = replace(workload(house.artifact), command=("python3", "/app/none.py"))
        placed = await house.platform.place(ends_at_once, fence=FENCE)
        first = placed.instances[0].address
        await house.until(lambda p: p.instances[0].address != first)


@pytest.mark.parametrize(
    ("life", "why"),
    [
        (
            "elsewhere",
            r": it must listen on 127\.0\.0\.1:\$PORT \(here \d+\), and it listened on 127\.0\.0\.1:\d+;",
        ),
        ("mute", ": no answer below 500 came from /health;"),
    ],
)
async def test_what_never_gets_ready_is_told_what_it_must_do(house: House, life: str, why: str) -> None:
    late = replace(workload(house.artifact, life), start_seconds=1.0)
    await house.platform.place(late, fence=FENCE)
    failed = await house.until(lambda p: p.failed)
    assert re.search(f"^not ready after 1 s{why}", failed.reason), failed.reason
