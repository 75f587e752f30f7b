"""Validates values against the schemas of a document, by the library `jsonschema` (the extra ``openapi``).

Called by `requests` and `answers`, in their own process. What it says of a value names the place and the
rule that it breaks, never the value: an answer may hold what nobody else should read.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from penstock.checks.untrusted.document import Document
from penstock.core.codec import Json
from penstock.errors import Unavailable

URI = "urn:penstock:openapi"


class Schemas:
    """*writing* says whether the values go to the service, or come from it."""

    def __init__(self, document: Document) -> None:
        try:
            import jsonschema
            import referencing
            from referencing.jsonschema import DRAFT202012
        except ImportError as error:
            raise Unavailable(
                "jsonschema is not installed", next_move='pip install "penstock[openapi]"'
            ) from error
        tree = modern(document.tree) if document.before_3_1 else document.tree
        resource = DRAFT202012.create_resource(answering(tree))
        self._registry: Any = referencing.Registry().with_resource(URI, resource)
        self._validator: Any = jsonschema.Draft202012Validator
        self._errors = (
            referencing.exceptions.Unresolvable,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        )
        self.at = functools.cache(self._at)

    def _at(self, pointer: str) -> Any:
        return self._validator({"$ref": URI + pointer}, registry=self._registry)

    def problem(self, pointer: str, value: Json) -> str:
        """What the schema at *pointer* (``#/components/…``) finds wrong with a value; "" if nothing."""
        try:
            error = next(iter(self.at(pointer).iter_errors(value)), None)
        except RecursionError:
            return "the schema never comes to an end"
        except self._errors as error_of_schema:  # a schema that is none: of the wrong types, or a bad pattern
            return f"the schema cannot be used: {type(error_of_schema).__name__}"
        except Exception as error_of_schema:  # re.error and the library's own have no common name
            return f"the schema cannot be used: {type(error_of_schema).__name__}"
        return "" if error is None else f"{error.json_path} {_words(error)}"


def _words(error: Any) -> str:
    rule, wanted = error.validator, error.validator_value
    if rule == "required":
        missing = [name for name in wanted if isinstance(name, str) and name not in error.instance]
        return f"lacks {', '.join(map(repr, missing[:5]))}"
    if rule == "type":
        return f"is not of type {wanted if isinstance(wanted, str) else ' or '.join(map(str, wanted))}"
    if rule == "additionalProperties":
        return "has properties that the document does not name"
    if rule is None:
        return "is not allowed"
    return f"breaks {rule} {json.dumps(wanted)[:60]}"


def answering(tree: Json) -> Json:
    """The same, where what is only ever written is not demanded of an answer."""
    if isinstance(tree, list):
        return [answering(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    found = {key: answering(value) for key, value in tree.items()}
    properties, required = found.get("properties"), found.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        hidden = {n for n, p in properties.items() if isinstance(p, dict) and p.get("writeOnly") is True}
        found["required"] = [name for name in required if not (isinstance(name, str) and name in hidden)]
    return found


def modern(tree: Json) -> Json:
    """Schemas of OpenAPI 3.0 as JSON Schema 2020-12 says the same."""
    if isinstance(tree, list):
        return [modern(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if isinstance(tree.get("$ref"), str):
        return {"$ref": tree["$ref"]}  # what stands beside a reference is ignored in 3.0
    found = {key: modern(value) for key, value in tree.items()}
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        flag = found.get(exclusive)
        if isinstance(flag, bool):
            del found[exclusive]
            if flag and limit in found:
                found[exclusive] = found.pop(limit)
    return _or_null(found) if found.pop("nullable", None) is True else found


def _or_null(schema: dict[str, Json]) -> Json:
    if isinstance(schema.get("type"), str):
        enum = {"enum": [*schema["enum"], None]} if isinstance(schema.get("enum"), list) else {}
        return {**schema, "type": [schema["type"], "null"], **enum}
    return {"anyOf": [schema, {"type": "null"}]}
