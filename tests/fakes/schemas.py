"""What a strict Kubernetes 1.36 makes of an object, by its released schemas.

They are those of kubernetes-validate, whose own call reads all of them anew for each object.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = files("kubernetes_validate") / "kubernetes-json-schema/v1.36.0-local-strict"


def validate(value: dict[str, Any]) -> None:
    """`jsonschema.ValidationError` for whatever it would refuse."""
    _validator(value["apiVersion"], value["kind"]).validate(value)


@cache
def _validator(api_version: str, kind: str) -> Draft202012Validator:
    short = re.sub(r"^([^./]*)[^/]*/", r"\1-", api_version)
    return Draft202012Validator(_read(f"{kind.lower()}-{short}.json"), registry=_definitions())


@cache
def _definitions() -> Registry[Any]:
    return Resource.from_contents(_read("_definitions.json")) @ Registry()


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found
