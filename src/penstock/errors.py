"""The five error words, and nothing else: every retry and every exit code follows from them.

Raised everywhere; translated into an exit code by ``cli`` and into an HTTP problem by ``server``.
An adapter must translate its client's errors into one of these before they leave its file.

    PenstockError
    ├── Invalid      you: where it is wrong, and how to fix it          exit 2   never retried
    ├── Refused      policy: which sign-offs are missing, who can help  exit 1   never retried
    ├── Conflict     someone moved it: read again                       exit 1   re-read, then retried
    ├── Unavailable  an outside system does not answer                  exit 3   retried with backoff
    └── Broken       one of our own invariants does not hold            exit 4   stop and say so
"""

from __future__ import annotations

from typing import ClassVar


class PenstockError(Exception):
    """An error a reader can act on: *what* happened, *where*, and the *next move*."""

    word: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 4
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, where: str = "", next_move: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_move = next_move

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        move = f"\n  next: {self.next_move}" if self.next_move else ""
        return f"{place}{self.what}{move}"

    def to_wire(self) -> dict[str, str]:
        """The form that crosses a socket; `from_wire` is its inverse."""
        return {"word": self.word, "what": self.what, "where": self.where, "next": self.next_move}


class Invalid(PenstockError):
    """What was given is wrong; the same call can never succeed."""

    word = "invalid"
    exit_code = 2
    http_status = 422


class Refused(PenstockError):
    """A policy, or a permission, says no."""

    word = "refused"
    exit_code = 1
    http_status = 403


class Conflict(PenstockError):
    """Somebody else moved first: a stale fence, a lost lease, a second owner."""

    word = "conflict"
    exit_code = 1
    http_status = 409


class Unavailable(PenstockError):
    """An outside system cannot answer now; the same call may succeed later."""

    word = "unavailable"
    exit_code = 3
    http_status = 503


class Broken(PenstockError):
    """An invariant of our own does not hold. Never caught in order to go on."""

    word = "broken"
    exit_code = 4
    http_status = 500


WORDS: dict[str, type[PenstockError]] = {
    kind.word: kind for kind in (Invalid, Refused, Conflict, Unavailable, Broken)
}


def from_wire(wire: dict[str, str]) -> PenstockError:
    """Rebuild the error that `PenstockError.to_wire` wrote; an unknown word is `Broken`."""
    kind = WORDS.get(wire.get("word", ""), Broken)
    return kind(wire.get("what", "?"), where=wire.get("where", ""), next_move=wire.get("next", ""))
