"""The same files give the same image, and a damaged one is never described."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.digest import digest
from penstock.core.image import (
    MAX_FILE_BYTES,
    MAX_LAYER_BYTES,
    Described,
    File,
    Held,
    Recipe,
    assemble,
    read_config,
    read_manifest,
)
from penstock.errors import Broken, Invalid

RECIPE = Recipe(("python3", "app.py"), {"B": "2", "A": "1=x"}, {"label": "ä"}, "linux/amd64", 1_700_000_000)
FILES = (File("b/app.py", b"pass\n"), File("a", b"", executable=True), File("l", link="a"))
GOLDEN = "sha256:afd1a375a73c53dad66aa1c71efd6b4e27fad42641b677f3188d5ebdcd5dce48"


def test_the_order_of_files_does_not_matter() -> None:
    forward, backward = assemble(FILES, RECIPE), assemble(reversed(FILES), RECIPE)
    assert forward == backward
    assert forward.digest == digest(forward.manifest)


def test_the_bytes_never_change() -> None:
    # The configuration names the layer as it is before compression (which may differ between zlibs).
    # If this digest changes, so does every artifact's.
    assert digest(assemble(FILES, RECIPE).config) == GOLDEN


def test_compiled_python_is_left_out() -> None:
    compiled = (File("b/__pycache__/app.cpython-311.pyc", b"1"), File("x.pyc", b"2"))
    assert assemble((*FILES, *compiled), RECIPE) == assemble(FILES, RECIPE)


@pytest.mark.parametrize(
    "other",
    [
        (*FILES, File("c", b"")),
        (File("b/app.py", b"pass\n"), File("a", b""), File("l", link="a")),
        (File("b/app.py", b"pass\n"), File("a", b"", executable=True), File("l", link="b")),
    ],
)
def test_content_mode_and_link_matter(other: tuple[File, ...]) -> None:
    assert assemble(other, RECIPE).digest != assemble(FILES, RECIPE).digest


def test_bytes_that_are_held_elsewhere_are_the_same() -> None:
    held = (File("b/app.py", Held(5, lambda: b"pass\n")), *FILES[1:])
    assert assemble(held, RECIPE) == assemble(FILES, RECIPE)


def test_what_is_too_large_is_refused_before_any_of_it_is_read() -> None:
    def unread() -> bytes:
        raise AssertionError("it was read")

    half = Held(MAX_LAYER_BYTES // 2 - 512, unread)
    fits = (*(File(name, half) for name in "ab"), File("x.pyc", Held(MAX_FILE_BYTES + 1, unread)))
    with pytest.raises(AssertionError, match="it was read"):
        assemble(fits, RECIPE)
    with pytest.raises(Invalid, match=rf"^a: the image is larger than {MAX_LAYER_BYTES} bytes") as caught:
        assemble((*fits, File("empty")), RECIPE)
    assert "leave out" in caught.value.next_move
    with pytest.raises(Invalid, match=rf"^c: larger than {MAX_FILE_BYTES} bytes") as caught:
        assemble((*FILES, File("c", Held(MAX_FILE_BYTES + 1, unread))), RECIPE)
    assert "leave out" in caught.value.next_move


def test_what_is_written_can_be_read() -> None:
    blobs = assemble(FILES, RECIPE)
    assert read_manifest(blobs.manifest) == (digest(blobs.config), digest(blobs.layer))
    described = Described(RECIPE.command, RECIPE.env, RECIPE.labels, RECIPE.platform)
    assert read_config(blobs.config) == described
    assert blobs.all[-1] == blobs.manifest


@given(st.binary(max_size=50) | st.sampled_from([b"{}", b"[]", b'{"layers": [1]}', b'{"config": 3}']))
def test_damaged_bytes_are_broken(data: bytes) -> None:
    with pytest.raises(Broken):
        read_manifest(data)
    with pytest.raises(Broken):
        read_config(data)
