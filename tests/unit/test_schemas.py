"""The schemas for editors: in the repository as they are made, and no stricter than what reads the files."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from penstock.adapters.cel import Cel
from penstock.cli.main import KINDS as SAID
from penstock.cli.main import main
from penstock.clusterfile import load_cluster
from penstock.config import ServiceConfig, check_service, with_authorities
from penstock.core.codec import decode, encode
from penstock.core.environmentconfig import EnvironmentConfig
from penstock.errors import Invalid
from penstock.experimentfile import parse_experiment
from penstock.policyfile import parse_policy
from penstock.policytests import load_tests, run_case
from penstock.schemas import KINDS, schema, schema_text
from penstock.slofile import parse_slo

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs/reference/schemas"
VALIDATORS = {kind: Draft7Validator(schema(kind)) for kind in KINDS}
REFERENCES = {kind: (files("penstock") / f"{kind}.reference.yaml").read_text() for kind in KINDS}
DOCUMENTS = {kind: yaml.safe_load(text) for kind, text in REFERENCES.items()}
FOUR_EYES = parse_policy(REFERENCES["policy"].encode(), "policy.yaml")


def penstock(document: Any, folder: Path) -> None:
    """As it is after YAML, which takes far longer for a whole reference than all the rest."""
    given = decode(ServiceConfig, document)
    check_service(ServiceConfig(**{**vars(given), "service": given.service or "shop"}))


def environment(document: Any, folder: Path) -> None:
    found = with_authorities(decode(EnvironmentConfig, document), "production.yaml")
    for service in found.services:
        found.mesh_of(service)


def policy_test(document: Any, folder: Path) -> None:
    """Read, and run: what type a fact has is asked then."""
    for case in load_tests(written(document), "four-eyes.test.yaml"):
        run_case(FOUR_EYES, Cel().compile(FOUR_EYES), case)


def cluster(document: Any, folder: Path) -> None:
    (folder / "cluster.yaml").write_bytes(written(document))
    load_cluster(folder / "cluster.yaml")


def written(document: Any) -> bytes:
    return yaml.safe_dump(document, sort_keys=False).encode()


#: What the product itself makes of a document; `Invalid` if it refuses it.
READERS: dict[str, Callable[[Any, Path], object]] = {
    "penstock": penstock,
    "environment": environment,
    "policy": lambda document, _: parse_policy(written(document), "policy.yaml"),
    "policy-test": policy_test,
    "slo": lambda document, _: parse_slo(written(document), "slo.yaml"),
    "experiment": lambda document, _: parse_experiment(written(document), "experiment.yaml"),
    "cluster": cluster,
}


def reads(kind: str, document: Any, folder: Path) -> bool:
    with contextlib.suppress(Invalid):
        READERS[kind](document, folder)
        return True
    return False


def kind_of(path: Path) -> str | None:
    if path.name in ("penstock.yaml", "cluster.yaml"):
        return path.stem
    if path.parent.name == "policies":
        return "policy-test" if path.name.endswith(".test.yaml") else "policy"
    return {"environments": "environment", "slos": "slo", "experiments": "experiment"}.get(path.parent.name)


FOUND = [path for folder in ("examples", "src/penstock/policies") for path in (ROOT / folder).rglob("*.yaml")]


def test_those_in_the_repository_are_as_they_are_made() -> None:
    assert {path.stem for path in COMMITTED.iterdir()} == {*KINDS} == {*SAID}
    stale = [kind for kind in KINDS if (COMMITTED / f"{kind}.json").read_text() != schema_text(kind) + "\n"]
    assert not stale, "next: make schemas"


def test_the_doctor_prints_them_and_knows_what_a_misspelt_kind_may_mean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "--schema", "policy"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("policy")
    assert main(["doctor", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "penstock.yaml"
    assert main(["doctor", "--reference", "slo"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == DOCUMENTS["slo"]
    for word, told in (("experimant", "did you mean experiment?"), ("kustomization", ", ".join(KINDS))):
        with pytest.raises(SystemExit, match="2"):
            main(["doctor", "--schema", word])
        assert told in capsys.readouterr().err


def test_hovering_tells_what_stands_above_a_field_in_the_documented_reference() -> None:
    fields = schema("penstock")["properties"]
    assert fields["team"]["description"] == "A claim that the catalog may confirm; it binds nothing."
    assert fields["scaling"]["properties"]["most"]["description"].startswith("Load may add copies up to most")
    tests = fields["checks"]["additionalProperties"]
    assert tests["properties"]["coverage"]["description"] == "Cobertura or LCOV."
    assert list(wordless(schema("penstock"))) == []


def wordless(made: Any) -> Iterator[str]:
    for name, field in made.get("properties", {}).items():
        yield from [] if "description" in field else [name]
    for below in inside(made):
        yield from wordless(below)


def inside(made: Any) -> Iterator[Any]:
    yield from made.get("properties", {}).values()
    yield from (made[name] for name in ("items", "additionalProperties") if isinstance(made.get(name), dict))


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_reference_is_taken(kind: str, tmp_path: Path) -> None:
    Draft7Validator.check_schema(schema(kind))
    READERS[kind](DOCUMENTS[kind], tmp_path)
    assert not list(VALIDATORS[kind].iter_errors(DOCUMENTS[kind]))


@pytest.mark.parametrize("kind", ["environment", "policy", "policy-test", "slo", "experiment"])
def test_the_documented_reference_names_every_field(kind: str) -> None:
    for name in fields(schema(kind)):
        assert f"{name}:" in REFERENCES[kind], f"{name} is not documented"


def fields(made: Any) -> Iterator[str]:
    """But facts, those of OpenSLO that are not supported, and what stands in place of another one."""
    for name, field in made.get("properties", {}).items():
        if "." not in name and field.get("type") != "null" and name not in ("module", "good", "ms"):
            yield name
    for below in inside(made):
        yield from fields(below)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_examples_and_every_shipped_policy_is_taken(path: Path, tmp_path: Path) -> None:
    kind = kind_of(path)
    assert kind, "which kind of file is it?"
    document = yaml.safe_load(path.read_bytes())
    READERS[kind](document, tmp_path)
    assert not list(VALIDATORS[kind].iter_errors(document))


def test_the_defaults_are_taken() -> None:
    for document in (encode(ServiceConfig()), {}):
        assert not list(VALIDATORS["penstock"].iter_errors(document))


BAD = {
    "penstock": [
        ("misspelt", ("replica",), 1),
        ("misspelt within", ("canary", "step"), [5]),
        ("wrong type", ("replicas",), "two"),
        ("true is no number", ("replicas",), True),
        ("no list", ("calls",), "catalog"),
        ("not among those known", ("protocol",), "http/3"),
        ("not among those known", ("environment", "CURRENCY", "type"), "decimal"),
        ("missing", ("checks", "tests", "run"), ...),
    ],
    "environment": [
        ("misspelt", ("service",), {}),
        ("wrong type", ("services", "shop", "values", "CURRENCY"), ["EUR"]),
        ("missing", ("environment",), ...),
        ("missing within", ("mesh", "peers", "east", "trust"), ...),
    ],
    "policy": [
        ("misspelt", ("guard",), ["deploy"]),
        ("wrong type", ("waits",), "a day"),
        ("not among those known", ("guards",), ["deploi"]),
        ("missing", ("owner",), ...),
        ("neither rules nor a module", ("rules",), ...),
        ("missing within", ("rules", 0, "else"), ...),
        ("no such kind of evidence", ("fresh",), {"evidence.test": 60}),
    ],
    "policy-test": [
        ("misspelt", ("case",), []),
        ("not among those known", ("cases", 0, "expect"), "UNKNOWN"),
        ("no such fact", ("facts", "evidence.review.approvals"), 2),
        ("a fact of another type", ("facts", "evidence.reviews.approvals"), "two"),
        ("missing", ("cases",), ...),
    ],
    "slo": [
        ("misspelt", ("spec", "budgetMethod"), "Occurrences"),
        ("wrong type", ("spec", "objectives", 0, "target"), "99%"),
        ("not among those known", ("spec", "budgetingMethod"), "Timeslices"),
        ("not supported", ("spec", "alertPolicies"), []),
        ("missing", ("metadata", "name"), ...),
    ],
    "experiment": [
        ("misspelt", ("variant",), {}),
        ("wrong type", ("alpha",), "5%"),
        ("not among those known", ("expect",), "worse"),
        ("missing", ("goal", "path"), ...),
    ],
    "cluster": [
        ("misspelt", ("gateways",), {}),
        ("wrong type", ("pull_secrets",), "registry-reader"),
        ("no image by digest", ("bases", "cp311"), "python:3.11"),
        ("missing", ("images", "push"), ...),
        ("missing within", ("environments", "staging", "gateway", "host"), ...),
    ],
}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        pytest.param(kind, path, value, id=f"{kind}: {what}")
        for kind in BAD
        for what, path, value in BAD[kind]
    ],
)
def test_editor_and_reader_refuse_the_same(
    kind: str, path: tuple[str | int, ...], value: Any, tmp_path: Path
) -> None:
    bad = changed(DOCUMENTS[kind], path, value)
    assert list(VALIDATORS[kind].iter_errors(bad))
    assert not reads(kind, bad, tmp_path)


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with another *value* at *path*; without it, if that is ``...``."""
    made = copy.deepcopy(document)
    place = made
    for part in path[:-1]:
        place = place[part]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


