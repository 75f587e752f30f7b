"""What the Rego checker refuses, with line and column, and what it must let through."""

from __future__ import annotations

import pytest

from penstock.adapters.rego import builtins
from penstock.adapters.rego.check import check
from penstock.adapters.rego.tokens import MAX_MODULE, Flaw

HEAD = "package p\nimport rego.v1\n"

#: A body (the lines after HEAD begin with the third), where it is wrong, and what the words must have.
REFUSED: list[tuple[str, tuple[int, int], str]] = [
    # names that mean nothing
    ('deny contains "x" if inptu.release.first', (3, 22), "did you mean input?"),
    ('deny contains "x" if input.release.frist', (3, 22), "did you mean input.release.first?"),
    ('deny contains "x" if input.evidence.tests.failed.x > 1', (3, 22), "no fact"),
    ('deny contains "x" if count(input.evidence.tests) > 1', (3, 28), "no fact by itself"),
    ('deny contains "x" if input', (3, 22), "no fact by itself"),
    ('deny contains "x" if input["evidence.tests"].failed > 1', (3, 22), "a dot within"),
    ('deny contains "x" if data.p.other', (3, 22), "no data"),
    ('deny contains "x" if { y > 1 }', (3, 24), "nothing is called y"),
    ('deny contains "x" if { y > 1; y := 2 }', (3, 24), "nothing is called y"),
    ("deny contains msg if input.release.first", (3, 15), "nothing is called msg"),
    ('deny contains "x" if allowed\nalowed if input.release.first', (3, 22), "did you mean alowed?"),
    (
        'deny contains "x" if { some x in input.evidence.tests.failing\n y == x }',
        (4, 2),
        "nothing is called y",
    ),
    ('deny contains "x" if not [y | some x in [1]]', (3, 27), "nothing is called y"),
    ('deny contains "x" if count([x | some x in [1]]) > x', (3, 51), "nothing is called x"),
    ('deny contains "x" if hepler(1)\nhelper(n) if n > 1', (3, 22), "no function hepler"),
    ('helper(n) if n > 1\ndeny contains "x" if input.release.first', (3, 1), "helper decides nothing"),
    # look-ups that may find nothing
    ('deny contains "x" if input[x].failed > 1', (3, 28), "only [_]"),
    ('deny contains "x" if input.evidence.tests.failing[0] == "x"', (3, 51), "only [_]"),
    ('deny contains "x" if { xs := {"a": 1}\n xs.b > 1 }', (4, 2), "b may not be there"),
    (
        'deny contains "x" if { xs := [{"a": 1}, {"b": 2}]; some x in xs; x.a > 1 }',
        (3, 66),
        "may not be there",
    ),
    ('deny contains "x" if { xs := {"a": 1}; xs[input.artifact.name] > 1 }', (3, 43), "object.get"),
    ('deny contains "x" if not input.evidence.tests.failing[_] == "x"', (3, 22), "[_] after not"),
    ('deny contains "x" if { x := []; some y in x }', (3, 33), "nothing is ever in here"),
    ('deny contains "x" if max(input.evidence.tests.failing) > 1', (3, 22), "max is undefined for nothing"),
    # values that may be undefined
    ('limit := 5 if input.release.first\ndeny contains "x" if 3 > limit', (3, 1), "add: default limit := "),
    ('f(x) := 5 if x > 1\ndeny contains "x" if f(3) == 5', (3, 1), "add: default f(_) := "),
    ('ok := false if input.release.first\ndeny contains "x" if not ok', (3, 1), "default ok"),
    ('ok if input.release.first\ndeny contains "x" if ok == false', (4, 22), "stands alone"),
    ('ok(x) if x > 1\ndeny contains "x" if { y := ok(3) }', (4, 29), "stands alone"),
    # conditions and comparisons that are always so
    ('deny contains "x" if input.evidence.tests.failed', (3, 22), "number is no condition"),
    ('deny contains "x" if not input.evidence.tests.failed', (3, 22), "number is no condition"),
    ('deny contains "x" if input.evidence.tests.failed > "0"', (3, 50), "number > text"),
    ('deny contains "x" if input.evidence.tests.failed == "0"', (3, 50), "number == text"),
    ('deny contains "x" if input.release.first == 1', (3, 42), "bool == number"),
    ('deny contains "x" if input.artifact.name > "a"', (3, 42), "text > text"),
    ('deny contains "x" if 1 in input.evidence.tests.failing', (3, 24), "number in array of text"),
    ('deny contains "x" if "a" in input.artifact.name', (3, 26), "text in text"),
    ('f(x) if x > 1\ndeny contains "x" if f(input.artifact.name)', (3, 11), "text > number"),
    ('deny contains "x" if { x := [1, "a"]; count(x) > 1 }', (3, 29), "one type"),
    ('deny contains "x" if count(1) > 1', (3, 22), "count takes"),
    ('deny contains "x" if startswith("x") ', (3, 22), "startswith takes 2, not 1"),
    ('deny contains "x" if 1 < 2 < 3', (3, 28), "two comparisons"),
    # messages
    ('deny contains sprintf("%d", [input.artifact.name])', (3, 15), "%d takes number, not text"),
    ('deny contains sprintf("%d %d", [1])', (3, 15), "2 places and 1 values"),
    ('deny contains sprintf("%q", ["x"])', (3, 15), "not %q"),
    ('deny contains sprintf("%1000d", [1])', (3, 15), "sprintf knows"),
    ('deny contains sprintf("100%", [])', (3, 15), "sprintf knows"),
    ('deny contains sprintf("%s", input.evidence.tests.failing)', (3, 15), "written out"),
    ("deny contains 5 if input.release.first", (3, 1), "a message is"),
    # the set that decides
    ("allow if input.release.first", (1, 1), "no rule deny"),
    ('deny contains "x"\ndney contains "y" if input.release.first', (4, 1), "dney decides nothing"),
    ('deny contains "x"\nwarn contains "y" if input.release.first', (4, 1), "warn decides nothing"),
    ('deny contains "x"\nallow if input.release.first', (4, 1), "allow decides nothing"),
    ('a if b\nb if a\ndeny contains "x"', (3, 1), "a decides nothing"),
    ('dney contains "x" if input.release.first', (1, 1), "no rule deny"),
    ("deny if input.release.first", (3, 1), "must be a set"),
    ("deny := true", (3, 1), "must be a set"),
    ('deny(x) := "a"', (3, 1), "must be a set"),
    ('default deny := false\ndeny contains "x" if input.release.first', (3, 9), "default of deny"),
    ('deny[msg] if { msg := "x" }', (3, 5), "deny contains"),
    ('deny[msg] { msg := "x" }', (3, 5), "deny contains"),
    ('deny contains "x" if input.release.first\ndeny := {"y"}', (4, 1), "two different ways"),
    # what is banned, and what is not there
    *[
        (f'deny contains "x" if {call} == 1', (3, 22), what)
        for call, what in {
            'http.send({"url": "x"})': "asks the network",
            "time.now_ns()": "depends on the clock",
            'rand.intn("x", 5)': "depends on chance",
            'uuid.rfc4122("x")': "depends on chance",
            'net.lookup_ip_addr("x")': "asks the network",
            "opa.runtime()": "depends on the machine",
            'print("x")': "has an effect",
            'trace("x")': "has an effect",
            "round(2.5)": "goes wrong in the engine",
            'io.jwt.decode("x")': "no function io.jwt.decode",
        }.items()
    ],
    # rules that depend on themselves
    ('a if b\nb if a\ndeny contains "x" if a', (4, 6), "a depends on itself"),
    ('f(x) := f(x + 1)\ndeny contains "x" if f(1) == 1', (3, 9), "f depends on itself"),
    ('deny contains "x" if count(deny) == 0', (3, 28), "deny depends on itself"),
    # one meaning for each name
    ('x := 3\ndeny contains "x" if { x := 4; x == 4 }', (4, 24), "has a meaning already"),
    ('deny contains "x" if { x := 3; x := 4 }', (3, 32), "has a meaning already"),
    ('deny contains "x" if { count := 3 }', (3, 24), "has a meaning already"),
    ('regex := 3\ndeny contains "x"', (3, 1), "has a meaning already"),
    ("import data.other", (3, 1), "import of data.other"),
    ("import rego.v2", (3, 1), "import of rego.v2"),
    ("import input.release as r", (3, 1), "import of input.release"),
    # what is not supported is refused, not guessed at
    ('deny contains "x" if { x = 3 }', (3, 26), "expected := "),
    ('deny contains "x" if input.release.first with input.release.first as true', (3, 42), "with is not"),
    ('deny contains "x" if { some i; i == 1 }', (3, 30), "expected 'in'"),
    ('deny contains "x" if { }', (3, 24), "expected a value"),
    ('deny contains "x" if { input.release.first', (4, 1), "the end of the module"),
    ('deny contains "x" if { input.release.first\n== true }', (4, 1), "expected a value"),
    ('deny contains "x" if { input.release.first\n[1] == [1] }', (4, 1), "may not begin"),
    ('deny contains "x" if { 3 > 2\n-1 < 0 }', (4, 1), "may not begin"),
    ('deny contains "x" if 3 == (1\n + 2)', (4, 2), "expected ')'"),
    ('deny contains "x" if -input.evidence.tests.failed < 1', (3, 22), "may not begin"),
    ('deny contains "x" if 1 > -input.evidence.tests.failed', (3, 27), "a sign stands only before a number"),
    ('deny contains "x" if input.release.first || true', (3, 43), "expected a value"),
    ('deny contains $"x {input.artifact.name}"', (3, 15), "use sprintf"),
    ('deny contains "x', (3, 15), "does not end"),
    ("deny contains `x", (3, 15), "does not end"),
    ('deny contains "\\u0041"', (3, 15), "write the character itself"),
    ('deny contains "a\x07"', (3, 15), "control character"),
    ('deny contains "x" if 01 == 1', (3, 22), "not Rego"),
    ('deny contains "x" if input.evidence.tests.failed > 1e300', (3, 52), "too large a number"),
    ('deny contains "x" if ' + "not " * 2 + "true", (3, 26), "expected a value"),
    ('deny contains "x" if 1 == ' + "(" * 50 + "1" + ")" * 50, (3, 66), "deep"),
    ('deny contains "x" if [' + "[" * 50, (3, 22), "may not begin"),
    ('deny contains "a\\"b" if contains(input.artifact.name, "x")', (3, 15), "quotation mark"),
    ("package q", (3, 1), "expected a rule"),
    ("é := 1", (3, 1), "not Rego"),
]


