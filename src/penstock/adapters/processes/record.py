"""What is kept of one instance, and where its things are. Values only: nothing here starts or asks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core.masking import masked
from penstock.core.tail import tail
from penstock.core.workload import RECENT_SECONDS, Instance, Isolation, Phase

#: After this many ends without having been ready for `STEADY_SECONDS`, it is given up.
MAX_CRASHES = 5
STEADY_SECONDS = 10.0
#: So much of a log is looked at for its last lines.
WINDOW = 65536
LOG_BYTES = 10 * 1024 * 1024


@dataclass
class Record:
    """What is kept of one instance. Times are seconds since 1970.

    *birth* tells its process from any other that has the same pid (`_birth`). *ended_for* is why we
    ended it ourselves. *ends* are the times of its last ends, none of which was asked for.
    """

    id: str
    port: int = 0
    pid: int = 0
    created: float = 0.0
    birth: str = ""
    phase: Phase = Phase.STARTING
    restarts: int = 0
    crashes: int = 0
    exit_code: int | None = None
    started: float = 0.0
    ready_since: float = 0.0
    served: bool = False
    reason: str = ""
    ended_for: str = ""
    ends: list[float] = field(default_factory=list)

    def end(self, now: float) -> None:
        """It has ended by itself."""
        self.crashes = 1 if self.steady else self.crashes + 1
        self.ends = [*self.recent(now), now]
        self.phase, self.started = Phase.STARTING, now

    def recent(self, now: float) -> list[float]:
        """Its ends of late; the clock may have been set back since."""
        return [at for at in self.ends if now - RECENT_SECONDS < at <= now]

    @property
    def steady(self) -> bool:
        """Whether it has been ready for so long that what was before does not count any more."""
        return bool(self.ready_since) and time.time() - self.ready_since > STEADY_SECONDS


@dataclass(frozen=True)
class Place:
    """Where one release's instances keep their things. *sockets* is short: unix sockets live there."""

    sockets: Path
    logs: Path
    data: Path

    def instance(self, record: Record) -> Path:
        return self.sockets / record.id

    def mark(self, record: Record) -> str:
        return str(self.instance(record))

    def log(self, record: Record) -> Path:
        return self.logs / f"{record.id}.log"

    def address(self, record: Record, isolation: Isolation) -> str:
        if isolation is Isolation.NONE:
            return f"127.0.0.1:{record.port}"
        return f"unix:{self.instance(record) / 'in.sock'}"


def as_instance(record: Record, place: Place, isolation: Isolation) -> Instance:
    calm = record.phase is Phase.READY and record.steady
    return Instance(
        id=record.id,
        address=place.address(record, isolation),
        phase=record.phase,
        restarts=record.restarts,
        exit_code=record.exit_code,
        crashes=0 if calm else record.crashes,
        recent=len(record.recent(time.time())),
    )


def last_words(place: Place, record: Record, secrets: Collection[str], lines: int = 20) -> str:
    """The end of what an instance wrote, without *secrets*."""
    log = place.log(record)
    if not log.exists():
        return ""
    with log.open("rb") as file:
        begin = max(0, log.stat().st_size - WINDOW)
        file.seek(begin)
        written = file.read()
    # Cut off in a line, it might begin with the end of a secret, which nobody would recognise.
    whole = written.partition(b"\n")[2] if begin else written
    shown = masked(whole.decode(errors="replace"), secrets) if secrets else whole.decode(errors="replace")
    return "\n".join(tail(shown.encode()).splitlines()[-lines:])


def rotate(place: Place, record: Record) -> None:
    """Bound a log: the writer keeps its file, so it is copied and emptied, not renamed."""
    log = place.log(record)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)
