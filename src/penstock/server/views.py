"""What the API answers and the pages show: plain JSON values, made from journal rows and ledger entries.

Called by `api` and `pages`; every page shows a value that the API gives too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from penstock.bootstrap.control import ControlPlane
from penstock.core.admission import ANYBODY
from penstock.core.codec import encode
from penstock.core.decide import Perform, Wait, decide
from penstock.core.digest import digest
from penstock.core.evidence import Entry
from penstock.core.nearest import did_you_mean
from penstock.core.pipeline import ENDED, GOOD, Facts, Gated, Record, State
from penstock.core.predicates import Deployed, Predicate, Promoted, Proposed, RolledBack
from penstock.core.release import PRODUCTION, EnvironmentData, Release
from penstock.core.traffic import WHOLE, TrafficState
from penstock.engine import changesets, numbers, prune
from penstock.engine.journal import Delivery
from penstock.engine.plans import plan
from penstock.errors import Invalid, Unavailable
from penstock.ledger.live import live, places
from penstock.ports import Transaction
from penstock.projections.why import explain, reviews, sign_offs

View = dict[str, Any]


async def deliveries(control: ControlPlane, service: str, limit: int, before: str = "") -> list[View]:
    """The newest deliveries, newest first: of one service if it is named, older than *before* if it is."""
    async with control.store.transaction(write=False) as tx:
        after = (await control.journal.find(tx, before)).id if before else ""
        found = await control.journal.recent(tx, limit, service, after)
        # Who refused or overrode, and what is waited for, is in the records, which a list is read without.
        known = [await control.journal.find(tx, d.id) for d in found]
        now = await tx.now()
        gone = await prune.pruned(tx, [d.id for d in found])
        told = {name: await control.ledger.tagged(tx, f"delivery:{name}") for name in gone}
    return [{**summary(d, now), **_pruned(gone.get(d.id), told.get(d.id, ()))} for d in known]


async def delivery(control: ControlPlane, name: str) -> View:
    """One delivery with its steps, sign-offs and evidence."""
    async with control.store.transaction(write=False) as tx:
        found = await control.journal.find(tx, name)
        facts = await _facts(control, tx, found)
        now = await tx.now()
        own = await control.ledger.tagged(tx, f"delivery:{found.id}")
        gone = (await prune.pruned(tx, [found.id])).get(found.id)
        cited = {index for record in found.records for index in record.entries}
        evidence = {entry.index: entry for entry in own}
        for index in cited - set(evidence):
            evidence[index] = await control.ledger.entry(tx, index)
    release = found.facts.release or _release(own)
    return {
        **summary(found, now),
        **_pruned(gone, own),
        "release": release.id if release else None,
        "release_digest": release.digest if release else None,
        "steps": [_step(record) for record in found.records],
        "stages": _stages(found, facts, now),
        "sign_offs": _sign_offs(own),
        "evidence": [brief(evidence[index]) for index in sorted(evidence)],
    }


def _pruned(at: float | None, own: tuple[Entry, ...]) -> View:
    """When a delivery's records were removed, None if they were not; what they told, the ledger tells
    then."""
    if at is None:
        return {"pruned": None}
    asked = [signed for signed in _sign_offs(own) if not signed["asked_again"]]
    failed = [signed["policy"] for signed in asked if signed["result"] != "PASSED"]
    overridden = [f"{s['policy']} by {s['override']['identity']}" for s in asked if s["override"]]
    return {"pruned": at, "refused_by": failed, "overridden": overridden}


def _release(own: tuple[Entry, ...]) -> Release | None:
    """The pair that a delivery was about, as its own entries say; None if it did not come that far."""
    said = (entry.statement.predicate for entry in own)
    return next((p.release for p in said if isinstance(p, (Deployed, Promoted, RolledBack))), None)


async def stages(control: ControlPlane, name: str) -> tuple[str, dict[str, State]]:
    """A delivery's whole id, and the state that each of its stages has come to."""
    async with control.store.transaction(write=False) as tx:
        found = await control.journal.find(tx, name)
        facts = await _facts(control, tx, found)
        now = await tx.now()
    return found.id, {stage["name"]: State(stage["state"]) for stage in _stages(found, facts, now)}


