"""JSON Schemas of the YAML files that users write, for editors: made of the classes that read the files.

Called by ``penstock doctor --schema``. What types cannot say is in `narrowing`, and words for hovering come
from the documented references. A schema may take what a reader refuses, never the other way round: an editor
must raise no false alarm. Must not read a user's file.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import yaml

from penstock.cluster import Cluster
from penstock.config import ServiceConfig
from penstock.core.codec import Json, encode, fields_of, needed
from penstock.core.environmentconfig import EnvironmentConfig
from penstock.experimentfile import ExperimentConfig
from penstock.narrowing import CLUSTER, EXPERIMENT, PENSTOCK, POLICY, POLICY_TEST, SLO, Narrowing
from penstock.policyfile import PolicyConfig
from penstock.policytests import CasesFile
from penstock.slofile import SloConfig

#: Names of fields; "*" is any item of a list or a mapping.
Path = tuple[str, ...]
#: What the YAML language server and JetBrains' IDEs both understand in full.
DRAFT = "http://json-schema.org/draft-07/schema#"
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}
UNSUPPORTED = {"type": "null", "description": "OpenSLO has this, and Penstock does not support it."}


@dataclass(frozen=True)
class Kind:
    """A kind of file: its usual *name*, the class that it is decoded as, and what its reader asks besides."""

    name: str
    cls: type
    narrowing: Narrowing


KINDS = {
    "penstock": Kind("penstock.yaml", ServiceConfig, PENSTOCK),
    "environment": Kind("environments/NAME.yaml", EnvironmentConfig, {}),
    "policy": Kind("policies/NAME.yaml", PolicyConfig, POLICY),
    "policy-test": Kind("policies/NAME.test.yaml", CasesFile, POLICY_TEST),
    "slo": Kind("slos/NAME.yaml", SloConfig, SLO),
    "experiment": Kind("experiments/NAME.yaml", ExperimentConfig, EXPERIMENT),
    "cluster": Kind("cluster.yaml", Cluster, CLUSTER),
}


def schema(kind: str) -> Json:
    """The schema of one of `KINDS`."""
    given = KINDS[kind]
    text = (files("penstock") / f"{kind}.reference.yaml").read_text(encoding="utf-8")
    comments = tuple(_comments(yaml.compose(text, Loader=yaml.SafeLoader), text.splitlines()))
    return {"$schema": DRAFT, "title": given.name, **_Walk(given.narrowing, comments).of(given.cls)}


def schema_text(kind: str) -> str:
    """The same as people and editors get it."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False)


@dataclass(frozen=True)
class _Walk:
    """What `core.codec` decodes, by the same type hints."""

    narrowing: Narrowing
    comments: tuple[tuple[Path, str], ...]

    def of(self, hint: Any, path: Path = ()) -> dict[str, Json]:
        return {**self._made(hint, path), **self.narrowing.get(".".join(path), {}), **self._comment(path)}

    def _comment(self, path: Path) -> dict[str, Json]:
        """The first one on such a field. What stands above one of many items is about that one alone."""
        fitting = (words for found, words in self.comments if _fits(path, found))
        words = "" if path[-1:] == ("*",) else next(fitting, "")
        return {"description": words} if words else {}

    def _made(self, hint: Any, path: Path) -> dict[str, Json]:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            return self._object(typing.cast("type", hint), path)
        if origin in (types.UnionType, typing.Union):
            return self._either(arguments, path)
        if origin in (tuple, list):
            return {"type": "array", "items": self.of(arguments[0], (*path, "*"))}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1], (*path, "*"))}
        if origin is Literal:
            return {"enum": list(arguments)}
        return {} if hint is Any else {"type": SCALARS[hint]}

    def _object(self, cls: type, path: Path) -> dict[str, Json]:
        hints = typing.get_type_hints(cls)
        by_name = {field.name: field for field in dataclasses.fields(cls)}
        properties = {}
        for name, attribute in fields_of(cls) or ():
            field = by_name[attribute]
            unsupported = field.type == "Unsupported"  # as `slofile` marks it
            made = UNSUPPORTED if unsupported else self.of(hints[attribute], (*path, name))
            properties[name] = made | _default(field)
        required = sorted(needed(cls))
        made = {"type": "object", "properties": properties, "additionalProperties": False}
        return _words(cls) | made | ({"required": required} if required else {})

    def _either(self, options: tuple[Any, ...], path: Path) -> dict[str, Json]:
        """One schema with several types: each keyword of it is about values of one type only."""
        made: dict[str, Json] = {}
        kinds: list[str] = []
        for option in options:
            one = self._made(option, path)
            kinds += [one.pop("type")] if "type" in one else []
            made |= one
        if "enum" in made:
            return {"enum": [*made["enum"], *(None for kind in kinds if kind == "null")]}
        return {"type": kinds, **made}


def _default(field: dataclasses.Field[Any]) -> dict[str, Json]:
    """What is meant where nothing is said; for a section, each of its fields says so."""
    default = None if field.default is dataclasses.MISSING else encode(field.default)
    return {} if default in (None, "", []) or isinstance(default, dict) else {"default": default}


def _words(cls: type) -> dict[str, Json]:
    """The first paragraph of a docstring; the standard library writes one for a dataclass that has none."""
    text = inspect.getdoc(cls) or ""
    if text.startswith(f"{cls.__name__}("):
        return {}
    return {"description": " ".join(text.partition("\n\n")[0].split()).replace("``", "`")}


def _comments(
    node: yaml.Node | None, lines: list[str], path: Path = (), around: str = ""
) -> Iterator[tuple[Path, str]]:
    """What stands above the fields of a documented reference. *around* stands above a mapping that is written
    in one line: it is about the fields within."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _comments(item, lines, (*path, "*"), around)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            words = around if node.flow_style else _above(key.start_mark, lines)
            if words:
                yield place, words
            yield from _comments(value, lines, place, words)


def _above(mark: yaml.Mark, lines: list[str]) -> str:
    """The comment right above a key, as far in as the key is."""
    beginning = " " * mark.column + "# "
    words: list[str] = []
    for line in reversed(lines[: mark.line]):
        if not line.startswith(beginning):
            break
        words.insert(0, line.removeprefix(beginning).strip())
    return " ".join(words)


def _fits(path: Path, found: Path) -> bool:
    pairs = zip(path, found, strict=False)
    return len(path) == len(found) and all(part in ("*", other) for part, other in pairs)
