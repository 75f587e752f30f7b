"""What leaves this machine by itself: webhooks and traces, wired; and the webhooks' secrets, as files.

Called by `bootstrap.control`, and by the server, which makes and removes secrets. A secret is a file of its
own in ``keys/`` (0600), where no workload's sandbox looks; nothing else keeps it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote

from penstock.bootstrap.home import Home
from penstock.bootstrap.plugins import find
from penstock.core.webhook import SECRET_BYTES, name_of, read_secret, written
from penstock.engine.journal import Journal
from penstock.engine.traces import Collector, Traces
from penstock.engine.webhooks import Outside, Webhooks
from penstock.errors import Invalid, Unavailable
from penstock.ledger import hooks
from penstock.ledger.log import Ledger
from penstock.ports import Store

log = logging.getLogger(__name__)

OTLP = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True)
class Outgoing:
    """The senders. Each ends only when it is cancelled."""

    webhooks: Webhooks
    traces: Traces

    async def run(self) -> None:
        await asyncio.gather(self.webhooks.run(), self.traces.run())


async def open_outgoing(home: Home, store: Store, ledger: Ledger, journal: Journal) -> Outgoing:
    """Everything that sends, not yet running."""
    await hooks.migrate(store)
    return Outgoing(open_webhooks(home, store, ledger, journal), open_traces(home, store, ledger, journal))


def open_webhooks(home: Home, store: Store, ledger: Ledger, journal: Journal) -> Webhooks:
    """The sender of webhooks, not yet running."""
    outside = Outside(pages(home), find("receiver", "http"), lambda name: webhook_secret(home, name))
    return Webhooks(store, ledger, journal, outside)


def open_traces(home: Home, store: Store, ledger: Ledger, journal: Journal) -> Traces:
    """The exporter of traces, not yet running; without a collector it has nothing to do."""
    try:
        collector = collector_of(os.environ, pages(home))
    except Invalid as error:
        # These variables are often set for every program of a machine: what is wrong in them stops nothing.
        log.error("no traces are exported: %s", error)
        collector = None
    return Traces(store, ledger, journal, collector)


def collector_of(environ: Mapping[str, str], seen_at: str) -> Collector | None:
    """The collector that OpenTelemetry's own variables name; None if they name none."""

    def given(name: str) -> str:
        return environ.get(f"{OTLP}TRACES_{name}") or environ.get(f"{OTLP}{name}") or ""

    off = (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    endpoint = given("ENDPOINT")
    if off or not endpoint:
        return None
    if given("PROTOCOL") == "grpc":
        move = "name its HTTP endpoint, mostly port 4318, and set the protocol to http/json"
        raise Invalid("the collector is spoken to over HTTP only", where=f"{OTLP}PROTOCOL", next_move=move)
    if not environ.get(f"{OTLP}TRACES_ENDPOINT"):
        endpoint = endpoint.rstrip("/") + "/v1/traces"
    http = find("receiver", "http")
    http(endpoint)
    release = version("penstock")
    resource = {
        "service.version": release,
        **_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES"),
        "service.name": environ.get("OTEL_SERVICE_NAME") or "penstock",
    }
    return Collector(lambda: http(endpoint), seen_at, release, _headers(given("HEADERS")), resource)


def _headers(text: str) -> dict[str, str]:
    found = {name.lower(): value for name, value in _pairs(text, f"{OTLP}HEADERS").items()}
    if not all(part.isascii() and part.isprintable() for pair in found.items() for part in pair):
        raise Invalid("holds characters that a header cannot", where=f"{OTLP}HEADERS")
    return found


def _pairs(text: str, where: str) -> dict[str, str]:
    """``a=b,c=d``, as in W3C baggage."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise Invalid("not of the form key=value,key=value", where=where)
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}


def pages(home: Home) -> str:
    """Where people see deliveries."""
    return f"http://localhost:{home.settings.port}"


def webhook_secret(home: Home, name: str) -> bytes:
    try:
        return read_secret(_path(home, name).read_text(encoding="utf-8"))
    except OSError as error:
        raise Unavailable(
            f"the secret of webhook {name} cannot be read: {error.strerror}",
            where=str(_path(home, name)),
            next_move="put it back, or remove the webhook and add it again",
        ) from error


def new_webhook_secret(home: Home, name: str) -> str:
    """Make and keep a secret, in the place of an earlier one; returns it as people hand it on."""
    text = written(secrets.token_bytes(SECRET_BYTES))
    path = _path(home, name)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text + "\n")
    fresh.replace(path)
    return text


def drop_webhook_secret(home: Home, name: str) -> None:
    _path(home, name).unlink(missing_ok=True)


def _path(home: Home, name: str) -> Path:
    return home.keys / f"webhook-{name_of(name)}.secret"
