"""What is counted of Istio's standard metrics, and as what. What goes wrong: `test_bad_metric_sources`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from fakes.istio import Sample, body, told
from penstock.adapters.istio_metrics import counters_of, query
from penstock.core.traffic import Counters
from penstock.errors import Unavailable

RELEASES = ("shop-1", "shop-2")
AT = 1_700_000_000.0
OTHER = {"job": "gateways", "instance": "10.0.0.6:15020"}


def gateway(
    counts: Mapping[str, tuple[object, object]], at: float = AT, start: float = 1000.0
) -> list[Sample]:
    return told(counts, at=at, start=start, now=AT)


def at_other(samples: list[Sample]) -> list[Sample]:
    """The same gateway's word about itself, as another's."""
    mine = [one for one in samples if "instance" in one["metric"]]
    return [{**one, "metric": {**one["metric"], **OTHER}} for one in mine]


def read(samples: list[Sample]) -> dict[str, Counters]:
    found = counters_of(body(samples), RELEASES, "metrics.example", "shop")
    return {counters.release: counters for counters in found}


def requests(count: int, **labels: str) -> Sample:
    usual = {"response_code": "200", "grpc_response_status": "", "response_flags": "-"}
    name = {"is": "requests", "destination_service_name": "shop-1"}
    return {"metric": {**name, **usual, **labels}, "value": [AT, str(count)]}


def test_a_release_without_a_request_has_none_and_the_same_bounds() -> None:
    found = read(gateway({"shop-1": (5, 1)}))
    assert (found["shop-1"].requests, found["shop-1"].errors) == (5, 1)
    assert found["shop-1"].latency == {"0.5": 5, "1": 5, "5": 5, "10": 5, "+Inf": 5}
    assert found["shop-2"] == replace(
        found["shop-1"],
        release="shop-2",
        requests=0,
        errors=0,
        latency=dict.fromkeys(found["shop-1"].latency, 0),
    )


@pytest.mark.parametrize(
    ("labels", "counted"),
    [
        ({"response_code": "201"}, (17, 1, None)),
        ({"response_code": "503", "response_flags": "UH"}, (17, 8, None)),
        ({"response_code": "504", "response_flags": "UT"}, (17, 8, None)),
        ({"response_code": "404"}, (17, 1, None)),
        ({"response_code": "503", "response_flags": "UO"}, (10, 1, 7)),
        ({"response_flags": "URX,UO", "grpc_response_status": "14"}, (10, 1, 7)),
        ({"response_code": "0", "response_flags": "DC"}, (10, 1, None)),
        ({"grpc_response_status": "0"}, (17, 1, None)),
        ({"grpc_response_status": "5"}, (17, 1, None)),
        ({"grpc_response_status": "13"}, (17, 8, None)),
        ({"response_code": "503", "grpc_response_status": "14"}, (17, 8, None)),
    ],
)
def test_what_a_request_is_counted_as(labels: dict[str, str], counted: tuple[int, int, int | None]) -> None:
    found = read([*gateway({"shop-1": (10, 1)}), requests(7, **labels)])["shop-1"]
    assert (found.requests, found.errors, found.refused) == counted


def test_a_reading_is_as_old_as_the_oldest_scrape() -> None:
    mine, later = gateway({"shop-1": (5, 1)}), gateway({}, at=AT + 8.0)
    assert {c.at for c in read([*mine, *at_other(later)]).values()} == {AT}


def test_counts_began_anew_when_a_proxy_comes_goes_or_starts_again() -> None:
    mine = gateway({"shop-1": (5, 1)})
    samples = (mine, [*mine, *at_other(gateway({}))], gateway({"shop-1": (5, 1)}, start=2000.0))
    epochs = [read(found)["shop-1"].epoch for found in samples]
    assert len(set(epochs)) == 3
    assert read(gateway({"shop-1": (9, 2)}, at=AT + 1))["shop-1"].epoch == epochs[0]
    assert read(gateway({}))["shop-1"].epoch == epochs[0], "nor does the first request begin anything"


def test_a_source_without_histograms_counts_the_rest() -> None:
    samples = [one for one in gateway({"shop-1": (5, 1)}) if "le" not in one["metric"]]
    found = read(samples)["shop-1"]
    assert (found.requests, found.latency) == (5, {})
    assert found.epoch != read(gateway({"shop-1": (5, 1)}))["shop-1"].epoch, "what was slow is not known"


def test_bounds_are_written_in_one_way() -> None:
    samples = gateway({"shop-1": (5, 1)})
    for one in samples:
        if one["metric"].get("le") == "10":
            one["metric"]["le"] = "1.0e+01"
    assert "10" in read(samples)["shop-1"].latency


def test_who_is_no_proxy_for_us_is_said() -> None:
    with pytest.raises(Unavailable, match="no istio_requests_total of requests to namespace shop") as caught:
        read([])
    assert "Counting users" in str(caught.value)


def test_one_query_asks_for_everything() -> None:
    asked = query('reporter="source"', RELEASES)
    assert 'destination_service_name=~"shop-1|shop-2"' in asked
    for name in ("requests", "latency", "proxy", "scraped", "started", "missed"):
        assert f'"is", "{name}"' in asked
