"""The text that Prometheus reads, held against Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from penstock.core.exposition import Family, Sample, histogram, write

HOSTILE = 'a "b" \\ c\nd'


def test_labels_come_back_as_they_were() -> None:
    text = write([Family("one", "gauge", "A number.", (Sample(1.5, {"x": HOSTILE}), Sample(2, {"x": ""})))])
    (family,) = text_string_to_metric_families(text)
    assert [(s.labels["x"], s.value) for s in family.samples] == [(HOSTILE, 1.5), ("", 2.0)]


def test_a_histogram_sums_up() -> None:
    samples = histogram({"verb": "build"}, (0.5, 10.0), (1, 0, 2), 61.25)
    text = write([Family("took_seconds", "histogram", "Time.", samples)])
    (family,) = text_string_to_metric_families(text)
    assert [(s.name, s.labels.get("le"), s.value) for s in family.samples] == [
        ("took_seconds_bucket", "0.5", 1.0),
        ("took_seconds_bucket", "10", 1.0),
        ("took_seconds_bucket", "+Inf", 3.0),
        ("took_seconds_sum", None, 61.25),
        ("took_seconds_count", None, 3.0),
    ]


def test_a_family_without_samples_is_still_named() -> None:
    assert write([Family("none_total", "counter", "Nothing yet.", ())]) == (
        "# HELP none_total Nothing yet.\n# TYPE none_total counter\n"
    )
