"""Translates a registry's answers into the five error words, with the repository and the next move. Pure.

Called by `asking` and `driver` for every answer that is no success. The table, by status and code:

    3xx                        Invalid      it has moved: push there
    401                        Refused      no password, or a wrong one
    403, DENIED                Refused      this user may not push here
    403 of a quota             Unavailable  it is full: it may have room later
    404, NAME_UNKNOWN          Invalid      no such repository, and it makes none by itself; or no registry
    404, BLOB_UPLOAD_UNKNOWN   Unavailable  it forgot the upload: begin anew
    405, UNSUPPORTED           Invalid      it takes no images
    413                        Invalid      the layer is larger than it takes
    MANIFEST_BLOB_UNKNOWN      Unavailable  what was there is gone again: begin anew
    DIGEST_INVALID             Broken       what arrived is not what was sent (if nothing is lost besides)
    400 and other codes        Invalid      in its own words
    429, 5xx                   Unavailable  later, after so many seconds
    anything else              Broken       no registry answers so
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from penstock.errors import Broken, Invalid, PenstockError, Refused, Unavailable

#: So much of what a registry says is repeated.
MOST_WORDS = 300
#: Nobody is told to wait for longer, whatever a registry asks.
LONGEST_WAIT = 3600.0
LOST = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"})
AGAIN = "try again in a while: it begins anew, and what is there already is not sent again"


class Unsettled(Unavailable):
    """It may be otherwise in a moment: two push the same image, or a part was tidied away meanwhile."""


@dataclass(frozen=True)
class Answer:
    """*body* is its beginning."""

    status: int
    headers: httpx.Headers
    body: bytes = b""

    @property
    def digest(self) -> str:
        return str(self.headers.get("docker-content-digest", ""))


def failure(answer: Answer, where: str) -> PenstockError:
    """The error for an answer to what was asked at *where*."""
    codes, said = _said(answer)
    status = answer.status
    if status == 401 or "UNAUTHORIZED" in codes:
        move = "`docker login HOST` writes a config.json; name it as `auth`"
        return Refused(f"the registry does not let us in{said}", where=where, next_move=move)
    if "quota" in said.lower() or status == 507:
        move = "remove images that nobody needs, or raise the quota"
        return Unavailable(f"the registry is full{said}", where=where, next_move=move)
    if codes & LOST:
        return Unsettled(f"the registry lost what it had{said}", where=where, next_move=AGAIN)
    if status == 429 or status >= 500 or "TOOMANYREQUESTS" in codes:
        return _later(answer, said, where)
    if status == 403 or "DENIED" in codes:
        move = "let this user push there, or push elsewhere"
        return Refused(f"we may not push here{said}", where=where, next_move=move)
    if "DIGEST_INVALID" in codes:
        move = "see what stands between here and the registry: it changes what it carries"
        return Broken(f"the registry got other bytes than were sent{said}", where=where, next_move=move)
    return _wrong(answer, codes, said, where)


def _wrong(answer: Answer, codes: frozenset[str], said: str, where: str) -> PenstockError:
    """What no time mends."""
    status = answer.status
    if 300 <= status < 400:
        goal = str(answer.headers.get("location", "?")).partition("?")[0][:MOST_WORDS]
        return Invalid(f"the registry has moved to {goal}", where=where, next_move="push there")
    if status == 404:
        move = "make the repository, if the registry makes none by itself; else see the push URL"
        return Invalid(f"no such repository, or no registry{said}", where=where, next_move=move)
    if status in (405, 501) or "UNSUPPORTED" in codes:
        move = "name one that images can be pushed to: a mirror cannot"
        return Invalid(f"it takes no images{said}", where=where, next_move=move)
    if status == 413:
        move = "raise the limit of the registry, or of the proxy before it (nginx: client_max_body_size)"
        return Invalid(f"larger than the registry takes{said}", where=where, next_move=move)
    if status == 400 or (codes and 400 <= status < 500):
        return Invalid(f"the registry does not take it{said or ' (400)'}", where=where)
    return strange(f"answered {status}{said}", where)


def silence(why: str, where: str) -> Unavailable:
    move = "see that the registry runs and can be reached from here"
    return Unavailable(f"the registry does not answer: {why}", where=where, next_move=move)


def strange(what: str, where: str) -> Broken:
    return Broken(f"no registry answers so: {what}", where=where, next_move="see the push URL")


def _later(answer: Answer, said: str, where: str) -> Unavailable:
    asked = str(answer.headers.get("retry-after", ""))
    wait = min(float(asked), LONGEST_WAIT) if asked.isascii() and asked.isdecimal() else 0.0
    move = f"try again after {wait:g} s" if wait else "try again in a while"
    what = "has too much to do" if answer.status == 429 else f"failed ({answer.status})"
    word = Unsettled if answer.status == 500 else Unavailable
    return word(f"the registry {what}{said}", where=where, next_move=move)


def _said(answer: Answer) -> tuple[frozenset[str], str]:
    """The codes of its errors, and its words as the end of a sentence ("" if it says nothing)."""
    try:
        errors = json.loads(answer.body)["errors"]
        told: list[dict[str, Any]] = [error for error in errors if isinstance(error, dict)]
    except (ValueError, TypeError, KeyError, RecursionError):
        return frozenset(), ""
    codes = frozenset(str(error.get("code", "")).upper() for error in told)
    words = ", ".join(f"{error.get('message') or error.get('code')}" for error in told)
    printable = "".join(character for character in words[:MOST_WORDS] if character.isprintable())
    return codes, f": {printable}" if printable else ""
