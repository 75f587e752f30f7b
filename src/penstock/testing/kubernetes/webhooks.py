"""Asks the webhooks of ValidatingWebhookConfigurations before something is written, over real HTTPS.

Called by `server` for requests from outside, which wait for the answer, and by `controllers`, which look at
everything anew and come back once there is one. What controllers change is not asked about, only what they
make. Must not know what the objects are for.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from penstock.testing.kubernetes import selecting
from penstock.testing.kubernetes.api import Api
from penstock.testing.kubernetes.kinds import WEBHOOKS, FakeKind, Object
from penstock.testing.kubernetes.problems import Problem

REVIEW = "admission.k8s.io/v1"


@dataclass(frozen=True)
class Write:
    """What is about to be written: *new* as it would be kept, *old* as it is (None: nothing)."""

    operation: str
    kind: FakeKind
    new: Object
    old: Object | None = None
    subresource: str = ""
    dry_run: bool = False

    @property
    def resource(self) -> str:
        return self.kind.plural + (f"/{self.subresource}" if self.subresource else "")

    @property
    def namespace(self) -> str:
        return str(self.new["metadata"].get("namespace", ""))


class Webhooks:
    def __init__(self, api: Api) -> None:
        #: Where a webhook's Service answers: (namespace, name) → (host, port). Set by tests.
        self.services: dict[tuple[str, str], tuple[str, int]] = {}
        #: Each question so far, as "OPERATION resource".
        self.asked: list[str] = []
        self._api = api
        self._ids = itertools.count(1)
        #: Of controllers: what they wait for, and what was said, the last time too; "" if it may be.
        self._open: dict[str, Write] = {}
        self._said: dict[str, str] = {}
        self._last: dict[str, str] = {}

    # --- for requests --------------------------------------------------------------------------------

    async def ask(self, write: Write) -> list[str]:
        """Warnings, in order. `Problem` if a webhook says no, or does not answer and must."""
        warnings: list[str] = []
        for hook in self._concerned(write):
            self.asked.append(f"{write.operation} {write.resource}")
            try:
                response = await self._call(hook, write)
            except (httpx.HTTPError, ValueError, OSError) as error:
                if hook.get("failurePolicy", "Fail") == "Ignore":
                    continue
                said = f"Internal error occurred: failed calling webhook {hook['name']!r}: {error!r}"
                raise Problem(500, said.replace("'", '"')) from error
            warnings += response.get("warnings", [])
            if not response["allowed"]:
                raise _denied(str(hook["name"]), response.get("status", {}))
        return warnings

    # --- for controllers -----------------------------------------------------------------------------

    def demand(self, kind: FakeKind, make: Callable[[], Object]) -> None:
        """`Problem` unless every webhook has said yes to what *make* would make; `settle` asks them."""
        if not self.there:
            return
        new = self._api.tried(make)
        write = Write("CREATE", kind, new)
        if not any(self._concerned(write)):
            return
        like = {**new, "metadata": {k: v for k, v in new["metadata"].items() if k not in ("name", "uid")}}
        key = json.dumps(
            [kind.full, like["metadata"].get("ownerReferences"), like.get("spec")], sort_keys=True
        )
        said = self._said.pop(key, None)
        if said is None:
            self._open[key] = write
            raise Problem(403, self._last.get(key, ""))
        self._last[key] = said
        if said:
            raise Problem(403, said)

    async def settle(self) -> bool:
        """Ask what controllers wait for; whether there was anything."""
        waiting, self._open = self._open, {}
        for key, write in waiting.items():
            try:
                await self.ask(write)
                self._said[key] = ""
            except Problem as problem:
                self._said[key] = problem.message
        return bool(waiting)

    @property
    def there(self) -> bool:
        """Whether anybody would be asked about anything."""
        return any(full == WEBHOOKS.full for full, _ in self._api.storage.kinds())

    # --- asking --------------------------------------------------------------------------------------

    def _concerned(self, write: Write) -> Iterator[Object]:
        for configuration in self._api.all(WEBHOOKS):
            for hook in configuration.get("webhooks", []):
                labels = self._api.labels_of(write.namespace)
                if any(_meets(rule, write) for rule in hook.get("rules", [])) and (
                    not write.kind.namespaced or selecting.selected(hook.get("namespaceSelector"), labels)
                ):
                    yield hook

    async def _call(self, hook: Object, write: Write) -> Object:
        """The response. `ValueError` if it is none."""
        url, name, context = self._where(hook["clientConfig"])
        uid = f"00000000-0000-4000-9000-{next(self._ids):012x}"
        body = {"apiVersion": REVIEW, "kind": "AdmissionReview", "request": _request(uid, write)}
        limit = float(hook.get("timeoutSeconds", 10))
        async with (
            asyncio.timeout(limit),
            httpx.AsyncClient(verify=context, trust_env=False, timeout=limit) as client,
        ):
            answer = await client.post(url, json=body, extensions={"sni_hostname": name})
        if answer.status_code != 200:
            raise ValueError(f"it answered {answer.status_code}: {answer.text[:300]}")
        found = answer.json()
        if (found.get("apiVersion"), found.get("kind")) != (REVIEW, "AdmissionReview"):
            raise ValueError("no AdmissionReview came back")
        response = found["response"]
        if response.get("uid") != uid or not isinstance(response.get("allowed"), bool):
            raise ValueError("the answer is to another request")
        return dict(response)

    def _where(self, config: Mapping[str, Any]) -> tuple[str, str, ssl.SSLContext]:
        """URL, the name that its certificate must be for, and whom we trust."""
        context = ssl.create_default_context(cadata=base64.b64decode(config["caBundle"]).decode())
        if "url" in config:
            return config["url"], httpx.URL(config["url"]).host, context
        service = config["service"]
        place = (service["namespace"], service["name"])
        if place not in self.services:
            raise ValueError(f"no endpoints available for service {service['name']!r}")
        host, port = self.services[place]
        url = f"https://{host}:{port}{service.get('path', '/')}"
        return url, f"{service['name']}.{service['namespace']}.svc", context


def _request(uid: str, write: Write) -> Object:
    group, version = write.kind.group, write.kind.version
    kind = {"group": group, "version": version, "kind": write.kind.kind}
    resource = {"group": group, "version": version, "resource": write.kind.plural}
    return {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        **({"subResource": write.subresource} if write.subresource else {}),
        "name": write.new["metadata"].get("name", ""),
        "namespace": write.namespace,
        "operation": write.operation,
        "userInfo": {"username": "system:serviceaccount:penstock:penstock"},
        "object": write.new,
        "oldObject": write.old,
        "dryRun": write.dry_run,
        "options": None,
    }


def _meets(rule: Mapping[str, Any], write: Write) -> bool:
    kind = write.kind
    return all(
        "*" in rule[name] or wanted in rule[name]
        for name, wanted in (
            ("operations", write.operation),
            ("apiGroups", kind.group),
            ("apiVersions", kind.version),
            ("resources", write.resource),
        )
    )


def _denied(name: str, status: Mapping[str, Any]) -> Problem:
    """In the API server's words."""
    said = f'admission webhook "{name}" denied the request'
    why = status.get("message") or status.get("reason")
    code = max(400, int(status.get("code", 400)))
    return Problem(code, f"{said}: {why}" if why else f"{said} without explanation")
