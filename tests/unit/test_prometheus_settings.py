"""Which Prometheus an installation asks: said at ``penstock up``, kept for the next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.adapters.prometheus import Prometheus
from penstock.bootstrap.home import Home, PrometheusSettings, Settings
from penstock.bootstrap.target import open_target
from penstock.bootstrap.up import Wanted, _prometheus
from penstock.errors import Invalid

KNOWN = PrometheusSettings("https://one.example", "/etc/token")


@pytest.mark.parametrize(
    ("known", "wanted", "chosen"),
    [
        (None, Wanted(), None),
        (KNOWN, Wanted(), KNOWN),
        (KNOWN, Wanted(prometheus=""), None),
        (KNOWN, Wanted(prometheus="https://one.example"), KNOWN),
        (KNOWN, Wanted(prometheus_token=Path("/new")), PrometheusSettings("https://one.example", "/new")),
        (None, Wanted(prometheus="http://127.0.0.1:9090"), PrometheusSettings("http://127.0.0.1:9090")),
    ],
)
def test_what_is_not_said_again_stands(
    known: PrometheusSettings | None, wanted: Wanted, chosen: PrometheusSettings | None
) -> None:
    assert _prometheus(known, wanted) == chosen


def test_another_server_is_not_sent_the_token_of_the_first() -> None:
    assert _prometheus(KNOWN, Wanted(prometheus="https://two.example")) == PrometheusSettings(
        "https://two.example"
    )


def test_an_address_that_is_none_is_refused_before_anything_starts() -> None:
    with pytest.raises(Invalid, match="http or https URL"):
        _prometheus(None, Wanted(prometheus="one.example:9090"))


def test_it_is_asked_once_it_is_named(short_tmp: Path) -> None:
    home = Home(short_tmp)
    assert list(open_target(home).meters) == ["exposed", "logs"]
    home.keep(Settings(prometheus=KNOWN))
    assert isinstance(open_target(home).meters["prometheus"], Prometheus)