# --- no false alarms ---------------------------------------------------------------------------------

#: What stands where the references have nothing to break.
MORE: dict[str, Any] = {
    "slo": changed(
        DOCUMENTS["slo"],
        ("spec", "indicator", "spec", "ratioMetric"),
        {
            which: {"metricSource": {"type": "penstock", "spec": spec}}
            for which, spec in (
                ("good", {"count": "within", "ms": 300}),
                ("total", {"count": "requests"}),
            )
        },
    ),
}


def beyond(keyword: str, asked: Any, value: Any) -> Iterator[Any]:
    """What just breaks *keyword* of a schema, in place of *value*."""
    match keyword:
        case "minimum":
            yield asked - (1 if type(value) is int else 1e-9)
        case "maximum":
            yield asked + (1 if type(value) is int else 1e-6)
        case "exclusiveMinimum" | "exclusiveMaximum":
            yield asked
        case "enum":
            yield not asked[0] if type(asked[0]) is bool else f"{asked[0]}x"
        case "pattern":
            yield "Not one!"
        case "minLength":
            yield ""
        case "maxLength":
            yield "x" * (asked + 1)
        case "minItems" | "minProperties":
            yield type(value)()
        case "maxItems":
            yield [
                f"{value[0]}{number}" if type(value[0]) is str else value[0] for number in range(asked + 1)
            ]
        case "maxProperties":
            yield {f"v{number}": next(iter(value.values())) for number in range(asked + 1)}
        case "uniqueItems":
            yield [*value, value[0]]
        case "propertyNames":
            yield {"Not one!": next(iter(value.values()))}
        case "additionalProperties":
            yield {**value, "no.such.fact": 1}
        case "anyOf":
            yield {
                name: field for name, field in value.items() if [name] not in [w["required"] for w in asked]
            }


