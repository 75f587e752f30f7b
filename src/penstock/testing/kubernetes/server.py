"""Answers requests as an API server does: who asks, what may be done, what is there, and what changes.

Called by `wire` for each request; hands writes to `api`. Must not know what the objects are for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import yaml

from penstock.testing.kubernetes import discovery, scale, selecting
from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.faults import Fault
from penstock.testing.kubernetes.kinds import FakeKind, Object
from penstock.testing.kubernetes.problems import Problem
from penstock.testing.kubernetes.rights import Asked, Rights
from penstock.testing.kubernetes.storage import Happened
from penstock.testing.kubernetes.webhooks import Webhooks, Write
from penstock.testing.kubernetes.wire import Answering, HangUp, Request

log = logging.getLogger(__name__)

#: (namespace, pod, lines or None, previous) → its lines.
Logs = Callable[[str, str, int | None, bool], str]
#: What webhooks are asked about, in their word for it.
REVIEWED = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE"}
#: Told ("verb resource", "before" or "after"); the server goes on once it returns.
AtWrite = Callable[[str, str], Awaitable[None]]
#: (namespace, pod, container) → what it writes until it ends; `Problem` if it has not begun.
Follow = Callable[[str, str, str], AsyncIterator[bytes]]
Execute = Callable[[str, str, Request, Answering], Awaitable[None]]
#: libyaml's reader is many times as fast, where the package was built with it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
BOOKMARK_SECONDS = 0.5


@dataclass(frozen=True)
class Target:
    """What a path means: one object if there is a *name*; *verb* as RBAC has it."""

    kind: FakeKind
    namespace: str
    name: str
    subresource: str
    verb: str

    @property
    def resource(self) -> str:
        return self.kind.plural + (f"/{self.subresource}" if self.subresource else "")


async def _go_on(what: str, moment: str) -> None:
    """What is asked for is done at once."""


class Server:
    """*token* is the one that it knows; with "" anybody may come in."""

    def __init__(self, api: Api, logs: Logs, webhooks: Webhooks, token: str) -> None:
        self.rights = Rights()
        self.faults: list[Fault] = []
        #: Each request as "verb resource", in order.
        self.asked: list[str] = []
        self.at_write: AtWrite = _go_on
        #: What nodes are asked for: all that a container writes, and commands in one.
        self.follow: Follow | None = None
        self.execute: Execute | None = None
        self._api = api
        self._logs = logs
        self._webhooks = webhooks
        self._token = token

    async def handle(self, request: Request, answering: Answering) -> None:
        try:
            await self._handle(request, answering)
        except (HangUp, OSError):
            raise
        except Exception as error:  # a mistake of ours: told to whoever asked, who is a test
            log.exception("a request failed")
            problem = Problem(500, f"{type(error).__name__}: {error}")
            await answering.whole(problem.status, problem.body())

    async def _handle(self, request: Request, answering: Answering) -> None:
        fault = None
        try:
            if self._token and request.headers.get("authorization") != f"Bearer {self._token}":
                raise Problem(401, "Unauthorized")
            if request.path in ("/readyz", "/livez"):
                return await answering.whole(200, "ok")
            if (known := discovery.answer(self._api.served, request.path)) is not None:
                return await answering.whole(200, known)
            target = self._target(request)
            self.asked.append(f"{target.verb} {target.resource}")
            fault = self._fault(target)
            await self._before(fault)
            group, full = target.kind.group, target.resource
            self.rights.check(Asked(target.verb, group, full, target.namespace, target.name))
            if target.verb == "watch":
                return await self._watch(target, request, answering)
            if target.subresource == "exec" and self.execute is not None:
                self.rights.check(Asked("create", group, full, target.namespace, target.name))
                self._api.get(target.kind, target.namespace, target.name)
                return await self.execute(target.namespace, target.name, request, answering)
            if target.subresource == "log" and request.query.get("follow") == "true":
                return await self._follow(target, request, answering)
            if target.subresource == "log":
                return await answering.whole(200, self._log(target, request))
            writes = request.method in VERBS
            if writes:
                await self.at_write(f"{target.verb} {target.resource}", "before")
            warnings, tried = await self._reviewed(target, request)
            value, status = (tried, 200) if tried is not None else self._answer(target, request)
            if writes:
                await self.at_write(f"{target.verb} {target.resource}", "after")
            if fault is not None and fault.how == "cut-after":
                raise HangUp
            await answering.whole(status, value, warnings=warnings)
        except Problem as problem:
            if fault is not None and fault.how == "cut-after":
                fault.times += 1  # nothing was done yet
            plain = problem.status == 404 and not problem.details
            body: Any = "404 page not found\n" if plain else problem.body()
            await answering.whole(problem.status, body, retry_after=problem.retry_after)

    async def _reviewed(self, target: Target, request: Request) -> tuple[list[str], Object | None]:
        """The webhooks' warnings; and of a dry run, what would be kept."""
        dry_run = request.query.get("dryRun") == "All"
        if target.verb not in REVIEWED or not (dry_run or self._webhooks.there):
            return [], None
        new = self._api.tried(lambda: self._answer(target, request)[0])
        named = new["metadata"].get("namespace", ""), new["metadata"]["name"]
        old = self._api.storage.get(target.kind.full, *named)
        operation = REVIEWED[target.verb] if old is not None else "CREATE"
        write = Write(operation, target.kind, new, old, target.subresource, dry_run)
        return await self._webhooks.ask(write), new if dry_run else None

    def _fault(self, target: Target) -> Fault | None:
        usable = (fault for fault in self.faults if fault.how != "break")
        return next((fault for fault in usable if fault.meets(target.verb, target.resource)), None)

    async def _before(self, fault: Fault | None) -> None:
        match fault.how if fault else "":
            case "refuse":
                assert fault is not None
                raise Problem(fault.status, fault.message, retry_after=fault.retry_after)
            case "hang":
                await asyncio.Event().wait()
            case "cut":
                raise HangUp

    # --- what is meant -------------------------------------------------------------------------------

    def _target(self, request: Request) -> Target:
        """`Problem` 404, without details, if nothing of the sort is served."""
        match request.path.strip("/").split("/"):
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise Problem(404, "no such path")
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) >= 3:
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "", "")[:3]
        kind = self._api.kind(group, version, plural)
        if kind is None or len(rest) > 3:
            raise Problem(404, "the server could not find the requested resource")
        if request.method == "GET":
            watching = request.query.get("watch") in ("true", "1")
            verb = "get" if name else "watch" if watching else "list"
        else:
            verb = VERBS.get(request.method, request.method.lower())
        return Target(kind, namespace, name, subresource, verb)

    # --- reads and writes ----------------------------------------------------------------------------

    def _answer(self, target: Target, request: Request) -> tuple[Object, int]:
        query = request.query
        manager = query.get("fieldManager") or request.headers.get("user-agent", "unknown").split("/")[0]
        strict = query.get("fieldValidation") == "Strict"
        kind, api = target.kind, self._api
        if target.subresource == "scale":
            scale.check(kind, target.verb, request.path)
            if target.verb == "update":
                new = _placed(request, target)
                return scale.write(api, kind, new, manager=manager, strict=strict), 200
            return scale.read(api.get(kind, target.namespace, target.name)), 200
        match target.verb:
            case "get":
                return api.get(kind, target.namespace, target.name), 200
            case "list":
                return self._list(target, request), 200
            case "delete":
                return self._delete(target, request), 200
            case "create":
                return api.create(kind, _placed(request, target), manager=manager, strict=strict), 201
            case "update":
                new = _placed(request, target)
                part = target.subresource
                return api.update(kind, new, manager=manager, subresource=part, strict=strict), 200
            case "patch":
                return self._patch(target, request, manager, strict), 200
        raise Problem(405, f"{request.method} is not served")

    def _patch(self, target: Target, request: Request, manager: str, strict: bool) -> Object:
        media = request.headers.get("content-type", "").partition(";")[0]
        value, force = _placed(request, target), request.query.get("force") == "true"
        if media == "application/apply-patch+yaml":
            if not request.query.get("fieldManager"):
                raise Problem(422, "fieldManager is required for apply patch")
            if target.subresource:
                raise Problem(415, f"apply of {target.resource} is not served")
            if self._api.storage.get(target.kind.full, target.namespace, target.name) is None:
                where = target.namespace, target.name
                self.rights.check(Asked("create", target.kind.group, target.resource, *where))
            return self._api.apply(target.kind, value, manager=manager, force=force, strict=strict)
        if media == "application/merge-patch+json":
            kind, part = target.kind, target.subresource
            name, namespace = target.name, target.namespace
            return self._api.patch(kind, namespace, name, value, manager=manager, subresource=part)
        raise Problem(415, f"the body of the request was in an unknown format: {media}")

    def _list(self, target: Target, request: Request) -> Object:
        chosen = _chosen(request)
        items = [value for value in self._api.all(target.kind, target.namespace) if chosen(value)]
        for item in items:  # as the real one: a list says once what its items are
            item.pop("apiVersion", None)
            item.pop("kind", None)
        version = str(self._api.storage.version)
        first = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(items) + 1
        rest = {"continue": str(first + limit)} if first + limit < len(items) else {}
        return {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.api_version,
            "metadata": {"resourceVersion": version, **rest},
            "items": items[first : first + limit],
        }

    def _delete(self, target: Target, request: Request) -> Object:
        options = _body(request) if request.body else {}
        asked = options.get("preconditions") or {}
        grace = options.get("gracePeriodSeconds")
        uid, version = asked.get("uid", ""), asked.get("resourceVersion", "")
        if options.get("propagationPolicy") == "Foreground":
            where = target.namespace, target.name
            return self._api.delete_last(target.kind, *where, uid=uid, version=version)
        return self._api.delete(
            target.kind,
            target.namespace,
            target.name,
            uid=uid,
            version=version,
            grace=grace,
        )

    def _log(self, target: Target, request: Request) -> str:
        self._api.get(target.kind, target.namespace, target.name)
        lines = request.query.get("tailLines")
        previous = request.query.get("previous") == "true"
        return self._logs(target.namespace, target.name, int(lines) if lines else None, previous)

    async def _follow(self, target: Target, request: Request, answering: Answering) -> None:
        self._api.get(target.kind, target.namespace, target.name)
        if self.follow is None:
            raise Problem(501, "no node tells what is being written")
        chunks = self.follow(target.namespace, target.name, request.query.get("container", ""))
        await answering.begin("text/plain")
        async for data in chunks:
            await answering.chunk(data)
        await answering.end()

    # --- watches -------------------------------------------------------------------------------------

    async def _watch(self, target: Target, request: Request, answering: Answering) -> None:
        storage, chosen = self._api.storage, _chosen(request)
        version = int(request.query.get("resourceVersion") or storage.version)
        until = time.monotonic() + float(request.query.get("timeoutSeconds") or 1800)
        storage.since(version)  # 410 before anything is said
        await answering.begin()
        while time.monotonic() < until and not answering.closed:
            try:
                self._broken(target)
                events = storage.since(version)
            except Problem as problem:
                await answering.line({"type": "ERROR", "object": problem.body()})
                break
            for event in events:
                version = event.version
                if said := _said(event, target, chosen):
                    await answering.line({"type": said, "object": event.object})
            if not await storage.wait(version, BOOKMARK_SECONDS) and request.query.get("allowWatchBookmarks"):
                await answering.line(_bookmark(target.kind, version))
        await answering.end()

    def _broken(self, target: Target) -> None:
        for fault in self.faults:
            if fault.how == "break" and fault.meets("watch", target.resource):
                raise Problem(fault.status, fault.message)


