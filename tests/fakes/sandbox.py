"""Sandbox that runs nothing: it remembers each step and answers as told. For tests of checks and builds."""

from __future__ import annotations

from pathlib import Path

from penstock.core.workload import Isolation, Step, StepResult
from penstock.ports import Hand


class FakeSandbox:
    """*results* are given out in turn; when there are none left, every step succeeds in silence."""

    isolation = Isolation.NONE

    def __init__(self, *results: StepResult) -> None:
        self.steps: list[Step] = []
        self._results = list(results)

    def enclose(self, step: Step, *, outlives_us: bool = False, hand: Hand | None = None) -> tuple[str, ...]:
        return step.argv

    async def run(self, step: Step, log: Path) -> StepResult:
        self.steps.append(step)
        result = self._results.pop(0) if self._results else StepResult(0, "", 0.0)
        with log.open("a") as file:
            file.write(result.tail)
        return result
