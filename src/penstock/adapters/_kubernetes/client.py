"""Reads, writes and watches objects of one cluster.

Called by the adapters that drive Kubernetes. What fails is one of the five words (`failures`). Writes carry
our field manager and strict validation, never force; a ``metadata.resourceVersion`` in an applied object is a
precondition. Only what the API itself refused to begin is tried again here, within *patience*: whether
a write that got no answer was made is for the caller to read. Must not decide what to write.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from penstock.adapters._kubernetes.access import Access
from penstock.adapters._kubernetes.failures import Call, Moved, TooOld, failure, not_begun, silence
from penstock.adapters._kubernetes.kinds import PODS, Kind, Object
from penstock.errors import Broken, PenstockError, Unavailable

#: Whose fields ours are.
MANAGER = "penstock"
SECONDS = 15.0
#: The first version of a store, which none of its objects has.
NO_VERSION = "1"
#: A watch is asked anew this often; one that says nothing for a little longer is dead.
WATCH_SECONDS = 240
#: A connection whose other end is gone without a word is found out after half a minute, where the system can:
#: on one that only listens nothing else would.
ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
]
#: Between tries of a watch whose server is away.
PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
LIST_PAGE = 500


@dataclass(frozen=True)
class Listed:
    """What is there, as of *version*: everything that was seen before and is not among it is gone."""

    items: tuple[Object, ...]
    version: str


@dataclass(frozen=True)
class Change:
    """One object after *listing*: it came, changed, or is gone (*object* is then its last state)."""

    gone: bool
    object: Object


#: What of an object is kept as a list of many comes in.
Keep = Callable[[Object], Object]
#: Told whether the server can be reached.
Contact = Callable[[PenstockError | None], None]


class Client:
    """One cluster, as one identity. *patience* bounds how long a busy API is asked again, in seconds."""

    def __init__(self, access: Access, *, seconds: float = SECONDS, patience: float = 5.0) -> None:
        self.namespace = access.namespace
        self.requests = 0
        self._access = access
        self._patience = patience
        self._http = httpx.AsyncClient(
            base_url=access.server,
            transport=httpx.AsyncHTTPTransport(
                verify=access.tls or False, trust_env=False, socket_options=ALIVE
            ),
            timeout=seconds,
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    # --- reading -------------------------------------------------------------------------------------

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """The object; None if it is not there. `Invalid` if the cluster does not know the kind."""
        call = self._call("get", kind, namespace, name)
        answer = await self._ask(call, "GET", kind.path(call.namespace, name))
        return None if _absent(answer, name) else self._taken(call, answer)

    async def list(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        keep: Keep = lambda item: item,
    ) -> Listed:
        """All of a kind in a namespace that the selectors choose (``app=web,tier``;
        ``involvedObject.name=a``); of each what *keep* makes of it, page by page."""
        call = self._call("list", kind, namespace)
        items: list[Object] = []
        query = _given(labelSelector=labels, fieldSelector=fields, limit=str(LIST_PAGE))
        while True:
            page = self._taken(call, await self._ask(call, "GET", kind.path(call.namespace), query=query))
            # Items of a list do not say what they are.
            who = {"apiVersion": kind.api_version, "kind": kind.name}
            items += [keep({**who, **item}) for item in page.get("items") or ()]
            rest = str(page["metadata"].get("continue") or "")
            if not rest:
                return Listed(tuple(items), str(page["metadata"]["resourceVersion"]))
            query = {**query, "continue": rest}

    async def logs(
        self, pod: str, namespace: str = "", *, lines: int, previous: bool = False
    ) -> tuple[str, ...]:
        """The last *lines* of a pod's only container (of the one before, if *previous*); () if it has
        none."""
        call = self._call("get", PODS, namespace, pod, "log")
        query = {"tailLines": str(lines), **({"previous": "true"} if previous else {})}
        path = PODS.path(call.namespace, pod) + "/log"
        answer = await self._ask(call, "GET", path, query=query)
        if answer.status_code in (400, 404):  # it has not begun, or is gone
            return ()
        if answer.status_code != 200:
            raise self._failure(call, answer, answer.text)
        return tuple(answer.text.splitlines())

    async def follow(self, pod: str, container: str) -> AsyncIterator[bytes]:
        """What a container wrote and writes, from its beginning, until it ends or the server hangs up."""
        call = self._call("get", PODS, "", pod, "log")
        query = {"container": container, "follow": "true"}
        # A container that has nothing to say is as quiet as a server that is gone: its end tells them apart.
        timeout = httpx.Timeout(SECONDS, read=None)
        async with self._streamed(call, PODS.path(call.namespace, pod) + "/log", query, timeout) as answer:
            if answer.status_code != 200:
                raise self._failure(call, answer, (await answer.aread()).decode(errors="replace"))
            async for data in answer.aiter_bytes():
                yield data

    # --- writing -------------------------------------------------------------------------------------

    async def create(self, kind: Kind, object: Object) -> Object:
        """Make it. `Conflict` if it is there already.

        An apply as well, or its fields would belong to another manager of the same name. That it is not
        there is said by a version that no object has.
        """
        metadata = {**object["metadata"], "resourceVersion": NO_VERSION}
        call = self._call("create", kind, metadata["namespace"], metadata["name"])
        answer = await self._applied(call, {**object, "metadata": metadata})
        if answer.status_code == 409:
            raise Moved("it is there already", where=call.where, next_move="read it")
        return self._taken(call, answer)

    async def apply(self, kind: Kind, object: Object) -> Object:
        """Make what is there have these fields, and take away what we set before and is not among them.

        With ``metadata.resourceVersion``, only if that is what is there, and with ``metadata.uid`` only if it
        is still the same one (else `Conflict`). `failures.Drift` if somebody else owns a field whose value
        would change.
        """
        metadata = object["metadata"]
        call = self._call("patch", kind, metadata["namespace"], metadata["name"])
        answer = await self._applied(call, object)
        if metadata.get("uid") and _would_be_new(answer):
            raise Moved("it is not there any more", where=call.where, next_move="read it")
        return self._taken(call, answer)

    async def resize(self, kind: Kind, object: Object, replicas: int) -> Object:
        """*object* with another number of copies, if this version of it is what is there (else `Conflict`).

        By its ``scale`` subresource, as autoscalers write: whoever set the number last has it, and no apply
        does.
        """
        metadata = {name: object["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
        call = self._call("update", kind, metadata["namespace"], metadata["name"], "scale")
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata}
        content = json.dumps({**scale, "spec": {"replicas": replicas}}).encode()
        path = kind.path(call.namespace, call.name) + "/scale"
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        answer = self._taken(call, await self._ask(call, "PUT", path, query=query, content=content))
        version = answer["metadata"]["resourceVersion"]
        return {
            **object,
            "metadata": {**object["metadata"], "resourceVersion": version},
            "spec": {**object["spec"], "replicas": replicas},
        }

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        version: str = "",
        policy: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> bool:
        """Remove it, if it still has this *uid* and *version* (else `Conflict`). Whether it was there."""
        call = self._call("delete", kind, namespace, name)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if conditions := _given(uid=uid, resourceVersion=version):
            options["preconditions"] = conditions
        path = kind.path(call.namespace, name)
        answer = await self._ask(call, "DELETE", path, content=json.dumps(options).encode())
        if _absent(answer, name):
            return False
        self._taken(call, answer)
        return True

    async def _applied(self, call: Call, object: Object) -> httpx.Response:
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": "false"}
        whole = {**object, "apiVersion": call.kind.api_version, "kind": call.kind.name}
        content = json.dumps(whole, allow_nan=False).encode()
        path, media = call.kind.path(call.namespace, call.name), "application/apply-patch+yaml"
        return await self._ask(call, "PATCH", path, query=query, content=content, media=media)

    # --- watching ------------------------------------------------------------------------------------

    async def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        contact: Contact = lambda _: None,
        keep: Keep = lambda item: item,
    ) -> AsyncIterator[Listed | Change]:
        """Everything that is there, of each what *keep* makes of it, and then each change, for ever;
        everything anew where changes were missed.

        A server that is away is asked again until it is back: *contact* is told that it is away, and why, and
        with None that it was reached. What no time mends (a missing right, a missing CRD) is raised.
        """
        call = self._call("watch", kind, namespace)
        version, tries = "", 0
        while True:
            try:
                if not version:
                    listed = await self.list(kind, call.namespace, labels=labels, keep=keep)
                    version = listed.version
                    yield listed
                async for event in self._events(call, labels, version, contact):
                    tries = 0
                    version = str(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] != "BOOKMARK":
                        yield Change(event["type"] == "DELETED", event["object"])
            except TooOld:
                version = ""
            except Unavailable as error:
                contact(error)
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    async def _events(self, call: Call, labels: str, version: str, contact: Contact) -> AsyncIterator[Object]:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            **_given(labelSelector=labels),
        }
        timeout = httpx.Timeout(SECONDS, read=WATCH_SECONDS + SECONDS)
        async with self._streamed(call, call.kind.path(call.namespace), query, timeout) as answer:
            if answer.status_code != 200:
                raise self._failure(call, answer, (await answer.aread()).decode(errors="replace"))
            contact(None)
            async for line in answer.aiter_lines():
                event = _parsed(line)
                if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
                    raise silence(call, self._access.server, "the watch broke off")
                if event.get("type") == "ERROR":
                    raise failure(call, int(event["object"].get("code") or 500), event["object"])
                yield event

    @asynccontextmanager
    async def _streamed(
        self, call: Call, path: str, query: Mapping[str, str], timeout: httpx.Timeout
    ) -> AsyncIterator[httpx.Response]:
        self.requests += 1
        try:
            async with self._http.stream(
                "GET", path, params=dict(query), headers=self._headers(), timeout=timeout
            ) as answer:
                yield answer
        except httpx.HTTPError as error:
            raise silence(call, self._access.server, str(error) or type(error).__name__) from error

    # --- one question --------------------------------------------------------------------------------

    def _call(self, verb: str, kind: Kind, namespace: str, name: str = "", part: str = "") -> Call:
        return Call(verb, kind, namespace or self.namespace, name, part)

    async def _ask(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes = b"",
        media: str = "application/json",
    ) -> httpx.Response:
        """Its answer. Asked again while the API is busy, as long as it says, within our patience."""
        headers = {**self._headers(), "content-type": media}
        until = time.monotonic() + self._patience
        while True:
            self.requests += 1
            try:
                answer = await self._http.request(
                    method, path, params=dict(query or {}), content=content or None, headers=headers
                )
            except httpx.HTTPError as error:
                raise silence(call, self._access.server, str(error) or type(error).__name__) from error
            after, refused = _seconds(answer), not_begun(answer.status_code, _parsed(answer.text))
            if refused and time.monotonic() + after < until:
                await asyncio.sleep(after)
                continue
            if refused or answer.status_code >= 500:
                raise self._failure(call, answer, answer.text)
            return answer

    def _headers(self) -> dict[str, str]:
        try:
            token = self._access.token()
        except OSError as error:
            raise Unavailable(f"our token cannot be read: {error}", where=self._access.server) from error
        return {"accept": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}

    def _failure(self, call: Call, answer: httpx.Response, text: str) -> PenstockError:
        return failure(call, answer.status_code, _parsed(text), _seconds(answer))

    def _taken(self, call: Call, answer: httpx.Response) -> Object:
        if answer.status_code >= 300:
            raise self._failure(call, answer, answer.text)
        body = _parsed(answer.text)
        if not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
            raise Broken(f"the API answered {answer.status_code} without an object", where=call.where)
        return body


def _absent(answer: httpx.Response, name: str) -> bool:
    """Whether the object is not there; that its kind is not known is something else."""
    body = _parsed(answer.text) if answer.status_code == 404 else None
    return isinstance(body, dict) and (body.get("details") or {}).get("name") == name


def _would_be_new(answer: httpx.Response) -> bool:
    """Whether a patch was refused for the right to create alone: there is nothing of that name to change."""
    return answer.status_code == 403 and "cannot create resource" in answer.text


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _parsed(text: str) -> Any:
    """JSON, or the text itself where it is none: what stands before an API server answers in its own way."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _seconds(answer: httpx.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "1")))
    except ValueError:
        return 1.0