def _said(event: Happened, target: Target, chosen: selecting.Test) -> str:
    """What this event is to a watch of those *chosen*; "" if nothing."""
    if event.full != target.kind.full:
        return ""
    if target.namespace not in ("", event.object["metadata"].get("namespace", "")):
        return ""
    before = event.before is not None and chosen(event.before)
    after = event.after is not None and chosen(event.after)
    return {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get(
        (before, after), ""
    )


def _bookmark(kind: FakeKind, version: int) -> Object:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    return {
        "type": "BOOKMARK",
        "object": {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata},
    }


def _chosen(request: Request) -> selecting.Test:
    by_label = selecting.labels(request.query.get("labelSelector", ""))
    by_field = selecting.fields(request.query.get("fieldSelector", ""))
    return lambda value: by_label(value) and by_field(value)


def _body(request: Request) -> Object:
    try:
        value = (
            yaml.load(request.body, Loader=LOADER) if b"yaml" in _media(request) else json.loads(request.body)
        )
    except (ValueError, yaml.YAMLError) as error:
        raise Problem(400, f"the body cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise Problem(400, "the body is not an object")
    return value


def _media(request: Request) -> bytes:
    return request.headers.get("content-type", "").encode()


def _placed(request: Request, target: Target) -> Object:
    """The object of the body; its path says where it is, and contradicting that is an error."""
    value = _body(request)
    metadata = value.setdefault("metadata", {})
    if metadata.setdefault("namespace", target.namespace) != target.namespace:
        raise Problem(400, "the namespace of the object does not match the namespace of the request")
    if target.name and metadata.setdefault("name", target.name) != target.name:
        raise Problem(400, "the name of the object does not match the name on the URL")
    return value
