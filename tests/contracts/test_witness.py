"""What every `Witness` must do, against a witness that checks: `HttpWitness` and a real HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.web import free_port
from fakes.witness import Answer, WitnessServer, verified
from penstock.adapters.witness import MAX_ANSWER, HttpWitness
from penstock.core import merkle
from penstock.core.notes import Checkpoint, SignatureLine, WitnessedSize, cosigned_at, sign_note, split
from penstock.errors import Invalid, Refused, Unavailable
from penstock.ports import Witness

ORIGIN = "log.example"


@dataclass
class Log:
    """A log with as many leaves as are asked for; another *history* has other leaves."""

    history: str = ""
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in range(300):
            leaf = merkle.leaf_hash(f"{self.history}{index}".encode())
            for level, place, value in merkle.completed_by(index, leaf, self.node):
                self.nodes[level, place] = value

    def node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    def note(self, size: int, origin: str = ORIGIN) -> str:
        head = Checkpoint(origin, size, merkle.root(size, self.node))
        return sign_note(head, self.public, self.private.sign)

    def proof(self, old: int, new: int) -> list[bytes]:
        return merkle.consistency(old, new, self.node)


@dataclass
class Subject:
    """The adapter, the witness behind it, and a log that it knows."""

    witness: Witness
    server: WitnessServer
    log: Log

    async def grow(self, old: int, new: int) -> SignatureLine:
        """Have the log cosigned at size *new*; the line is genuine."""
        note = self.log.note(new)
        text = await self.witness.cosign(old, self.log.proof(old, new), note)
        (line,) = split(f"{split(note)[0]}\n{text}")[1]
        assert cosigned_at(split(note)[0], line, self.server.key, verified) == self.server.time
        return line


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    server, log = WitnessServer(), Log()
    server.logs[ORIGIN] = log.public
    await server.start()
    yield Subject(HttpWitness(server.url), server, log)
    await server.stop()


async def test_a_log_that_grows_is_cosigned_at_every_size(subject: Subject) -> None:
    old = 0
    for size in (1, 2, 3, 7, 8, 100, 256, 257, 300):
        await subject.grow(old, size)
        assert subject.server.seen[ORIGIN].size == size
        old = size


async def test_the_same_size_is_cosigned_again(subject: Subject) -> None:
    first = await subject.grow(0, 5)
    subject.server.time += 60
    assert await subject.grow(5, 5) != first


@pytest.mark.parametrize("old", [0, 3, 9])
async def test_a_witness_that_is_elsewhere_says_where(subject: Subject, old: int) -> None:
    await subject.grow(0, 5)
    with pytest.raises(WitnessedSize) as caught:
        await subject.witness.cosign(old, subject.log.proof(old, 20), subject.log.note(20))
    assert caught.value.size == 5
    await subject.grow(5, 20)


async def test_another_history_is_never_cosigned(subject: Subject) -> None:
    await subject.grow(0, 5)
    other = Log("other", subject.log.private)
    for size in (5, 6, 8):
        with pytest.raises(Refused, match=r"two histories|only grew"):
            await subject.witness.cosign(5, other.proof(5, size), other.note(size))
    await subject.grow(5, 8)


async def test_a_false_proof_is_refused(subject: Subject) -> None:
    await subject.grow(0, 5)
    with pytest.raises(Refused, match="only grew"):
        await subject.witness.cosign(5, [bytes(32)], subject.log.note(8))


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (lambda log: log.note(5, "unknown.example"), "does not know this log"),
        (lambda _: Log().note(5), "does not trust the key"),
    ],
)
async def test_a_log_that_the_witness_does_not_know_is_refused(
    subject: Subject, note: Callable[[Log], str], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        await subject.witness.cosign(0, [], note(subject.log))


@pytest.mark.parametrize(
    "answer",
    [
        (500, "text/plain", "sorry\n"),
        (429, "text/plain", "later\n"),
        (302, "text/plain", ""),
        (200, "text/plain", "x" * (MAX_ANSWER + 1)),
    ],
    ids=lambda answer: str(answer[0]),
)
async def test_a_witness_that_is_not_well_is_unavailable(subject: Subject, answer: Answer) -> None:
    subject.server.answer = answer
    with pytest.raises(Unavailable):
        await subject.witness.cosign(0, [], subject.log.note(5))


@pytest.mark.parametrize("text", ["", "five\n", "05\n", "-5\n", "5", "9" * 30 + "\n"])
async def test_a_size_that_is_none_is_refused(subject: Subject, text: str) -> None:
    subject.server.answer = (409, "text/x.tlog.size", text)
    with pytest.raises(Refused):
        await subject.witness.cosign(0, [], subject.log.note(5))


async def test_a_witness_that_is_not_there_is_unavailable(subject: Subject) -> None:
    with pytest.raises(Unavailable):
        await HttpWitness(f"http://127.0.0.1:{free_port()}").cosign(0, [], subject.log.note(5))


@pytest.mark.parametrize(
    "url", ["", "witness.example", "ftp://w.example", "http://", "http://w?x=1", "http://w/#x"]
)
def test_what_is_no_submission_prefix_is_invalid(url: str) -> None:
    with pytest.raises(Invalid):
        HttpWitness(url)
