"""Users of an installation that delivers to a cluster, for a test, and the town that it stands in.

``PYTHONPATH=tests python -m tests.e2e.clustered FOLDER`` has it stand until it is interrupted, for whoever
wants to try (docs/guides/kubernetes.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.checks.sending import UNANSWERED, Ask, Target
from tests.fakes.town import CALL_SECONDS
from tests.fakes.town import Town as Around


class Town(Around):
    @contextmanager
    def users(self, path: str, rate: float = 60.0) -> Iterator[Counter[str]]:
        """Users of the shop, who come through the gateway; what they met, by kind. It is final once the block
        is left."""
        met: Counter[str] = Counter()
        stop = asyncio.Event()
        asking = asyncio.run_coroutine_threadsafe(self._ask(path, 1 / rate, met, stop), self._loop)
        try:
            yield met
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            asking.result(CALL_SECONDS)

    async def _ask(self, path: str, pause: float, met: Counter[str], stop: asyncio.Event) -> None:
        target = Target(self.proxy.url, headers={"Host": "shop.example.org"})
        flying: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            task = asyncio.create_task(_once(target, path, met))
            flying.add(task)
            task.add_done_callback(flying.discard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        await asyncio.gather(*flying)
        target.close()


async def _once(target: Target, path: str, met: Counter[str]) -> None:
    """A status that the application gave, or that of the proxy, or that nobody answered."""
    try:
        answer = await target.ask(Ask(path=path))
    except UNANSWERED as error:
        met[f"nobody: {type(error).__name__}: {error}"] += 1
    else:
        by = "proxy: " if answer.headers.get("server") == "istio-envoy" else ""
        met[f"{by}{answer.status}"] += 1


@contextmanager
def town(folder: Path, elsewhere: str = "") -> Iterator[Town]:
    made = Town(folder, speed=3.0, elsewhere=elsewhere, steps=True)
    try:
        made.open()
        yield made
    finally:
        made.close()


def main(folder: Path) -> int:
    """Have a town stand in *folder* until SIGINT or SIGTERM."""
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there is a second thread: it would get them
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with town(folder.absolute()) as stands:
            sys.stdout.write(
                f"penstock up --cluster {stands.file}\n"
                f"curl -H 'Host: SERVICE.example.org' {stands.proxy.url}/\n"
            )
            sys.stdout.flush()
            signal.sigwait(signals)
    except pytest.skip.Exception as absent:
        sys.stderr.write(f"{absent}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
