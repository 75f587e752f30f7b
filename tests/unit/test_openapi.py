"""Documents, good and bad: which requests are made of them, and what is found wrong with an answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from penstock.checks.untrusted.__main__ import answer
from penstock.checks.untrusted.document import MAX_BYTES
from penstock.core.codec import Json
from penstock.errors import Invalid

ITEM = {
    "type": "object",
    "required": ["id", "price", "secret"],
    "properties": {
        "id": {"type": "integer"},
        "price": {"type": "number", "minimum": 0},
        "note": {"type": "string", "nullable": True},
        "secret": {"type": "string", "writeOnly": True},
    },
    "additionalProperties": False,
}


def document(**more: Json) -> dict[str, Json]:
    ok = {
        "description": "",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
    }
    known: dict[str, Json] = {
        "openapi": "3.0.3",
        "info": {"title": "Shop", "version": "1"},
        "paths": {
            "/items/{id}": {
                "parameters": [
                    {
                        "in": "path",
                        "name": "id",
                        "required": True,
                        "schema": {"type": "integer", "example": 7},
                    }
                ],
                "get": {"responses": {"200": ok, "404": {"$ref": "#/components/responses/Missing"}}},
                "delete": {"responses": {"204": {"description": ""}}},
            },
            "/items": {
                "get": {
                    "parameters": [
                        {"in": "query", "name": "page", "schema": {"type": "integer", "minimum": 1}},
                        {"in": "query", "name": "tag", "required": True, "example": "a b&c"},
                    ],
                    "responses": {"2XX": {"description": ""}},
                },
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}}
                    },
                    "responses": {"201": {"description": ""}},
                },
            },
        },
        "components": {
            "schemas": {"Item": ITEM},
            "responses": {"Missing": {"description": "", "content": {"text/*": {}}}},
        },
    }
    return {**known, **more}


def encoded(of: Json) -> str:
    data = of if isinstance(of, bytes) else of.encode() if isinstance(of, str) else json.dumps(of).encode()
    return base64.b64encode(data).decode()


def plan(of: Json, *, cases: int = 0, seed: int = 1, declared: tuple[str, ...] = ()) -> dict[str, Any]:
    call = {"kind": "plan", "name": "openapi.yaml", "document": encoded(of), "cases": cases, "seed": seed}
    found: dict[str, Any] = answer({**call, "declared": list(declared)})
    return found


def judge(of: Json, body: Json, **more: Json) -> str:
    given = {
        "operation": "GET /items/{id}",
        "method": "GET",
        "expected": "documented",
        "status": 200,
        "content_type": "application/json; charset=utf-8",
        "body": encoded(body),
        "whole": True,
        **more,
    }
    said = answer({"kind": "judge", "name": "openapi.yaml", "document": encoded(of), "answers": [given]})
    (problem,) = said["problems"]
    return str(problem)


# --- what is asked ------------------------------------------------------------------------------------


def test_only_what_is_safe_is_asked() -> None:
    found = plan(document())
    assert found["operations"] == ["GET /items/{id}", "GET /items"]
    assert found["skipped"] == ["DELETE /items/{id}", "POST /items"]
    assert [request["path"] for request in found["requests"]] == ["/items/7", "/items?tag=a%20b%26c"]


def test_what_is_declared_is_asked_too() -> None:
    found = plan(document(), declared=("POST /items",))
    posted = found["requests"][-1]
    assert (posted["method"], posted["headers"]) == ("POST", {"content-type": "application/json"})
    assert json.loads(posted["body"]).keys() == {"id", "price", "secret"}


def test_cases_are_drawn_from_a_seed_and_only_some_fit() -> None:
    found = plan(document(), cases=60)
    assert found == plan(document(), cases=60)
    assert found != plan(document(), cases=60, seed=2)
    drawn = found["requests"][2:]
    assert len(drawn) == 60
    assert {request["expected"] for request in drawn} == {"documented", "no-error"}
    for request in drawn:
        if request["expected"] == "documented" and request["operation"] == "GET /items/{id}":
            int(request["path"].removeprefix("/items/"))


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("openapi: 3.0.0\npaths: [}", "not valid YAML", "openapi.yaml:2"),
        ("{", "not JSON", "openapi.yaml"),
        ("\x00", "not valid YAML", "openapi.yaml"),
        ("!!int ''", "not valid YAML", "openapi.yaml"),
        ("[" * 300_000, "nested deeper than 200", "openapi.yaml:1"),
        ("<html>sign in</html>", "not an OpenAPI 3.x document", "openapi.yaml"),
        ("swagger: '2.0'\npaths: {}", "not an OpenAPI 3.x document", "openapi.yaml"),
        ("openapi: 3.1.0\npaths: 5", "expected a mapping", "openapi.yaml: paths"),
        ("openapi: 3.1.0\npaths: {/: {get: 5}}", "expected a mapping", "openapi.yaml: #/paths/~1/get"),
        ("openapi: 3.1.0\npaths: {}", "has no GET or HEAD operation", "openapi.yaml"),
        ("openapi: 3.1.0\npaths: {/: {$ref: other.yaml}}", "leads out of the document", "openapi.yaml"),
        ("openapi: 3.1.0\npaths: {/: {$ref: 'http://169.254.169.254/'}}", "leads out", "openapi.yaml"),
        ("openapi: 3.1.0\npaths: {/: {$ref: '#/paths/~1'}}", "in a circle", "openapi.yaml: #/paths/~1"),
        ("openapi: 3.1.0\npaths: {/: {$ref: '#/nowhere'}}", "leads to nothing", "openapi.yaml"),
        ("openapi: 3.1.0\na: &a [*a]", "not valid YAML", "openapi.yaml"),
        ("openapi: 3.1.0\na: " + "[" * 500 + "]" * 500, "nested deeper", "openapi.yaml:2"),
        ("openapi: 3.1.0\na: " + "b" * MAX_BYTES, "larger than", "openapi.yaml"),
    ],
)
def test_a_bad_document_is_told_where(text: str, what: str, where: str) -> None:
    with pytest.raises(Invalid, match=what) as caught:
        plan(text)
    assert caught.value.where == where


def test_an_operation_that_is_not_there_cannot_be_declared() -> None:
    with pytest.raises(Invalid, match="no operation 'PUT /items'"):
        plan(document(), declared=("PUT /items",))


# --- what is found wrong --------------------------------------------------------------------------------

GOOD = {"id": 1, "price": 2.5, "note": None}


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_a_good_answer_is_good(version: str) -> None:
    item = {**ITEM, "properties": {**ITEM["properties"], "note": {"type": ["string", "null"]}}}
    of = document(openapi=version)
    if version == "3.1.0":
        of["components"]["schemas"]["Item"] = item
    assert judge(of, GOOD) == ""


@pytest.mark.parametrize(
    ("body", "more", "problem"),
    [
        (GOOD, {"status": 503}, "answered 503"),
        (GOOD, {"status": 302}, "answered 302, which is not documented (documented: 200, 404)"),
        ("<html>", {"content_type": "text/html"}, "with text/html; documented: application/json"),
        ("<html>", {}, "that cannot be read: not JSON"),
        ("[" * 5000, {}, "that cannot be read: not JSON"),
        ('{"id": 1, "id": 2}', {}, "the key 'id' is given twice"),
        ({"id": 1}, {}, "$ lacks 'price'"),
        ({**GOOD, "price": "dear"}, {}, "$.price is not of type number"),
        ({**GOOD, "price": -1}, {}, "$.price breaks minimum 0"),
        ({**GOOD, "more": 1}, {}, "has properties that the document does not name"),
        (GOOD, {"whole": False}, "too much to check"),
        (GOOD, {"content_type": ""}, "with no content type"),
        (GOOD, {"status": 404}, "documented: text/*"),
    ],
)
def test_what_is_wrong_is_named(body: Json, more: dict[str, Json], problem: str) -> None:
    assert problem in judge(document(), body, **more)


def test_a_value_is_never_repeated() -> None:
    for body in ({**GOOD, "price": "hunter2"}, {**GOOD, "note": 5, "id": "hunter2"}, "hunter2"):
        assert "hunter2" not in judge(document(), body)


def test_what_need_not_fit_must_only_not_break_it() -> None:
    assert judge(document(), "nonsense", expected="no-error", status=400) == ""
    assert judge(document(), "nonsense", expected="no-error", status=500) == "answered 500"


def test_other_ways_to_say_a_response() -> None:
    assert judge(document(), "gone", status=404, content_type="text/plain") == ""
    assert judge(document(), "", operation="GET /items", status=299, content_type="x/y") == ""
    assert "400, which is not documented" in judge(document(), "", operation="GET /items", status=400)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/components/schemas/Item"},
        {"type": 5},
        {"pattern": "["},
        {"required": 5},
        {"properties": []},
        {"type": "nonsense"},
    ],
)
def test_a_schema_that_is_none_is_a_problem_and_no_crash(schema: Json) -> None:
    of = document(components={"schemas": {"Item": schema}, "responses": {"Missing": {}}})
    found = judge(of, '"x"' if "pattern" in schema else GOOD)
    assert "the schema cannot be used" in found or "the schema never comes to an end" in found
