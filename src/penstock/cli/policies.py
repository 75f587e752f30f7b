"""Policies as software: list, show, lint, test, replay, publish, retire, explain.

Called by `main`. Linting and testing need no server (a lint asks one who holds the owner's role, if it is
there); everything else asks one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from penstock.bootstrap.identity import publication
from penstock.bootstrap.plugins import find, names
from penstock.cli import spelling
from penstock.cli.client import Client
from penstock.cli.ended import latest, trouble, well
from penstock.cli.show import complain, document, mark, overridden, read, table, told
from penstock.cli.show import say as line
from penstock.cli.signing import NOBODY, add_options, say
from penstock.core.facts import FACTS
from penstock.core.people import PolicyRetirement
from penstock.core.policy import PolicyDocument, Rules
from penstock.core.wording import plural
from penstock.errors import Invalid
from penstock.ledger.again import compiled
from penstock.policyfile import parse_policy
from penstock.policytests import Case, Failure, load_tests, run_case

SUFFIX = ".test.yaml"


def parsers(verb: Any) -> None:
    """The verbs of ``penstock policy``; *verb* adds one."""
    verb("list", listed, "the policies in force, and who owns them", "penstock policy list")
    verb("facts", facts, "what a policy may use", "penstock policy facts")
    show = verb("show", shown, "a policy's text", "penstock policy show security-lead")
    show.add_argument("name")
    lint = verb("lint", lint_files, "check policies, here", "penstock policy lint policies/*.yaml")
    lint.add_argument("files", nargs="+", type=Path)
    test = verb("test", test_files, "run the tests beside policies, here", "penstock policy test policies/")
    test.add_argument("files", nargs="+", type=Path, help="policies, or folders of them")
    what = "which past deliveries a change would have refused or let through"
    replayed = verb("replay", replay, what, "penstock policy replay policies/security-lead.yaml")
    replayed.add_argument("file", type=Path)
    replayed.add_argument("--limit", type=int, default=200, help="of the newest deliveries (default 200)")
    publish = verb("publish", published, "put a version in force", "penstock policy publish my-policy.yaml")
    publish.add_argument("file", type=Path)
    add_options(publish)
    what = "publish the policies of a git repository, by its signed commits and CODEOWNERS"
    sync = verb("sync", synced, what, "penstock policy sync ../organisation")
    sync.add_argument("location")
    sync.add_argument("--revision", default="", help="a branch, tag or commit (default: HEAD)")
    retire = verb("retire", retired, "take a policy out of force", "penstock policy retire my-policy")
    retire.add_argument("name")
    retire.add_argument("--reason", required=True)
    add_options(retire)
    explain = verb(
        "explain", explained, "why a delivery was signed off or not", "penstock policy explain shop-1a2b"
    )
    explain.add_argument("delivery")
    explain.add_argument("name", nargs="?", default="", help="one policy only")
    explain.add_argument("--all", action="store_true", help="also what was asked again since")


def listed(given: argparse.Namespace) -> int:
    view = Client.find().get("/v1/policies")
    rows = [
        (
            p["name"],
            p["owner"],
            ", ".join(p["holders"]) or "nobody",
            p["scope"],
            ", ".join(p["guards"]),
            p["index"],
            p["digest"][:19],
        )
        for p in view["policies"]
    ]
    head = ("policy", "owner", "held by", "scope", "guards", "entry", "digest")
    return told(given, view, table(head, rows))


def facts(given: argparse.Namespace) -> int:
    rows = [(name, kind.value, what) for name, (kind, what) in FACTS.items()]
    known = {name: kind for name, kind, _ in rows}
    return told(given, known, table(("fact", "type", "what it says"), rows))


def shown(given: argparse.Namespace) -> int:
    view = Client.find().get(f"/v1/policies/{given.name}")
    return told(given, view, view["source"])


# --- here, without a server -----------------------------------------------------------------------------


def lint_files(given: argparse.Namespace) -> int:
    """All of them, also after one that is wrong."""
    rows: list[dict[str, Any]] = []
    for path in _policies(given.files):
        try:
            policy = _compiled(path)[0]
        except Invalid as error:
            problem = str(Invalid(error.what, where=error.where))
            rows.append({"file": str(path), "problem": problem, "next": error.next_move})
            continue
        spelling.warn_of_environments(policy.policy, policy.environments)
        spelling.warn_of_owner(policy.owner)
        rows.append({"file": str(path), "policy": policy.policy, "rules": len(policy.rules)})
    good, bad = [row for row in rows if "problem" not in row], [row for row in rows if "problem" in row]
    for row in bad:
        complain(f"✗ {row['problem']}" + (f"\n  next: {row['next']}" if row["next"] else ""))
    if good or given.format == "json":
        told(given, rows, "\n".join(f"✓ {row['policy']}: {_in_words(row['rules'])}" for row in good))
    return 2 if bad else 0


def _in_words(rules: int) -> str:
    return "1 rule compiles" if rules == 1 else f"{rules} rules compile"


def test_files(given: argparse.Namespace) -> int:
    """Every case of every test file; a policy without one is a failure, and so is a file without cases."""
    results = [_tested(path) for path in _policies(given.files)]
    good = all(not failures and cases for _, cases, failures in results)
    if given.format == "json":
        document(
            [
                {
                    "policy": name,
                    "cases": len(cases),
                    "failures": [f"{f.case}: {f.problem}" for f in failures],
                }
                for name, cases, failures in results
            ]
        )
        return 0 if good else 1
    for name, cases, failures in results:
        passed = not failures and bool(cases)
        words = f"{len(cases) - len({f.case for f in failures})} of {len(cases)} cases pass"
        line(f"{mark(passed)} {name}: {words}" if cases else f"✗ {name}: no tests beside it ({name}{SUFFIX})")
        for failure in failures:
            line(f"    ✗ {failure.case}: {failure.problem}")
    return 0 if good else 1


def _tested(path: Path) -> tuple[str, tuple[Case, ...], list[Failure]]:
    policy, rules = _compiled(path)
    beside = path.with_name(path.name.removesuffix(".yaml") + SUFFIX)
    if not beside.exists():
        return policy.policy, (), []
    cases = load_tests(read(beside), beside.name)
    return policy.policy, cases, [f for case in cases for f in run_case(policy, rules, case)]


def _policies(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        found += [one for one in inside if not one.name.endswith(SUFFIX)]
    if not found:
        raise Invalid("no policy here", where=", ".join(map(str, paths)), next_move="name a .yaml file")
    return found


def _compiled(path: Path) -> tuple[PolicyDocument, Rules]:
    policy = parse_policy(read(path), str(path))
    languages = {name: find("language", name)() for name in names("language")}
    return policy, compiled(policy, languages)


# --- with a server ----------------------------------------------------------------------------------------


def replay(given: argparse.Namespace) -> int:
    source = read(given.file).decode(errors="replace")
    view = Client.find().post("/v1/policies/replay", {"source": source, "limit": given.limit})
    changed = [a for a in view["answers"] if a["effect"] or (a["then"] and a["then"] != a["now"])]
    rows = [
        (a["delivery"], a["action"], a["then"] or "–", a["now"], a["effect"] or "–", a["says"][:70])
        for a in changed
    ]
    words = (
        f"{view['policy']} over {plural(view['deliveries'], 'delivery')} "
        f"({plural(view['questions'], 'question')}): "
        f"would have refused {view['refused']}, let through {view['let_through']}"
    )
    head = ("delivery", "action", "then", "now", "effect", "says")
    if not view["questions"]:
        complain(f"! nothing that {view['policy']} guards was ever asked about: this says nothing of it")
    return told(given, view, words + ("\n\n" + table(head, rows) if rows else ""))


def published(given: argparse.Namespace) -> int:
    source = read(given.file).decode(errors="replace")
    said = publication(source, NOBODY, str(given.file))
    spelling.warn_of_environments(said.name, parse_policy(source.encode(), str(given.file)).environments)
    answer = say(given, Client.find(), said)
    view = {"policy": said.name, **answer}
    return told(given, view, f"✓ {said.name} is in force from entry {answer['index']} on")


def synced(given: argparse.Namespace) -> int:
    local = Path(given.location)
    location = str(local.resolve()) if local.exists() else given.location
    body = {"location": location, "revision": given.revision}
    view = Client.find().post("/v1/policies/sync", body)
    rows = [
        (p["file"], p["what"], p["identity"] or "–", p["commit"][:12] or "–", p["index"] or "–")
        for p in view["policies"]
    ]
    return told(given, view, table(("file", "what", "signed by", "commit", "entry"), rows))


def retired(given: argparse.Namespace) -> int:
    answer = say(given, Client.find(), PolicyRetirement(NOBODY, given.name, given.reason))
    view = {"policy": given.name, **answer}
    return told(given, view, f"✓ {given.name} holds no longer, from entry {answer['index']} on")


def explained(given: argparse.Namespace) -> int:
    client = Client.find()
    view = client.get(f"/v1/deliveries/{latest(client, given.delivery)}")
    signed = [s for s in view["sign_offs"] if given.name in ("", s["policy"])]
    if given.format == "json":
        document({"delivery": view["id"], "sign_offs": signed, "waiting": view["waiting"]})
        return 0
    if not signed and (given.name or not view["ended"] or well(view)):
        known = sorted({s["policy"] for s in view["sign_offs"]})
        raise Invalid(
            f"no sign-off of {given.name or 'any policy'} here; there are: {', '.join(known) or 'none'}"
        )
    for one in signed:
        if given.all or not one["asked_again"]:
            _explain(one)
    if said := trouble(view):
        line(said)
    return 0


def _explain(signed: dict[str, Any]) -> None:
    passed = signed["result"] == "PASSED"
    head = (
        f"{mark(passed)} {signed['policy']} for {signed['action']}: {signed['verdict']}{overridden(signed)}"
    )
    line(f"{head}  (entry {signed['index']})")
    for rule in signed["rules"]:
        line(f"    {mark(rule['verdict'] == 'PASS')} {rule['id']}: {rule['says']}")
        for name, value in rule["values"].items():
            line(f"        {name} = {value}")
