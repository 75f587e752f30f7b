"""The ``penstock`` command: parse, call, print. Everything it can do, a server or a function below does.

Exit codes: 0 done or passed, 1 failed or refused, 2 wrong usage or Invalid, 3 Unavailable, 4 Broken.

What a command does is imported with its parser, and only the parsers of a command's own section are made:
nobody waits for the whole product to see a status.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.cli.show import complain
from penstock.core.nearest import did_you_mean
from penstock.errors import PenstockError

Handler = Callable[[argparse.Namespace], int]
Verb = Callable[[str, Handler, str, str], argparse.ArgumentParser]
Commands = argparse._SubParsersAction  # argparse's only name for what `add_subparsers` gives
#: The kinds of YAML files that users write, as `schemas` has them; it is too slow to ask here.
KINDS = ("penstock", "environment", "policy", "policy-test", "slo", "experiment", "cluster")


def main(argv: Sequence[str] | None = None) -> int:
    words, inside = split(sys.argv[1:] if argv is None else argv)
    if not words:
        top = parser()
        top.exit(2, top.format_help())
    given = parser(*words[:1]).parse_args(words, argparse.Namespace(inside=inside))
    handler: Handler = given.handler
    try:
        return handler(given)
    except PenstockError as error:
        complain(f"✗ {error}")
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        complain(f"✗ {error.filename or 'system'}: {error.strerror or error}")
        return 3


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is Penstock's, and what comes after ``--`` and is the command to run inside a sandbox."""
    given = list(words)
    if given[:1] != ["shell"] or "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


class Parser(argparse.ArgumentParser):
    """Says what a misspelt command or choice may have meant; only if it knows nothing, what there is."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        meant = did_you_mean(str(value), known) or _verb_of_group(action, value)
        what = f"there is no {value!r}{meant or '; there are: ' + ', '.join(known)}"
        raise argparse.ArgumentError(action, what)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Nothing unknown is handed up: the usage shown is the command's, and so are the options meant."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            meant = did_you_mean(option, self._option_string_actions) if option.startswith("--") else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return given, unknown


class Version(argparse.Action):
    """As argparse's own, which wants the version told each time a parser is made."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"penstock {version('penstock')}\n")
        parser.exit()


def _verb_of_group(action: argparse.Action, value: str) -> str:
    """``; did you mean policy explain?``, for a verb that stands without its command."""
    groups = action.choices.items() if isinstance(action.choices, dict) else ()
    for name, group in groups:
        verbs = (a.choices for a in group._actions if isinstance(a, argparse._SubParsersAction))
        if any(value in known for known in verbs):
            return f"; did you mean {name} {value}?"
    return ""


def parser(command: str = "") -> argparse.ArgumentParser:
    """Of the section that *command* is in; of all, if it is in none; ``--version`` needs none."""
    top: argparse.ArgumentParser = Parser(
        prog="penstock",
        description="Continuous delivery in which every sign-off is an executable policy.",
        epilog="Begin with: penstock up; penstock ship PATH_OR_GIT_URL; penstock why SERVICE",
    )
    top.add_argument("--version", action=Version, nargs=0, help="print which version this is, and exit")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    own = [section for section, words in SECTIONS.items() if command in words]
    for section in () if command == "--version" else own or SECTIONS:
        section(commands)
    return top


def _add(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    handler: Handler,
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "-o", dest="format", choices=("text", "json"), default="text", help="json: one document on stdout"
    )
    command.set_defaults(handler=handler)
    return command


