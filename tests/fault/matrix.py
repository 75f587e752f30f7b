"""The matrix: every boundary that a delivery comes by, times everybody who can be killed there.

``python -m tests.fault.matrix --store sqlite --workers 1 --json FILE`` runs one configuration;
``… --victim node --boundary 'canary/shift/0 router.apply #1 before'`` runs one cell of it, and
``--write FILE…`` writes the page from such files; several of one configuration are put together, and
``--merge FILE…`` does that alone. `make fault` does it all, configurations side by side.

The boundaries are recorded, not listed: an undisturbed delivery first, and then whatever is first seen in a
delivery with kills in it goes on the worklist too, together with the kills that lead there.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.postgres import PostgresServer
from tests.fault.checks import Shape
from tests.fault.clustered import Clustered
from tests.fault.listening import Kill, Run
from tests.fault.report import intent_of, merged, page
from tests.fault.rig import Configuration, Delivered, Rig, database

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "fault-matrix.md"
#: What a whole run has found so far: it can be gone on with (`make fault AGAIN=1`).
FOUND = ROOT / ".fault"
CLUSTER = Configuration("sqlite", 1, "cluster")
CONFIGURATIONS = (
    *(Configuration(store, workers) for workers in (1, 3) for store in ("sqlite", "postgres")),
    CLUSTER,
)
#: What was tested.
COMMIT = subprocess.run(
    ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
).stdout.strip()
#: A ledger is verified after each delivery, so a data folder is not kept for ever.
DELIVERIES = 40
#: What depends on time may not come about at once.
TRIES = 2
#: What a process commits when it begins, and the victims that begin again.
BEGINS, RESTARTED = "commit journal.orphan", ("worker", "server")
#: Ways to a boundary that are tried when the best one was chance.
OTHERS = 8

#: A boundary and a victim.
Cell = tuple[str, str]


@dataclass(frozen=True)
class Result:
    """One delivery in which *victim* was killed at *boundary*; *after* are the kills that led there."""

    boundary: str
    victim: str
    after: tuple[Kill, ...]
    reached: bool
    seconds: float
    wrong: tuple[str, ...] = ()


@dataclass
class Matrix:
    """One configuration. *boundaries* maps each that was found, in order, to the kills that lead there."""

    configuration: Configuration
    postgres: PostgresServer | None
    say: Callable[[str], None]
    boundaries: dict[str, tuple[Kill, ...]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)
    seconds: float = 0.0
    commits: list[str] = field(default_factory=lambda: [COMMIT])
    _undisturbed: list[str] = field(default_factory=list)
    #: Every way to a boundary that was ever seen; the best of them may have been chance.
    _ways: dict[str, list[tuple[Kill, ...]]] = field(default_factory=dict)
    _rig: Rig | None = None
    _usual: dict[str, int] = field(default_factory=dict)
    _shape: Shape | None = None

    def run(self, chosen: Callable[[list[Cell]], list[Cell]] | None = None) -> None:
        """All of it, or those cells that are *chosen* from what the undisturbed delivery came by."""
        try:
            self._record()
            done = {(result.boundary, result.victim) for result in self.results}
            cells = [cell for cell in self._cells(self.boundaries) if cell not in done]
            work = deque(cells if chosen is None else chosen(cells))
            while work:
                found = self._kill(*work.popleft())
                if chosen is None:
                    work += self._cells(found)
                self.say(f"{len(work)} left; {_line(self.results[-1])}")
        finally:
            self._change_rig()

    def resume(self, document: dict[str, Any]) -> None:
        """What an earlier run has found stands, but for what was not as it should be: that is done again, and
        what was not reached is looked for again."""
        earlier = [
            Result(**{**r, "after": tuple(Kill(**k) for k in r["after"]), "wrong": tuple(r["wrong"])})
            for r in document["results"]
        ]
        self.results = [result for result in earlier if result.reached and not result.wrong]
        self.seconds = document["seconds"]
        self.commits = list(dict.fromkeys([*document["commit"].split(", "), COMMIT]))
        missed = {result.boundary for result in earlier if not result.reached}
        known = {name: tuple(Kill(**k) for k in after) for name, after in document["boundaries"].items()}
        self.boundaries |= {name: after for name, after in known.items() if name not in missed}

    def _cells(self, boundaries: Iterable[str]) -> list[Cell]:
        return [(name, victim) for name in boundaries for victim in self.configuration.victims_at(name)]

    def _record(self) -> None:
        """Twice: what one of the two only came by once is not counted twice."""
        runs: list[Run] = []
        for _ in range(2):
            done = self._open_rig().deliver()
            assert not done.wrong, done.wrong
            self._shape = Shape.of(done.view)
            runs.append(done.run)
            self.undisturbed.append(done.seconds)
        first, second = (run.counts() for run in runs)
        self._usual = {raw: min(count, second.get(raw, count)) for raw, count in {**second, **first}.items()}
        for run in runs:
            self._note(run)
            self._undisturbed += run.seen.keys()

    def _note(self, run: Run) -> list[str]:
        """Boundaries that nobody has seen before; numbers are cut to the usual ones.

        The kills that led to one are kept, the best ones so far: those near to it, or it is chance.
        """
        found = []
        for name, kills in run.seen.items():
            raw, number = _split(name)
            after = tuple(run.killed[:kills])
            if BEGINS in name and not any(kill.victim in RESTARTED for kill in after):
                continue  # one that was killed in the delivery before is only back by now
            self._ways.setdefault(name, []).append(after)
            if number <= self._usual.get(raw, 1) and name not in self.boundaries:
                self.boundaries[name] = after
                found.append(name)
            elif _distance(name, after) < _distance(name, self.boundaries.get(name, ())):
                self.boundaries[name] = after
        return found

    def _kill(self, name: str, victim: str) -> list[str]:
        found: list[str] = []
        for after in self._paths(name):
            done = self._open_rig().deliver((*after, Kill(name, victim)), self._usual, self._shape)
            found += self._note(done.run)
            reached = done.run.due is None
            if reached or done.wrong:
                break
        self.results.append(Result(name, victim, after, reached, self._recovery(done), done.wrong))
        if done.wrong:
            self._change_rig(keep=True)
        return found

    def _paths(self, name: str) -> Iterator[tuple[Kill, ...]]:
        """What may lead there: the kills that did, best ones first, and if that was chance, one nearby."""
        after = self.boundaries[name]
        yield from [after] * TRIES
        others = dict.fromkeys(way for way in self._ways.get(name, ()) if way != after)
        yield from sorted(others, key=lambda way: _distance(name, way))[:OTHERS]
        near = dict.fromkeys(b for b in self._undisturbed if intent_of(b) == intent_of(name))
        for boundary, victim in self._cells(near) if after else ():
            yield (Kill(boundary, victim),)

    def _recovery(self, done: Delivered) -> float:
        """How much longer it took than an undisturbed one."""
        return max(0.0, done.seconds - min(self.undisturbed))

    def _open_rig(self) -> Rig:
        if self._rig is not None and self._rig.versions >= DELIVERIES:
            self._change_rig()
        if self._rig is None:
            kind = Rig if self.configuration.target == "node" else Clustered
            rig = kind(self.configuration, self.postgres)
            try:
                rig.open()
            except BaseException:
                rig.close()
                raise
            self._rig = rig
        return self._rig

    def _change_rig(self, *, keep: bool = False) -> None:
        if self._rig is not None:
            self._rig.close(keep=keep)
            if keep:
                self.say(f"kept for a look: {self._rig.folder}")
        self._rig = None

    def document(self) -> dict[str, Any]:
        return {
            "configuration": asdict(self.configuration),
            "boundaries": {name: [asdict(kill) for kill in after] for name, after in self.boundaries.items()},
            "undisturbed": min(self.undisturbed, default=0.0),
            "seconds": self.seconds,
            "commit": ", ".join(self.commits),
            "results": [asdict(result) for result in self.results],
        }


def _split(name: str) -> tuple[str, int]:
    place, _, rest = name.rpartition(" #")
    number, _, moment = rest.partition(" ")
    return f"{place} {moment}", int(number)


def _distance(name: str, after: Sequence[Kill]) -> int:
    """How many kills lead to a boundary, those of another intent counted more; none to undisturbed ones."""
    return sum(1 if intent_of(kill.boundary) == intent_of(name) else 10 for kill in after)


def _line(result: Result) -> str:
    state = ("; ".join(result.wrong) or "ok") if result.reached else "NOT REACHED"
    after = "".join(f" (after {kill.victim} at {kill.boundary})" for kill in result.after)
    return f"{result.victim} at {result.boundary}{after}: +{result.seconds:.1f} s {state}"


def run_one(configuration: Configuration, given: argparse.Namespace) -> bool:
    """One configuration in this process; what is known so far is always in the file."""
    began = time.monotonic()

    def say(words: str) -> None:
        matrix.seconds = before + time.monotonic() - began
        print(f"[{configuration} {matrix.seconds:6.0f} s] {words}", flush=True)
        half = given.json.with_suffix(".half")  # whenever this ends, what is in the file is whole
        half.write_text(json.dumps(matrix.document(), indent=1))
        half.replace(given.json)

    with database(configuration) as postgres:
        matrix = Matrix(configuration, postgres, say)
        if given.again:
            matrix.resume(json.loads(given.json.read_text()))
        before = matrix.seconds
        matrix.run(_choice(given))
        say("done")
    return all(result.reached and not result.wrong for result in matrix.results)


def _choice(given: argparse.Namespace) -> Callable[[list[Cell]], list[Cell]] | None:
    if given.boundary or given.victim:
        return lambda cells: [
            (boundary, victim)
            for boundary, victim in cells
            if given.boundary in ("", boundary) and given.victim in ("", victim)
        ]
    if given.sample:
        return lambda cells: random.Random(given.seed).sample(cells, given.sample)
    return None


@dataclass(frozen=True)
class Whole:
    """All configurations, each in a process of its own, so many of them at a time.

    What they find is in *folder*: if *again*, what is there already and is well is not done again.
    """

    folder: Path
    jobs: int = 4
    sample: int = 0
    seed: int = 0
    again: bool = False

    def run(self, configurations: Sequence[Configuration]) -> list[Path]:
        """Their files, in order. The longest begin first: it is the last one to end that is waited for."""
        waiting = deque(sorted(configurations, key=lambda c: (c.workers, len(c.victims)), reverse=True))
        running: list[subprocess.Popen[bytes]] = []
        self.folder.mkdir(exist_ok=True)
        try:
            while waiting or running:
                running = [process for process in running if process.poll() is None]
                while waiting and len(running) < self.jobs:
                    running.append(self._start(waiting.popleft()))
                time.sleep(0.2)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
        return [self.file(configuration) for configuration in configurations]

    def file(self, configuration: Configuration) -> Path:
        where = "" if configuration.target == "node" else f"-{configuration.target}"
        return self.folder / f"{configuration.store}-{configuration.workers}{where}.json"

    def _start(self, configuration: Configuration) -> subprocess.Popen[bytes]:
        file = self.file(configuration)
        if not self.again:
            file.unlink(missing_ok=True)
        options = ["--store", configuration.store, "--workers", configuration.workers]
        options += ["--target", configuration.target, "--json", file]
        options += ["--sample", self.sample, "--seed", self.seed, *(["--again"] if file.exists() else [])]
        command = [sys.executable, "-m", "tests.fault.matrix", *options]
        return subprocess.Popen([str(word) for word in command], cwd=ROOT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--target", choices=["node", "cluster", "istio"], default="node")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boundary", default="")
    parser.add_argument("--victim", default="")
    parser.add_argument("--json", type=Path, default=Path("fault-matrix.json"))
    parser.add_argument("--again", action="store_true", help="only what is not well yet in the --json file")
    parser.add_argument("--write", type=Path, nargs="+", default=[])
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="parts of the --json file")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended on the way out
    found = merged([json.loads(file.read_text()) for file in given.write or given.merge])
    if given.write:
        PAGE.write_text(page(found))
        return 0
    if given.merge:
        (whole,) = found
        given.json.write_text(json.dumps(whole, indent=1))
        return 0
    return 0 if run_one(Configuration(given.store, given.workers, given.target), given) else 1


if __name__ == "__main__":
    sys.exit(main())
