"""Keys in files: made once, read by their owner alone."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from penstock.adapters.ed25519 import Ed25519
from penstock.errors import Invalid, Unavailable
from penstock.ledger.signatures import signed_by


def test_a_key_comes_back_as_the_same_identity(tmp_path: Path) -> None:
    made = Ed25519.create(tmp_path / "key")
    read = Ed25519.load(tmp_path / "key")
    assert (read.keyid, read.public_key) == (made.keyid, made.public_key)
    assert made.keyid == hashlib.sha256(made.public_key).hexdigest()
    signature = read.sign(b"payload")
    assert signature.keyid == made.keyid
    assert signed_by(made.public_key, b"payload", signature.value)
    assert not signed_by(made.public_key, b"Payload", signature.value)
    assert not signed_by(b"short", b"payload", signature.value)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    Ed25519.create(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(Invalid):
        Ed25519.create(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_kept_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Invalid, match="No space left"):
            Ed25519.create(tmp_path / "key")
    assert list(tmp_path.iterdir()) == [], "the next start makes it"
    Ed25519.create(tmp_path / "key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_may_touch_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    Ed25519.create(path)
    path.chmod(mode)
    with pytest.raises(Invalid) as caught:
        Ed25519.load(path)
    assert caught.value.next_move == f"chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"\xff\xfe"])
def test_a_file_that_holds_no_key_is_invalid(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Invalid):
        Ed25519.load(path)


def test_a_key_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Ed25519.load(tmp_path / "key")
