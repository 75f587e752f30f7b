"""The output on a page, in a real browser: the end first, then what comes, never more than a piece."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from playhouse import Playhouse, opened

PRE = "document.querySelector('#log-tests pre')"


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


@pytest.fixture
def browser(short_tmp: Path) -> Iterator[Browser]:
    found = Browser(short_tmp)
    yield found
    found.close()


def lines(begin: int, end: int) -> str:
    return "".join(f"line {number} <b> &amp; ä\n" for number in range(begin, end))


def test_a_long_output_on_a_page(house: Playhouse, browser: Browser) -> None:
    house.commit("hangs in its tests")
    assert house.control
    with house.client() as client:
        (delivery,) = client.post("/v1/ship", json={"location": str(house.repository)}).json()["deliveries"]
        log = house.control.engine.log_of(delivery, "tests")
        for _ in range(2000):
            if log.exists() and log.stat().st_size:
                break
            threading.Event().wait(0.01)
        log.write_text(lines(0, 100_000))
        browser.open(
            f"{house.url.replace('127.0.0.1', 'localhost')}/deliveries/{delivery}", penstock=house.session()
        )
        # The end first, and only a piece of it.
        text = browser.until(f"{PRE}.textContent.endsWith('line 99999 <b> &amp; ä\\n') && {PRE}.textContent")
        assert lines(0, 100_000).endswith("\n" + text)
        assert len(text) < 70_000
        assert browser.until(f"{PRE}.scrollTop + {PRE}.clientHeight > {PRE}.scrollHeight - 5")
        # What comes is shown as it comes.
        with log.open("a") as file:
            file.write("and one more\n")
        browser.until(f"{PRE}.textContent.endsWith('99999 <b> &amp; ä\\nand one more\\n')")
        # Earlier lines join on without a break.
        browser.until("document.querySelector('#log-tests .log-earlier').click() || true")
        text = browser.until(f"{PRE}.textContent.length > {len(text) + 1000} && {PRE}.textContent")
        assert (lines(0, 100_000) + "and one more\n").endswith("\n" + text)
        # A page that is fetched again keeps it, and says how the stage ended.
        client.post(f"/v1/deliveries/{delivery}/abort")
        house.ended(client, delivery)
        summary = "document.querySelector('#log-tests summary').textContent"
        browser.until(f"{summary}.includes('skip') && {PRE}.textContent.length === {len(text)}")
        browser.until("document.querySelector('#log-tests .log-state').textContent === 'whole output'")
