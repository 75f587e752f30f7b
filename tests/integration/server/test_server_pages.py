"""The pages: they show what the API answers, escape what people wrote, and hold together as HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser
from playhouse import HOSTILE, Playhouse, Told
from shell import Shell

from penstock.core.workload import Instance, Isolation, Phase, Placement
from penstock.server import pages
from penstock.server.app import create_app

VOID = {"meta", "link", "input", "br", "img"}
PAGES = (
    "/",
    "/?service=shop&before=ROLLED",
    "/deliveries/GOOD",
    "/deliveries/REFUSED",
    "/deliveries/ROLLED",
    "/environments",
    "/services/shop",
)
BANNER = "Workloads run without a sandbox"


class Page(HTMLParser):
    """Text, tags and links of a page; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs[name] or "" for found, attrs in self.tags if found == tag and name in attrs]


def read(client: httpx.Client, path: str, told: Told) -> Page:
    names = {"GOOD": told.good, "REFUSED": told.refused, "ROLLED": told.rolled_back}
    for name, view in names.items():
        path = path.replace(name, view["id"])
    answer = client.get(path, headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_has_landmarks_and_no_inline_code(
    client: httpx.Client, told: Told, path: str
) -> None:
    page = read(client, path, told)
    tags = [tag for tag, _ in page.tags]
    assert [tags.count(tag) for tag in ("header", "nav", "main", "h1", "title")] == [1, 1, 1, 1, 1]
    assert page.attributes("html", "lang") == ["en"]
    assert page.attributes("script", "src") == ["/static/live.js"]
    assert tags.count("script") == 1
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"}
    assert tags.count("table") == tags.count("thead")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", PAGES)
def test_what_people_wrote_is_shown_and_never_runs(client: httpx.Client, told: Told, path: str) -> None:
    page = read(client, path, told)
    assert "img" not in [tag for tag, _ in page.tags]
    if path in ("/", "/deliveries/GOOD", "/services/shop"):
        assert HOSTILE in page.text


@pytest.mark.parametrize("path", PAGES)
def test_no_link_of_a_page_is_dead(client: httpx.Client, told: Told, path: str) -> None:
    links = {link for link in read(client, path, told).attributes("a", "href") if link.startswith("/")}
    assert links
    assert {link: s for link in links if (s := client.get(link).status_code) != 200} == {}


def test_deliveries_show_outcomes_and_who_refused(client: httpx.Client, told: Told) -> None:
    text = read(client, "/", told).text
    for words in ("promoted", "rolled-back", "refused", "by development-lead"):
        assert words in text


def test_older_deliveries_are_a_page_further(
    client: httpx.Client, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", 1)
    path, seen = "/?service=shop", 0
    while path and seen < 50:
        page = read(client, path, told)
        assert "Deliveries of shop" in page.text
        path = next((link for link in page.attributes("a", "href") if "before=" in link), "")
        seen += 1
    listed = client.get("/v1/deliveries", params={"service": "shop", "limit": 500}).json()["deliveries"]
    assert seen == len(listed) + 1
    assert "No delivery of a service of that name is older." in page.text


def test_the_page_that_one_is_on_is_marked(client: httpx.Client, told: Told) -> None:
    marked = [
        attrs["href"] for _, attrs in read(client, "/environments", told).tags if "aria-current" in attrs
    ]
    assert marked == ["/environments"]


def test_a_refused_delivery_shows_the_rule_and_the_values_that_decided(
    client: httpx.Client, told: Told
) -> None:
    text = read(client, "/deliveries/REFUSED", told).text
    for words in ("no-test-failed", "evidence.tests.failed = 1", "test_price <b>", "deploy failure", "skip"):
        assert words in text


def test_a_service_says_why_it_is_live(client: httpx.Client, told: Told) -> None:
    text = read(client, "/services/shop", told).text
    for words in (
        "SHOP-7",
        "Rae <rae@example.com>",
        "as the commit says",
        "no worse: 0 of 500 errors",
        "CURRENCY=EUR",
    ):
        assert words in text
    assert "by a rollback" not in text


def test_what_runs_where_has_bars_that_can_be_read_aloud(client: httpx.Client, told: Told) -> None:
    page = read(client, "/environments", told)
    assert page.attributes("meter", "value") == ["100.0"]
    assert all(page.attributes("meter", "aria-label"))
    assert "1/1 ready" in page.text


def test_what_keeps_ending_is_told_by_the_page_and_by_status(
    house: Playhouse, client: httpx.Client, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert house.control is not None
    machines: Any = house.control.platform
    live = next(s["live"] for s in client.get("/v1/status").json()["services"] if s["service"] == "shop")
    restless = Instance("0", "unix:/0", Phase.READY, restarts=40, exit_code=1, crashes=1, recent=4)
    machines.placed[live] = Placement(live, (restless,))
    words = "keeps ending: exit 1, 4 times in the last minute"
    try:
        assert words in read(client, "/environments", told).text
        monkeypatch.setenv("PENSTOCK_HOME", str(house.home.path))
        assert f"✗ {live} {words}; next: penstock logs shop" in Shell(capsys).ok("status")
    finally:
        machines.placed.clear()
    assert "keeps ending" not in read(client, "/environments", told).text


def test_a_problem_is_a_page_for_people_and_a_document_for_scripts(client: httpx.Client, told: Told) -> None:
    for path, status in (("/deliveries/nobody", 422), ("/nothing", 404), ("/services/<b>", 422)):
        answer = client.get(path, headers={"accept": "text/html"})
        assert answer.status_code == status
        page = Page(answer.text)
        assert "b" not in [tag for tag, _ in page.tags]
        assert page.attributes("a", "href")
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_every_page_says_when_workloads_are_not_kept_apart(
    house: Playhouse, told: Told, isolation: Isolation
) -> None:
    assert house.control
    app = create_app(replace(house.control, isolation=isolation))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for path in ("/environments", "/login", "/nothing"):
            text = (await client.get(path, headers={"accept": "text/html"})).text
            assert (BANNER in text) is (isolation is Isolation.NONE), path


def test_no_page_and_no_table_is_wider_than_a_phone(house: Playhouse, told: Told, short_tmp: Path) -> None:
    browser = Browser(short_tmp)
    screen = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    loaded = "document.readyState === 'complete' && location.pathname === '{}' && [document.body.scrollWidth]"
    scrolls = "[[...document.querySelectorAll('table')].filter(t => t.scrollWidth > t.clientWidth).length]"
    try:
        browser.ask("Emulation.setDeviceMetricsOverride", **screen)
        url, session = house.pages, house.session()
        delivery = f"/deliveries/{told.rolled_back['id']}"
        for path in ("/", delivery, "/environments", "/services/shop", "/policies"):
            browser.open(f"{url}{path}", penstock=session)
            assert browser.until(loaded.format(path)) == [390], path
            assert browser.until(scrolls) == [0], path
    finally:
        browser.close()
