"""OpenSSH's signatures and keys: one form of everything, and nothing but `Invalid` for the rest."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import sshsig
from penstock.core.sshsig import SshSignature, string
from penstock.errors import Invalid
from penstock.ledger.signatures import signed_by

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
MESSAGE = b"DSSEv1 a statement"


def blob(namespace: str = "penstock", hash_name: str = "sha512", message: bytes = MESSAGE) -> bytes:
    value = KEY.sign(sshsig.signed_data(namespace, message, hash_name))
    return SshSignature(PUBLIC, namespace, hash_name, value).blob()


GOOD = blob()


@pytest.mark.parametrize("hash_name", sshsig.HASHES)
def test_a_signature_comes_apart_and_together(hash_name: str) -> None:
    made = blob(hash_name=hash_name)
    found = sshsig.parse(made)
    assert (found.public_key, found.namespace, found.hash_name) == (PUBLIC, "penstock", hash_name)
    assert found.blob() == made
    assert sshsig.dearmour(sshsig.armour(made)) == made
    assert signed_by(PUBLIC, MESSAGE, made)
    assert not signed_by(PUBLIC, MESSAGE + b"!", made)


def test_a_plain_signature_is_one_of_64_bytes() -> None:
    value = KEY.sign(MESSAGE)
    assert signed_by(PUBLIC, MESSAGE, value)
    assert not signed_by(PUBLIC, MESSAGE, value + b"\0")
    assert not signed_by(PUBLIC, MESSAGE, b"")


def test_a_signature_for_something_else_is_not_one_for_us() -> None:
    assert not signed_by(PUBLIC, MESSAGE, blob("git"))
    assert not signed_by(PUBLIC, MESSAGE, blob("Penstock"))
    # The inner value, over OpenSSH's wrapping, is no plain signature over the message either.
    assert not signed_by(PUBLIC, MESSAGE, sshsig.parse(GOOD).signature)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert not signed_by(other, MESSAGE, GOOD)
    assert not signed_by(b"short", MESSAGE, GOOD)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_verifies(place: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= change
    assert not signed_by(PUBLIC, MESSAGE, bytes(changed))


@given(st.integers(0, len(GOOD)), st.binary(min_size=1, max_size=8))
def test_no_inserted_or_missing_byte_verifies(place: int, more: bytes) -> None:
    assert not signed_by(PUBLIC, MESSAGE, GOOD[:place] + more + GOOD[place:])
    assert not signed_by(PUBLIC, MESSAGE, GOOD[:place] + GOOD[place + len(more) :]) or place == len(GOOD)


@given(st.integers(0, len(sshsig.armour(GOOD)) - 1), st.characters(max_codepoint=0x17F))
def test_no_changed_letter_of_a_text_gives_the_same_signature(place: int, letter: str) -> None:
    text = sshsig.armour(GOOD)
    changed = text[:place] + letter + text[place + 1 :]
    try:
        found = sshsig.dearmour(changed)
    except Invalid:
        found = b""
    assert (found == GOOD) == (changed == text)


def wrapped(*, key: bytes | None = None, reserved: bytes = b"", inner: bytes | None = None) -> bytes:
    value = sshsig.parse(GOOD).signature
    inner = string(b"ssh-ed25519") + string(value) if inner is None else inner
    fields = (sshsig.key_blob(PUBLIC) if key is None else key, b"penstock", reserved, b"sha512", inner)
    return b"SSHSIG\0\0\0\1" + b"".join(string(field) for field in fields)


def test_the_reserved_field_is_empty_and_nothing_follows() -> None:
    """OpenSSH passes over both, which would let somebody else write the same signature differently."""
    assert wrapped() == GOOD
    value = string(b"ssh-ed25519") + string(sshsig.parse(GOOD).signature)
    variants = (
        wrapped(reserved=b"x"),
        GOOD + b"\0",
        wrapped(key=sshsig.key_blob(PUBLIC) + b"\0"),
        wrapped(inner=value + b"\0"),
        wrapped(inner=string(b"ssh-rsa") + string(b"x" * 64)),
        wrapped(inner=string(b"ssh-ed25519") + string(b"x" * 63)),
        GOOD.replace(b"SSHSIG\0\0\0\1", b"SSHSIG\0\0\0\2"),
    )
    for variant in variants:
        with pytest.raises(Invalid):
            sshsig.parse(variant)
        assert not signed_by(PUBLIC, MESSAGE, variant)


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
def test_other_kinds_of_keys_are_refused_with_the_way_out(kind: str) -> None:
    other = wrapped(key=string(kind.encode()) + string(b"x" * 32))
    line = f"{kind} {base64.b64encode(string(kind.encode())).decode()} me@home"
    assert sshsig.key_kind(other) == kind
    for attempt in (lambda: sshsig.parse(other), lambda: sshsig.parse_public_key(line)):
        with pytest.raises(Invalid) as caught:
            attempt()
        assert "ssh-keygen -t ed25519" in caught.value.next_move


def test_an_unknown_hash_or_an_empty_purpose_is_invalid() -> None:
    for bad in (GOOD.replace(b"sha512", b"sha384"), blob("")):
        with pytest.raises(Invalid):
            sshsig.parse(bad)
    with pytest.raises(Invalid, match="md5"):
        sshsig.signed_data("penstock", MESSAGE, "md5")


@pytest.mark.parametrize("width", [64, 70, 76, 1000])
def test_lines_may_be_broken_elsewhere_but_all_at_one_place(width: int) -> None:
    text = sshsig.armour(GOOD, width)
    assert sshsig.dearmour(text) == GOOD
    for bad in (
        text.rstrip("\n"),
        text + "\n",
        text.replace("\n", "\r\n"),
        " " + text,
        text.replace("=", ""),
    ):
        if bad != text:
            with pytest.raises(Invalid):
                sshsig.dearmour(bad)


def test_a_public_key_is_read_in_its_one_form() -> None:
    line = sshsig.public_key_line(PUBLIC, "me@home")
    assert line.startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
    assert sshsig.parse_public_key(line + "\n") == PUBLIC
    assert sshsig.parse_public_key(sshsig.public_key_line(PUBLIC)) == PUBLIC
    word = line.split()[1]
    for bad in (
        "",
        "ssh-ed25519",
        word,
        f"ssh-ed25519 {word[:-1]}",
        f"ssh-ed25519 {word}AAAA",
        f"ssh-ed25519 {word}\nssh-ed25519 {word}",
        f"restrict ssh-ed25519 {word}",
        "ssh-ed25519 " + base64.b64encode(string(b"ssh-rsa") + string(PUBLIC)).decode(),
        line + " " + "x" * sshsig.MAX_BYTES,
    ):
        with pytest.raises(Invalid):
            sshsig.parse_public_key(bad)


HEAD = b"tree " + b"a" * 40 + b"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000"


def test_a_commit_is_what_was_signed_and_the_signature() -> None:
    lines = sshsig.armour(GOOD).rstrip("\n").replace("\n", "\n ").encode()
    message = b"\n\nsubject\n\ngpgsig is only a word here\n"
    signed = HEAD + b"\ngpgsig " + lines + b"\nencoding UTF-8" + message
    assert sshsig.split_commit(signed) == (HEAD + b"\nencoding UTF-8" + message, sshsig.armour(GOOD))
    assert sshsig.split_commit(HEAD + message) == (HEAD + message, "")
    other_ids = HEAD + b"\ngpgsig-sha256 " + lines + message
    assert sshsig.split_commit(other_ids) == (HEAD + message, "")
    long_ids = other_ids.replace(b"a" * 40, b"a" * 64)
    assert sshsig.split_commit(long_ids)[1] == sshsig.armour(GOOD)
    with pytest.raises(Invalid, match="more than once"):
        sshsig.split_commit(HEAD + b"\ngpgsig " + lines + b"\ngpgsig " + lines + message)


PARSERS: list[Callable[[bytes], object]] = [
    sshsig.parse,
    sshsig.key_kind,
    sshsig.take,
    sshsig.split_commit,
    lambda raw: sshsig.split_commit(HEAD + b"\n" + raw),
    lambda raw: sshsig.parse(b"SSHSIG\0\0\0\1" + raw),
    lambda raw: sshsig.dearmour(raw.decode("latin-1")),
    lambda raw: sshsig.dearmour(f"{sshsig.BEGIN}\n{raw.decode(errors='replace')}\n{sshsig.END}\n"),
    lambda raw: sshsig.parse_public_key(raw.decode(errors="replace")),
    lambda raw: sshsig.parse_public_key("ssh-ed25519 " + base64.b64encode(raw).decode()),
]


@pytest.mark.parametrize("number", range(len(PARSERS)))
@given(raw=st.binary(max_size=200) | st.builds(lambda n, b: GOOD[:n] + b, st.integers(0, 200), st.binary()))
def test_parsers_raise_nothing_but_invalid(number: int, raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        PARSERS[number](raw)
    assert not signed_by(PUBLIC, MESSAGE, b"SSHSIG" + raw)
