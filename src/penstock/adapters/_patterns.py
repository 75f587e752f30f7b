"""How large the programs of a CEL expression's patterns could be. Not an adapter, and not for others.

Called by `cel` before it compiles: the library compiles the pattern of each ``matches`` when it gets there,
without any bound, and holds everybody up meanwhile: half a second for ``\\pL{300}``. So a pattern has to be
written out as one text, and its repetitions are counted. What is no pattern, the library refuses.
"""

from __future__ import annotations

import re

from penstock.adapters._growth import TOKEN

#: What a pattern may come to; one of 500 takes less than a millisecond. A digest of 64 digits is 128.
MOST = 500
#: A class of the whole Unicode has hundreds of ranges in UTF-8; what is all but a few letters, some.
UNICODE, ALL_BUT, CLASS, LETTER = 250, 5, 2, 1
REPEATED = re.compile(r"\{(\d+)(?:,(\d*))?\}")
#: Could write a backslash or a brace in another way.
HIDDEN = re.compile(r"\\[xXuU0-7]")
ATOM = re.compile(r"\\[pP](?:\{[^}]*\}|.)?|\\.|\[\^?\]?(?:\\.|\[:[^]]*:\]|[^]\\])*\]|.", re.DOTALL)


def wrong_with_patterns(text: str) -> str:
    """What is wrong with a pattern in an expression, in a few words; "" if nothing is."""
    for pattern in _patterns(text):
        if pattern is None:
            return "the pattern of matches() is no plain text"
        if size(pattern) > MOST:
            return f"the pattern {pattern[:80]!r} is too large"
    return ""


def size(pattern: str) -> int:
    """About how many instructions it is compiled into, or more; a repetition counts as often as it may be."""
    #: For each open group: what came before it.
    outer: list[int] = []
    done = last = at = 0
    while at < len(pattern):
        repeated = REPEATED.match(pattern, at)
        if repeated:
            last *= max(1, int(repeated[1]), int(repeated[2] or 0))
            at = repeated.end()
            continue
        atom = ATOM.match(pattern, at)
        assert atom  # one letter of any kind is one
        at = atom.end()
        if atom[0] == "(":
            outer.append(done + last)
            done = last = 0
        elif atom[0] == ")" and outer:
            done, last = outer.pop(), done + last
        elif atom[0] not in "*+?":
            done, last = done + last, _atom(atom[0])
    return done + last + sum(outer)


def _atom(text: str) -> int:
    if text == r"\Q":  # what follows is no pattern until \E, and its brackets are none
        return MOST + 1
    if "\\p" in text or "\\P" in text:
        return UNICODE
    if text.startswith("[^") or text in (".", r"\D", r"\S", r"\W"):
        return ALL_BUT * max(1, len(text) // 4)
    return CLASS * max(1, len(text) // 4) if text[0] == "[" else LETTER


def _patterns(text: str) -> list[str | None]:
    """The last argument of each ``matches``: a pattern if it is one text, else None."""
    found: list[str | None] = []
    #: For each open bracket whether it is of a ``matches``, and the tokens of its last argument so far.
    outer: list[tuple[bool, list[str]]] = []
    called = False
    for token in TOKEN.finditer(text):
        if token.lastgroup == "skip":
            continue
        if outer and token.lastgroup != "close":
            outer[-1][1].append(token[0])
        match token.lastgroup:
            case "open":
                outer.append((called, []))
            case "close" if outer:
                matches, argument = outer.pop()
                if matches:
                    found.append(_plain(argument))
            case "other" if token[0] == "," and outer:
                outer[-1][1].clear()
        called = token.lastgroup == "name" and token[0] == "matches"
    return found


def _plain(argument: list[str]) -> str | None:
    token = argument[0] if len(argument) == 1 else ""
    opening = re.match(r"([rR]?)(\"{3}|'{3}|[\"'])", token)
    if opening is None:
        return None
    inside = token[opening.end() : -len(opening[2])]
    if opening[1]:
        return inside
    return None if HIDDEN.search(inside.replace("\\\\", "")) else inside.replace("\\\\", "\\")
