"""What becomes of a canary when a metric source is not well: the table of
``docs/reference/bad-metric-sources.md``, all of it, done to each source as its adapter meets it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from metric_source_istio import Istio
from metric_sources import EACH, RELEASES, SOON, Counts, Source
from metric_sources import SOURCES as USUAL
from test_canary import DATA, NEW, STABLE, Town, entry, said

from penstock.checks import canary
from penstock.checks.sampled import Where, samples
from penstock.core.canary import Count
from penstock.core.canaryconfig import Metric
from penstock.core.pipeline import State
from penstock.core.traffic import Counters
from penstock.core.verdict import Cause, Verdict
from penstock.engine import begin
from penstock.errors import Invalid, Unavailable
from penstock.ledger import looks
from penstock.ports import Meter

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "bad-metric-sources.md"
LINES = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
ROWS = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in LINES[1:]]
SOURCES: dict[str, type[Source]] = {**USUAL, "istio": Istio}
#: What every source is tried with, as far as it can do that.
FAULTS = (
    "says nothing",
    "NaN",
    "Inf",
    "a negative count",
    "a fraction of an event",
    "more bad events than events",
    "stale",
    "out of order",
    "a counter reset",
    "the same counter twice",
    "429",
    "503",
    "a malformed body",
    "a body that is too large",
    "no answer in time",
    "nobody is there",
    "another clock",
)


def test_the_table_has_every_fault_of_every_source() -> None:
    done = {(source, what) for source, what, *_ in ROWS}
    # Its errors are among its requests, and all is of one clock.
    cannot = {"more bad events than events", "another clock"}
    assert {("istio", fault) for fault in FAULTS if fault not in cannot} <= done
    # Of logs lines are counted: there is no number to be odd.
    assert {(s, f) for s in ("the proxy", "prometheus", "exposed") for f in FAULTS} <= done
    of_http = {"429", "503", "a malformed body", "a body that is too large", "no answer in time"}
    assert {("any adapter", fault) for fault in FAULTS if fault not in of_http} <= done
    assert {source for source, _ in done} == set(SOURCES)


@pytest.fixture(autouse=True)
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is not waited for: it is as bad the next time."""
    monkeypatch.setattr(canary, "NEWS_SECONDS", 0.0)


@pytest.mark.parametrize("arm", [NEW, STABLE], ids=["new", "stable"])
@pytest.mark.parametrize(
    ("source", "what", "cause", "words", "then"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS]
)
async def test_a_source_that_is_not_well_is_unknown(
    short_tmp: Path, source: str, what: str, cause: str, words: str, then: str, arm: object
) -> None:
    town = Town()
    async with AsyncExitStack() as stack:
        place = SOURCES[source](town, short_tmp)
        await place.open(stack)
        await town.measure()
        assert await next_look(town, place) == "PASS", "so nothing else is wrong"

        await place.spoil(what, arm.id)  # type: ignore[attr-defined]
        place.grow()
        town.serve(NEW, EACH)
        town.serve(STABLE, EACH)
        outcome = await town.look(500)
        look = said(outcome)
        assert (look.verdict, look.cause, outcome.state) == ("UNKNOWN", cause, State.SUCCESS), (
            look.explanation
        )
        assert words in look.explanation
        assert looks.faults(entry(look)) == [], "it can be kept, and judged again"
        assert not look.quiet, "nobody can say of a bad reading that there are too few users"

        await place.mend()
        assert await next_look(town, place) == ("PASS" if then == "goes on" else "UNKNOWN")


async def next_look(town: Town, source: Source) -> str:
    source.grow()
    town.serve(NEW, EACH)
    town.serve(STABLE, EACH)
    look = said(await town.look(500))
    assert looks.faults(entry(look)) == []
    return look.verdict


async def test_no_meter_is_waited_for_for_ever() -> None:
    async def never(metric: Metric, service: str, environment: str, release: str) -> Count | None:
        await asyncio.Event().wait()
        return None

    theirs: Meter = Counts(never)
    where = Where("shop", "production", {"theirs": theirs}, SOON)
    nothing = [Counters(release, 1.0, "1", 0, 0) for release in RELEASES]
    (found,) = await samples([Metric("m", "theirs", "b", "t")], where, *nothing)
    assert isinstance(found, Verdict)
    assert (found.cause, found.reason) == (Cause.ERROR, "m: theirs gave no answer in 0.05 s")


async def test_a_metric_that_nobody_counts_ends_it_before_users_see_anything() -> None:
    town = Town(metrics=(Metric("m", "prometheus", "b", "t"),), meters={"logs": Counts(nothing)})
    with pytest.raises(Invalid, match="nobody counts prometheus here; there are: logs") as caught:
        await town.measure()
    assert "penstock up --prometheus URL" in str(caught.value)


async def test_a_metric_that_nobody_counts_ends_a_delivery_before_anything_is_built() -> None:
    town = Town(metrics=(Metric("m", "exposed", "b", "t", "/metrics"),))
    powers: dict[str, Any] = dict.fromkeys(("store", "ledger", "artifacts"))  # nothing is asked of them
    with pytest.raises(Invalid, match="metric m: nobody counts exposed here; there are: none"):
        await begin.perform(town.task(0), meters={}, **powers)


async def nothing(metric: Metric, service: str, environment: str, release: str) -> Count | None:
    return None


async def test_a_metric_can_be_judged_again_and_what_was_changed_is_found(short_tmp: Path) -> None:
    town = Town()
    async with AsyncExitStack() as stack:
        place = SOURCES["any adapter"](town, short_tmp)
        await place.open(stack)
        await town.measure()
        assert await next_look(town, place) == "PASS"
        place.bad[NEW.id] += 400
        assert await next_look(town, place) == "FAIL"
        look = said(await town.look(500))
    (series,) = look.series or ()
    assert series.spans is not None
    lied = replace(series, spans=tuple((*span[:3], 0, *span[4:]) for span in series.spans))
    words = looks.faults(entry(replace(look, series=(lied,))))
    assert any("do not add up to its samples" in fault for fault in words)
    assert any("evidence gives" in fault for fault in words)
    assert "evidence gives UNKNOWN" in looks.faults(entry(replace(look, series=None)))[0]


async def test_what_a_source_says_is_kept_without_secrets(short_tmp: Path) -> None:
    async def tells(metric: Metric, service: str, environment: str, release: str) -> Count | None:
        raise Unavailable("the password is hunter-2-hunter")

    data = replace(DATA, values={"KEY": "hunter-2-hunter"}, secret=("KEY",))
    town = Town(metrics=(Metric("m", "theirs", "b", "t"),), meters={"theirs": Counts(tells)}, data=data)
    assert "hunter" not in (await town.measure()).reason
    town.serve(NEW, EACH)
    town.serve(STABLE, EACH)
    look = said(await town.look(500))
    assert "the password is ***" in look.explanation
    assert "hunter" not in str(look.series)
