"""Fences on disk: who is refused, and what a restart, a full disk and a damaged file change about it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.fence import Fence
from penstock.errors import Broken, Conflict, Unavailable
from penstock.node.fences import Fences, read_record, write_record


def fence(number: int, scope: str = "web/production") -> Fence:
    return Fence(scope, number, "deploy-1")


def passes(fences: Fences, wanted: Fence) -> bool:
    try:
        fences.pass_through(wanted)
    except Conflict:
        return False
    return True


def test_a_refusal_names_both_numbers_and_the_call(tmp_path: Path) -> None:
    fences = Fences(tmp_path / "fences.json")
    fences.pass_through(fence(5))
    with pytest.raises(Conflict, match="fence 4 is stale: 5 has been seen") as raised:
        fences.pass_through(fence(4))
    assert raised.value.where == "web/production: deploy-1"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.booleans()), max_size=12))
def test_what_passes_is_never_lower_than_what_passed(story: list[tuple[str, int, bool]]) -> None:
    """Whatever the order, in each scope alone, and whenever the agent was started again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fences.json"
        fences, highest = Fences(path), {"a": 0, "b": 0}
        for scope, number, restart in story:
            fences = Fences(path) if restart else fences
            assert passes(fences, fence(number, scope)) == (number >= highest[scope])
            highest[scope] = max(highest[scope], number)


def test_what_could_not_be_kept_was_not_let_through(tmp_path: Path) -> None:
    path = tmp_path / "fences.json"
    fences = Fences(path)
    fences.pass_through(fence(3))
    (tmp_path / "fences.new").mkdir()  # nobody can write a file there, root neither
    for _ in range(2):  # that it was tried once must not make it pass
        with pytest.raises(Unavailable, match="cannot be written") as raised:
            fences.pass_through(fence(5))
        assert raised.value.next_move
    assert passes(fences, fence(3))  # this one is on disk already
    (tmp_path / "fences.new").rmdir()
    assert passes(fences, fence(5))
    assert not passes(Fences(path), fence(4))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"web/production": "5"}', b'{"a": true}'])
def test_a_damaged_record_is_never_taken_for_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fences.json"
    path.write_bytes(content)
    with pytest.raises(Broken) as raised:
        Fences(path)
    assert raised.value.where == str(path)
    assert raised.value.next_move


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "scopes.json"
    assert read_record(path, dict[str, str]) == {}
    write_record(path, {"web-1": "web/production", "é\n": ""})
    write_record(path, {"web-2": "web/production", "é\n": ""})
    assert read_record(path, dict[str, str]) == {"web-2": "web/production", "é\n": ""}
    assert [file.name for file in tmp_path.iterdir()] == ["scopes.json"]
