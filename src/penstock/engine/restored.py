"""What a store needs after it was put back from a copy, before anybody works on it.

Called by ``bootstrap.restore``. The ledger gets no entry: nothing happened to a change.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.ports import Transaction

#: Fences given out after the copy was made are fewer than these.
STEP = 1_000_000


async def resume(tx: Transaction, seen: Mapping[str, int]) -> int:
    """Let workers go on safely; returns how many deliveries there are to go on with.

    Every fence rises above what may have been given out since, and above what the node had *seen*: a worker
    of before cannot move traffic, and the node refuses none of ours. Every lease ends: who held it is gone.
    """
    for scope, number in sorted(seen.items()):
        await tx.execute(
            "INSERT INTO fences (scope, number) VALUES (?, ?) ON CONFLICT (scope) DO UPDATE SET number = "
            "CASE WHEN fences.number < excluded.number THEN excluded.number ELSE fences.number END",
            (scope, number),
        )
    await tx.execute("UPDATE fences SET number = number + ?", (STEP,))
    await tx.execute("UPDATE deliveries SET owner = '', lease = 0, wake = 0 WHERE state = 'executing'")
    ((waiting,),) = await tx.execute(
        "SELECT count(*) FROM deliveries WHERE state IN ('pending', 'executing')"
    )
    return int(str(waiting))
