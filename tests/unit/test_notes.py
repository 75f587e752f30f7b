"""Checkpoints: our own, and a published note of somebody else's."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstock.core.notes import Checkpoint, key_hash, open_note, sign_note
from penstock.errors import Invalid
from penstock.ledger.signatures import signed_by

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
HEAD = Checkpoint("penstock", 7, bytes(range(32)))
NOTE = sign_note(HEAD, PUBLIC, KEY.sign)

#: The example of Go's package sumdb/note: its key, its text and its signature line.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def opened(text: str, origin: str = "penstock", key: bytes = PUBLIC) -> Checkpoint:
    return open_note(text, origin, key, signed_by)


def test_our_key_ids_and_signatures_are_those_of_the_published_example() -> None:
    name, hashed, encoded = GO_KEY.split("+", 2)
    kind, public = base64.b64decode(encoded)[:1], base64.b64decode(encoded)[1:]
    blob = base64.b64decode(GO_SIGNATURE)
    assert kind == b"\x01"
    assert key_hash(name, public).hex() == hashed == blob[:4].hex()
    assert signed_by(public, GO_TEXT.encode(), blob[4:])


def test_a_note_that_was_signed_opens() -> None:
    assert opened(NOTE) == HEAD


def test_lines_of_witnesses_and_extensions_are_left_alone() -> None:
    assert opened(NOTE + "— witness.example AAAAAQ==\n") == HEAD
    extended = HEAD.body() + "an extension\n"
    blob = key_hash("penstock", PUBLIC) + KEY.sign(extended.encode())
    assert opened(f"{extended}\n— penstock {base64.b64encode(blob).decode()}\n") == HEAD


@pytest.mark.parametrize("place", range(len(NOTE.encode())))
def test_no_byte_of_a_note_can_change(place: int) -> None:
    raw = bytearray(NOTE.encode())
    raw[place] ^= 1
    with pytest.raises(Invalid):
        opened(raw.decode(errors="replace"))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("penstock\n07\n" + base64.b64encode(bytes(32)).decode() + "\n", "a size with a leading zero"),
        ("penstock\n-7\n" + base64.b64encode(bytes(32)).decode() + "\n", "a size below zero"),
        ("penstock\n" + "9" * 5000 + "\n" + base64.b64encode(bytes(32)).decode() + "\n", "a huge size"),
        ("penstock\n٧\n" + base64.b64encode(bytes(32)).decode() + "\n", "digits of another script"),
        ("penstock\n7\nAB==\n", "stray bits in the root"),
        ("penstock\n7\n", "no root"),
        ("other\n7\n" + base64.b64encode(bytes(32)).decode() + "\n", "another log"),
    ],
    ids=lambda value: value if " " in value else "",
)
def test_a_signed_text_that_is_no_checkpoint_of_this_log_is_refused(body: str, why: str) -> None:
    blob = key_hash("penstock", PUBLIC) + KEY.sign(body.encode())
    with pytest.raises(Invalid):
        opened(f"{body}\n— penstock {base64.b64encode(blob).decode()}\n")


def test_another_key_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    with pytest.raises(Invalid, match="not signed by the log's key"):
        opened(NOTE, key=other)


@pytest.mark.parametrize("text", ["", "\n\n", "penstock", HEAD.body(), NOTE.rstrip("\n")])
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        opened(text)
