"""Replaces known secrets in a stream of bytes by ``***``, in every form that tools commonly print them.

Called by whoever writes the output of other people's code. Pure. The same bytes give the same result
however they are split into writes: an occurrence that has only begun is held back, and never more than the
longest form of a secret can take up.
Must not guess: what is not among the secrets, or is encoded in a way that `forms` does not know, stays.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from penstock.errors import Invalid

MASK = b"***"
#: A shorter value would be found everywhere, and mask what is not secret.
SHORTEST = 6
#: What is held back, and so memory, is bounded by the longest secret.
LONGEST = 16 * 1024
#: What the output may end with of a value that was cut off; less says nothing, and is common by chance.
PARTIAL = 3
#: Base64 is wrapped into lines, and indented. A form may take up this many times its own length.
BLANK = b"\r\n\t "
STRETCH = 3

Span = tuple[int, int]


@dataclass(frozen=True)
class Forms:
    """What is looked for: *plain* as it stands, *wrapped* also with line breaks and blanks inside."""

    plain: tuple[bytes, ...]
    wrapped: tuple[bytes, ...]


def forms(secret: bytes) -> Forms:
    """Every form of one secret. `Invalid` if it is too short or too long to be masked."""
    if len(secret) < SHORTEST:
        what = f"a secret of fewer than {SHORTEST} bytes cannot be masked: it would be found everywhere"
        raise Invalid(what, next_move="use a longer secret")
    if len(secret) > LONGEST:
        raise Invalid(f"a secret of more than {LONGEST} bytes cannot be masked", next_move="split it")
    stripped = (secret, secret.strip(), *(line.strip() for line in secret.splitlines()))
    values = dict.fromkeys(value for value in stripped if len(value) >= SHORTEST)
    plain = dict.fromkeys(form for value in values for form in _escaped(value))
    wrapped = dict.fromkeys(form for value in values for form in _base64(value))
    return Forms(tuple(plain), tuple(wrapped))


def _escaped(value: bytes) -> Iterator[bytes]:
    yield value
    # Tools differ in what they leave as it is: query values, paths, browsers' two functions.
    for safe in ("", "/", "!'()*", "!'()*/:;,?@&=+$#"):
        yield from _both_cases(quote(value, safe=safe).encode(), rb"%[0-9A-F]{2}")
    yield from _both_cases(quote_plus(value).encode(), rb"%[0-9A-F]{2}")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode()
        for form in (escaped, escaped.replace(b"/", rb"\/"), _for_html(escaped)):
            yield from _both_cases(form, rb"\\u[0-9a-f]{4}")


def _for_html(escaped: bytes) -> bytes:
    """As Go, PHP and Rails write JSON."""
    for character in b"<>&'":
        escaped = escaped.replace(bytes([character]), b"\\u%04x" % character)
    return escaped


def _both_cases(form: bytes, digits: bytes) -> Iterator[bytes]:
    yield form
    yield re.sub(digits, lambda found: found[0].lower(), form)
    yield re.sub(digits, lambda found: found[0][:-4] + found[0][-4:].upper().replace(b"\\U", b"\\u"), form)


def _base64(value: bytes) -> Iterator[bytes]:
    """The characters that *value* alone decides, at each of the three places where it may begin."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + value)
        first, last = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        yield whole[first:last]
        yield whole[first:last].replace(b"+", b"-").replace(b"/", b"_")


