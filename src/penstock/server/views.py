"""What the API answers and the pages show: plain JSON values, made from journal rows and ledger entries.

Called by `api` and `pages`; every page shows a value that the API gives too.
"""

from __future__ import annotations

from typing import Any

from penstock.bootstrap.control import ControlPlane
from penstock.core.codec import encode
from penstock.core.evidence import Entry
from penstock.core.pipeline import ENDED, Gated, Record
from penstock.core.predicates import Promoted
from penstock.core.traffic import TrafficState
from penstock.engine.journal import Delivery
from penstock.engine.worker import plan
from penstock.errors import Invalid, Unavailable
from penstock.ledger.live import live
from penstock.projections.why import explain, sign_offs

View = dict[str, Any]
PRODUCTION = "production"


async def deliveries(control: ControlPlane, service: str, limit: int) -> list[View]:
    scope = f"{service}/{PRODUCTION}" if service else ""
    async with control.store.transaction(write=False) as tx:
        found = await control.journal.recent(tx, max(1, min(limit, 500)), scope)
        now = await tx.now()
    return [summary(delivery, now) for delivery in found]


async def delivery(control: ControlPlane, name: str) -> View:
    """One delivery with its steps, sign-offs and evidence."""
    async with control.store.transaction(write=False) as tx:
        found = await control.journal.find(tx, name)
        now = await tx.now()
        own = await control.ledger.tagged(tx, f"delivery:{found.id}")
        cited = {index for record in found.records for index in record.entries}
        evidence = {entry.index: entry for entry in own}
        for index in cited - set(evidence):
            evidence[index] = await control.ledger.entry(tx, index)
    return {
        **summary(found, now),
        "steps": [_step(record) for record in found.records],
        "stages": _stages(found),
        "sign_offs": encode(sign_offs(own)),
        "evidence": [brief(evidence[index]) for index in sorted(evidence)],
    }


def summary(found: Delivery, now: float) -> View:
    change = found.header.change
    ended = found.state in ENDED
    refused = [name for record in found.records for name in _refused(record)]
    release = found.facts.release
    return {
        "id": found.id,
        "service": change.service,
        "environment": change.environment,
        "kind": change.kind,
        "state": found.state.value,
        "outcome": found.outcome,
        "reason": found.reason,
        "request": found.request,
        "refused_by": refused,
        "change": encode(change),
        "release": release.id if release else None,
        "created": found.created,
        "ended": found.ended if ended else None,
        "seconds": (found.ended if ended else now) - found.created,
    }


def _refused(record: Record) -> tuple[str, ...]:
    return record.detail.refused_by if isinstance(record.detail, Gated) else ()


def _step(record: Record) -> View:
    return {
        "key": record.intent.key,
        "stage": record.intent.stage,
        "name": _name(record),
        "state": record.state.value,
        "reason": record.reason,
        "began": record.began,
        "seconds": record.ended - record.began,
        "entries": list(record.entries),
    }


def _name(record: Record) -> str:
    intent = record.intent
    names = {
        "gate": f"{intent.stage}: sign-offs",
        "shift": f"{intent.stage}: {intent.share / 10:g}%",
        "look": f"{intent.stage}: look {intent.number + 1}",
        "measure": f"{intent.stage}: baseline",
    }
    return names.get(intent.verb, intent.stage)


def _stages(found: Delivery) -> list[View]:
    """The plan's stages with the state each has come to."""
    by_stage: dict[str, list[Record]] = {}
    for record in found.records:
        by_stage.setdefault(record.intent.stage, []).append(record)
    names = [stage.name for stage in plan(found).stages]
    names += [name for name in by_stage if name not in names]
    rows, running = [], found.state.value == "executing"
    for position, name in enumerate(names):
        records = by_stage.get(name, [])
        bad = [record for record in records if record.state.value not in ("success", "skip")]
        later = any(other in by_stage for other in names[position + 1 :])
        state = bad[0].state.value if bad else ("success" if records else "skip" if later else "pending")
        rows.append({"name": name, "state": state, "reason": records[-1].reason if records else ""})
    if running:
        open_rows = [row for row in rows if row["state"] in ("pending",)]
        latest = next(
            (row for row in rows if found.records and row["name"] == found.records[-1].intent.stage), None
        )
        if latest and latest["name"] == "canary" and latest["state"] == "success":
            latest["state"] = "executing"
        elif open_rows:
            open_rows[0]["state"] = "executing"
    return rows


