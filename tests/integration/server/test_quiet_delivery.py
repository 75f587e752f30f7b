"""A quiet service, from the plan of its canary to ``penstock why``: three requests a minute, nobody pretends.

Time goes by as often as the proxy is asked, so nothing here waits for users.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playhouse import Playhouse, opened
from shell import Shell


@pytest.fixture(scope="module")
def village() -> Iterator[Playhouse]:
    with opened() as house:
        house.proxy.every, house.proxy.rate = 20.0, 0.05
        house.ship("first")
        yield house


@pytest.fixture
def sh(village: Playhouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("PENSTOCK_HOME", str(village.home.path))
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys)


def test_the_plan_says_what_it_will_not_show_and_what_else_there_is(village: Playhouse, sh: Shell) -> None:
    out = sh("canary", "plan", "shop", "--seconds", "0.1")
    assert sh.code == 1
    assert "✗ 0.05 requests a second" in out
    assert "expect UNKNOWN" in out


def test_it_is_promoted_on_generated_requests_and_everybody_who_asks_is_told(
    village: Playhouse, sh: Shell
) -> None:
    view = village.ship("quiet change")
    assert view["outcome"] == "promoted", view["reason"]
    looks = [step["reason"] for step in view["steps"] if step["key"].startswith("canary/look")]
    assert "more requests of the new release are needed, about" in looks[-1]
    out = sh.ok("why", "shop")
    assert "  canary        UNKNOWN: " in out
    assert "canary: too quiet to judge (" in out
    assert "user requests); traffic: generated" in out
    assert "evidence.canary.quiet = true" in out


def test_without_them_it_is_refused_with_the_ways_on_and_a_named_person_may_answer_for_it(
    village: Playhouse, sh: Shell
) -> None:
    view = village.ship("quiet change, hardly asked")
    assert (view["outcome"], view["refused_by"]) == ("refused", ["operations-lead"])
    assert "the canary is UNKNOWN: " in view["reason"]
    assert (
        "(acceptance.requests; 0 of 30 failed), a longer canary (canary.patience), or an override"
        in (view["reason"])
    )
    sh.ok("identity", "add", "operator", "--address", "op@example.org")
    words = ("--policy", "operations-lead", "--action", "promote", "--reason", "I have looked at it myself")
    sh.ok("override", view["id"], *words)
    sh.ok("rerun", view["id"])
    out = sh.ok("why", "shop")
    assert "operations-lead for promote, overridden by operator: I have looked at it myself" in out
    assert "  canary        UNKNOWN: " in out, "and nobody says that it passed"
