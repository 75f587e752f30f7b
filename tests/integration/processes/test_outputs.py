"""What services write: bounded on disk, and shown without the release's secrets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.integration.processes.house import FENCE, House, workload

from penstock.adapters.processes.record import LOG_BYTES, WINDOW


async def test_a_log_is_bounded_and_goes_on(house: House) -> None:
    await house.ready()
    log = house.folder / "w" / "logs" / "web-1" / "0.log"
    with log.open("ab") as file:
        file.write(b"x" * LOG_BYTES + b"the last of the old\n")
    await house.platform.tend()
    assert log.stat().st_size == 0
    assert log.with_suffix(".log.1").stat().st_size > LOG_BYTES
    await house.answer("/slow")
    assert (await house.platform.logs("web-1", 1)) == ("slow has begun",)


@pytest.mark.parametrize("cut", range(0, 12, 3))
async def test_the_end_of_a_secret_is_not_shown_where_the_log_is_cut(house: House, cut: int) -> None:
    secret = "sesame-open!"
    known = replace(workload(house.artifact), secrets=(secret,))
    await house.platform.place(known, fence=FENCE)
    log = house.folder / "w" / "logs" / "web-1" / "0.log"
    after = b"\n" + b"y" * 100 + b"\n"
    filler = b"z" * (WINDOW - len(after) - len(secret) + cut - 5)
    log.write_bytes(b"begin\n" + b"a" * 50 + secret.encode() + filler[5:] + b"\nseen" + after)
    shown = "".join(await house.platform.logs("web-1", 9))
    assert secret[-3:] not in shown
    assert "seen" in shown


async def test_what_it_is_given_is_in_no_list_of_processes(house: House) -> None:
    given = replace(workload(house.artifact), env={"KEY": "sesame-open"})
    await house.platform.place(given, fence=FENCE)
    await house.until(lambda p: p.ready)
    assert house.processes()
    assert not [p for p in house.processes() if "sesame" in " ".join(p.cmdline())]
