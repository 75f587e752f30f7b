"""The command line without a server: usage, help, exit codes, and where messages go."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from penstock.cli import people, show
from penstock.cli.follow import print_step
from penstock.cli.main import SECTIONS, Section, main, parser

COMMANDS = [
    "up",
    "down",
    "doctor",
    "demo",
    "node",
    "serve",
    "backup",
    "restore",
    "prune",
    "mesh",
    "ship",
    "rollback",
    "import",
    "promote",
    "abort",
    "status",
    "logs",
    "run",
    "shell",
    "why",
    "policy",
    "identity",
    "role",
    "review",
    "override",
    "evidence",
    "ledger",
    "verify",
]


@pytest.fixture(autouse=True)
def nobody_home(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PENSTOCK_HOME", str(short_tmp / "h"))
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return iter([short_tmp / "h"])


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n    {name} " not in out] == []


def test_without_a_command_there_is_all_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    said = capsys.readouterr().err
    assert [name for name in COMMANDS if f"\n    {name} " not in said] == []
    assert "Begin with: penstock up" in said


@pytest.mark.parametrize(("section", "words"), SECTIONS.items())
def test_a_section_has_the_commands_that_it_is_found_by(section: Section, words: tuple[str, ...]) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    section(commands)
    assert tuple(commands.choices) == words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "example: " in out
    example = out.partition("example: ")[2].strip()
    if example.startswith("penstock "):
        parser().parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["ship"],
        ["why"],
        ["up", "--port", "x"],
        ["status", "-o", "xml"],
        ["verify", "b.json"],
        ["ledger", "witnesses"],
    ],
)
def test_wrong_usage_is_2_and_on_standard_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "usage: penstock" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["witness", "add"],
        ["witness", "add", "http://w.example"],
        ["witness", "remove"],
        ["witness", "list", "all"],
        ["witness", "drop", "x"],
    ],
)
def test_words_that_ledger_does_not_take_are_invalid(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", *words]) == 2
    assert "next: penstock ledger witness --help" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status"], ["ship", "."], ["why", "shop"], ["ledger", "verify"]])
def test_without_a_server_the_next_move_is_up(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "next: penstock up" in said.err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://[", "ftp://x"])
def test_a_url_that_leads_nowhere_is_unavailable_or_invalid(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", url)
    assert main(["status"]) in (2, 3)
    assert "✗ " in capsys.readouterr().err


def test_a_token_that_no_header_can_hold_is_invalid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PENSTOCK_TOKEN", "pst_ü\n")
    assert main(["status"]) in (2, 3)
    assert "✗ " in capsys.readouterr().err


def test_a_path_too_long_for_sockets_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", "/tmp/" + "x" * 200)
    assert main(["status"]) in (2, 3)
    main(["doctor"])
    assert "✗ data folder" in capsys.readouterr().out


def test_the_doctor_works_without_a_server(capsys: pytest.CaptureFixture[str], nobody_home: Path) -> None:
    main(["doctor", "-o", "json"])
    findings = json.loads(capsys.readouterr().out)
    assert {finding["what"] for finding in findings} >= {"Python", "git", "sandbox", "Envoy", "data folder"}
    assert all(finding["good"] or finding["next_move"] for finding in findings)


def test_a_policy_needs_no_server_to_list_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "facts"]) == 0
    assert "evidence.tests.failed" in capsys.readouterr().out


def test_down_when_nothing_is_up_is_no_error(nobody_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0


def test_an_exit_code_reaches_the_shell(nobody_home: Path) -> None:
    command = [sys.executable, "-m", "penstock.cli.main", "status"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


# --- what people see ------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(text: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stdout", stream)
    show.say(text)
    return stream.getvalue()


def test_colours_are_for_terminals_and_for_those_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32m✓" in said("✓ good", Terminal(), monkeypatch)
    assert said("✓ good", io.StringIO(), monkeypatch) == "✓ good\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert said("✓ good", Terminal(), monkeypatch) == "✓ good\n"


def test_what_other_people_wrote_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "title \x1b]0;owned\x07 \x1b[2J end\r\x9b31m"
    shown = said(hostile, Terminal(), monkeypatch)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown
    assert "end" in shown


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    text = show.table(("a", "bb"), [("long", 1), ("x", "y")])
    assert text.splitlines()[0] == "a     bb"
    assert text.splitlines()[2] == "long  1"


def test_what_a_step_says_is_cut_on_a_terminal_and_whole_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = " ".join(f"word{number}" for number in range(60))
    step = {"name": "canary: look 1", "state": "success", "seconds": 0.5, "reason": reason}
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    print_step(step)
    assert len(terminal.getvalue()) == 101
    monkeypatch.setattr(sys, "stdout", file := io.StringIO())
    print_step(step)
    first, *others = file.getvalue().splitlines()
    assert max(map(len, [first, *others])) <= 140
    assert {line[:37].strip() for line in others} == {""}
    assert file.getvalue().split()[6:] == reason.split()


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"penstock {version('penstock')}\n"


def test_nobody_waits_for_the_version_who_did_not_ask() -> None:
    program = (
        "import sys; from penstock.cli.main import parser; parser('ship');"
        "print('importlib.metadata' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "usage", "told"),
    [
        (["up", "--ingress-prot", "87"], "penstock up", "--ingress-prot 87; did you mean --ingress-port?"),
        (["policy", "lint", "x", "--fromat=json"], "penstock policy lint", "--fromat=json"),
        (["doctor", "--shcema=policy"], "penstock doctor", "--shcema=policy; did you mean --schema?"),
        (["down", "now"], "penstock down", "unrecognized arguments: now"),
    ],
)
def test_an_unknown_option_is_refused_with_the_usage_of_its_command(
    words: list[str], usage: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"usage: {usage} [-h]")
    assert said[-1].endswith(told)


def test_a_schema_and_a_reference_are_two_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--schema", "slo", "--reference", "slo"])
    assert left.value.code == 2
    assert "not allowed with argument --schema" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["shpi", "."], "there is no 'shpi'; did you mean ship?"),
        (["policy", "lnit", "x"], "there is no 'lnit'; did you mean lint?"),
        (["explain", "shop"], "there is no 'explain'; did you mean policy explain?"),
        (["evidence", "lits"], "there is no 'lits'; did you mean list?"),
        (["evidence", "zzz"], "there is no 'zzz'; there are: list, show, add, export"),
    ],
)
def test_a_misspelt_command_is_told_what_it_may_have_been(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(told)


@pytest.mark.parametrize(
    ("policy", "action"), [("test-lead", "promote"), ("security-lead", "deploy"), ("nobody", "deploy")]
)
def test_an_override_is_of_what_was_refused(policy: str, action: str) -> None:
    said = [
        ("test-lead", "shift", "FAILED"),
        ("test-lead", "promote", "FAILED"),
        ("test-lead", "deploy", "PASSED"),
    ]
    signed = [{"policy": who, "action": what, "result": result} for who, what, result in said]
    assert people._refused_action({"sign_offs": signed}, policy) == action
