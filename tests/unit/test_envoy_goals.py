"""Users of an experiment, read from access logs that hold anything, rotate, and are read again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from penstock.adapters.envoy import users as module
from penstock.adapters.envoy.users import LOST, Fold
from penstock.core.experiment import Goal, Seen

SHOP, SALT, GOAL = "shop.production", "shop-1a2b", Goal("/orders", "POST")


def line(user: str, release: Any = "shop-1", path: str = "/", method: str = "GET", **more: Any) -> str:
    known = {"service": SHOP, "release": release, "method": method, "path": path, "status": 200}
    return json.dumps({**known, "ticket": f"{SALT}:{user}", "id": os.urandom(4).hex(), **more}) + "\n"


def ordered(user: str, release: str = "shop-1", path: str = "/orders", status: int = 201) -> str:
    return line(user, release, path, "POST", status=status)


class Place:
    def __init__(self, folder: Path) -> None:
        self.log, self.file = folder / "access.log", folder / "users.jsonl"
        self.log.write_text(line("before"))

    def begun(self) -> Fold:
        return Fold.begun(self.file, self.log, SHOP, SALT, GOAL)

    def found(self) -> Fold:
        fold = Fold.found(self.file, self.log, SHOP)
        assert fold is not None
        return fold

    def write(self, *lines: str) -> None:
        with self.log.open("a") as log:
            log.write("".join(lines))

    def rotate(self) -> None:
        self.log.replace(self.log.with_suffix(".log.1"))
        long_ago = time.time() - 10
        os.utime(self.log.with_suffix(".log.1"), (long_ago, long_ago))


def seen(fold: Fold) -> dict[str, Seen]:
    fold.advance()
    return dict(fold.users().seen)


def test_each_user_counts_once_and_once_at_the_goal(tmp_path: Path) -> None:
    place = Place(tmp_path)
    fold = place.begun()
    place.write(line("a"), line("a"), ordered("a"), ordered("a"), line("b", "shop-2"))
    assert seen(fold) == {"shop-1": Seen(1, 1), "shop-2": Seen(1, 0)}
    place.write(ordered("b", "shop-2", status=500), ordered("b", "shop-2", path="/orders/7"))
    assert seen(fold)["shop-2"] == Seen(1, 0)
    place.write(ordered("b", "shop-2", status=303), ordered("c"))
    assert seen(fold) == {"shop-1": Seen(2, 2), "shop-2": Seen(1, 1)}


def test_others_users_and_nonsense_are_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path)
    fold = place.begun()
    strange: list[Any] = [None, 7, "", "shop-9:a", SALT, [SALT]]
    place.write(*(line("x", ticket=ticket) for ticket in strange))
    place.write(line("x", service="cart.production"), line("x", release=None), line("x", status="-"))
    place.write(f"{SALT}\n", f'"{SALT}"\n', "\n", line("x")[:-20] + "\n")
    assert seen(fold) == {}
    place.write(line("half")[:30])
    assert seen(fold) == {}
    place.write(line("half")[30:])
    assert seen(fold) == {"shop-1": Seen(1, 0)}


def test_who_is_answered_by_another_release_has_moved(tmp_path: Path) -> None:
    place = Place(tmp_path)
    fold = place.begun()
    place.write(line("a"), line("a", "shop-2"), ordered("a", "shop-2"), line("a"), line("b"))
    assert seen(fold) == {"shop-1": Seen(2, 0)}
    assert fold.users().moved == 1
    assert place.found().users().moved == 1


def test_it_goes_on_where_another_left_off_and_reading_twice_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    first = place.begun()
    place.write(line("a"), ordered("b"))
    known = seen(first)
    again = place.found()
    assert again.users().seen == known
    place.write(ordered("a"), line("c"))
    kept = place.file.read_bytes()
    assert seen(again) == {"shop-1": Seen(3, 2)}
    # Died before its own file was written to, or in the middle of that.
    place.file.write_bytes(kept)
    assert seen(place.found()) == {"shop-1": Seen(3, 2)}
    place.file.write_bytes(place.file.read_bytes()[:-9])
    assert seen(place.found()) == {"shop-1": Seen(3, 2)}
    assert place.found().head == first.head


def test_what_was_written_before_a_rotation_is_read_after_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    fold = place.begun()
    place.write(line("a"))
    assert seen(fold) == {"shop-1": Seen(1, 0)}
    place.write(line("b"))
    place.rotate()
    place.write(line("c"))
    assert seen(fold) == {"shop-1": Seen(3, 0)}
    assert fold.users().lost == ""


def test_a_log_that_was_rotated_twice_is_told_as_lost_for_good(tmp_path: Path) -> None:
    place = Place(tmp_path)
    fold = place.begun()
    for user in "abc":
        place.write(line(user))
        place.rotate()
    place.write(line("d"))
    fold.advance()
    assert fold.users().lost == LOST
    assert place.found().users().lost == LOST


def test_no_more_users_than_can_be_held(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_USERS", 3)
    place = Place(tmp_path)
    fold = place.begun()
    place.write(*(ordered(user) for user in "abcde"), ordered("a"))
    assert seen(fold) == {"shop-1": Seen(3, 3)}
    assert fold.users().full


def test_a_file_that_nobody_can_read_is_none(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert Fold.found(place.file, place.log, SHOP) is None
    for text in ("", "{}\n", "[]\n", '{"epoch": "1"}\n'):
        place.file.write_text(text)
        assert Fold.found(place.file, place.log, SHOP) is None
    place.begun()
    with place.file.open("a") as file:
        file.write('{"what": 1}\n')
    assert Fold.found(place.file, place.log, SHOP) is None


def test_it_begins_where_nobody_has_logged_anything(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.log.unlink()
    fold = place.begun()
    assert seen(fold) == {}
    place.write(line("a"))
    assert seen(fold) == {"shop-1": Seen(1, 0)}
    assert fold.users().lost == ""
