"""Expressions whose texts multiply: counted before anything is evaluated."""

from __future__ import annotations

import pytest

from penstock.adapters._growth import grows_too_far, multiplied
from penstock.adapters.cel import Cel
from penstock.bootstrap.identity import shipped_policies
from penstock.errors import Invalid
from penstock.policyfile import parse_policy

TEN = "xxxxxxxxxx"
LIST = f"[{'1, ' * 99}1]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", 0),
        ("a.b.c >= 2", 0),
        ("x.join(', ')", 1),
        ("'a: ' + x.join(', ') + y.join(', ') + z.join(', ')", 1),
        ("f ? x.join(', ') : y.join(', ')", 1),
        ("x.join(', ').replace('a', 'b')", 2),
        ("x.replace('a', y.replace('b', 'c'))", 2),
        ("x.replace('a', 'b').replace('c', y.replace('d', 'e'))", 3),
        ("(x.join('')).replace('a', 'b')", 2),
        ("[x.join('')][0].replace('a', 'b')", 2),
        ("x . replace ( 'a' , 'b' ) // )\n . replace('a', 'b')", 2),
        ("'.replace(' + \".map(\" + r'\\' + '''.join('a')'''", 0),
        ("r'\\'.replace('a', 'b').replace('a', 'b')", 2),
        ("'\\'.replace(' + '\\\\'.replace('a', 'b')", 1),
        ("strings.quote(strings.quote(x))", 2),
        ("[x].map(a, a + a).map(a, a + a).map(a, a + a)", 3),
        ("{'a': x.join('')}.a.replace('x', 'y')", 2),
        ("x.all(a, a.replace('a', 'b').size() > 0)", 2),
        ("x.exists(a, y.filter(b, a == b).all(c, c > 0))", 0),
        ("x.exists_one(a, y.exists(b, b.matches('c')))", 3),
        ("x.filter(a, a.startsWith('b')).join(', ')", 1),
    ],
)
def test_what_multiplies_is_counted(text: str, expected: int) -> None:
    assert multiplied(text) == expected


def chained(times: int) -> str:
    return "'x'" + f".replace('x', '{TEN}')" * times + ".size() > 0"


BOMBS = [
    chained(12),
    chained(80),
    f"['{TEN}']" + ".map(a, a + a + a + a + a + a + a + a + a + a)" * 12 + ".size() > 0",
    "strings.quote(" * 25 + "'\\\\'" + ")" * 25 + " != ''",
    f"['{TEN}'].map(a, a.replace('x', a))" + ".map(a, a.replace('x', a))" * 5 + ".size() > 0",
    "'%s%s%s%s'.format([" * 8 + "'x'" + "])" * 8 + " != ''" + " " * 300,
    f"'{'x' * 1200}'.replace('x', '{'y' * 1200}').replace('y', '{'z' * 1200}') != ''",
    # Two loops over a short list: no step is large, and none is given back before the end.
    f"{LIST}.all(a, {LIST}.all(b, '{'x' * 1500}'.replace('x', '{'y' * 1500}') != ''))",
    f"{LIST}.exists(a, {LIST}.exists(b, 'x'.matches('{'(a{9}){9}' * 20}')))",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
@pytest.mark.parametrize("place", ["when", "say", "else"])
def test_a_policy_that_could_fill_the_memory_is_refused_before_it_runs(bomb: str, place: str) -> None:
    words = bomb if place == "when" else f"string({bomb})"
    lines = {"when": "true", "say": "'y'", "else": "'n'", place: words}
    written = "\n".join(f"    {name}: {text!r}" for name, text in lines.items())
    head = "policy: p\nowner: o\nguards: [deploy]\nenvironments: [production]\nrules:\n  - id: r\n"
    policy = parse_policy((head + written + "\n").replace('"', '"').encode(), "p.yaml")
    with pytest.raises(Invalid):
        Cel().compile(policy)
    assert grows_too_far(words)


def test_what_policies_do_is_allowed() -> None:
    for text in shipped_policies():
        document = parse_policy(text.encode(), "policy.yaml")
        assert not any(grows_too_far(e) for r in document.rules for e in (r.when, r.say, r.otherwise))
    assert not grows_too_far("x.join(', ').replace('_', ' ') + '; ' + y.join(', ').replace('_', ' ')")
