"""A flaky test from its first failure to its quarantine and back: who may, what counts, what is shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from office import Office
from playhouse import Playhouse, opened


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


WORDS = ("quarantine", "shop", "test_clock", "--reason", "races, T-12")


def test_from_the_first_failure_to_its_quarantine_and_back(office: Office) -> None:
    sh = office.sh
    refused = office.ship("flaky at first", "refused")
    again = sh.json("rerun", refused, "--no-wait")["deliveries"][0]
    assert office.outcome(again) == "promoted"
    (one,) = sh.json("flaky", "shop")["flaky"]
    assert (one["test"], one["suite"], one["failed"], one["passed"]) == ("test_clock", "unit", 1, 1)
    assert one["quarantine"] is None
    assert "test_clock" in sh.ok("flaky", "shop")

    dev = office.hire("dev", "development-lead", address="dev@example.org")
    sh(*WORDS, dev)
    assert sh.code == 1
    assert "dev does not hold the role test-lead for service/shop" in sh.err
    assert office.attempts()[-1]["identity"] == "dev"
    office.ship("flaky and nobody may say so", "refused")

    tess = office.hire("tess", "test-lead", address="tess@example.org")
    assert "is quarantined until" in sh.ok(*WORDS, tess, "--for", "2d")
    passed = office.ship("flaky and quarantined", "promoted")
    (signed,) = [s for s in sh.json("status", passed)["sign_offs"] if s["policy"] == "development-lead"]
    assert "failed, but quarantined: test_clock" in signed["explanation"]
    assert "✗" not in office.bundle_verifies(passed)
    assert "by tess: races, T-12" in sh.ok("flaky", "shop")
    with office.house.client() as client:
        page = client.get("/services/shop/flaky", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "by tess until" in page.text

    assert "blocks again" in sh.ok(*WORDS, tess, "--lift")
    assert sh.json("flaky", "shop")["quarantines"] == []
    office.ship("flaky and no longer quarantined", "refused")
    sh.ok("ledger", "verify")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["flaky", "nobody"], "no service 'nobody'"),
        (["quarantine", "shop", "t", "--reason", "x", "--for", "90d"], "within 60 days"),
        (["quarantine", "shop", "t", "--reason", " "], "names a test and a reason"),
        (["quarantine", "shop", " ", "--reason", "x"], "names a test and a reason"),
        (["quarantine", "No Name", "t", "--reason", "x"], "is not a name"),
        (["quarantine", "shop", "t", "--reason", "x", "--for", "soon"], "is not a duration"),
    ],
)
def test_what_makes_no_sense_is_told(office: Office, words: list[str], said: str) -> None:
    office.sh(*words)
    assert office.sh.code == 2
    assert said in office.sh.err


def test_who_has_no_address_is_warned(office: Office) -> None:
    office.sh.ok("quarantine", "shop", "test_other", "--reason", "x", "--for", "1d")
    assert "this will not count" in office.sh.err