def brief(entry: Entry) -> View:
    """An entry in a list."""
    predicate = entry.statement.predicate
    return {
        "index": entry.index,
        "type": predicate.TYPE,
        "what": type(predicate).__name__,
        "subjects": [{"name": s.name, "digest": s.digest} for s in entry.statement.subjects],
        "digest": entry.envelope.digest,
        "keyid": entry.envelope.keyid,
    }


def whole(entry: Entry) -> View:
    return {
        **brief(entry),
        "predicate": encode(entry.statement.predicate),
        "envelope": entry.envelope.raw.decode(),
    }


async def services(control: ControlPlane) -> list[tuple[str, str]]:
    """Every (service, environment) that was ever promoted or delivered, sorted."""
    async with control.store.transaction(write=False) as tx:
        promoted = await control.ledger.tagged(tx, f"type:{Promoted.TYPE}")
        recent = await control.journal.recent(tx, 500)
    found = {(d.header.change.service, d.header.change.environment) for d in recent}
    for entry in promoted:
        if isinstance(entry.statement.predicate, Promoted):
            release = entry.statement.predicate.release
            found.add((release.service, release.environment))
    return sorted(found)


async def status(control: ControlPlane) -> View:
    """What runs where: as the ledger says, and as the data plane says."""
    rows = [await _service(control, *place) for place in await services(control)]
    return {"services": rows, "isolation": control.isolation.value, "home": str(control.home.path)}


async def _service(control: ControlPlane, service: str, environment: str) -> View:
    async with control.store.transaction(write=False) as tx:
        now_live = await live(control.ledger, tx, service, environment)
        running = await control.journal.open_in(tx, f"{service}/{environment}")
    problem = ""
    try:
        traffic = await control.router.read(service, environment)
    except Unavailable as error:
        traffic, problem = TrafficState(service, environment), str(error)
    return {
        "service": service,
        "environment": environment,
        "address": traffic.address,
        "live": now_live.release.id if now_live else None,
        "artifact": now_live.release.artifact if now_live else None,
        "data": dict(now_live.data.values) if now_live else {},
        "delivery": now_live.delivery if now_live else None,
        "delivering": running[0].id if running else None,
        "weights": [{"release": w.release, "per_cent": w.share / 10} for w in traffic.weights],
        "releases": [{"release": b.release, "ready": b.ready, "total": b.total} for b in traffic.backends],
        "drift": bool(
            now_live and not running and not problem and traffic.share(now_live.release.id) != 1000
        ),
        "problem": problem,
    }


async def why(control: ControlPlane, service: str, environment: str = PRODUCTION) -> View:
    async with control.store.transaction(write=False) as tx:
        now_live = await live(control.ledger, tx, service, environment)
        if now_live is None:
            known = ", ".join(name for name, _ in await services(control)) or "none"
            raise Invalid(f"{service} is not live in {environment}; services: {known}")
        own = await control.ledger.tagged(tx, f"delivery:{now_live.delivery}")
        history = list(await control.ledger.tagged(tx, f"service:{service}/{environment}"))
        about = await control.ledger.tagged(tx, f"about:{now_live.release.digest}")
    known_indices = {entry.index for entry in history}
    history += [entry for entry in about if entry.index not in known_indices]
    ordered = tuple(sorted(history, key=lambda entry: entry.index))
    view: View = encode(explain(now_live, own, ordered))
    return {**view, "release": {**view["release"], "id": now_live.release.id}, "delivery": now_live.delivery}
