"""A control plane with everything real but the world: a scripted engine plays builds, proxy and load.

Store, ledger, journal, worker, gate, policies, shipping and server are the product's own. What a commit
does is told by its title (`Play`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from scenery import Anything, Machines, Proxy
from shop_repository import PAYMENT, git, new_repository

from penstock.bootstrap import serve
from penstock.bootstrap.control import ControlPlane, open_control_plane
from penstock.bootstrap.home import Home, Settings
from penstock.checks import canary, slo
from penstock.config import CanaryConfig, ServiceConfig
from penstock.core.canary import Rule
from penstock.core.digest import digest
from penstock.core.evidence import Statement, Subject
from penstock.core.pipeline import Intent, Looked, Made, Measured, Pipeline, State
from penstock.core.predicates import (
    Accepted,
    BuildDefinition,
    BuilderId,
    BuildMetadata,
    Finding,
    Findings,
    Look,
    Promoted,
    Provenance,
    RolledBack,
    RunDetails,
    Shifted,
    TestResult,
)
from penstock.core.release import Artifact, Variable
from penstock.core.traffic import WHOLE, Counters, Weight
from penstock.engine import begin, gate
from penstock.engine.journal import Delivery
from penstock.engine.ship import Shipping
from penstock.engine.worker import Worker
from penstock.ledger.log import Batch
from penstock.ports import Artifacts, Image, Outcome, Task, Transaction
from penstock.server.app import create_app
from penstock.server.guard import COOKIE, Guard

CONFIG = ServiceConfig(
    service="shop",
    run="serve",
    environment={
        "CURRENCY": Variable("string", "EUR"),
        "PAYMENT_KEY": Variable("string", PAYMENT, secret=True),
    },
    canary=CanaryConfig((5.0, 50.0), 0.02, 0.01, 0.02),
)

#: A title that would run if a page forgot to escape it.
HOSTILE = "good <script>alert('title')</script> \"><img src=x onerror=alert(1)>"


@dataclass(frozen=True)
class Told:
    """The deliveries that have happened before any test."""

    first: dict[str, Any]
    good: dict[str, Any]
    refused: dict[str, Any]
    rolled_back: dict[str, Any]


class Images:
    """Every artifact is an image of the shop; *store* is tidied as it is."""

    def __init__(self, store: Artifacts) -> None:
        self.prune = store.prune

    async def describe(self, artifact: str) -> Image:
        return Image(("serve",), CONFIG)


@dataclass
class ScriptedEngine:
    """Plays every verb but the gate and the beginning, which are the engine's own."""

    control: ControlPlane
    proxy: Proxy
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    #: Commits whose tests have run: a flaky one fails the first time.
    ran: set[str] = field(default_factory=set)

    async def perform(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Outcome:
        task = self.task(delivery, pipeline, intent)
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("a") as log:
            log.write(f"{intent.verb} <of> {delivery.id}\n")
        control = self.control
        if intent.verb == "begin":
            powers = {"store": control.store, "ledger": control.ledger, "meters": control.meters}
            return await begin.perform(task, artifacts=control.artifacts, **powers)  # type: ignore[arg-type]
        if intent.verb == "gate":
            return await gate.perform(
                task, store=control.store, ledger=control.ledger, languages=control.languages
            )
        if intent.verb == "slo":
            return await slo.perform(task, store=control.store, ledger=control.ledger)
        if intent.verb in ("measure", "look") and "quiet" in task.change.title:
            return await self._counted(task)
        if intent.verb == "suite" and "hangs" in task.change.title:
            await self.blocked.wait()
        play: Callable[[Task], Outcome] = getattr(self, f"_{intent.verb}")
        return play(task)

    async def ask(
        self, delivery: Delivery, pipeline: Pipeline, intent: Intent, tx: Transaction, batch: Batch
    ) -> Outcome | None:
        return await self.control.engine.ask(delivery, pipeline, intent, tx, batch)

    def task(self, delivery: Delivery, pipeline: Pipeline, intent: Intent) -> Task:
        return self.control.engine.task(delivery, pipeline, intent)

    def forget(self, delivery: str, *, failed: bool = False) -> None:
        self.control.engine.forget(delivery, failed=failed)

    def _build(self, task: Task) -> Outcome:
        artifact = Artifact(task.change.service, digest(task.change.revision.encode()))
        provenance = Provenance(
            BuildDefinition(
                "urn:penstock:build:1", {"revision": task.change.revision}, {"isolation": "none"}, ()
            ),
            RunDetails(BuilderId("urn:penstock:builder:python:1"), BuildMetadata(task.delivery)),
        )
        subject = Subject(artifact.name, artifact.digest)
        return Outcome(State.SUCCESS, "built", (Statement((subject,), provenance),), Made("made", artifact))

    def _suite(self, task: Task) -> Outcome:
        bad = ("test_price <b>",) if "fails tests" in task.change.title else ()
        result = TestResult("FAILED" if bad else "PASSED", "unit", (), 12, len(bad), 0, bad)
        if "flaky" in task.change.title:
            bad = () if task.change.revision in self.ran else ("test_clock",)
            self.ran.add(task.change.revision)
            result = replace(result, passed=13 - len(bad), failed=len(bad), failed_tests=bad)
        return Outcome(State.SUCCESS, f"12 passed, {len(bad)} failed", (self._of_artifact(task, result),))

    def _scan(self, task: Task) -> Outcome:
        bad = "critical" in task.change.title
        listed = (Finding("CVE-1", "critical", "<img src=x>"),) if bad else ()
        findings = Findings("scanner", "platform", len(listed), 0, 0, 0, listed)
        return Outcome(State.SUCCESS, "scanned", (self._of_artifact(task, findings),))

    def _deploy(self, task: Task) -> Outcome:
        if task.release and task.baseline:
            users = Weight(task.baseline.id, WHOLE)
            self.proxy.show(task.change.service, task.change.environment, users, dark=task.release.id)
        return Outcome(State.SUCCESS, "1 instance is ready, without users")

    def _acceptance(self, task: Task) -> Outcome:
        requests = 30 if "hardly asked" in task.change.title else 50
        accepted = Accepted(3, 0, (), requests, 0, 11.5, 1000.0)
        words = f"{requests} requests answered"
        return Outcome(State.SUCCESS, words, (self._of_release(task, accepted),))

    def _measure(self, task: Task) -> Outcome:
        new, stable = self._counters(task, 0)
        return Outcome(State.SUCCESS, "counted", (), Measured("measured", new, stable))

    async def _counted(self, task: Task) -> Outcome:
        """What the canary's own judge says of what the proxy counts."""
        if task.intent.verb == "measure":
            return await canary.measure(task, metrics=self.proxy, meters={})  # type: ignore[arg-type]
        powers = {"metrics": self.proxy, "platform": Machines(), "meters": {}}
        return await canary.look(task, **powers)  # type: ignore[arg-type]

    def _shift(self, task: Task) -> Outcome:
        assert task.release
        assert task.baseline
        share = task.intent.share
        weights = (Weight(task.baseline.id, WHOLE - share), Weight(task.release.id, share))
        self.proxy.show(task.change.service, task.change.environment, *weights)
        shifted = Shifted(task.delivery, weights, "canary")
        return Outcome(State.SUCCESS, f"{share / 10:g}%", (self._of_release(task, shifted),))

    def _look(self, task: Task) -> Outcome:
        slow = "slow" in task.change.title
        words = "slower: p95 900 ms against 20 ms" if slow else "no worse: 0 of 500 errors"
        looks = task.intent.number + 1
        (new_from, stable_from), (new, stable) = self._counters(task, 0), self._counters(task, 500 * looks)
        spans = tuple((5000 * n, 50 if n < 2 else 500, 500, 0, 300 * slow, 500, 0, 0)
                      for n in range(1, looks + 1))  # fmt: skip
        look = Look("FAIL" if slow else "PASS", words, task.intent.number, 4, 100, False, new_from, new,
                    stable_from, stable, rule=Rule(10.0, 20.0), spans=spans)  # fmt: skip
        state = State.FAILURE if slow else State.SUCCESS
        return Outcome(state, words, (self._of_release(task, look),), Looked("looked", look.verdict, False))

    def _promote(self, task: Task) -> Outcome:
        assert task.release
        assert task.data
        self.proxy.show(task.change.service, task.change.environment, Weight(task.release.id, WHOLE))
        promoted = Promoted(task.delivery, task.release, task.data, task.baseline)
        return Outcome(State.SUCCESS, "all traffic", (self._of_release(task, promoted),))

    def _rollback(self, task: Task) -> Outcome:
        assert task.release
        if task.baseline:
            self.proxy.show(task.change.service, task.change.environment, Weight(task.baseline.id, WHOLE))
        rolled = RolledBack(task.delivery, task.release, task.baseline, task.reason, 1000, 25)
        return Outcome(State.SUCCESS, "25 of 1000 saw it", (self._of_release(task, rolled),))

    def _restore(self, task: Task) -> Outcome:
        assert task.release
        assert task.baseline
        self.proxy.show(task.change.service, task.change.environment, Weight(task.release.id, WHOLE))
        rolled = RolledBack(task.delivery, task.baseline, task.release, task.change.title)
        return Outcome(State.SUCCESS, "serves again", (self._of_release(task, rolled),))

    def _counters(self, task: Task, requests: int) -> tuple[Counters, Counters]:
        assert task.release
        assert task.baseline
        at = (float(requests), "epoch", requests, 0)
        return Counters(task.release.id, *at), Counters(task.baseline.id, *at)

    def _of_artifact(self, task: Task, predicate: TestResult | Findings) -> Statement:
        assert task.artifact
        return Statement((Subject(task.artifact.name, task.artifact.digest),), predicate)

    def _of_release(
        self, task: Task, predicate: Accepted | Shifted | Look | Promoted | RolledBack
    ) -> Statement:
        assert task.release
        return Statement((Subject(task.release.id, task.release.digest),), predicate)


@dataclass
class Playhouse:
    """A running server with a worker. *url* asks for *token*; the socket in *home* asks for nothing."""

    home: Home
    repository: Path
    proxy: Proxy = field(default_factory=Proxy)
    url: str = ""
    token: str = ""
    control: ControlPlane | None = None

    def start(self) -> Callable[[], None]:
        """Serve from a thread of its own; returns what stops it."""
        self.home.create()
        self.home.keep(Settings(sandbox="none"))
        up, down = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(up, down)))
        thread.start()

        def stop() -> None:
            down.set()
            thread.join(20)

        if not up.wait(20):
            stop()
            raise RuntimeError("the server did not come up")
        return stop

    async def _serve(self, up: threading.Event, down: threading.Event) -> None:
        control = await self.wire()
        await serve._first_token(control)
        self.token = (self.home.run / "token.once").read_text()
        app = create_app(control)
        tcp, unix = serve._tcp(0), serve._unix(self.home.api_socket)
        self.url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        servers = [
            uvicorn.Server(
                uvicorn.Config(
                    Guard(app, control.store, trusted=trusted),
                    log_level="error",
                    lifespan="off",
                    timeout_graceful_shutdown=1,
                )
            )
            for trusted in (False, True)
        ]
        tasks = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in zip(servers, (tcp, unix), strict=True)
        ]
        background = [
            asyncio.create_task(task)
            for task in (control.worker.run(), control.witnesses.run(), control.outgoing.run())
        ]
        while not all(server.started for server in servers):
            await asyncio.sleep(0.01)
        up.set()
        await asyncio.to_thread(down.wait)
        for task in background:
            task.cancel()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*background, *tasks, return_exceptions=True)
        await control.close()

    async def wire(self) -> ControlPlane:
        """The control plane with the world replaced."""
        real = await open_control_plane(self.home)
        images = Images(real.artifacts)
        shipping = Shipping(
            real.store,
            real.journal,
            real.ledger,
            real.shipping._source,
            {"any": Anything()},
            Images(real.artifacts),
        )
        engine = ScriptedEngine(real, self.proxy)
        worker = Worker(real.store, real.journal, real.ledger, engine, real.keys.worker)  # type: ignore[arg-type]
        self.control = replace(
            real,
            shipping=shipping,
            worker=worker,
            router=self.proxy,  # type: ignore[arg-type]
            metrics=self.proxy,
            artifacts=images,
            platform=Machines(),  # type: ignore[arg-type]
        )
        return self.control

    def commit(self, title: str) -> str:
        """A new commit of the shop. Returns its id."""
        git(self.repository, "commit", "--quiet", "--allow-empty", "--message", title)
        return git(self.repository, "rev-parse", "HEAD").strip()

    def ship(self, title: str) -> dict[str, Any]:
        """Deliver a commit with this title to its end; returns the delivery as the API gives it."""
        self.commit(title)
        with self.client() as client:
            started = client.post("/v1/ship", json={"location": str(self.repository)})
            assert started.status_code == 200, started.text
            return self.ended(client, started.json()["deliveries"][0])

    def tell(self) -> Told:
        """The deliveries that every test can rely on."""
        return Told(
            first=self.ship("first"),
            good=self.ship(f"{HOSTILE}\n\nRefs: SHOP-7\nReviewed-by: Rae <rae@example.com>"),
            refused=self.ship("fails tests"),
            rolled_back=self.ship("slow"),
        )

    def ended(self, client: httpx.Client, delivery: str) -> dict[str, Any]:
        """The delivery, once it has ended."""
        for _ in range(600):
            view: dict[str, Any] = client.get(f"/v1/deliveries/{delivery}").json()
            if view["ended"] is not None:
                return view
            threading.Event().wait(0.05)
        raise AssertionError(f"{delivery} did not end: {view}")

    def session(self) -> str:
        """What the cookie of a browser holds that has signed in."""
        form = {"token": self.token}
        answer = httpx.post(self.pages + "/login", data=form, trust_env=False, verify=False)
        return answer.cookies[COOKIE]

    @property
    def pages(self) -> str:
        """Where people look at pages."""
        return self.url.replace("127.0.0.1", "localhost")

    def client(self, **headers: str) -> httpx.Client:
        """With the token, unless other *headers* are given."""
        given = headers or {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=given, timeout=30, trust_env=False, verify=False)


@contextlib.contextmanager
def opened() -> Iterator[Playhouse]:
    """A house in a folder of its own, open while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="ps-", dir="/tmp"))
    house = Playhouse(Home(folder / "h"), new_repository(folder / "shop"))
    stop = house.start()
    try:
        yield house
    finally:
        stop()
        shutil.rmtree(folder, ignore_errors=True)
