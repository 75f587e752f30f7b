"""What users asked for, read from the end of an access log that holds anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.adapters.envoy.visits import MOST, TAIL_BYTES, read_visits

SHOP = "shop.production"


def line(path: Any = "/items", second: int = 1, **more: Any) -> str:
    known = {"time": f"2026-11-27T10:00:{second:02}.500Z", "service": SHOP, "release": "shop-1"}
    return json.dumps({**known, "method": "GET", "path": path, "status": 200, **more}) + "\n"


def paths(folder: Path, *lines: str, since: float = 0.0) -> list[str]:
    log = folder / "access.log"
    log.write_text("".join(lines))
    return [visit.path for visit in read_visits(log, SHOP, since)]


def test_users_alone_and_in_order(tmp_path: Path) -> None:
    others = [
        line("/dark", release="shop-2+preview"),
        line("/post", method="POST"),
        line("/cart", service="cart.production"),
        line("/nowhere", release=None),
    ]
    assert paths(tmp_path, line("/b", 2), *others, line("/a", 1)) == ["/a", "/b"]


def test_only_what_came_after(tmp_path: Path) -> None:
    (first, second) = read_visits(_written(tmp_path, line(second=1), line(second=2)), SHOP, 0.0)
    assert second.at - first.at == 1.0
    assert read_visits(tmp_path / "access.log", SHOP, first.at) == (second,)


def test_what_is_no_entry_or_no_plain_path_is_passed_over(tmp_path: Path) -> None:
    broken = [line()[:40] + "\n", '"shop.production"\n', "[]\n", line(time="noon"), line(time=5)]
    strange = [line("/" + "a" * 1000), line("/ä"), line("/a\nb"), line("http://192.0.2.1/"), line(7)]
    assert paths(tmp_path, *broken, *strange, line("/good"), line()[:50]) == ["/good"]


def test_no_log_is_no_visit_and_a_long_one_is_read_from_its_end(tmp_path: Path) -> None:
    assert read_visits(tmp_path / "access.log", SHOP, 0.0) == ()
    many = [line(f"/{number}") for number in range(TAIL_BYTES // len(line()) + 5000)]
    found = paths(tmp_path, *many)
    assert len(found) == MOST
    assert found[-1] == f"/{len(many) - 1}"


def _written(folder: Path, *lines: str) -> Path:
    log = folder / "access.log"
    log.write_text("".join(lines))
    return log