@pytest.mark.parametrize(("body", "at", "what"), REFUSED, ids=[body[:60] for body, _, _ in REFUSED])
def test_what_could_never_fire_is_refused_with_its_place(body: str, at: tuple[int, int], what: str) -> None:
    with pytest.raises(Flaw) as caught:
        check(HEAD + body + "\n")
    assert what in caught.value.what
    assert caught.value.at == at


def chain(rule: str, length: int) -> str:
    """Rules of which each uses the one before."""
    return "\n".join(["a0 := 1", *(rule.format(number, number - 1) for number in range(1, length + 1))])


@pytest.mark.parametrize(
    "body",
    [
        chain("a{0} := a{1} + 1", 200) + "\na := a200",
        chain("a{0} := " + "[" * 35 + "a{1}" + "]" * 35, 5) + "\na := a5",
        chain('a{0} := {{"l": a{1}, "r": a{1}}}', 20) + "\na := a20",
        "f0(x) := 1\n" + chain("f{0}(x) := f{1}([x]) + f{1}({{x}})", 25) + "\na := f25(1)",
        chain("a{0} := " + "(1 + " * 35 + "a{1}" + ")" * 35, 25) + "\na := a25",
        "a := 1" + " + 1" * 10000,
        "a := " + "[" * 10000,
        "a if " + "not " * 10000,
        "a if { every x in [1] { " * 60,
        "a := {1 | " * 60,
    ],
)  # fmt: skip
def test_a_module_cannot_exhaust_the_checker(body: str) -> None:
    with pytest.raises(Flaw) as caught:
        check(f'{HEAD}{body}\ndeny contains "x" if count([a]) > 0')
    assert "decides nothing" not in caught.value.what