class Masker:
    """One stream. `feed` gives what can be said so far, `finish` the rest."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        found = [forms(secret) for secret in dict.fromkeys(secrets)]
        self._plain = _sorted(form for each in found for form in each.plain)
        self._wrapped = _sorted(form for each in found for form in each.wrapped)
        # An overlapping occurrence of the same form begins a period of the form later, or more.
        self._steps = {form: _period(form) for form in (*self._plain, *self._wrapped)}
        plain = max(map(len, self._plain), default=0)
        #: No more bytes than these are held back.
        self.longest = max(plain, STRETCH * max(map(len, self._wrapped), default=0))
        self._carry = b""
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        if not self._plain:
            return data
        buffer = self._carry + data
        return self._emit(buffer, self._matches(buffer), self._begun(buffer))

    def finish(self) -> bytes:
        """The end of the stream. A value that is cut off there is masked too."""
        buffer = self._carry
        spans = self._matches(buffer)
        cut = self._begun(buffer, PARTIAL)
        if cut < len(buffer):
            spans = sorted([*spans, (cut, max(cut, len(buffer.rstrip(BLANK))))])
        return self._emit(buffer, spans, len(buffer))

    def _emit(self, buffer: bytes, spans: list[Span], cut: int) -> bytes:
        """*buffer* up to *cut*, with one mask for each run of overlapping *spans*; the rest is carried."""
        said, at = [], self._covered
        for begin, end in spans:
            if begin >= cut:
                break
            if begin >= at:
                said += [buffer[at:begin], MASK]
            at = max(at, end)
        said.append(buffer[at:cut])
        self._carry, self._covered = buffer[cut:], max(at - cut, 0)
        return b"".join(said)

    def _matches(self, buffer: bytes) -> list[Span]:
        """Every whole occurrence, by where it begins."""
        found = [
            (at, at + len(form)) for form in self._plain if form in buffer for at in self._all(form, buffer)
        ]
        dense = buffer.translate(None, BLANK)
        wrapped = [(at, form) for form in self._wrapped if form in dense for at in self._all(form, dense)]
        if wrapped:
            where = _Positions(buffer)
            for at, form in wrapped:
                begin, end = where[at], where[at + len(form) - 1] + 1
                if end - begin <= STRETCH * len(form):
                    found.append((begin, end))
        return sorted(found)

    def _all(self, form: bytes, text: bytes) -> Iterator[int]:
        step = self._steps[form]
        most = (len(form) - 1) // step
        at = text.find(form)
        while at >= 0:
            yield at
            # Of occurrences that overlap in one run, the next far one: what is between them is part of both.
            far = most
            while far and not text.startswith(form, at + far * step):
                far //= 2
            at = at + far * step if far else text.find(form, at + step)

    def _begun(self, buffer: bytes, least: int = 1) -> int:
        """Where the first occurrence begins that the end of *buffer* cuts off; its length if none does."""
        size = len(buffer)
        cut = min((_cut_off(form, buffer, least) for form in self._plain), default=size)
        window = STRETCH * max(map(len, self._wrapped), default=0)
        base = max(0, size - window)
        dense = buffer[base:].translate(None, BLANK)
        where: _Positions | None = None
        for form in self._wrapped:
            at = _cut_off(form, dense, least)
            while at < len(dense):
                where = where or _Positions(buffer[base:])
                begin = base + where[at]
                if size - begin < STRETCH * len(form):
                    cut = min(cut, begin)
                    break
                at = _cut_off(form, dense, least, at + 1)
        return cut


def masked(text: str, secrets: Iterable[str]) -> str:
    """A text for people without *secrets*."""
    masker = Masker(secret.encode() for secret in secrets)
    return (masker.feed(text.encode(errors="replace")) + masker.finish()).decode()


def _cut_off(form: bytes, text: bytes, least: int, start: int = 0) -> int:
    """The first place from which on *text* is a beginning of *form*, but not all of it; else its length."""
    at = text.find(form[:1], max(start, len(text) - len(form) + 1))
    while 0 <= at <= len(text) - least:
        if form.startswith(text[at:]):
            return at
        at = text.find(form[:1], at + 1)
    return len(text)


class _Positions:
    """Where the characters of a text stood before its blanks were left out."""

    def __init__(self, text: bytes) -> None:
        self._at: list[int] = []
        self._skipped: list[int] = []
        skipped = 0
        for found in re.finditer(rb"[\r\n\t ]+", text):
            self._at.append(found.start() - skipped)
            skipped += found.end() - found.start()
            self._skipped.append(skipped)

    def __getitem__(self, dense: int) -> int:
        before = bisect_right(self._at, dense)
        return dense + (self._skipped[before - 1] if before else 0)


def _sorted(found: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(found), key=len, reverse=True))


def _period(form: bytes) -> int:
    """The least distance at which *form* can overlap itself."""
    fallback = [0] * len(form)
    length = 0
    for number in range(1, len(form)):
        while length and form[number] != form[length]:
            length = fallback[length - 1]
        length += form[number] == form[length]
        fallback[number] = length
    return len(form) - length if form else 1
