"""What a write means: versions, generations, owners of fields, defaults, quotas, deletion.

Called by `server` for requests from outside, and by the controllers, which are inside and need no rights.
Each method does all or nothing, and nothing in it waits. Must not know HTTP.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

from penstock.testing.kubernetes import defaults, fields, volumes
from penstock.testing.kubernetes.kinds import FakeKind, Object
from penstock.testing.kubernetes.problems import Problem, not_found
from penstock.testing.kubernetes.shapes import complaints
from penstock.testing.kubernetes.storage import Storage, copied

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
#: What a write cannot change.
FIXED = ("uid", "creationTimestamp", "generation", "managedFields", "deletionTimestamp")

#: What holds an object back until nothing that it owns is left.
FOREGROUND = "foregroundDeletion"


class _Tried(Exception):
    """Raised instead of keeping what would have been kept."""

    def __init__(self, value: Object) -> None:
        super().__init__()
        self.value = value


class Api:
    def __init__(self, kinds: Iterable[FakeKind]) -> None:
        self.storage = Storage()
        self.namespaces = {"default", "kube-system"}
        #: Labels of namespaces, besides the name that each has.
        self.labels: dict[str, dict[str, str]] = {}
        self._trying = False
        #: Whether pods may mount images.
        self.image_volumes: volumes.Feature = "on"
        self._kinds = {kind.full: kind for kind in kinds}
        self._ids = itertools.count(1)

    def serve(self, kind: FakeKind) -> None:
        """Add a kind, as a CRD does."""
        self._kinds[kind.full] = kind

    def unserve(self, full: str) -> None:
        """Take a kind away, as if its CRD had never been there."""
        self._kinds.pop(full, None)

    def kind(self, group: str, version: str, plural: str) -> FakeKind | None:
        found = self._kinds.get(f"{plural}.{group}" if group else plural)
        return found if found and found.version == version else None

    def named(self, full: str) -> FakeKind | None:
        """By ``plural.group``."""
        return self._kinds.get(full)

    @property
    def served(self) -> list[FakeKind]:
        return list(self._kinds.values())

    # --- reading -------------------------------------------------------------------------------------

    def get(self, kind: FakeKind, namespace: str, name: str) -> Object:
        found = self.storage.get(kind.full, namespace, name)
        if found is None:
            raise not_found(kind.plural, kind.group, name)
        return found

    def all(self, kind: FakeKind, namespace: str = "") -> list[Object]:
        return self.storage.all(kind.full, namespace)

    def those(self, kind: FakeKind, namespace: str, where: Callable[[Object], bool]) -> list[Object]:
        """Of many, the few that are meant: others are not copied."""
        return self.storage.all(kind.full, namespace, where)

    def labels_of(self, namespace: str) -> dict[str, str]:
        return {"kubernetes.io/metadata.name": namespace, **self.labels.get(namespace, {})}

    # --- writing -------------------------------------------------------------------------------------

    def tried(self, write: Callable[[], Object]) -> Object:
        """What a create, an apply, an update or a patch would keep; nothing is."""
        self._trying = True
        try:
            return write()
        except _Tried as tried:
            return tried.value
        finally:
            self._trying = False

    def create(self, kind: FakeKind, wanted: Object, *, manager: str, strict: bool = False) -> Object:
        new = self._checked(kind, wanted, strict)
        metadata = new["metadata"]
        if "generateName" in metadata and not metadata.get("name"):
            metadata["name"] = f"{metadata['generateName']}{next(self._ids):05x}"
        namespace, name = self._place(kind, new)
        if metadata.get("resourceVersion"):
            raise Problem(400, "resourceVersion should not be set on objects to be created")
        if self.storage.get(kind.full, namespace, name) is not None:
            details = {"name": name, "kind": kind.plural}
            raise Problem(
                409, f'{kind.full} "{name}" already exists', reason="AlreadyExists", details=details
            )
        owners = fields.changed({}, new, {}, manager, kind.keys_of)
        return self._born(kind, new, owners)

    def apply(
        self, kind: FakeKind, wanted: Object, *, manager: str, force: bool = False, strict: bool = False
    ) -> Object:
        new = self._checked(kind, wanted, strict)
        namespace, name = self._place(kind, new)
        version = new["metadata"].pop("resourceVersion", "")
        live = self.storage.get(kind.full, namespace, name)
        if live is None:
            if new["metadata"].get("uid"):
                raise Problem(409, f"uid mismatch: no existing object was found: {kind.full} {name}")
            _, owners = fields.apply({}, new, {}, manager, kind.keys_of, force=force)
            return self._born(kind, new, owners)
        self._precondition(kind, live, version)
        if new["metadata"].pop("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            raise Problem(409, f"Precondition failed: UID in precondition is not that of {kind.full} {name}")
        owners = fields.read(live["metadata"].get("managedFields", []))
        merged, owners = fields.apply(live, new, owners, manager, kind.keys_of, force=force)
        return self._replaced(kind, live, merged, owners)

    def update(
        self,
        kind: FakeKind,
        wanted: Object,
        *,
        manager: str,
        subresource: str = "",
        strict: bool = False,
    ) -> Object:
        """Replace it whole; only its status if that is the *subresource*, and all but that if not."""
        new = self._checked(kind, wanted, strict)
        namespace, name = self._place(kind, new)
        live = self.get(kind, namespace, name)
        self._precondition(kind, live, str(new["metadata"].get("resourceVersion", "")))
        if subresource == "status":
            new = {**live, "status": new.get("status", {})}
        elif kind.status and "status" in live:
            new["status"] = live["status"]
        owners = fields.read(live["metadata"].get("managedFields", []))
        owners = fields.changed(live, new, owners, manager, kind.keys_of)
        return self._replaced(kind, live, new, owners)

    def patch(
        self, kind: FakeKind, namespace: str, name: str, patch: Object, *, manager: str, subresource: str = ""
    ) -> Object:
        """A merge patch: null takes a field away."""
        live = self.get(kind, namespace, name)
        new = merged(live, patch)
        new["metadata"]["resourceVersion"] = (patch.get("metadata") or {}).get("resourceVersion", "")
        return self.update(kind, new, manager=manager, subresource=subresource)

    def delete(
        self,
        kind: FakeKind,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        grace: int | None = None,
    ) -> Object:
        """Remove it; with finalizers, or a pod that runs, only mark it: who minds it removes it then."""
        live = self.get(kind, namespace, name)
        if uid and live["metadata"]["uid"] != uid:
            raise Problem(409, f"Precondition failed: UID in precondition: {uid}, UID in object meta: other")
        self._precondition(kind, live, version)
        if grace is None:
            grace = int(live.get("spec", {}).get("terminationGracePeriodSeconds", 30))
        running = kind.kind == "Pod" and bool(live.get("spec", {}).get("nodeName")) and grace > 0
        if live["metadata"].get("finalizers") or running:
            if "deletionTimestamp" not in live["metadata"]:
                live["metadata"]["deletionTimestamp"] = now()
                live["metadata"]["deletionGracePeriodSeconds"] = grace
                live = self.storage.put(kind.full, live)
            return live
        self.storage.remove(kind.full, namespace, name)
        return live

    def delete_last(self, kind: FakeKind, namespace: str, name: str, *, uid: str, version: str) -> Object:
        """Remove it in the foreground: what it owns goes first."""
        live = self.get(kind, namespace, name)
        if uid in ("", live["metadata"]["uid"]) and FOREGROUND not in live["metadata"].get("finalizers", []):
            self._precondition(kind, live, version)
            live["metadata"]["finalizers"] = [*live["metadata"].get("finalizers", []), FOREGROUND]
            self.storage.put(kind.full, live)
            version = ""
        return self.delete(kind, namespace, name, uid=uid, version=version)

    # --- what they share -----------------------------------------------------------------------------

    def _checked(self, kind: FakeKind, wanted: Object, strict: bool) -> Object:
        if not isinstance(wanted, dict) or not isinstance(wanted.get("metadata"), dict):
            raise Problem(400, "the object has no metadata")
        if (wanted.get("apiVersion"), wanted.get("kind")) != (kind.api_version, kind.kind):
            raise Problem(400, f"the object is no {kind.api_version} {kind.kind}")
        found = list(complaints(wanted, kind.shape)) if strict else []
        if self.image_volumes == "unknown":
            found += volumes.complaints(wanted)
        if found:
            raise Problem(400, "strict decoding error: " + ", ".join(found))
        taken: Object = copied(wanted)
        if self.image_volumes == "off":
            volumes.drop(taken)
        return taken

    def _place(self, kind: FakeKind, value: Object) -> tuple[str, str]:
        metadata = value["metadata"]
        name, namespace = str(metadata.get("name", "")), str(metadata.get("namespace", ""))
        if not NAME.fullmatch(name):
            raise _invalid(kind, name, "metadata.name", f"Invalid value: {name!r}: not a DNS subdomain")
        if kind.namespaced and namespace not in self.namespaces:
            details = {"name": namespace, "kind": "namespaces"}
            raise Problem(404, f'namespaces "{namespace}" not found', details=details)
        return namespace, name

    def _precondition(self, kind: FakeKind, live: Object, version: str) -> None:
        if version and version != live["metadata"]["resourceVersion"]:
            raise _moved(kind, live["metadata"]["name"])

    def _born(self, kind: FakeKind, new: Object, owners: fields.Owners) -> Object:
        metadata = new["metadata"]
        self._within_quota(kind, metadata.get("namespace", ""), metadata["name"])
        defaults.fill(kind.kind, new, next(self._ids))
        self._valid(kind, new)
        for name in (*FIXED, "resourceVersion"):
            metadata.pop(name, None)
        metadata["uid"] = f"00000000-0000-4000-8000-{next(self._ids):012x}"
        metadata["creationTimestamp"] = now()
        if "spec" in new:
            metadata["generation"] = 1
        metadata["managedFields"] = fields.written(owners, kind.api_version, now())
        return self._put(kind, new)

    def _replaced(self, kind: FakeKind, live: Object, new: Object, owners: fields.Owners) -> Object:
        defaults.fill(kind.kind, new, next(self._ids))
        self._valid(kind, new, live)
        for name in FIXED:
            if name in live["metadata"]:
                new["metadata"][name] = live["metadata"][name]
        new["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        if new.get("spec") != live.get("spec"):
            new["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
        same = fields.read(live["metadata"].get("managedFields", [])) == owners
        if same and new == live:
            return live  # nothing changes, and nobody is told
        new["metadata"]["managedFields"] = fields.written(owners, kind.api_version, now())
        gone = "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers")
        if gone and kind.kind != "Pod" and not self._trying:
            self.storage.remove(kind.full, new["metadata"]["namespace"], new["metadata"]["name"])
            return new
        return self._put(kind, new)

    def _put(self, kind: FakeKind, value: Object) -> Object:
        if self._trying:
            raise _Tried(value)
        return self.storage.put(kind.full, value)

    def _valid(self, kind: FakeKind, new: Object, live: Object | None = None) -> None:
        for field, said in (*defaults.faults(kind.kind, new, live), *kind.faults(new)):
            raise _invalid(kind, new["metadata"]["name"], field, said)

    def _within_quota(self, kind: FakeKind, namespace: str, name: str) -> None:
        for quota in self.storage.all("resourcequotas", namespace):
            for what, most in quota.get("spec", {}).get("hard", {}).items():
                if what not in (kind.plural, f"count/{kind.full}"):
                    continue
                used = len(self.storage.all(kind.full, namespace))
                if used + 1 > int(most):
                    who = quota["metadata"]["name"]
                    raise Problem(
                        403,
                        f'{kind.full} "{name}" is forbidden: exceeded quota: {who}, requested: {what}=1, '
                        f"used: {what}={used}, limited: {what}={most}",
                        details={"name": name, "kind": kind.plural},
                    )


def merged(live: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copied(patch)
    found = copied(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def now() -> str:
    """To the second, as the API has it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moved(kind: FakeKind, name: str) -> Problem:
    said = "the object has been modified; please apply your changes to the latest version and try again"
    details = {"name": name, "kind": kind.plural}
    return Problem(409, f'Operation cannot be fulfilled on {kind.full} "{name}": {said}', details=details)


def _invalid(kind: FakeKind, name: str, field: str, said: str) -> Problem:
    causes = [{"reason": "FieldValueInvalid", "message": said, "field": field}]
    details = {"name": name, "kind": kind.kind, "causes": causes}
    return Problem(422, f'{kind.kind}.{kind.group} "{name}" is invalid: {field}: {said}', details=details)
