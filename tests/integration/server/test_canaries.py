"""Canaries over a real server: planned, judged again, and drawn; and how bad input is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser
from playhouse import Playhouse, Told
from shell import Shell

QUIET = {"steps": [10.0], "seconds_per_step": 2.0, "look_every": 1.0, "patience": 1.0}
LONG = {"steps": [10.0, 50.0], "seconds_per_step": 60.0, "look_every": 5.0, "patience": 60.0}


def plan(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/services/shop/canary/plan", json={"seconds": 0.1, **body})


def test_a_plan_says_what_the_traffic_can_show(client: httpx.Client, told: Told) -> None:
    view = plan(client, canary=LONG).json()
    assert (view["reachable"], view["quiet"], view["needs"]) == (True, False, 120.0)
    assert "30 requests a second" in view["words"]
    assert [step["share"] for step in view["steps"]] == [100, 500]
    assert view["steps"][0]["new"] == pytest.approx(180)
    assert view["steps"][1]["detectable"] < view["steps"][0]["detectable"]


def test_a_plan_that_cannot_be_met_says_so_and_what_to_do(client: httpx.Client, told: Told) -> None:
    view = plan(client, canary=QUIET).json()
    assert (view["reachable"], view["quiet"]) == (False, True)
    assert "no service is called quiet on less than 30 s: give it longer" in view["words"]
    own = plan(client).json()
    assert own["deadline"] == pytest.approx(0.06), "the service's own plan, if no other is given"


@pytest.mark.parametrize(
    ("canary", "problem"),
    [
        ({"steps": []}, "must rise"),
        ({"steps": [5.0], "judge": {"alpha": 0.0}}, "alpha must be above 0"),
        ({"steps": [5.0], "judge": {"ratio": 1.0, "points": 0.0}}, "nothing could ever be shown"),
        ({"steps": [5.0], "patience": 1e6}, "at most 500"),
        ({"stepps": [5.0]}, "stepps"),
    ],
)
def test_a_plan_that_is_none_is_refused(
    client: httpx.Client, told: Told, canary: dict[str, Any], problem: str
) -> None:
    answer = plan(client, canary=canary)
    assert answer.status_code == 422
    assert problem in answer.text


def test_a_plan_for_nobody_names_who_there_is(client: httpx.Client, told: Told) -> None:
    answer = client.post("/v1/services/shoop/canary/plan", json={})
    assert answer.status_code == 422
    assert "services: " in answer.text
    assert answer.json()["word"] == "invalid"


def test_a_canary_is_judged_again_by_its_rule_and_by_another(client: httpx.Client, told: Told) -> None:
    path = f"/v1/deliveries/{told.rolled_back['id']}/canary/replay"
    view = client.post(path, json={}).json()
    assert (view["verdict"], view["stopped"], view["then"]["verdict"]) == ("FAIL", 1, "FAIL")
    lax = client.post(path, json={"canary": {**LONG, "judge": {"slow_points": 90.0}}}).json()
    assert (lax["verdict"], lax["stopped"]) == ("PASS", None)
    good = client.post(f"/v1/deliveries/{told.good['id']}/canary/replay", json={}).json()
    assert good["verdict"] == "PASS"
    assert len(good["looks"]) >= 2
    widths = [look["high"] - look["low"] for look in good["looks"]]
    assert widths == sorted(widths, reverse=True), "it closes in"
    uncounted = client.post(path, json={"canary": {**LONG, "judge": {"quantiles": [95]}}})
    assert uncounted.status_code == 422
    assert "requests were counted for no quantile then" in uncounted.text


def test_what_had_no_canary_cannot_be_judged_again(client: httpx.Client, told: Told) -> None:
    answer = client.post(f"/v1/deliveries/{told.refused['id']}/canary/replay", json={})
    assert answer.status_code == 422
    assert "has no canary" in answer.text


@pytest.fixture
def browser(short_tmp: Path) -> Iterator[Browser]:
    found = Browser(short_tmp)
    yield found
    found.close()


def test_the_page_draws_the_canary_and_where_it_stopped(
    house: Playhouse, told: Told, browser: Browser
) -> None:
    page = f"{house.url.replace('127.0.0.1', 'localhost')}/deliveries/{told.rolled_back['id']}"
    browser.open(page, penstock=house.session())
    words = browser.until("document.querySelector('#canary figcaption').innerText")
    assert "FAIL, stopped at look 1" in words
    assert browser.until("document.querySelectorAll('#canary svg polyline').length") == 3
    stroke = "getComputedStyle(document.querySelector('#canary .effect')).stroke"
    light = browser.until(stroke)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.ask("Emulation.setEmulatedMedia", features=dark)
    assert browser.until(f"{stroke} !== '{light}'"), "it has the colours of the page, light and dark"


def test_the_command_plans_and_judges_again(
    house: Playhouse,
    told: Told,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSTOCK_HOME", str(house.home.path))
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    sh = Shell(capsys)
    config = tmp_path / "penstock.yaml"
    config.write_text("canary: {steps: [10, 50], seconds_per_step: 60}\n")
    out = sh.ok("canary", "plan", "shop", "--seconds", "0.1", "--canary", str(config))
    assert "✓ 30 requests a second" in out
    sh("canary", "plan", "shop", "--seconds", "0.1")
    assert sh.code == 1, "its own plan is far too short"
    again = sh.json("canary", "replay", told.rolled_back["id"])
    assert (sh.code, again["stopped"], again["then"]["verdict"]) == (1, 1, "FAIL")
    assert "stopped" not in sh("canary", "replay", told.good["id"])
    assert sh.code == 0


GOOD = '{"seconds": 5, "requests": 450, "errors": 0, "stable_requests": 450, "stable_errors": 0}'
ROWS = "seconds,share,requests,errors,stable_requests,stable_errors\n5,10,40,0,360,0\n10,50,200,{},200,0\n"


@pytest.mark.parametrize(
    ("text", "code", "problem"),
    [
        (ROWS.format(0), 1, "UNKNOWN"),
        (ROWS.format(30), 1, "FAIL at look 2 of 2"),
        (
            '[{"seconds": 5, "requests": 900, "errors": 0, "stable_requests": 900, "stable_errors": 0}]',
            0,
            "PASS",
        ),
        (ROWS.format("NaN"), 2, "row 2: errors: expected a number from 0, found 'NaN'"),
        (ROWS.format(-1), 2, "row 2: errors"),
        (ROWS.format(0.5), 2, "row 2: counts must be whole"),
        (ROWS.format(201), 2, "more bad requests than requests"),
        (ROWS.replace("share", "sharre"), 2, "no such column: sharre; there are: seconds"),
        ("", 2, "no rows"),
        ("[1]", 2, "row 1: expected an object"),
        ("[", 2, "neither JSON nor CSV"),
    ],
)
def test_a_file_is_judged_without_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, problem: str
) -> None:
    sh, file = Shell(capsys), tmp_path / "looks"
    file.write_text(text)
    sh("canary", "replay", "--file", str(file))
    assert sh.code == code, sh.err
    assert problem in sh.out + sh.err


def test_a_replay_is_of_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    sh = Shell(capsys)
    sh("canary", "replay")
    assert (sh.code, "a delivery, or a file" in sh.err) == (2, True)
