"""``GET /metrics``: what it says of a history, who may read it, and that the guide says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playhouse import Playhouse, Told
from prometheus_client.parser import text_string_to_metric_families

GUIDE = Path(__file__).parents[3] / "docs/guides/telemetry.md"
Page = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def text(client: httpx.Client, told: Told) -> str:
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


@pytest.fixture
def page(text: str) -> Page:
    found: Page = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_a_stranger_is_not_let_in(house: Playhouse, told: Told) -> None:
    assert httpx.get(f"{house.url}/metrics").status_code == 401


def test_deliveries_are_counted_by_state(page: Page) -> None:
    states = {dict(labels)["state"]: value for labels, value in page["penstock_deliveries"].items()}
    assert states["success"] >= 2
    assert states["failure"] >= 2
    assert set(states) >= {"pending", "executing", "timeout", "cancellation"}


def test_steps_have_a_histogram_by_verb_and_result(page: Page) -> None:
    counts = page["penstock_step_seconds_count"]
    assert counts[("result", "success"), ("verb", "build")] >= 4
    assert counts[("result", "failure"), ("verb", "gate")] >= 1
    for labels, count in counts.items():
        ends = {
            dict(of)["le"]: value
            for of, value in page["penstock_step_seconds_bucket"].items()
            if set(labels) < set(of)
        }
        assert ends["+Inf"] == count
        assert sorted(ends.values()) == list(ends.values())


def test_the_ledger_has_a_size_and_a_fresh_checkpoint(page: Page, client: httpx.Client) -> None:
    newest = client.get("/v1/evidence", params={"limit": 1}).json()["entries"][0]["index"]
    assert page["penstock_ledger_entries_total"][()] == newest + 1
    assert 0 <= page["penstock_ledger_checkpoint_age_seconds"][()] < 600


def test_no_label_names_a_delivery(text: str, told: Told) -> None:
    for delivery in (told.first, told.good, told.refused, told.rolled_back):
        assert delivery["id"] not in text


def test_the_guide_lists_exactly_what_is_exported(text: str) -> None:
    exported = re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.MULTILINE)
    listed = re.findall(
        r"^\| `(penstock_\w+)(?:\{[^}]*\})?` \| (\w+) \|", GUIDE.read_text(), flags=re.MULTILINE
    )
    assert listed == exported
