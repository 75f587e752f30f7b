"""An OpenAPI 3.0 or 3.1 document: parsed, its references followed, its operations listed.

Called by the modules beside it. Pure. References lead within the document only: following others would ask
whoever the code under test names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from penstock.core.codec import Json
from penstock.core.outside import clean, read_json
from penstock.errors import Invalid
from penstock.yamltext import reader

MAX_BYTES = 1024 * 1024
#: What aliases of YAML may make of it.
MAX_EXPANDED = 16 * 1024 * 1024
MAX_DEPTH = 100
MAX_OPERATIONS = 500
MAX_HOPS = 20
METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "trace")


@dataclass(frozen=True)
class Part:
    """A mapping of the document, and the *pointer* to where it stands."""

    pointer: str
    value: dict[str, Json]


@dataclass(frozen=True)
class Operation:
    """One method of one path. *pointer* leads to it in the document."""

    method: str
    path: str
    pointer: str
    parameters: tuple[Part, ...]
    body: Part | None
    responses: dict[str, Json]

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"


class Document:
    """*tree* is plain JSON, nested at most `MAX_DEPTH` deep."""

    def __init__(self, tree: dict[str, Json], name: str) -> None:
        self.tree = tree
        self.name = name
        self.version = str(tree.get("openapi", ""))

    @property
    def before_3_1(self) -> bool:
        """Whether its schemas are of the dialect that is not yet JSON Schema."""
        return self.version.startswith("3.0")

    def operations(self) -> list[Operation]:
        """Every operation, in the document's order."""
        found = []
        for path, item in self._mapping(self.tree.get("paths", {}), "paths").items():
            known = self.resolved(item, f"#/paths/{escaped(path)}")
            found += [self._operation(path, method, known) for method in METHODS if method in known.value]
        if len(found) > MAX_OPERATIONS:
            raise Invalid(f"{len(found)} operations; at most {MAX_OPERATIONS}", where=self.name)
        return found

    def _operation(self, path: str, method: str, item: Part) -> Operation:
        where = f"{item.pointer}/{method}"
        given = self._mapping(item.value[method], where)
        # An operation's own parameter stands in for that of its path.
        listed = [*self._parts(item.value, item.pointer), *self._parts(given, where)]
        own = {(str(part.value.get("in")), str(part.value.get("name"))): part for part in listed}
        body = given.get("requestBody")
        return Operation(
            method=method,
            path=path,
            pointer=where,
            parameters=tuple(own.values()),
            body=self.resolved(body, f"{where}/requestBody") if body is not None else None,
            responses=self._mapping(given.get("responses", {}), f"{where}/responses"),
        )

    def _parts(self, holder: dict[str, Json], pointer: str) -> list[Part]:
        listed = holder.get("parameters")
        numbered = enumerate(listed if isinstance(listed, list) else ())
        return [self.resolved(one, f"{pointer}/parameters/{number}") for number, one in numbered]

    def followed(self, value: Json, where: str) -> dict[str, Json]:
        """The mapping itself, or what its reference leads to."""
        return self.resolved(value, where).value

    def resolved(self, value: Json, pointer: str) -> Part:
        """The same, and the pointer to where it stands."""
        for _ in range(MAX_HOPS):
            known = self._mapping(value, pointer)
            if not isinstance(known.get("$ref"), str):
                return Part(pointer, known)
            pointer = known["$ref"]
            value = self.at(pointer)
        raise Invalid("references in a circle", where=f"{self.name}: {clean(pointer, 100)}")

    def at(self, reference: str) -> Json:
        """What a reference (``#/components/schemas/Item``) leads to."""
        value: Json = self.tree
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                raise Invalid(f"{clean(reference, 100)!r} leads to nothing", where=self.name)
        return value

    def _mapping(self, value: Json, where: str) -> dict[str, Json]:
        if not isinstance(value, dict):
            raise Invalid("expected a mapping", where=f"{self.name}: {clean(where, 100)}")
        return value


def parse(data: bytes, name: str) -> Document:
    """The document in JSON or YAML bytes. `Invalid`, naming the place, if it is none."""
    if len(data) > MAX_BYTES:
        raise Invalid(f"larger than {MAX_BYTES} bytes", where=name)
    if not data.lstrip().startswith(b"{"):
        data = _from_yaml(data, name)
    tree = read_json(data, name, limit=MAX_EXPANDED, depth=MAX_DEPTH)
    if not isinstance(tree, dict) or not str(tree.get("openapi", "")).startswith(("3.0.", "3.1.", "3.2.")):
        raise Invalid(
            "not an OpenAPI 3.x document: it has no 'openapi: 3.…'",
            where=name,
            next_move="convert a Swagger 2.0 document first",
        )
    for reference in _references(tree):
        if not reference.startswith("#/"):
            raise Invalid(
                f"the reference {clean(reference, 100)!r} leads out of the document",
                where=name,
                next_move="bundle the document into one file",
            )
    return Document(tree, name)


def _from_yaml(data: bytes, name: str) -> bytes:
    try:
        # Keys become texts (`200:` is one of them), and so do dates, which JSON does not know.
        return json.dumps(reader(data, name).get_single_data(), default=str, allow_nan=False).encode()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Invalid(f"not valid YAML: {clean(str(error.problem), 200)}", where=f"{name}:{line}") from error
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        raise Invalid(f"not valid YAML: {clean(str(error), 200)}", where=name) from error
    except AttributeError as error:  # what the library makes of a tag that does not fit
        raise Invalid("not valid YAML", where=name) from error


def _references(tree: Json) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def escaped(key: str) -> str:
    """A key as a JSON pointer writes it."""
    return key.replace("~", "~0").replace("/", "~1")
