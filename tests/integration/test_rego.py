"""Rego in its own process: what it decides, what it survives, and what it leaves behind."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from penstock.adapters.rego import Rego, builtins
from penstock.adapters.rego.engine import COMMAND, Engine, Trouble
from penstock.adapters.rego.types import NUMBER, TEXT
from penstock.core.facts import FACTS, Fact
from penstock.core.policy import PolicyDocument, RuleVerdict
from penstock.core.verdict import Cause, Result
from penstock.errors import Invalid, Unavailable

REGO = Rego()
HEAD = "package organisation.tests\nimport rego.v1\n"
#: It compiles at once, and none of it would ever end.
ENDLESS = {
    "a long loop": "some a in numbers.range(1, 3000)\nsome b in numbers.range(1, 3000)\na * b == 7.5",
    "a huge list": "xs := numbers.range(1, 100000000)\ncount(xs) == 3",
    "a pattern that tries everything": 'regex.match("(a*)*(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")',
    "a text that is replaced for ever": 'replace("abc", "", "x") == "y"',
    "a text that doubles": "count(x11) == 3",
}
DOUBLES = 'x0 := "xxxxxxxxxxxxxxxx"\n' + "\n".join(
    f'x{n} := concat("", [{", ".join([f"x{n - 1}"] * 8)}])' for n in range(1, 12)
)


def policy(module: str) -> PolicyDocument:
    return PolicyDocument(
        "p", "test-lead", ("deploy",), ("production",), (), "s", language="rego", module=module
    )


def decide(body: str, facts: Mapping[str, Fact] | None = None, rego: Rego = REGO) -> RuleVerdict:
    (verdict,) = rego.compile(policy(HEAD + body)).decide(facts or {})
    assert verdict.id == "deny"
    return verdict


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_a_policy_as_it_is_found_in_the_wild() -> None:
    body = """
allowed := {"CVE-1"}            # accepted by the security lead
limits := {"coverage": 0.8}
default severity := "low"
severity := "high" if input.evidence.findings.critical > 1

named(id) := sprintf("%s (%s)", [id, severity])

