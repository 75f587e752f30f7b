"""Coverage-guided fuzzing of the table in `targets`: what ``make fuzz`` runs.

Each target gets its share of the time in a process of its own, which starts from the target's seeds. What
makes a parser stumble, or takes too long, is kept in ``fuzz-found/``; then, or if a target was not executed
even once, the exit code is not zero.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path("fuzz-found")
MAX_LENGTH = 8192
SLOW_SECONDS = 20
EXECUTED = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--only", metavar="NAME", action="append", help="this target (may be repeated)")
    parser.add_argument("--child", metavar="NAME", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.child:
        return fuzz(given.child, rest)
    from fuzz.targets import BY_NAME

    names = given.only or list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown or rest:
        parser.error(f"unknown: {', '.join(unknown + rest)}; targets: {', '.join(BY_NAME)}")
    FOUND.mkdir(exist_ok=True)
    good = [run(name, BY_NAME[name].seeds, max(1, round(given.seconds / len(names)))) for name in names]
    return 0 if good and all(good) else 1


def run(name: str, seeds: tuple[bytes, ...], seconds: int) -> bool:
    """Fuzz one target in a process of its own; whether it was executed, and never stumbled."""
    with tempfile.TemporaryDirectory(prefix="ps-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        options = [
            *(f"-max_total_time={seconds}", f"-timeout={SLOW_SECONDS}", f"-max_len={MAX_LENGTH}"),
            *("-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={FOUND}/{name}-", folder),
        ]
        command = [sys.executable, "-m", "fuzz.atheris_run", "--child", name, *options]
        done = subprocess.run(command, capture_output=True, timeout=seconds + 120, check=False)
    said = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    count, good = judged(done.returncode, said)
    tell(f"{name:20} {count:>10} executions  {'ok' if good else f'FAILED (exit code {done.returncode})'}")
    if not good:
        tell(said[-4000:])
        tell(f"next: what made it stumble is in {FOUND}/; keep it in tests/fuzz/seeds/{name}/, and mend it")
    return good


def judged(exit_code: int, said: str) -> tuple[int, bool]:
    """How often the target was executed, and whether all went well. What never ran did not go well."""
    executed = EXECUTED.search(said)
    count = int(executed[1]) if executed else 0
    return count, exit_code == 0 and count > 0


def fuzz(name: str, options: list[str]) -> int:
    """The process of one target: the parsers are imported so that the fuzzer sees which branch is taken."""
    import atheris

    with atheris.instrument_imports(include=["penstock", "yaml", "rfc8785"]):
        from fuzz.targets import BY_NAME, accepts
    from fuzz.mutation import EDITS, mutated

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        """Half of the time an edit that knows JSON and words, else the fuzzer's own."""
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return atheris.Mutate(data, limit)
        edit = (chance.randrange(len(EDITS)), chance.randrange(1 << 16), chance.randrange(1 << 10))
        return mutated(data, [edit])[:limit]

    atheris.Setup(
        [sys.argv[0], *options], lambda data: _once(accepts(BY_NAME[name], data)), custom_mutator=mutate
    )
    atheris.Fuzz()
    return 0


def _once(accepted: bool) -> None:
    """The fuzzer wants to hear nothing: what was accepted and what was refused are equally well."""


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
