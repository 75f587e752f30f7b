"""A rig with three workers for those tests in which nobody dies for good: one for each store.

Used by the fixtures in `conftest`. Its PostgreSQL is a far one (`proxy`), its clock can be moved, and at a
boundary anything may happen, not only a kill.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable

from tests.fault.checks import Shape
from tests.fault.listening import Kill, Reached
from tests.fault.proxy import FarPostgres
from tests.fault.rig import SERVER, SETTLE_SECONDS, Configuration, Delivered, Rig

#: What happens at a boundary in place of a kill.
HAPPENS = "somebody else"


class Place(Rig):
    """One that runs, and the shape of what an undisturbed delivery leaves there."""

    def __init__(self, store: str, far: FarPostgres | None) -> None:
        super().__init__(Configuration(store, 3), far)
        self._far = far
        self._happens: Callable[[Reached], None] = lambda _: None
        #: Seconds by which the clock jumps whenever somebody comes by an effect.
        self.gallop = 0.0
        self.jumps = 0

    def open(self) -> None:
        super().open()
        undisturbed = self.deliver()
        assert not undisturbed.wrong, undisturbed.wrong
        self.shape = Shape.of(undisturbed.view)

    def calm(self) -> None:
        """What the last test has set is over."""
        self.database_seconds = self.pause_seconds = self.gallop = 0.0
        if self._far is not None:
            self._far.delay = 0.0
            self._far.speak()

    @property
    def victims(self) -> tuple[str, ...]:
        """Those that can be killed here; this database is only far away."""
        return tuple(victim for victim in self.configuration.victims if victim != "postgres")

    @property
    def server(self) -> int:
        """Its process."""
        return self.machine.pid(self._locks[SERVER])

    @property
    def far(self) -> FarPostgres:
        assert self._far is not None
        return self._far

    def deliver_while(
        self,
        boundary: str,
        happens: Callable[[Reached], None],
        *then: Kill,
        usual: dict[str, int] | None = None,
    ) -> Delivered:
        """*then* is who is killed afterwards, and where."""
        self._happens = happens
        return self.deliver([Kill(boundary, HAPPENS), *then], usual, self.shape)

    def _kill(self, victim: str, reached: Reached) -> None:
        if victim == HAPPENS:
            self._happens(reached)
        else:
            super()._kill(victim, reached)

    def _passed(self, reached: Reached) -> None:
        if self.gallop and reached.name and " commit " not in reached.name:
            with contextlib.suppress(sqlite3.OperationalError):  # somebody is in a commit, and waits for us
                self.move_clock(self.gallop)
                self.jumps += 1
        super()._passed(reached)

    def move_clock(self, seconds: float) -> None:
        """As if the machine's clock had been so far ahead in the last commit, and set right since."""
        change = f"SET at = at + {seconds}, raw = raw + {seconds}"
        if self._far is not None:
            self._far.run(f"UPDATE {self._far.latest}.clock {change}")
            return
        with contextlib.closing(sqlite3.connect(self.home.store, timeout=0.5)) as connection, connection:
            connection.execute(f"UPDATE clock {change}")

    def times_said(self, words: str) -> int:
        return sum(log.read_text().count(words) for log in self.home.logs.glob("*.log"))


def comes_true(asked: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SETTLE_SECONDS
    while not asked() and time.monotonic() < deadline:
        time.sleep(0.1)
    return asked()
