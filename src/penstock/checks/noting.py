"""Words of a check's own in the log of its stage, beside what its commands write there. Called by checks;
must not carry what anything depends on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from penstock.core.masking import masked
from penstock.core.steplog import KEPT
from penstock.ports import Task


def note(task: Task, lines: Iterable[str]) -> None:
    """Add to the stage's log, unless it is full or cannot be written: nothing depends on these words."""
    with contextlib.suppress(OSError):
        if not task.log.exists() or task.log.stat().st_size < KEPT.head - 64 * 1024:
            with task.log.open("a", encoding="utf-8") as log:
                log.writelines(f"{masked(line, task.secrets)}\n" for line in lines)
