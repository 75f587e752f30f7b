"""``penstock run``: the pipeline without a server, on real repositories, in the real sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import open_sandbox
from penstock.cli.examples import materialise
from penstock.cli.main import main
from penstock.errors import Unavailable

#: A service whose tests need nothing to be installed.
QUICK = {
    "app.py": "print('listens')\n",
    "penstock.yaml": "service: quick\nchecks:\n  unit: {run: python3 -m unittest -q check}\n",
    "check.py": (
        "import unittest\n\nclass T(unittest.TestCase):\n"
        "    def test(self):\n        self.assertEqual(open('answer').read(), '42')\n"
    ),
    "answer": "42",
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder for all tests: what is installed for one is there for the next."""
    made = Path(tempfile.mkdtemp(prefix="ps-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("PENSTOCK_HOME", str(folder))
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        open_sandbox("bubblewrap")
    except Unavailable as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    return Home(folder)


def write(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def commit(path: Path) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "a change")):
        subprocess.run(["git", *identity, *words], cwd=path, check=True, capture_output=True)
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=path, check=True, capture_output=True, text=True)
    return found.stdout.strip()


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = write(tmp_path / "quick", QUICK)
    commit(path)
    return path


class Ran:
    """One run: its exit code and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: object) -> None:
        capsys.readouterr()
        self.code = main(["run", *map(str, words)])
        self.out, self.err = capsys.readouterr()
        assert "Traceback" not in self.err

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def would(self) -> dict[tuple[str, str], str]:
        return {(a["action"], a["policy"]): a["would"] for a in self.document["policies"]}


def test_a_good_example_passes_as_far_as_can_be_told(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    materialise("catalog", "v1", tmp_path / "catalog")
    revision = commit(tmp_path / "catalog")
    ran = Ran(capsys, tmp_path / "catalog", "-o", "json")
    assert ran.code == 0, ran.err
    assert (ran.document["revision"], ran.document["dirty"], ran.document["notes"]) == (revision, False, [])
    assert [(d["stage"], d["good"]) for d in ran.document["stages"]] == [
        ("build", True),
        ("tests", True),
        ("audit", True),
        ("scan", True),
    ]
    assert ran.would() == {
        ("deploy", "development-lead"): "pass",
        ("deploy", "security-lead"): "pass",
        ("shift", "test-lead"): "later",
        ("promote", "operations-lead"): "later",
        ("promote", "test-lead"): "later",
    }
    assert "5 passed" in ran.err  # the tests' own words, while they run
    # Nothing is left but what makes the next run quick.
    assert sorted(p.name for p in home.path.iterdir()) == ["artifacts", "cache"]
    assert sorted(p.name for p in home.artifacts.iterdir()) == ["deps", "locks"]


def test_checks_run_as_in_a_delivery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same stages, by the same names; an optional one may fail."""
    config = (
        "service: quick\nchecks:\n  unit: {run: python3 -m unittest -q check}\n"
        "  style: {run: 'true', sarif: not-written, optional: true, after: [unit]}\n"
        "  target: {run: printenv PENSTOCK_TARGET, each: [alpha, beta]}\n"
    )
    path = write(tmp_path / "quick", {**QUICK, "penstock.yaml": config})
    commit(path)
    ran = Ran(capsys, path, "--stage", "unit", "--stage", "style", "--stage", "target-2", "-o", "json")
    stages = {done["stage"]: done["good"] for done in ran.document["stages"]}
    assert stages == {"unit": True, "style": False, "target-2": True}
    assert ran.code == 0, ran.err
    assert "beta" in ran.err.split()
    assert Ran(capsys, path, "--stage", "tests").code == 2


def test_failing_tests_end_with_1_and_name_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    materialise("catalog", "v4-failing-tests", tmp_path / "catalog")
    commit(tmp_path / "catalog")
    ran = Ran(capsys, tmp_path / "catalog")
    assert ran.code == 1
    assert "✗ tests" in ran.out
    assert "✗ development-lead: 2 failed: tests.test_items::test_prices_have_two_decimals" in ran.out
    assert "a delivery would not get through" in ran.out


def test_a_finding_fails_the_policy_though_every_stage_went_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    materialise("catalog", "v5-critical-finding", tmp_path / "catalog")
    commit(tmp_path / "catalog")
    ran = Ran(capsys, tmp_path / "catalog", "-o", "json")
    assert ran.code == 1
    assert all(done["good"] for done in ran.document["stages"])
    assert ran.would()["deploy", "security-lead"] == "fail"


