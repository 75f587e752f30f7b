"""SLOs from outside: publishing, showing, a delivery that asks for them, the page; and whatever is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser
from office import Office
from playhouse import Playhouse, opened
from shop_repository import git
from test_server_pages import Page

from penstock.adapters.sqlite import SqliteStore
from penstock.core.traffic import Counters
from penstock.telemetry import rollups

SLO = (Path(__file__).parents[3] / "examples/02-error-budget/slos/shop-availability.yaml").read_text()
PLACE = ("shop", "production")


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        found.ship("first")
        yield found


@pytest.fixture
def published(office: Office) -> Iterator[int]:
    """The SLO in force, and nothing counted yet."""
    index = office.sh.json("slo", "publish", office.write(SLO))["index"]
    yield index
    if office.sh.json("slo", "show", "shop")["slos"]:
        office.sh.ok("slo", "retire", "shop", "availability", "--reason", "the test is over")
    count(office.house)


def count(house: Playhouse, *readings: tuple[int, int]) -> None:
    """As if the sampler had read these (requests, errors) in the last minute, and nothing before."""

    async def keep() -> None:
        store = SqliteStore(house.home.store)
        async with store.transaction() as tx:
            for table in ("traffic", "readings", "gaps"):
                await tx.execute(f"DELETE FROM {table}")
            now = await tx.now()
            for number, (requests, errors) in enumerate(readings):
                at = now - 60 + number
                seen = (await rollups.last_read(tx)).get(PLACE, 0.0)
                await rollups.add(tx, PLACE, seen, at, (Counters("shop-1", at, "e", requests, errors),))
        await store.close()

    asyncio.run(keep())


GOOD, BURNT, FEW = ((0, 0), (20_000, 10)), ((0, 0), (20_000, 900)), ((0, 0), (30, 0))


def test_what_is_published_is_in_the_ledger_and_can_be_taken_back(office: Office, published: int) -> None:
    sh = office.sh
    entry = sh.json("evidence", "show", str(published))
    assert (entry["type"], entry["predicate"]["source"]) == ("urn:penstock:slo:v1", SLO)
    (service,) = sh.json("slo", "list")["services"]
    assert [one["objective"] for one in service["objectives"]] == ["availability"]
    assert "availability" in sh.ok("slo", "list")
    assert SLO.strip() in sh.ok("slo", "show", "shop")
    done = sh.ok("slo", "retire", "shop", "availability", "--reason", "promised too much")
    assert "availability of shop holds no longer" in done
    assert sh.ok("slo", "list").strip() == "no SLO is in force"
    assert "no SLO in force" in sh.ok("slo", "show", "shop")
    sh("slo", "retire", "shop", "availability", "--reason", "again")
    assert (sh.code, "in force: none" in sh.err) == (2, True)
    sh.ok("slo", "publish", office.write(SLO))
    assert sh.json("ledger", "verify")["verified"]


def test_only_the_operations_lead_publishes(office: Office) -> None:
    sh = office.sh
    tess, olga = office.hire("tess", "test-lead"), office.hire("olga", "operations-lead")
    sh("slo", "publish", office.write(SLO), tess)
    assert (sh.code, "tess does not hold the role operations-lead for service/shop" in sh.err) == (1, True)
    sh.ok("slo", "publish", office.write(SLO), olga)
    sh("slo", "retire", "shop", "availability", "--reason", "x", tess)
    assert sh.code == 1
    sh.ok("slo", "retire", "shop", "availability", "--reason", "x", olga)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("target: 0.99", "target: 1.0", "at 1 there is no error budget"),
        ("duration: 1h", "duration: 0h", "no rolling window such as 28d"),
        ("type: penstock", "type: datadog", "unknown source 'datadog'; known: penstock"),
        ("- {target: 0.99}", "- {target: 0.99}\n    - {target: 0.9}", "give each its own displayName"),
    ],
)
def test_a_bad_file_is_refused_where_it_is_wrong(office: Office, old: str, new: str, problem: str) -> None:
    file = office.write(SLO.replace(old, new))
    for verb in ("lint", "publish"):
        office.sh("slo", verb, file)
        assert office.sh.code == 2
        assert problem in office.sh.err
        assert f"{file}:" in office.sh.err


def test_a_bad_text_does_not_get_in_by_the_api_either(office: Office) -> None:
    office.sh.ok("identity", "attest-logins")
    with office.house.client() as client:
        for text, problem in (
            (SLO.replace("0.99", "1.0"), "no error budget"),
            (SLO, "its text is availability"),
        ):
            said = {"service": "shop", "name": "latency", "source": text}
            answer = client.post("/v1/say", json={"type": "urn:penstock:slo:v1", "predicate": said})
            assert (answer.status_code, problem in answer.json()["what"]) == (422, True), answer.text
    office.sh.ok("identity", "attest-logins", "--off")


def test_an_unknown_service(office: Office) -> None:
    sh = office.sh
    sh("slo", "show", "shpo")
    assert (sh.code, "no service 'shpo'; there are: shop" in sh.err) == (2, True)
    sh.ok("slo", "publish", office.write(SLO.replace("service: shop", "service: shpo")))
    assert "no service here was called shpo before; did you mean shop?" in sh.err
    assert sh.json("slo", "show", "shpo")["objectives"][0]["state"] == "unknown"
    sh.ok("slo", "retire", "shpo", "availability", "--reason", "a slip")


def test_a_repository_publishes_slos_that_the_operations_lead_signed(office: Office) -> None:
    sh, folder = office.sh, office.folder / "organisation"
    (folder / "slos").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    office.hire("val", "operations-lead")
    sh.ok("identity", "attest-logins")

    def commit(owner: str, text: str) -> None:
        (folder / "CODEOWNERS").write_text(f"* @org/{owner}\n")
        (folder / "slos/shop.yaml").write_text(text)
        git(folder, "add", "--all")
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={office.folder / 'val'}")
        git(folder, *signing, "commit", "--quiet", "--message", "x", "-S")

    commit("test-lead", SLO)
    sh("policy", "sync", str(folder))
    assert (sh.code, "add to CODEOWNERS: /slos/shop.yaml @operations-lead" in sh.err) == (1, True)
    commit("operations-lead", SLO + "# by val\n")
    (done,) = sh.json("policy", "sync", str(folder))["policies"]
    assert (done["file"], done["what"], done["identity"]) == ("slos/shop.yaml", "published", "val")
    (slo,) = sh.json("slo", "show", "shop")["slos"]
    assert (slo["index"], slo["source"]) == (done["index"], SLO + "# by val\n")
    (same,) = sh.json("policy", "sync", str(folder))["policies"]
    assert same["what"] == "unchanged"
    commit("operations-lead", SLO.replace("0.99", "1.0"))
    sh("policy", "sync", str(folder))
    assert (sh.code, "slos/shop.yaml:19: spec.objectives[0].target" in sh.err) == (2, True)
    sh.ok("identity", "attest-logins", "--off")
    sh.ok("slo", "retire", "shop", "availability", "--reason", "the test is over")


def test_a_good_file_needs_no_server_to_be_checked(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(office.folder / "nobody"))
    assert office.sh.json("slo", "lint", office.write(SLO)) == [
        {"service": "shop", "slo": "availability", "objectives": ["availability"]}
    ]


# --- deliveries -------------------------------------------------------------------------------------------


def slo_step(view: dict[str, Any]) -> str:
    (step,) = [step for step in view["steps"] if step["stage"] == "slo"]
    return str(step["reason"])


@pytest.mark.parametrize(
    ("readings", "outcome", "verdict", "words"),
    [
        (GOOD, "promoted", "PASS", "95% of the budget of 1 h is left"),
        (FEW, "promoted", "UNKNOWN", "too few requests to tell what is left of the budget of 1 h"),
        (BURNT, "refused", "FAIL", "450% of the budget of 1 h is used"),
        ((), "refused", "UNKNOWN", "nothing was counted yet"),
    ],
    ids=["kept", "quiet", "burnt", "nobody counted"],
)
def test_a_promotion_asks_for_the_budget(
    office: Office,
    published: int,
    readings: tuple[tuple[int, int], ...],
    outcome: str,
    verdict: str,
    words: str,
) -> None:
    count(office.house, *readings)
    view = office.house.ship(f"good with {len(readings)} readings {readings[-1:]}")
    assert view["outcome"] == outcome, view["reason"]
    assert slo_step(view).startswith(f"{verdict}: availability: ")
    assert words in slo_step(view)
    if outcome == "refused":
        assert view["refused_by"] == ["operations-lead"]
        assert words in view["reason"]
    office.bundle_verifies(view["id"])
    assert office.sh.json("ledger", "verify")["verified"]


def test_an_slo_that_comes_during_a_delivery_is_not_passed_over(office: Office) -> None:
    """Nobody has looked at its budget, and UNKNOWN never passes."""
    house, sh = office.house, office.sh
    house.commit("hangs in its tests, then goes on")
    (delivery,) = sh.json("ship", str(house.repository), "--no-wait")["deliveries"]
    assert house.control
    sh.ok("slo", "publish", office.write(SLO))
    with house.client() as client:
        engine = house.control.worker._means.engine
        engine.blocked.set()  # type: ignore[attr-defined]
        view = house.ended(client, delivery)
    assert view["outcome"] == "refused"
    assert "no evidence for evidence.slo" in view["reason"]
    sh.ok("slo", "retire", "shop", "availability", "--reason", "the test is over")


def test_a_rollback_is_never_held_up(office: Office, published: int) -> None:
    count(office.house, *GOOD)
    assert office.house.ship("good, and soon taken back")["outcome"] == "promoted"
    count(office.house, *BURNT)
    with office.house.client() as client:
        back = client.post("/v1/services/shop/rollback", json={"reason": "to see"}).json()["delivery"]
        view = office.house.ended(client, back)
    assert (view["outcome"], [step["stage"] for step in view["steps"]].count("slo")) == ("restored", 0)


# --- the page ----------------------------------------------------------------------------------------------


def read(house: Playhouse) -> Page:
    with house.client() as client:
        answer = client.get("/slos", headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_page_shows_each_objective_with_a_picture(office: Office, published: int) -> None:
    count(office.house, *BURNT)
    page = read(office.house)
    for words in (
        "shop FAIL",
        "exhausted",
        "99% without an error, 1 h",
        "20,000 900 bad",
        "450% of the budget",
    ):
        assert words in page.text, page.text
    (points,) = page.attributes("polyline", "points")
    assert points.startswith("0.0,0.0 ")
    assert points.endswith("100.0,100.0")
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"}


def test_the_page_without_any(office: Office) -> None:
    assert "No SLO is in force." in read(office.house).text


def test_a_name_that_would_run_is_shown(office: Office) -> None:
    hostile = SLO.replace("{target: 0.99}", '{target: 0.99, displayName: "<script>alert(1)</script>"}')
    office.sh.ok("slo", "publish", office.write(hostile))
    page = read(office.house)
    assert "<script>alert(1)</script>" in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    office.sh.ok("slo", "retire", "shop", "availability", "--reason", "the test is over")


def test_the_picture_in_a_browser(office: Office, published: int, short_tmp: Path) -> None:
    count(office.house, *BURNT)
    browser = Browser(short_tmp)
    try:
        url = office.house.url.replace("127.0.0.1", "localhost")
        browser.open(f"{url}/slos", penstock=office.house.session())
        box = "document.querySelector('svg.budget polyline').getBoundingClientRect()"
        assert browser.until(f"{box}.height > 20 && {box}.width > 100")
        assert browser.until("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    finally:
        browser.close()


def test_the_api_answers_what_the_page_shows(office: Office, published: int) -> None:
    count(office.house, *GOOD)
    with office.house.client() as client:
        view = one(client)
        listed = client.get("/v1/slos").json()["services"][0]
    assert (view["state"], view["left"], view["total"], view["bad"]) == ("ok", 0.95, 20_000, 10)
    assert (view["course"][0], view["course"][-1], len(view["course"])) == (1.0, 0.95, 61)
    assert listed["objectives"][0]["objective"] == "availability"


def one(client: httpx.Client) -> dict[str, Any]:
    (objective,) = client.get("/v1/slos/shop").json()["objectives"]
    return dict(objective)
