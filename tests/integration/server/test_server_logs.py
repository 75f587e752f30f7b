"""The output of stages over HTTP: by range and live, at the reader's pace, without what is secret."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playhouse import Playhouse, Told, opened
from shell import Shell
from shop_repository import PAYMENT

from penstock.adapters.unsandboxed import Unsandboxed
from penstock.core.workload import Step
from penstock.engine.logs import finish

LINES = [f"line {number} ä <b>\r\n".encode() for number in range(4000)]


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    """A server of their own: its deliveries run until a test lets them end."""
    with opened() as found:
        yield found


@pytest.fixture(scope="module")
def told(house: Playhouse) -> Told:
    return house.tell()


@dataclass
class Running:
    """A delivery whose tests run until `end`; what they write is written here."""

    house: Playhouse
    client: httpx.Client
    delivery: str
    log: Path

    @property
    def path(self) -> str:
        return f"/v1/deliveries/{self.delivery}/logs/tests"

    def write(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)

    def end(self) -> None:
        self.client.post(f"/v1/deliveries/{self.delivery}/abort")
        self.house.ended(self.client, self.delivery)


@pytest.fixture
def running(house: Playhouse, client: httpx.Client) -> Iterator[Running]:
    house.commit("hangs in its tests")
    (delivery,) = client.post("/v1/ship", json={"location": str(house.repository)}).json()["deliveries"]
    assert house.control
    log = house.control.engine.log_of(delivery, "tests")
    for _ in range(2000):
        if log.exists() and log.stat().st_size:
            break
        threading.Event().wait(0.01)
    log.write_bytes(b"")
    found = Running(house, client, delivery, log)
    yield found
    if client.get(f"/v1/deliveries/{delivery}").json()["ended"] is None:
        found.end()


def events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "data" in fields:
                yield fields.get("event", "message"), fields["id"], json.loads(fields["data"])
            fields = {}


def test_a_range_is_exact_and_says_what_it_stands_for(running: Running) -> None:
    data = b"".join(LINES)
    running.write(data)
    for compressed in (False, True):
        if compressed:
            finish(running.log)
        answer = running.client.get(running.path, params={"offset": 100, "limit": 50})
        assert answer.content == data[100:150]
        headers = {name: answer.headers[f"penstock-log-{name}"] for name in ("begin", "next", "total")}
        assert headers == {"begin": "100", "next": "150", "total": str(len(data))}
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert running.client.get(running.path, params={"limit": 10}).content == data[-10:]
        assert running.client.get(running.path, params={"offset": 10**12}).content == b""
    assert len(running.client.get(running.path).content) == len(data)


def test_whoever_follows_gets_everything_once_and_then_the_end(running: Running) -> None:
    data = b"".join(LINES)
    running.write(data[:40_001])
    said: list[dict[str, Any]] = []
    with running.client.stream("GET", f"{running.path}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for name, number, event in events(answer.iter_lines()):
            if name == "end":
                break
            assert number == str(event["next"])
            said.append(event)
            if event["next"] == 40_001:
                running.write(data[40_001:])
            if event["next"] == len(data):
                running.end()
    assert "".join(event["text"] for event in said).encode() == data
    assert [event["offset"] for event in said] == [0, *(event["next"] for event in said[:-1])]
    assert (event["state"], number) == ("skip", str(len(data)))


@pytest.mark.parametrize("how", ["Last-Event-ID", "offset", "both"])
def test_whoever_comes_back_gets_exactly_the_missing_bytes(running: Running, how: str) -> None:
    data = b"".join(LINES)
    running.write(data[:50_000])
    with running.client.stream("GET", f"{running.path}/events") as answer:
        _, seen, first = next(events(answer.iter_lines()))
    running.write(data[50_000:])
    running.end()
    finish(running.log)
    headers = {"last-event-id": seen} if how != "offset" else {}
    query = {"offset": seen if how == "offset" else "7"} if how != "Last-Event-ID" else {}
    answer = running.client.get(f"{running.path}/events", headers=headers, params=query)
    rest = list(events(iter(answer.text.split("\n"))))
    assert rest[-1][0] == "end"
    text = "".join(event["text"] for name, _, event in rest if name == "message")
    assert (first["text"] + text).encode() == data


def test_a_page_may_pass_over_what_comes_too_fast(running: Running) -> None:
    running.write(b"".join(LINES))
    running.end()
    answer = running.client.get(f"{running.path}/events", params={"behind": 1000})
    (_, _, first), *_ = events(iter(answer.text.split("\n")))
    size = sum(map(len, LINES))
    assert (first["offset"], first["next"]) == (size - 1000, size)


async def test_a_reader_that_does_not_read_does_not_slow_the_step(running: Running) -> None:
    script = "yes 'a line that nobody reads' | head -c 30000000; echo the end"
    with running.client.stream("GET", f"{running.path}/events") as answer:
        assert answer.status_code == 200
        result = await Unsandboxed().run(Step(("/bin/sh", "-c", script), "/"), running.log)
        assert result.tail.endswith("the end\n")
        await asyncio.to_thread(running.end)
        *_, (name, number, _) = events(answer.iter_lines())
    assert (name, number) == ("end", str(30_000_000 + 8))


BAD = [
    ("/logs/nothing", {}, {}),
    ("/logs/..%2f..%2fkeys", {}, {}),
    ("/logs/nothing/events", {}, {}),
    ("/logs/tests", {"offset": "-1"}, {}),
    ("/logs/tests", {"limit": "0"}, {}),
    ("/logs/tests", {"limit": str(2**21)}, {}),
    ("/logs/tests", {"offset": str(2**70)}, {}),
    ("/logs/tests/events", {"offset": "x"}, {}),
    ("/logs/tests/events", {}, {"last-event-id": "-4"}),
    ("/logs/tests/events", {}, {"last-event-id": "9" * 30}),
]


@pytest.mark.parametrize(("path", "query", "headers"), BAD)
def test_bad_questions_are_problem_documents(
    client: httpx.Client, told: Told, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    answer = client.get(f"/v1/deliveries/{told.good['id']}{path}", params=query, headers=headers)
    assert answer.status_code in (404, 422)
    assert answer.json()["word"] == "invalid"


def test_the_page_has_a_box_for_every_output(client: httpx.Client, told: Told) -> None:
    text = client.get(f"/deliveries/{told.good['id']}", headers={"accept": "text/html"}).text
    assert f'data-log="/v1/deliveries/{told.good["id"]}/logs/build"' in text
    assert 'id="log-build"' in text


def test_a_secret_value_is_shown_nowhere(client: httpx.Client, told: Told) -> None:
    status = client.get("/v1/status").json()["services"][0]
    assert status["data"] == {"CURRENCY": "EUR", "PAYMENT_KEY": "***"}
    assert client.get("/v1/services/shop/why").json()["data"]["PAYMENT_KEY"] == "***"
    found = client.get("/v1/evidence", params={"delivery": told.good["id"], "limit": 1000}).json()["entries"]
    views = [client.get(f"/v1/evidence/{entry['index']}").json() for entry in found]
    promoted = next(view for view in views if view["what"] == "Promoted")
    assert promoted["predicate"]["data"]["values"]["PAYMENT_KEY"] == "***"
    paths = ["/", "/environments", "/services/shop", f"/deliveries/{told.good['id']}"]
    texts = [client.get(path, headers={"accept": "text/html"}).text for path in paths]
    texts += [json.dumps({**view, "envelope": ""}) for view in views]
    assert [text for text in texts if PAYMENT in text] == []


def test_the_command_follows_one_stage_or_all_of_them(sh: Shell, running: Running) -> None:
    running.write(b"said before\n")
    ending = threading.Timer(0.5, running.end)
    ending.start()
    out = sh("logs", running.delivery, "tests", "--follow")
    ending.join()
    assert (sh.code, out) == (0, "said before\n")
    out = sh("logs", running.delivery, "--follow")
    assert out.startswith("--- begin\n")
    assert "--- build\nbuild <of> " in out
    view = sh.json("logs", running.delivery, "tests", "--follow")
    assert view == {"name": running.delivery, "text": "said before\n"}


def test_the_command_says_what_cannot_be_followed(sh: Shell, told: Told) -> None:
    sh("logs", "shop", "--follow")
    assert sh.code == 2
    assert "--follow shows the stages of a delivery" in sh.err
    assert "next: penstock logs shop-" in sh.err
    sh("logs", told.good["id"], "nothing", "--follow")
    assert sh.code == 2
    assert "is not a stage of this delivery" in sh.err