def _sign_offs(own: tuple[Entry, ...]) -> list[View]:
    """A delivery's sign-offs in order; *asked_again* marks those that a later one of its policy replaced."""
    signed = sign_offs(own)
    last = {(s.policy, s.action, s.release): s.index for s in signed}
    return [
        {"override": None, **encode(s), "asked_again": last[s.policy, s.action, s.release] != s.index}
        for s in signed
    ]


def summary(found: Delivery, now: float) -> View:
    change = found.header.change
    ended = found.state in ENDED
    refused = [name for record in found.records for name in _refused(record)]
    return {
        "id": found.id,
        "service": change.service,
        "environment": change.environment,
        "kind": change.kind,
        "state": found.state.value,
        "outcome": found.outcome,
        "reason": found.reason,
        "request": found.request,
        "retries": found.header.retries,
        "together": found.header.changeset.members if found.header.changeset else (),
        "refused_by": refused,
        "stage": None if ended or not found.records else found.records[-1].intent.stage,
        "waiting": _waiting(found),
        "overridden": [name for record in found.records for name in _overridden(record)],
        "change": encode(change),
        "created": found.created,
        "ended": found.ended if ended else None,
        "seconds": (found.ended if ended else now) - found.created,
    }


def _waiting(found: Delivery) -> View | None:
    """What a delivery waits for, until when, and who can unblock it; None if it does not wait."""
    last = found.records[-1] if found.records and found.state not in ENDED else None
    if last is None or last.state is not State.PENDING or not isinstance(last.detail, Gated):
        return None
    return {
        "until": last.detail.waits_until,
        "action": last.intent.guards,
        "blocked": encode(last.detail.blocked),
    }


def _overridden(record: Record) -> tuple[str, ...]:
    return record.detail.overridden if isinstance(record.detail, Gated) else ()


def _refused(record: Record) -> tuple[str, ...]:
    waits = record.state is State.PENDING
    return record.detail.refused_by if isinstance(record.detail, Gated) and not waits else ()


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
        "baseline": f"{intent.stage}: fresh baseline",
        "measure": f"{intent.stage}: baseline",
        "assign": f"{intent.stage}: users dealt out",
        "weigh": f"{intent.stage}: look {intent.number + 1}",
    }
    return names.get(intent.verb, intent.stage)


async def _facts(control: ControlPlane, tx: Transaction, found: Delivery) -> Facts:
    return replace(found.facts, together=await changesets.read(control.journal, tx, found))


def _stages(found: Delivery, facts: Facts, now: float) -> list[View]:
    """The plan's stages in order, with the state that each has come to and the time it took."""
    records: dict[str, list[Record]] = {stage.name: [] for stage in plan(found).stages}
    for record in found.records:
        records.setdefault(record.intent.stage, []).append(record)
    at_work = _at_work(found, facts, now)
    return [_stage(name, own, at_work, found.state in ENDED) for name, own in records.items()]


def _at_work(found: Delivery, facts: Facts, now: float) -> set[str]:
    """The stages that are being worked on."""
    if found.state is not State.EXECUTING:
        return set()
    match decide(plan(found), facts, now):
        case Perform(intents):
            return {intent.stage for intent in intents}
        case Wait() if found.records:
            return {found.records[-1].intent.stage}
        case _:
            return set()


def _stage(name: str, records: list[Record], at_work: set[str], ended: bool) -> View:
    states = [record.state for record in records]
    bad = [state for state in states if state not in GOOD]
    if name in at_work:
        state = State.EXECUTING
    elif records:
        state = (bad or states)[-1]
    else:
        state = State.SKIP if ended else State.PENDING
    return {
        "name": name,
        "state": state.value,
        "reason": records[-1].reason if records else "",
        "began": records[0].began if records else None,
        "seconds": records[-1].ended - records[0].began if records else 0.0,
    }


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


def _hidden(predicate: Any) -> Any:
    """As it is shown: without secret values. The signed bytes beside it are what they are."""
    data = getattr(predicate, "data", None)
    if not isinstance(data, EnvironmentData):
        return predicate
    return replace(predicate, data=replace(data, values=data.shown))