def _machine(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import machine

    up = _add(commands, "up", machine.up, "start Penstock on this machine", "penstock up --port 7070")
    up.add_argument("--port", type=int, help="of the API and the pages, on 127.0.0.1 (default 7070)")
    up.add_argument("--ingress-port", type=int, help="the first port at which services are reached (8600)")
    up.add_argument(
        "--unsandboxed-workloads",
        action="store_true",
        help="run workloads without a sandbox: they can read keys and one another's data",
    )
    what = "how many take deliveries (default 1: the control plane's own); the others are processes"
    up.add_argument("--workers", type=int, help=what)
    what = "counts metrics of services' own for their canaries (kept for the next start; '': none)"
    up.add_argument("--prometheus", metavar="URL", help=what)
    what = "a file with the bearer token that it wants"
    up.add_argument("--prometheus-token", type=Path, metavar="FILE", help=what)
    what = "run releases in the Kubernetes cluster that this file names, not here (kept for the next start)"
    up.add_argument("--cluster", metavar="FILE", help=what)
    _up_in_a_cluster(up)
    _add(commands, "down", machine.down, "stop everything; data stays", "penstock down")
    doctor = "check what this machine needs, with the next move for each problem"
    command = _add(commands, "doctor", machine.doctor, doctor, "penstock doctor")
    printed = command.add_mutually_exclusive_group()
    for option, what in (
        ("--reference", "print such a file with every field documented (default: penstock.yaml)"),
        ("--schema", "print its JSON Schema, for editors (docs/guides/editors.md)"),
    ):
        printed.add_argument(option, nargs="?", const="penstock", choices=KINDS, help=what)
    demo = _add(commands, "demo", machine.demo, "tell the six stories in a fresh data folder", "make demo")
    demo.add_argument("--json", type=Path, metavar="FILE", help="write what happened as JSON")
    demo.add_argument("--keep", action="store_true", help="leave everything up afterwards")
    demo.add_argument("--unsandboxed-workloads", action="store_true", help=argparse.SUPPRESS)
    for name in ("node", "serve"):
        what = f"run the {'node agent' if name == 'node' else 'control plane'} in the foreground"
        _add(commands, name, getattr(machine, name), what, f"penstock {name}")
    what = "run one more worker in the foreground; it joins and leaves at any time"
    worker = _add(commands, "worker", machine.worker, what, "penstock worker --name 2")
    worker.add_argument("--name", required=True, help="its own, and its key's in the ledger")
    worker.add_argument("--slots", type=int, default=4, help="deliveries at a time (default 4)")


def _keeping(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import keeping, mesh

    keeping.parsers(functools.partial(_add, commands))
    what = "calls between machines: what peers trust, and a change of it"
    mesh.parsers(_group(commands, "mesh", what, "penstock mesh trust"))


def _up_in_a_cluster(up: argparse.ArgumentParser) -> None:
    what = "where a cluster asks what it may let in (docs/guides/admission.md); kept, 0: nowhere"
    up.add_argument("--admission-port", type=int, metavar="PORT", help=what)
    for name, what in (("cert", "the TLS certificate of that port (PEM)"), ("key", "its key")):
        up.add_argument(f"--admission-{name}", type=Path, metavar="FILE", help=what)
    what = "an image, or the beginning of its name, that is let in unseen (a mesh's sidecar); may be repeated"
    up.add_argument("--admission-also", action="append", default=[], metavar="IMAGE", help=what)
    what = "start nothing but what is missing, and be the control plane: for a container"
    up.add_argument("--foreground", action="store_true", help=what)
    what = "with --foreground: be one of several control planes, which share PostgreSQL and a volume"
    up.add_argument("--replica", action="store_true", help=what)


def _delivery(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import verbs

    what = "deliver a commit of a repository, or an organisation's environment data"
    ship = _add(commands, "ship", verbs.ship, what, "penstock ship . --revision main")
    ship.add_argument("location", nargs="+", help="a folder with a git repository, or its URL")
    ship.add_argument("--revision", default="", help="a branch, tag or commit (default: HEAD)")
    what = "as one change set: what is called before what calls it, and all of it or nothing"
    ship.add_argument("--together", action="store_true", help=what)
    what = "test it together with the dark release of this delivery; may be repeated"
    ship.add_argument("--with", dest="beside", action="append", default=[], metavar="DELIVERY", help=what)
    ship.add_argument("--no-wait", action="store_true", help="only start it, and print its id")
    what = "where to (default: production); may be repeated: to each of them, as its policies allow"
    ship.add_argument("--environment", action="append", default=[], metavar="NAME", help=what)
    what = "take back: abort what is being delivered, else return to the previous pair"
    rollback = _add(
        commands, "rollback", verbs.rollback, what, "penstock rollback shop --reason 'wrong prices'"
    )
    rollback.add_argument("service")
    rollback.add_argument("--reason", default="", help="kept in the ledger")
    what = "with every service of the change set that it came in, callers first"
    rollback.add_argument("--together", action="store_true", help=what)
    rollback.add_argument("--no-wait", action="store_true")
    _where(rollback)
    for name, handler, what in (
        ("promote", verbs.promote, "end a canary early; the policies still decide"),
        ("abort", verbs.abort, "stop a delivery and undo it"),
    ):
        command = _add(commands, name, handler, what, f"penstock {name} shop-1a2b3c4d")
        command.add_argument("delivery")

    what = "try the change of a failed delivery again, from the stage that failed or the one you name"
    retry = _add(commands, "retry", verbs.retry, what, "penstock retry shop-1a2b3c4d acceptance")
    retry.add_argument("delivery")
    retry.add_argument("stage", nargs="?", default="", help="default: the one that failed")
    what = "deliver the change of an ended delivery again, from the beginning"
    rerun = _add(commands, "rerun", verbs.rerun, what, "penstock rerun shop-1a2b3c4d")
    rerun.add_argument("delivery")
    for command in (retry, rerun):
        command.add_argument("--no-wait", action="store_true", help="only start it, and print its id")


def _looking(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import logs, verbs

    what = "what is live, what is being delivered; or one delivery"
    status = _add(commands, "status", verbs.status, what, "penstock status shop-1a2b3c4d")
    status.add_argument("delivery", nargs="?")
    what = "output of a delivery's stages, or of a service's releases"
    command = _add(commands, "logs", logs.logs, what, "penstock logs shop-1a2b3c4d build --follow")
    command.add_argument("name", help="a delivery or a service")
    command.add_argument("stage", nargs="?", default="")
    command.add_argument("--lines", type=int, default=100, help="of a service (default 100)")
    command.add_argument("--follow", action="store_true", help="a delivery's output as it comes")
    _where(command)
    what = "what is live, which change it came from, who signed it off and why"
    why = _add(commands, "why", verbs.why, what, "penstock why shop")
    why.add_argument("service")
    _where(why)


def _where(command: argparse.ArgumentParser) -> None:
    from penstock.core.release import PRODUCTION

    what = f"of a service (default: {PRODUCTION})"
    command.add_argument("--environment", default=PRODUCTION, metavar="NAME", help=what)


def _here(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import importing, local

    what = (
        "make penstock.yaml of manifests: Argo Rollouts, Flagger, Spinnaker, Kubernetes; and say what is lost"
    )
    importing.parser(_add(commands, "import", importing.run, what, "penstock import k8s/ --into services"))
    what = "build, test and scan a commit here, and say what the policies would; nothing is delivered"
    local.run_parser(_add(commands, "run", local.run, what, "penstock run . --dirty --stage tests"))
    what = "open the sandbox of a step that failed, here, on a copy"
    local.shell_parser(_add(commands, "shell", local.shell, what, "penstock shell shop-1a2b3c4d tests"))


def _tests(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import flaky

    what = "which tests both failed and passed on the same artifact, and which are quarantined"
    command = _add(commands, "flaky", flaky.flaky, what, "penstock flaky shop")
    command.add_argument("service")
    what = "have a flaky test's failure shown and not block, for a while: for the service's test lead"
    example = "penstock quarantine shop tests::test_clock --reason 'races, T-12' --for 14d"
    flaky.quarantine_parser(_add(commands, "quarantine", flaky.quarantine, what, example))


def _proof(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import people, proof, signing, webhook, witness

    what = "evidence: list, show, add a report or a signed statement, export a delivery's bundle"
    example = "penstock evidence add junit.xml --for shop-1a2b3c4d"
    evidence = _add(commands, "evidence", proof.evidence, what, example)
    evidence.add_argument("verb", choices=("list", "show", "add", "export"))
    evidence.add_argument("name", nargs="?", help="a delivery, the index of an entry, or the file to add")
    evidence.add_argument("--file", type=Path, help="where the bundle goes (default: standard output)")
    evidence.add_argument("--for", dest="about", help="a delivery or sha256:… that a report is about")
    evidence.add_argument("--kind", help="junit, cobertura, lcov, sarif, cyclonedx, dsse (default: guessed)")
    evidence.add_argument("--suite", help="the name of the tests, or of the tool's run")
    what = "re-verify the whole ledger, read its checkpoint, choose witnesses, rotate its key"
    verb = _group(commands, "ledger", what, "penstock ledger verify")
    what = "check every byte of the ledger again"
    check = verb("verify", proof.ledger_verify, what, "penstock ledger verify --kept checkpoint.txt")
    what = "a checkpoint that was kept elsewhere: its entries must still be there"
    check.add_argument("--kept", type=Path, metavar="FILE", help=what)
    what = "the newest signed tree head: keep it somewhere else"
    verb("checkpoint", proof.ledger_checkpoint, what, "penstock ledger checkpoint")
    what = "who is asked to cosign checkpoints: list, add URL KEY, remove NAME"
    command = verb("witness", witness.witness, what, "penstock ledger witness list")
    command.add_argument("words", nargs="*", metavar="…", help=what.partition(": ")[2])
    what = "have the log sign with a new key from now on"
    rotate = verb("rotate-key", people.rotate_log_key, what, "penstock ledger rotate-key --reason yearly")
    rotate.add_argument("--reason", required=True)
    signing.add_options(rotate)
    what = "who is told of what happens, as CDEvents: add, list, remove, test"
    webhook.parsers(_group(commands, "webhook", what, "penstock webhook list"))
    what = "check an evidence bundle offline, with nothing but a trust file"
    verify = _add(commands, "verify", proof.verify, what, "penstock verify bundle.json --trust trust.json")
    verify.add_argument("bundle", type=Path)
    verify.add_argument("--trust", type=Path, required=True, help="kept from `penstock up`: trust.json")


def _judging(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import canary, experiment

    what = "canaries: plan one, judge an earlier one again"
    canary.parsers(_group(commands, "canary", what, "penstock canary plan shop"))
    what = "A/B experiments: plan, start, look at and stop them"
    experiment.parsers(_group(commands, "experiment", what, "penstock experiment start button.yaml"))


def _people(commands: Commands[argparse.ArgumentParser]) -> None:
    from penstock.cli import people, policies, slos

    what = "policies: lint, test, replay, publish, explain"
    policies.parsers(_group(commands, "policy", what, "penstock policy lint policies/security-lead.yaml"))
    what = "service level objectives: publish, list, show"
    slos.parsers(_group(commands, "slo", what, "penstock slo list"))
    people.parsers(functools.partial(_group, commands))
    what = "let a release pass a policy: by a holder of its owning role, with a reason, for a while"
    example = "penstock override shop-1a2b3c4d --policy security-lead --reason 'fix is on its way' --for 4h"
    people.override_parser(_add(commands, "override", people.override, what, example))


def _group(commands: Commands[argparse.ArgumentParser], name: str, what: str, example: str) -> Verb:
    """A command of several verbs; gives the function that adds one."""
    description = what[0].upper() + what[1:] + "."
    command = commands.add_parser(name, help=what, description=description, epilog=f"example: {example}")
    verbs_of = command.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(verb: str, handler: Handler, what: str, example: str) -> argparse.ArgumentParser:
        return _add(verbs_of, verb, handler, what, example)

    return add


Section = Callable[["Commands[argparse.ArgumentParser]"], None]
#: Which commands each section has, in the order in which help shows them.
SECTIONS: dict[Section, tuple[str, ...]] = {
    _machine: ("up", "down", "doctor", "demo", "node", "serve", "worker"),
    _keeping: ("backup", "restore", "prune", "mesh"),
    _delivery: ("ship", "rollback", "promote", "abort", "retry", "rerun"),
    _looking: ("status", "logs", "why"),
    _here: ("import", "run", "shell"),
    _tests: ("flaky", "quarantine"),
    _judging: ("canary", "experiment"),
    _people: ("policy", "slo", "identity", "role", "review", "override"),
    _proof: ("evidence", "ledger", "webhook", "verify"),
}

if __name__ == "__main__":
    sys.exit(main())
