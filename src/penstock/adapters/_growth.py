"""How far the texts of a CEL expression could grow. Not an adapter, and not for others.

Called by `cel` before it compiles: the library bounds the steps of an expression and not its memory, and a
dozen chained ``replace`` calls make a terabyte of one letter. It counts how many calls multiply one another,
where they are most; whatever is only added costs nothing. What it cannot read, the compiler refuses.
"""

from __future__ import annotations

import re

#: Their result can be as large as receiver and arguments multiplied.
GROWING = ("replace", "join", "map", "format", "split", "quote")
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
    # For each open bracket: the most inside it so far, the chain of calls before it, and what it adds itself.
    outer: list[tuple[int, int, int]] = []
    most = chain = own = 0
    after_dot = False
    for token in TOKEN.finditer(text):
        match token.lastgroup:
            case "skip":
                continue
            case "name":
                chain, own = (chain if after_dot else 0), int(token[0] in GROWING)
            case "open":
                outer.append((most, chain, own))
                most = chain = own = 0
            case "close" if outer:
                inside = max(most, chain)
                most, before, own = outer.pop()
                chain, own = before + inside + own, 0
            case "dot":
                own = 0
            case _:
                most, chain, own = max(most, chain), 0, 0
        after_dot = token.lastgroup == "dot"
    return max(most, chain, *(max(held) for held in outer), 0)