def whole(entry: Entry) -> View:
    return {
        **brief(entry),
        "predicate": encode(_hidden(entry.statement.predicate)),
        "envelope": entry.envelope.raw.decode(),
    }


async def services(control: ControlPlane) -> list[tuple[str, str]]:
    """Every (service, environment) that was ever promoted or delivered, sorted."""
    async with control.store.transaction(write=False) as tx:
        return sorted({*await places(tx), *await numbers.places(tx, 500)})


async def status(control: ControlPlane) -> View:
    """What runs where: as the ledger says, and as the data plane says."""
    rows = [await service(control, *place) for place in await services(control)]
    return {"services": rows, "isolation": control.isolation.value, "home": str(control.home.path)}


async def service(control: ControlPlane, service: str, environment: str) -> View:
    """What runs of one: as the ledger says, and as the data plane says."""
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
        "data": dict(now_live.data.shown) if now_live else {},
        "delivery": now_live.delivery if now_live else None,
        "delivering": running[0].id if running else None,
        "weights": [{"release": w.release, "per_cent": w.share / 10} for w in traffic.weights],
        "releases": [{"release": b.release, "ready": b.ready, "total": b.total} for b in traffic.backends],
        "drift": bool(
            now_live and not running and not problem and traffic.share(now_live.release.id) != WHOLE
        ),
        "refused": await _turned_away(control, traffic),
        "unrest": await _unrest(control, now_live.release) if now_live else "",
        "problem": problem,
    }


async def _unrest(control: ControlPlane, release: Release) -> str:
    """Whether copies of what is live keep ending, in words."""
    try:
        placement = await control.platform.observe(release.id)
    except Unavailable:  # which is told already: whoever keeps them keeps the proxy
        return ""
    return placement.unrest if placement else ""


async def _turned_away(control: ControlPlane, traffic: TrafficState) -> dict[str, int]:
    """How many requests each rule has refused: asked only where there are rules; the proxy looks through
    all its statistics for it."""
    if traffic.admission == ANYBODY:
        return {}
    try:
        found = await control.metrics.refused(traffic.service, traffic.environment)
    except Unavailable:  # counting must not hide what runs
        return {}
    return {refused.rule: refused.count for refused in found}


def _not_live(service: str, environment: str, known: Sequence[tuple[str, str]]) -> Invalid:
    """*known*: each service and environment. Says what the misspelt one of the two may have been."""
    what = f"{service} is not live in {environment}"
    if any(name == service for name, _ in known):
        others = [place for name, place in known if name == service and place != environment]
        what += f"; others of its environments: {', '.join(others)}" if others else ""
        what += did_you_mean(environment, others)
    else:
        names = list(dict.fromkeys(name for name, _ in known))
        what += f"; services: {', '.join(names) or 'none'}{did_you_mean(service, names)}"
    return Invalid(what, next_move="penstock status")


async def why(control: ControlPlane, service: str, environment: str = PRODUCTION) -> View:
    async with control.store.transaction(write=False) as tx:
        now_live = await live(control.ledger, tx, service, environment)
        if now_live is None:
            raise _not_live(service, environment, await services(control))
        own = await control.ledger.tagged(tx, f"delivery:{now_live.delivery}")
        history = list(await control.ledger.tagged(tx, f"service:{service}/{environment}"))
        about = await control.ledger.tagged(tx, f"about:{now_live.release.digest}")
        revision = next(p.change.revision for p in map(_predicate, own) if isinstance(p, Proposed))
        said = await control.ledger.tagged(tx, f"about:{digest(revision.encode())}")
    known_indices = {entry.index for entry in history}
    history += [entry for entry in about if entry.index not in known_indices]
    ordered = tuple(sorted(history, key=lambda entry: entry.index))
    view: View = encode(explain(now_live, own, ordered))
    release = {**view["release"], "id": now_live.release.id}
    signed = [{"override": None, **one} for one in view["sign_offs"]]
    return {
        "restored_by": None,
        **view,
        "release": release,
        "delivery": now_live.delivery,
        "sign_offs": signed,
        "reviews": encode(reviews(said, revision)),
    }


def _predicate(entry: Entry) -> Predicate:
    return entry.statement.predicate
