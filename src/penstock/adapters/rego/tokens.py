"""Cuts a Rego module into tokens with their places. Called by `syntax`; must not know the grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass

Place = tuple[int, int]

MAX_MODULE = 64 * 1024
TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<number>(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<text>"(?:[^"\\\n]|\\[^\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<symbol>:=|==|!=|<=|>=|[<>=|&+\-*/%()\[\]{},;:.])""",
    re.VERBOSE,
)
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


class Flaw(Exception):
    """What is wrong with a module, and where: line and column, from 1."""

    def __init__(self, what: str, at: Place) -> None:
        super().__init__(what)
        self.what = what
        self.at = at


@dataclass(frozen=True)
class Token:
    """*kind* is newline, number, text, raw, name, symbol or end; *text* is the value where it is a text.

    *glued* is true if nothing stands between the token and the one before.
    """

    kind: str
    text: str
    at: Place
    glued: bool = False


def tokens(module: str) -> list[Token]:
    """All tokens, the last one of kind ``end``. `Flaw` for what Rego has no token for."""
    if len(module.encode(errors="replace")) > MAX_MODULE:
        raise Flaw(f"a module of more than {MAX_MODULE} bytes", (1, 1))
    found: list[Token] = []
    place, line, begin, glued = 0, 1, 0, False
    while place < len(module):
        at = (line, place - begin + 1)
        match = TOKEN.match(module, place)
        if match is None or match.lastgroup is None:
            raise Flaw(_unreadable(module[place]), at)
        kind, text = match.lastgroup, match[0]
        if kind != "space":
            found.append(Token(kind, _value(kind, text, at), at, glued))
        glued = kind not in ("space", "newline")
        place = match.end()
        if "\n" in text:
            line += text.count("\n")
            begin = match.start() + text.rindex("\n") + 1
    return [*found, Token("end", "the end of the module", (line, place - begin + 1))]


def _unreadable(character: str) -> str:
    hints = {
        '"': "a text that does not end on its line",
        "`": "a raw text that does not end",
        "$": "texts with expressions in them are not supported; use sprintf",
    }
    return hints.get(character, f"not Rego: {character!r}")


def _value(kind: str, text: str, at: Place) -> str:
    if kind not in ("text", "raw"):
        return text
    if any((c < " " and c not in "\n\t") or "\ud800" <= c <= "\udfff" for c in text):
        raise Flaw("a text with a control character", at)
    return text[1:-1] if kind == "raw" else _unescaped(text[1:-1], at)


def _unescaped(text: str, at: Place) -> str:
    # The engine compares texts as they are written: "\u0041" is not "A" to it, and "\/" is not "/".
    def one(match: re.Match[str]) -> str:
        if match[1] not in ESCAPES:
            raise Flaw(f'the escape {match[0]}: only \\" \\\\ \\n \\r \\t; write the character itself', at)
        return ESCAPES[match[1]]

    if "\t" in text:
        raise Flaw("a text with a tab: write \\t", at)
    return re.sub(r"\\(.)", one, text)
