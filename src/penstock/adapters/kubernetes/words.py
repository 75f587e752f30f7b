"""What pods wrote, and how they ended: read once for each end, and masked.

Called by `driver`. What is kept here was read from the cluster, and goes with this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.adapters._kubernetes import Client, Object
from penstock.adapters._kubernetes.kinds import EVENTS, SECRETS
from penstock.adapters.kubernetes.manifests import masked_words
from penstock.adapters.kubernetes.reading import Ended, last_end, status_of
from penstock.core.masking import masked
from penstock.errors import PenstockError

#: So many lines of what it wrote say why it ended.
LAST_LINES = 20
#: Of so many ends the words are kept.
MOST = 1000
LIVENESS = "failed liveness probe"


class Words:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._ends: dict[tuple[str, int], Ended] = {}
        self._secrets: dict[str, tuple[str, ...]] = {}

    def keep(self, release: str, secrets: tuple[str, ...]) -> None:
        self._secrets[release] = secrets

    def forget(self, release: str) -> None:
        self._secrets.pop(release, None)

    async def secrets(self, release: str) -> tuple[str, ...]:
        """What must not be shown; from the cluster, if another process placed it."""
        if release not in self._secrets:
            found = await self._client.get(SECRETS, release)
            self._secrets[release] = masked_words(found) if found else ()
        return self._secrets[release]

    async def lines(self, release: str, pods: Sequence[Object], count: int) -> tuple[str, ...]:
        """The last *count* lines, an equal share of each pod's."""
        if not pods or count < 1:
            return ()
        share, secrets = -(-count // len(pods)), await self.secrets(release)
        reading = (self._client.logs(pod["metadata"]["name"], lines=share) for pod in pods)
        found = await asyncio.gather(*reading)
        return tuple(masked(line, secrets) for lines in found for line in lines)[-count:]

    async def end(self, release: str, pod: Object) -> Ended | None:
        """How its container last ended; None if it never did."""
        found = last_end(pod)
        if not found:
            return None
        status = status_of(pod)
        at = (str(pod["metadata"]["uid"]), int(status.get("restartCount", 0)))
        if at not in self._ends:
            if len(self._ends) >= MOST:
                self._ends.pop(next(iter(self._ends)))
            self._ends[at] = await self._read(release, pod, found)
        return self._ends[at]

    async def _read(self, release: str, pod: Object, end: Object) -> Ended:
        out_of_memory = end.get("reason") == "OOMKilled"
        # What runs now has words of its own; what waits to be started still shows the last.
        previous = "running" in status_of(pod).get("state", {})
        code = int(end.get("exitCode", 0))
        hung = not out_of_memory and code > 128 and await self._hung(pod)
        words = await self.last(release, pod, previous=previous)
        if not words and not previous:  # it was started again meanwhile
            words = await self.last(release, pod, previous=True)
        return Ended(code, out_of_memory, hung, words)

    async def last(self, release: str, pod: Object, *, previous: bool = False) -> str:
        """The last words of a pod. They are a help: without the right to read them there are none."""
        name = pod["metadata"]["name"]
        try:
            lines = await self._client.logs(name, lines=LAST_LINES, previous=previous)
            return masked("\n".join(lines), await self.secrets(release))
        except PenstockError as error:
            return f"(it cannot be read: {error.what})"

    async def _hung(self, pod: Object) -> bool:
        """Whether the node ended it because it did not answer: only its events tell."""
        chosen = f"involvedObject.uid={pod['metadata']['uid']},reason=Killing"
        try:
            listed = await self._client.list(EVENTS, fields=chosen)
        except PenstockError:
            return False
        return any(LIVENESS in str(event.get("message", "")) for event in listed.items)
