"""Whether Envoy may watch more files. It watches the routes of each service with an inotify instance of their
own, and ends itself, and all traffic with it, when the system gives it no more of them.

Called by the driver before it tells Envoy of routes that are new to it. Must not keep anything open.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterable

from penstock.adapters.envoy import mesh
from penstock.core.traffic import TrafficPlan
from penstock.errors import Unavailable

LIMIT = "fs.inotify.max_user_instances"
#: For what else this user starts in the meantime.
SPARE = 4


def watched(plans: Iterable[TrafficPlan]) -> set[tuple[str, str]]:
    """All that these plans have Envoy watch: routes, by service and environment, certificates, and where
    releases are."""
    known = list(plans)
    found = {(name, "certificate") for name in mesh.identities(known)}
    for plan in known:
        found.add((plan.service, plan.environment))
        ways = (egress for backend in plan.backends for egress in backend.egress)
        found |= {(way.callee, plan.environment) for way in ways if way.remote is None}
        # Both clusters of an elastic release watch where it is.
        found |= {(b.release, which) for b in plan.backends if b.elastic for which in ("users", "preview")}
    return found


def inotify() -> int:
    """The descriptor of one more instance; -1 where there are none of these."""
    begin = getattr(ctypes.CDLL(None, use_errno=True), "inotify_init1", None)
    if begin is None:
        return -1
    descriptor = int(begin(os.O_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    return descriptor


def check_room(count: int, begin: Callable[[], int] = inotify) -> None:
    """`Unavailable` if *count* files more cannot be watched. Asks the system, by trying."""
    with contextlib.ExitStack() as opened:
        for _ in range(count + SPARE if count else 0):
            try:
                descriptor = begin()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    return
                raise Unavailable(
                    "the proxy cannot watch the routes of one more service on this machine",
                    where=LIMIT,
                    next_move=f"sysctl {LIMIT}=1024, as root; others' traffic goes on as it is",
                ) from error
            if descriptor < 0:
                return
            opened.callback(os.close, descriptor)