deny contains msg if {
    some id in input.evidence.findings.ids
    not id in allowed
    msg := named(id)
}
deny contains sprintf("%.0f%% of %s covered", [input.evidence.coverage.lines * 100, input.artifact.name]) if {
    input.evidence.coverage.lines < limits.coverage
}
deny contains "a slow test" if {
    every name in input.evidence.tests.failing { endswith(name, "_slow") }
    count(input.evidence.tests.failing) > 0
}
"""
    facts: dict[str, Fact] = {
        "evidence.findings.ids": ("CVE-2", "CVE-1"),
        "evidence.findings.critical": 2,
        "evidence.coverage.lines": 0.75,
        "evidence.tests.failing": ("a_slow", "b_slow"),
        "artifact.name": "catalog",
    }
    found = decide(body, facts)
    assert found.verdict.result is Result.FAIL
    assert found.says == "75% of catalog covered; CVE-2 (high); a slow test"
    assert found.values == facts
    good = {
        **facts,
        "evidence.findings.ids": (),
        "evidence.coverage.lines": 0.8,
        "evidence.tests.failing": (),
    }
    assert decide(body, good).verdict.passed
    assert decide(body, good).says


def test_every_fact_can_be_named_and_is_needed() -> None:
    named = "\n".join(f"x{number} := input.{name}" for number, name in enumerate(FACTS))
    used = "\n".join(f"x{number} == x{number}" for number in range(len(FACTS)))
    found = decide(f'{named}\ndeny contains "x" if {{\n{used}\nfalse\n}}', {"release.first": True})
    assert (found.verdict.result, found.verdict.cause) == (Result.UNKNOWN, Cause.MISSING)
    assert found.missing == tuple(sorted(set(FACTS) - {"release.first"}))
    assert all(name in found.says for name in found.missing)
    assert found.values == {"release.first": True}


def test_a_fact_that_a_rule_would_not_have_reached_is_needed_as_well() -> None:
    body = 'deny contains "x" if {\n input.release.first\n input.evidence.tests.failed > 0\n}'
    assert decide(body, {"release.first": False}).missing == ("evidence.tests.failed",)
    assert decide(body, {"release.first": False, "evidence.tests.failed": 0}).missing == ()


def test_messages_are_told_in_one_order_and_objects_as_json() -> None:
    body = 'deny contains "b"\ndeny contains "a"\ndeny contains "b"'
    assert decide(body).says == "a; b"
    assert decide('deny contains {"why": "é", "at": 3}').says == '{"at": 3, "why": "é"}'
    assert decide('deny contains ""').verdict.result is Result.FAIL


def test_many_messages_are_cut() -> None:
    body = 'deny contains sprintf("m%d", [n]) if some n in numbers.range(1, 80)'
    assert decide(body).says.endswith("; and 30 more")
    long = decide("deny contains input.artifact.name", {"artifact.name": "x" * 100_000})
    assert long.verdict.result is Result.FAIL
    assert len(long.says) < 5000


@pytest.mark.parametrize(
    "text",
    ["a", "", " a ", "é", "😀", 'a"b', "a\\b", "a\\nb", "a\nb", "a\tb", "a\r\nb", "/", "\u2028", "\x7f",
     "{{x}}", "%d", "$x", "# x", '"; true', "1", "true", "\\u0041", '\\"', "\ufeff", "{input.release.first}"],
)  # fmt: skip
def test_a_text_is_equal_to_itself(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    written = ['"' + escaped.replace("\r", "\\r") + '"']
    written += [f"`{text}`"] if "\r" not in text else []
    for literal in written:
        body = f"deny contains input.artifact.name if input.artifact.name == {literal}\n"
        found = decide(body, {"artifact.name": text})
        assert found.verdict.result is Result.FAIL
        assert found.says == (text.strip() or "denied")
        joined = f'concat("", [input.artifact.name, "z"]) in {{concat("", [{literal}, "z"])}}'
        body = f'deny contains "x" if {joined}\n'
        assert decide(body, {"artifact.name": text}).verdict.result is Result.FAIL


@pytest.mark.parametrize(
    ("body", "fact", "value"),
    [
        ('deny contains "x" if contains(input.artifact.name, "x")', "artifact.name", 'a"x'),
        ('deny contains "x" if count(input.artifact.name) > 3', "artifact.name", "a\nb"),
        ('deny contains "x" if lower(input.artifact.name) == "x"', "artifact.name", "É"),
        ('deny contains "x" if input.artifact.name == "x"', "artifact.name", "\ud800"),
        ('deny contains "x" if input.evidence.tests.failed > 3', "evidence.tests.failed", 10**17),
        ('deny contains "x" if input.evidence.coverage.lines > 3', "evidence.coverage.lines", -1e300),
        ('deny contains "x" if "x" in input.evidence.tests.failing', "evidence.tests.failing", ("\ud800",)),
    ],
)
def test_a_value_that_the_engine_would_see_otherwise_is_an_error(body: str, fact: str, value: Fact) -> None:
    verdict = decide(body, {fact: value}).verdict
    assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)
    assert fact in verdict.reason


@pytest.mark.parametrize(
    "condition",
    [
        "1 / input.evidence.tests.failed > 0",
        "not 1 / input.evidence.tests.failed > 0",
        "1 % input.evidence.tests.failed == 0",
        "two == 3",
        "not two == 3",
        'regex.match("(", input.artifact.name)',
        'semver.compare(input.artifact.name, "1.0.0") > 0',
        "substring(input.artifact.name, -1, 1) == input.artifact.name",
        "count(numbers.range(0.5, 3)) == 1",
    ],
)
def test_what_has_no_value_is_an_error(condition: str) -> None:
    two = "two := 1 if input.evidence.tests.failed == 0\ntwo := 2\n" if "two" in condition else ""
    body = f'{two}deny contains "x" if {condition}'
    verdict = decide(body, {"evidence.tests.failed": 0, "artifact.name": "catalog"}).verdict
    assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)


#: Values for functions to be tried with: three texts, and a number.
TRIED = ((('""', '"a"', '""'), "0"), (('"(b"', '"b"', '"é"'), "2"), (('"b"', '"b"', '"b"'), "-1.5"))


def samples() -> Iterator[str]:
    for name, (parameters, _) in builtins.FUNCTIONS.items():
        for texts, number in TRIED:
            given = []
            for place, parameter in enumerate(parameters):
                kind = parameter[0] if isinstance(parameter, tuple) else parameter
                items = "[]" if number == "0" else f"[{number}]" if kind.item == NUMBER else f"[{texts[0]}]"
                written = {"array": items, "object": '{"a": 1}'}
                given.append(
                    texts[place] if kind == TEXT else number if kind == NUMBER else written[kind.kind]
                )
            yield f"{name}({', '.join(given)})"


def test_no_allowed_function_is_silently_undefined() -> None:
    """Undefined would be an empty set: the rule did not fire, and nobody was told."""
    engine = Engine()
    for call in samples():
        module = f'{HEAD}deny contains "fired" if {{\n x := {call}\n true\n}}'
        try:
            found: object = engine.ask(module, "organisation/tests/deny", "{}")
        except Trouble as error:
            found = error.what
        assert found, call
    engine.close()


@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_an_error_and_the_next_policy_is_decided(what: str) -> None:
    engine = Engine(seconds=1.0)
    rego = Rego(engine)
    doubles = DOUBLES if "doubles" in what else ""
    verdict = decide(f'{doubles}\ndeny contains "x" if {{\n{ENDLESS[what]}\n}}', rego=rego).verdict
    assert (verdict.result, verdict.cause) == (Result.UNKNOWN, Cause.ERROR)
    assert verdict.reason == "deny: stopped: a policy may take 1 seconds and 512 MB"
    assert decide('deny contains "y"', rego=rego).says == "y"
    rego.close()


def test_too_much_memory_ends_the_process_by_itself() -> None:
    module = f'{HEAD}deny contains "x" if {{\n{ENDLESS["a huge list"]}\n}}'
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answers, _ = process.communicate(request(module))
    assert process.returncode == 9
    assert answers.splitlines() == [b'{"ready": true}']


def test_nobody_waits_and_the_kernel_ends_it() -> None:
    module = f'{HEAD}deny contains "x" if {{\n{ENDLESS["a pattern that tries everything"]}\n}}'
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answers, _ = process.communicate(request(module))
    assert process.returncode < 0
    assert answers.splitlines() == [b'{"ready": true}']


def test_the_process_ends_with_its_input() -> None:
    found = subprocess.run(
        COMMAND, input=request(f'{HEAD}deny contains "x"'), capture_output=True, check=True
    )
    assert found.stdout.splitlines()[1:] == [b'{"id": 1, "messages": ["x"]}']
    assert found.stderr == b""


def request(module: str) -> bytes:
    return (
        json.dumps({"id": 1, "module": module, "entry": "organisation/tests/deny", "input": "{}"}).encode()
        + b"\n"
    )


def test_a_killed_process_is_started_again() -> None:
    before = children()
    rego = Rego()
    compiled = rego.compile(policy(f'{HEAD}deny contains "x" if input.release.first'))
    for first in (True, False, True):
        (pid,) = children() - before
        psutil.Process(pid).kill()
        (found,) = compiled.decide({"release.first": first})
        assert found.verdict.result is (Result.FAIL if first else Result.PASS)
    rego.close()
    assert children() == before


def test_a_language_that_is_forgotten_leaves_no_process() -> None:
    before = children()
    rego = Rego()
    decide('deny contains "x"', rego=rego)
    assert len(children() - before) == 1
    del rego
    gc.collect()
    assert children() == before


def test_threads_share_a_process() -> None:
    before = children()
    rego = Rego()
    body = (
        'deny contains sprintf("%d", [input.evidence.tests.failed]) if input.evidence.tests.failed % 2 == 0'
    )
    compiled = rego.compile(policy(HEAD + body))

    def one(number: int) -> str:
        return compiled.decide({"evidence.tests.failed": number})[0].says

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(200)))
    assert found == [str(number) if number % 2 == 0 else "nothing is denied" for number in range(200)]
    assert len(children() - before) == 1
    rego.close()


@pytest.mark.parametrize(
    "program",
    {
        "says nothing": "",
        "ends": "sys.exit(3)",
        "garbage": "print('garbage'); time.sleep(60)",
        "no object": "print('[]'); time.sleep(60)",
        "another's answer": """print('{"id": 99, "messages": []}'); time.sleep(60)""",
        "no messages": """print('{"id": 1}'); time.sleep(60)""",
        "messages that are none": """print('{"id": 1, "messages": [null]}'); time.sleep(60)""",
        "messages that are a text": """print('{"id": 1, "messages": "none"}'); time.sleep(60)""",
        "too much": "print('x' * 5_000_000); time.sleep(60)",
        "half a line": """print('{"id": 1, "messages": []}', end=''); sys.exit()""",
        "never an answer": "time.sleep(60)",
    }.items(),
    ids=lambda item: item[0],
)
def test_a_process_that_answers_anything_else_is_no_pass(program: tuple[str, str]) -> None:
    text = f"import sys, time\nprint('{{\"ready\": true}}', flush=True)\n{program[1]}\nsys.stdout.flush()"
    engine = Engine(seconds=1.0, command=(sys.executable, "-u", "-c", text))
    with pytest.raises(Trouble):
        engine.ask("package p" + " " * 300_000, "p/deny", "{}")
    engine.close()


def test_a_process_that_cannot_be_started_is_told() -> None:
    for command in (("/nonexistent",), (sys.executable, "-c", "")):
        with pytest.raises(Unavailable, match="process for Rego"):
            decide('deny contains "x"', rego=Rego(Engine(command=command)))


def test_without_the_library_the_next_move_is_to_install_it() -> None:
    hello = """print('{"missing": "No module named regopy"}')"""
    with pytest.raises(Invalid) as caught:
        decide('deny contains "x"', rego=Rego(Engine(command=(sys.executable, "-c", hello))))
    assert "penstock[rego]" in caught.value.next_move


def test_the_process_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "secret")
    text = """
import json, os, sys
print('{"ready": true}', flush=True)
sys.stdin.readline()
print(json.dumps({"id": 1, "messages": sorted(os.environ)}), flush=True)
"""
    engine = Engine(command=(sys.executable, "-c", text))
    names = engine.ask("", "", None)
    assert "PATH" in names
    assert not [name for name in names if str(name).startswith("PENSTOCK")]
    engine.close()


def test_what_the_engine_refuses_has_its_place() -> None:
    engine = Engine()
    with pytest.raises(Trouble) as caught:
        engine.ask("package p\nallow if {\n  1 >> 2\n}", "p/deny", None)
    assert caught.value.place == len("package p\nallow if {\n  1 ")
    assert caught.value.what
    engine.close()


def test_a_module_that_cannot_be_right_is_refused_when_it_is_published() -> None:
    with pytest.raises(Invalid) as caught:
        decide('deny contains "x" if {\n  inptu.release.first\n}')
    assert caught.value.where == "p: module:4:3"
    assert "input" in caught.value.what