def test_many_small_rules_are_no_trouble() -> None:
    rules = "\n".join(f'deny contains "{n}" if input.evidence.tests.failed > {n}' for n in range(500))
    assert check(HEAD + rules).facts == ("evidence.tests.failed",)


@pytest.mark.parametrize(
    ("module", "at"),
    [
        ("", (1, 1)),
        ("deny contains 1", (1, 1)),
        ("package", (1, 8)),
        ("package p.if", (1, 1)),
        ("package p\n" + "#" * MAX_MODULE, (1, 1)),
        ('package p deny contains "x"', (1, 11)),
    ],
)
def test_a_module_begins_with_its_package(module: str, at: tuple[int, int]) -> None:
    with pytest.raises(Flaw) as caught:
        check(module)
    assert caught.value.at == at


ACCEPTED: list[tuple[str, set[str]]] = [
    ('deny contains "closed"', set()),
    ('deny contains "x" if not input.release.first', {"release.first"}),
    ('deny contains "x" if input["release"]["first"]', {"release.first"}),
    ("deny contains msg if {\n  some msg in input.evidence.tests.failing\n}", {"evidence.tests.failing"}),
    ('deny contains "x" if input.evidence.findings.ids[_] == "CVE-1"', {"evidence.findings.ids"}),
    ('warn contains "x" if input.release.first\ndeny contains w if some w in warn', {"release.first"}),
    ('deny contains {"msg": "x", "n": 3}', set()),
]


@pytest.mark.parametrize(("body", "facts"), ACCEPTED)
def test_the_facts_are_those_that_are_named(body: str, facts: set[str]) -> None:
    found = check(HEAD + body)
    assert set(found.facts) == facts
    assert found.entry == "p/deny"


def test_functions_that_look_inside_a_text_are_noticed() -> None:
    assert check(HEAD + 'deny contains "x" if contains(input.artifact.name, "x")').looks_inside
    assert check(HEAD + 'deny contains "x" if upper(input.artifact.name) == "X"').folds
    plain = check(HEAD + 'deny contains "a\\"b" if count(input.evidence.tests.failing) > 3')
    assert not plain.looks_inside
    assert not plain.folds
    check(HEAD + "deny contains `x` if regex.match(`^\\d+\\.`, input.artifact.name)")


def test_the_tables_of_functions_do_not_contradict_one_another() -> None:
    known = {*builtins.FUNCTIONS, *builtins.SPECIAL}
    assert known >= builtins.LOOK_INSIDE >= builtins.FOLD
    assert not known & set(builtins.REFUSED)
