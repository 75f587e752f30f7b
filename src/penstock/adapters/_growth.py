"""How far the texts of a CEL expression could grow. Not an adapter, and not for others.

Called by `cel` before it compiles: the library bounds the steps of an expression and not its memory, and a
dozen chained ``replace`` calls make a terabyte of one letter. It counts how many calls multiply one another,
where they are most; whatever is only added costs nothing. What it cannot read, the compiler refuses.

A macro that goes through a list multiplies what grows inside it: nothing is given back until all of the
expression is done. The same holds for ``matches``, whose pattern is compiled again each time.
"""

from __future__ import annotations

import re

#: Their result can be as large as receiver and arguments multiplied.
GROWING = ("replace", "join", "map", "format", "split", "quote", "matches")
#: They do so once for each element of a list, and grow nothing themselves.
REPEATING = ("all", "exists", "exists_one", "filter")
#: An expression of n characters whose calls multiply d times over makes at most about n^(d+1) of them.
MOST = 10**8

TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* )
  | (?P<text> [bB]?[rR][bB]? (?: \"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*' )
            | [bB]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
                      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' ) )
  | (?P<name> [A-Za-z_]\w* )
  | (?P<open> [(\[{] )
  | (?P<close> [)\]}] )
  | (?P<dot> \. )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def grows_too_far(text: str) -> bool:
    """Whether evaluating it could take more memory than a policy may have."""
    depth = multiplied(text)
    return depth > 1 and len(text) ** (depth + 1) > MOST


def multiplied(text: str) -> int:
    """How many growing calls multiply one another, where they are most."""
    # For each open bracket: the most inside it so far, the chain of calls before it, and what is called.
    outer: list[tuple[int, int, str]] = []
    most = chain = 0
    called = ""
    after_dot = False
    for token in TOKEN.finditer(text):
        match token.lastgroup:
            case "skip":
                continue
            case "name":
                chain, called = (chain if after_dot else 0), token[0]
            case "open":
                outer.append((most, chain, called))
                most = chain = 0
                called = ""
            case "close" if outer:
                inside = max(most, chain)
                most, before, called = outer.pop()
                own = called in GROWING or (called in REPEATING and inside > 0)
                chain, called = before + inside + own, ""
            case "dot":
                called = ""
            case _:
                most, chain, called = max(most, chain), 0, ""
        after_dot = token.lastgroup == "dot"
    return max(most, chain, *(max(held[:2]) for held in outer))
