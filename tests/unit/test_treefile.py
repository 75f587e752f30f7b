"""Files of a tree that strangers wrote to: what is out of it, no file, or too large is never read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.errors import Invalid
from penstock.treefile import read_inside, read_plain


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("key")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("12345")
    return tmp_path / "tree"


def test_a_file_is_read_through_a_link_that_stays_inside(tree: Path) -> None:
    (tree / "link").symlink_to("file")
    assert read_inside(tree, "link", 5) == b"12345"
    with pytest.raises(Invalid, match="link: "):
        read_plain(tree / "link", 5, "link")


def test_what_leads_out_is_not_read(tree: Path) -> None:
    (tree / "out").symlink_to(tree.parent)
    (tree / "secret").symlink_to(tree.parent / "secret")
    for name in ("secret", "out/secret", "../secret", str(tree.parent / "secret")):
        with pytest.raises(Invalid, match="a link out of the repository") as caught:
            read_inside(tree, name, 100)
        assert (caught.value.where, bool(caught.value.next_move)) == (name, True)


def test_what_is_no_file_is_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    (tree / "loop").symlink_to("loop")
    for name in ("pipe", ".", "loop", "nothing"):
        with pytest.raises(Invalid) as caught:
            read_inside(tree, name, 100)
        assert caught.value.where == name


def test_a_file_of_holes_is_not_read(tree: Path) -> None:
    os.truncate(tree / "file", 1024**4)  # takes no room on the disk
    with pytest.raises(Invalid, match=r"file: larger than 5 bytes: it has 1099511627776"):
        read_inside(tree, "file", 5)
