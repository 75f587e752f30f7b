"""The ``penstock.yaml`` in the making: fields with where each came from, and notes on what did not carry.

Called by the readers of this package, which fill one for each service. It must not write to disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from penstock.config import FILE, ServiceConfig, check_service, parse
from penstock.core.environmentconfig import NAME
from penstock.errors import Invalid
from penstock.manifests.place import Note, Place

#: The order of the documented reference, so that both are read side by side.
ORDER = (
    *("run", "health", "protocol", "replicas", "start_seconds", "liveness", "drain_seconds", "limits"),
    *("calls", "environment", "acceptance", "canary", "traffic", "warm"),
)
#: The file has a size that it may have; the rest of the notes is only printed.
MOST_NOTES = 60
MOST_LINE = 400


@dataclass
class Draft:
    """One service: *origin* is the object that it comes from."""

    service: str
    origin: Place
    fields: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def set(self, path: str, value: object, source: Place) -> None:
        """*path* (``traffic.sticky``) is *value*, as *source* says. What was said first holds."""
        *outer, last = path.split(".")
        inside = self.fields
        for name in outer:
            inside = inside.setdefault(name, {})
        if last not in inside:
            inside[last] = _plain(value)
            self.sources[path] = f"{source.where} {source.path}"

    def lost(self, place: Place, what: str, move: str) -> None:
        """*place* is not in the file, or with another meaning, and the user is told so."""
        note = place.lost(what, move)
        if place and note not in self.notes:
            self.notes.append(note)

    def text(self) -> str:
        """The file. `Invalid` if our own validator refuses what was made of the manifest."""
        known = {name: self.fields[name] for name in ORDER if name in self.fields}
        body = "".join(_written(name, value) for name, value in {"service": self.service, **known}.items())
        text = "".join(f"{_line(line)}\n" for line in self._heading()) + body
        try:
            check_service(parse(ServiceConfig, text.encode(), FILE))
        except Invalid as error:
            what = f"{self.service} cannot become a {FILE}: {error.where}: {error.what}"
            move = "take out of the manifest what it names, and import it again"
            raise Invalid(what, where=self.origin.where, next_move=move) from error
        return text

    def _heading(self) -> Iterator[str]:
        yield f"# Imported from {self.origin.at('kind').value or 'pipeline'} ({self.origin.where})."
        notes = sorted(self.notes, key=lambda note: (note.file, note.line))
        if notes:
            yield "# What did not carry over, or not with the same meaning:"
        for note in notes[:MOST_NOTES]:
            yield f"# * {note}"
            yield f"#   next: {note.next}"
        if len(notes) > MOST_NOTES:
            yield f"# … and {len(notes) - MOST_NOTES} more: penstock import says them all"


def service_name(name: str) -> str:
    """The nearest to *name* that may be a service's."""
    slug = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-0123456789")[:40].rstrip("-")
    return slug if NAME.fullmatch(slug) else "service"


def _plain(value: object) -> object:
    """15.0 is written as 15."""
    if isinstance(value, float) and value == int(value):
        return int(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _written(name: str, value: object) -> str:
    """A field; small mappings and lists on one line, as people write them."""
    flow = None if isinstance(value, (dict, list)) else False
    return yaml.safe_dump(
        {name: value}, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=100
    )


def _line(text: str) -> str:
    """Other people's words stay within one comment."""
    return "".join(char if char.isprintable() else " " for char in text)[:MOST_LINE].rstrip()