ROWS = [
    pytest.param(kind, path, keyword, id=f"{kind}: {path or 'the file'}: {keyword}")
    for kind, given in KINDS.items()
    for path, asked in given.narrowing.items()
    for keyword in asked
    if keyword not in ("properties", "description")
]


@pytest.mark.parametrize(("kind", "path", "keyword"), ROWS)
def test_what_is_asked_beyond_types_is_asked_by_the_reader(
    kind: str, path: str, keyword: str, tmp_path: Path
) -> None:
    """Just beyond each bound both refuse, so that the schema's is no narrower."""
    documents = [document for document in (DOCUMENTS[kind], MORE.get(kind)) if document]
    place, document = next((p, d) for d in documents for p in places(d, path.split(".") if path else []))
    value = document
    for part in place:
        value = value[part]
    for broken in beyond(keyword, KINDS[kind].narrowing[path][keyword], value):
        bad = changed(document, place, broken) if place else broken
        assert list(VALIDATORS[kind].iter_errors(bad)), broken
        assert not reads(kind, bad, tmp_path), broken


def places(document: Any, path: list[str]) -> Iterator[tuple[str | int, ...]]:
    """Where a document has what *path* of a narrowing is about."""
    if not path:
        yield ()
    elif path[0] == "*":
        inside = document.items() if isinstance(document, dict) else enumerate(document or ())
        yield from ((key, *rest) for key, value in inside for rest in places(value, path[1:]))
    elif path[0] in (document or {}):
        yield from ((path[0], *rest) for rest in places(document[path[0]], path[1:]))


def everywhere(document: Any) -> Iterator[tuple[str | int, ...]]:
    """The place of every value within."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inside:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in everywhere(value))


#: No whole number with a point: it is one for a schema, and none for the codec.
ODD = st.one_of(
    st.sampled_from(
        [..., None, True, False, 0, 1, -1, 2, 0.5, 100, 1_000_000, "", "x", "error", "/", [], {}]
    ),
    st.sampled_from([["x"], ["x", "x"], [1], [5, 50], {"x": 1}, {"x": "x"}, {"x": {}}, [{}], "none"]),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_an_editor_raises_no_false_alarm_and_knows_every_type(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Something of a good file is replaced or left out. What the reader takes, the schema takes; what has the
    wrong shape or type for the reader, the schema refuses."""
    document = DOCUMENTS[kind]
    place = data.draw(st.sampled_from([*everywhere(document)]))
    document = changed(document, place, data.draw(ODD))
    problems = [*VALIDATORS[kind].iter_errors(document)]
    try:
        decode(KINDS[kind].cls, document)
    except Invalid:
        assert problems
        return
    if problems:
        assert not reads(kind, document, tmp_path_factory.getbasetemp())