def test_the_commit_is_looked_at_and_not_what_was_edited_since(
    quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (quick / "answer").write_text("41")
    ran = Ran(capsys, quick, "--stage", "unit")
    assert ran.code == 0, ran.out + ran.err
    assert "! not in this commit, so not looked at: 1 file; --dirty does" in ran.out
    dirty = Ran(capsys, quick, "--stage", "unit", "--dirty")
    assert dirty.code == 1
    assert "quick, uncommitted files, not a commit" in dirty.out
    assert "'41' != '42'" in dirty.out


def test_dirty_takes_what_git_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New files, not ignored ones, not deleted ones; and a folder that is no repository yet."""
    path = write(tmp_path / "plain", {**QUICK, "gone": "", ".gitignore": "secret\n"})
    write(
        path,
        {"check.py": QUICK["check.py"].replace("self.assert", "import os; print(os.listdir()); self.assert")},
    )
    assert "'gone'" in Ran(capsys, path, "--dirty", "--stage", "unit").out
    commit(path)
    (path / "gone").unlink()
    write(path, {"secret": "", "new/file": ""})
    out = Ran(capsys, path, "--dirty", "--stage", "unit").out
    assert "'new'" in out
    assert "'gone'" not in out
    assert "'secret'" not in out


def test_a_link_that_leaves_the_tree_is_found_before_it_is_committed(
    quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (quick / "passwords").symlink_to("/etc/passwd")
    ran = Ran(capsys, quick, "--dirty")
    assert ran.code == 2
    assert "passwords: leads out of the tree" in ran.err


def test_one_stage_leaves_the_others_evidence_open(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, quick, "--stage", "unit", "-o", "json")
    assert ran.code == 0, ran.err
    assert [done["stage"] for done in ran.document["stages"]] == ["unit"]
    assert ran.would()["deploy", "development-lead"] == "pass"
    assert ran.would()["deploy", "security-lead"] == "later"
    assert ran.document["artifact"] == ""


def test_no_tests_at_all_would_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """UNKNOWN, and nothing that is still to come would change it. No penstock.yaml is needed."""
    path = write(tmp_path / "bare", {"app.py": "print('listens')\n"})
    commit(path)
    ran = Ran(capsys, path, "--stage", "build", "--stage", "tests", "-o", "json")
    assert ran.code == 1
    assert ran.document["service"] == "bare"
    assert all(done["good"] for done in ran.document["stages"])
    assert ran.would()["deploy", "development-lead"] == "fail"


def test_a_build_that_fails_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = (
        "[project]\nname = 'worse'\nversion = '1'\n"
        "[build-system]\nrequires = []\nbuild-backend = 'nowhere'\nbackend-path = ['.']\n"
    )
    path = write(tmp_path / "worse", {**QUICK, "pyproject.toml": package})
    commit(path)
    ran = Ran(capsys, path)
    assert ran.code == 1
    assert "✗ build" in ran.out
    assert "No module named 'nowhere'" in ran.out
    assert "▸ tests" not in ran.out
    assert "! the policies were not asked: there is no artifact" in ran.out


POLICY = """\
policy: strict
owner: development-lead
guards: [deploy]
environments: [production]
rules:
  - {id: a, when: evidence.tests.passed > 9, say: '"many"', else: "'only ' + string(evidence.tests.passed)"}
"""


def test_other_policies(quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "policies", {"strict.yaml": POLICY, "strict.test.yaml": "cases: []\n"})
    ran = Ran(capsys, quick, "--stage", "unit", "--policies", folder)
    assert ran.code == 1
    assert "✗ strict: only 1" in ran.out
    assert "development-lead:" not in ran.out
    assert "! no policy guards shift: a delivery would be refused there" in ran.out


def test_a_broken_file_is_named_with_its_line(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(quick, {"penstock.yaml": "service: quick\nreplicas: many\n"})
    commit(quick)
    for more in ((), ("--dirty",)):
        ran = Ran(capsys, quick, *more)
        assert ran.code == 2
        assert "penstock.yaml:2: replicas: expected a whole number, found 'many'" in ran.err


def test_bad_input(quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = write(tmp_path / "broken", {"p.yaml": POLICY.replace("guards", "gards")})
    cases: list[tuple[tuple[object, ...], str]] = [
        ((quick, "--stage", "canary"), "stages: build, unit, scan"),
        ((tmp_path / "nowhere",), "no such path"),
        ((tmp_path / "nowhere", "--dirty"), "no such folder"),
        ((empty,), "not a git repository"),
        ((empty, "--dirty"), "there are no files here"),
        ((quick, "--policies", empty), "no policy here"),
        ((quick, "--policies", broken), "p.yaml:3: gards: unknown field"),
    ]
    for words, said in cases:
        ran = Ran(capsys, *words)
        assert ran.code == 2, words
        assert said in ran.err
    write(empty, {"README": "nothing to build\n"})
    ran = Ran(capsys, empty, "--dirty")
    assert ran.code == 2
    assert "nothing here looks like a service that can be built" in ran.err
