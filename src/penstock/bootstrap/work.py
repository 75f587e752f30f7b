"""A worker's process: takes deliveries from the store beside other workers, and needs no API.

Called by ``penstock worker``, which `up` starts as often as it is told. Workers join and leave at
any time: what one held when it died is taken over by another when its lease has ended. Must not found a
ledger: whoever starts the control plane does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal

from penstock.bootstrap.control import open_control_plane
from penstock.bootstrap.home import Home
from penstock.bootstrap.identity import grant_worker
from penstock.bootstrap.loop import log_to_stderr, run
from penstock.bootstrap.processes import locked, reporting
from penstock.errors import Conflict, Invalid

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def work(home: Home, name: str, slots: int) -> None:
    """Deliver until SIGTERM; then let go of what is held. *slots* deliveries at a time."""
    if not NAME.fullmatch(name):
        raise Invalid(f"{name!r} is not a name (lower-case letters, digits, dashes)", where="--name")
    if not 1 <= slots <= 64:
        raise Invalid(f"{slots} deliveries at a time; from 1 to 64", where="--slots")
    if not home.trust.exists():
        raise Conflict(
            "no control plane was ever started with this data folder",
            where=str(home.path),
            next_move="penstock up; workers share its PENSTOCK_HOME and its PENSTOCK_STORE",
        )
    home.create()
    log_to_stderr()
    taken = f"a worker called {name} is at work here already"
    with reporting(home, f"worker-{name}"), locked(home.worker_lock(name), taken):
        run(_work(home, name, slots))


async def _work(home: Home, name: str, slots: int) -> None:
    control = await open_control_plane(home, worker=f"worker-{name}", slots=slots)
    await grant_worker(control.store, control.ledger, control.keys, f"worker-{name}")
    # The lock says that the worker of this name before us is dead: nobody has to wait for its leases.
    await control.journal.orphan(control.worker.owner)
    runs = (control.worker.run(), control.sampler.run(), control.target.look_after())
    working = asyncio.ensure_future(asyncio.gather(*runs))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await control.close()
