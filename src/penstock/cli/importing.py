"""``penstock import``: manifests of other delivery tools become ``penstock.yaml``, without a server.

Called by `main`. It only reads and writes files: `manifests` does the conversion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.cli.show import complain, read, told
from penstock.config import FILE
from penstock.core.codec import encode
from penstock.errors import Conflict, Invalid
from penstock.manifests.carry import Carried, Service, carry
from penstock.manifests.place import Note
from penstock.manifests.reading import MAX_BYTES, MOST_FILES

SUFFIXES = (".yaml", ".yml", ".json")


def parser(command: argparse.ArgumentParser) -> None:
    """The arguments of ``penstock import``."""
    what = "a file, a folder of them, or - for standard input (kubectl get rollout,service -o yaml)"
    command.add_argument("paths", nargs="+", help=what)
    what = f"where SERVICE/{FILE} is written for each service (default: here)"
    command.add_argument("--into", type=Path, default=Path(), metavar="FOLDER", help=what)
    command.add_argument("--dry-run", action="store_true", help="write nothing, and print the files instead")
    command.add_argument("--force", action="store_true", help="replace files that are there already")


def run(given: argparse.Namespace) -> int:
    """Read, convert, write; say what was carried over and what was not."""
    carried = carry(dict(_files(given.paths)))
    goals = {service.name: given.into / service.name / FILE for service in carried.services}
    if not given.dry_run:
        _write(carried.services, goals, force=given.force)
    if given.dry_run and given.format == "text":
        sys.stdout.write("---\n".join(service.text for service in carried.services))
        sys.stdout.flush()
        complain(_told(carried, goals))
        return 0
    return told(given, _view(carried, goals), _told(carried, goals))


def _files(paths: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    for given in paths:
        path = Path(given)
        if given == "-":
            yield "-", sys.stdin.buffer.read(MAX_BYTES + 1)
        elif path.is_dir():
            found = sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES and one.is_file())
            inside = [one for one in found if not any(p.startswith(".") for p in one.relative_to(path).parts)]
            if not inside:
                raise Invalid(f"no file that ends in {', '.join(SUFFIXES)}", where=given)
            yield from ((str(one), _bytes(one)) for one in inside[: MOST_FILES + 1])
        else:
            yield given, _bytes(path)


def _bytes(path: Path) -> bytes:
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes", where=str(path))
    return read(path)


def _write(services: Iterable[Service], goals: dict[str, Path], *, force: bool) -> None:
    """All of them, or none where one would replace something else."""
    for service in services:
        goal = goals[service.name]
        if goal.exists() and goal.read_text(encoding="utf-8", errors="replace") != service.text and not force:
            move = "--force replaces it; --into another folder; --dry-run only prints"
            raise Conflict(
                "there is another one already; nothing was written", where=str(goal), next_move=move
            )
    for service in services:
        goal = goals[service.name]
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(service.text, encoding="utf-8")


def _told(carried: Carried, goals: dict[str, Path]) -> str:
    lines: list[str] = []
    for service in carried.services:
        lines.append(f"✓ {service.name} from {service.origin} → {goals[service.name]}")
        lines.append(f"  carried over: {', '.join(service.sources) or 'nothing but its name'}")
        lines += _noted(service.notes, "did not carry over, or not with the same meaning")
    return "\n".join([*lines, *_noted(carried.notes, "belong to none of them")])


def _noted(notes: Iterable[Note], what: str) -> list[str]:
    found = sorted(notes, key=lambda note: (note.file, note.line))
    lines = [f"… {len(found)} {what}:"] if found else []
    for note in found:
        lines += [f"  {note}", f"    next: {note.next}"]
    return lines


def _view(carried: Carried, goals: dict[str, Path]) -> object:
    services = [{**encode(service), "file": str(goals[service.name])} for service in carried.services]
    return {"services": services, "notes": encode(carried.notes)}
