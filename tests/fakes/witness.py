"""A witness over real HTTP, by the letter of c2sp.org/tlog-witness: what stands behind the adapter in tests.

It remembers one tree head for each log, checks every proof, and signs with a key of its own. *answer* makes
it say something else. Must not know the ledger.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstock.core import merkle
from penstock.core.notes import Checkpoint, VerifierKey, claimed_size, cosign, open_note, split
from penstock.errors import Invalid

Answer = tuple[int, str, str]
PLAIN = "text/plain"
WORDS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}


class WitnessServer:
    """Serves on a free port between `start` and `stop`, for the *logs* (origin → raw public key) it knows."""

    def __init__(self, name: str = "witness.example/w1") -> None:
        self._private = Ed25519PrivateKey.generate()
        self.key = VerifierKey(name, self._private.public_key().public_bytes_raw())
        self.logs: dict[str, bytes] = {}
        self.seen: dict[str, Checkpoint] = {}
        self.time = 1_700_000_000
        #: What it was sent, and what to answer in place of the truth.
        self.asked: list[str] = []
        self.answer: Answer | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/w"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()
        while self._open:
            await asyncio.sleep(0)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
                    body = (await reader.readexactly(int(fields.get("content-length", 0)))).decode()
                    writer.write(_response(*self._decide(head.partition("\r\n")[0], body)))
                    await writer.drain()
        finally:
            writer.close()
            self._open.discard(writer)

    def _decide(self, request: str, body: str) -> Answer:
        if request != "POST /w/add-checkpoint HTTP/1.1":
            return 404, PLAIN, "no such call\n"
        self.asked.append(body)
        return self.answer or self.add_checkpoint(body)

    def add_checkpoint(self, body: str) -> Answer:
        """The specification's checks, in its order."""
        try:
            old, proof, note = _parsed(body)
            origin = note.partition("\n")[0]
            size = claimed_size(note)
        except (Invalid, ValueError, binascii.Error) as error:
            return 400, PLAIN, f"{error}\n"
        if origin not in self.logs:
            return 404, PLAIN, "unknown log\n"
        try:
            head = open_note(note, origin, self.logs[origin], verified)
        except Invalid as error:
            return 403, PLAIN, f"{error}\n"
        if old > size:
            return 400, PLAIN, "the old size is larger\n"
        seen = self.seen.get(origin, Checkpoint(origin, 0, merkle.EMPTY_ROOT))
        if old != seen.size:
            return 409, "text/x.tlog.size", f"{seen.size}\n"
        if old == size and head.root != seen.root:
            return 409, PLAIN, "another tree of this size\n"
        if not merkle.is_consistent(old, size, seen.root, head.root, proof):
            return 422, PLAIN, "the proof does not verify\n"
        self.seen[origin] = head
        return 200, PLAIN, self.signed(note)

    def signed(self, note: str) -> str:
        """A cosignature of a note's text."""
        return str(cosign(split(note)[0], self.key, self.time, self._private.sign))


def verified(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parsed(body: str) -> tuple[int, list[bytes], str]:
    """(old size, proof, note) of a request, strictly."""
    head, separator, note = body.partition("\n\n")
    first, *lines = head.split("\n")
    word, _, old = first.partition(" ")
    if not separator or word != "old" or str(int(old)) != old or len(lines) > 63:
        raise ValueError("not an old size line, a proof and a checkpoint")
    proof = [base64.b64decode(line, validate=True) for line in lines]
    if any(len(step) != 32 for step in proof):
        raise ValueError("a proof step that is no hash")
    return int(old), proof, note


def _response(status: int, kind: str, text: str) -> bytes:
    raw = text.encode()
    word = WORDS.get(status, "Odd")
    head = f"HTTP/1.1 {status} {word}\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n\r\n"
    return head.encode() + raw
