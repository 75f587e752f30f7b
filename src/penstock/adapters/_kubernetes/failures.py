"""Turns what the API answers into the five words, with the object and the next move. Pure.

Called by `client` for every answer that is no success. The table, by status and reason:

    400, 422            Invalid      a field is wrong: the API's own words name it
    "not declared"      Invalid      a field that this cluster does not know; some say so with a 500
    401                 Refused      it does not know us
    403                 Refused      a right is missing: which verb on which resource
    403 exceeded quota  Unavailable  the namespace is full: it may have room later
    404 of the path     Invalid      the cluster does not know the kind (its CRD is missing)
    404 of an object    Invalid      it is gone, or its namespace was never there
    409                 Conflict     someone moved it, or owns the field
    410                 Conflict     our version is too old: list again
    429, 5xx            Unavailable  later, after so many seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.adapters._kubernetes.kinds import Kind
from penstock.errors import Broken, Conflict, Invalid, PenstockError, Refused, Unavailable

#: So much of an answer that is not the API's own is repeated.
MOST_WORDS = 1000
#: As server-side apply says it.
UNKNOWN_FIELD = "field not declared in schema"


@dataclass(frozen=True)
class Call:
    """What was asked: *verb* as RBAC names it (``get``, ``list``, ``watch``, ``create``, ``update``,
    ``patch``, ``delete``)."""

    verb: str
    kind: Kind
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def where(self) -> str:
        return f"{self.kind.full} {self.namespace}/{self.name}".rstrip("/")

    @property
    def right(self) -> str:
        part = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} on {self.kind.plural}{part}" + (f".{self.kind.group}" if self.kind.group else "")


class Drift(Conflict):
    """Somebody else owns a field that we were about to set: *manager*, as the API names it. It is a
    `Conflict` for whoever does not care who."""

    def __init__(self, what: str, *, where: str, next_move: str, managers: tuple[str, ...]) -> None:
        super().__init__(what, where=where, next_move=next_move)
        self.managers = managers


class Moved(Conflict):
    """It is another version by now, or there already: read it, and decide again."""


class TooOld(Conflict):
    """The version that a watch was to go on from is not kept any more."""


def not_begun(status: int, body: Any) -> bool:
    """Whether the API refused to begin: it has too much to do, or others used up its tries to count a quota,
    which it tells as a conflict of the quota (kubernetes/kubernetes#67761). The same may be asked again."""
    details = (body.get("details") or {}) if isinstance(body, dict) else {}
    return status == 429 or (status == 409 and details.get("kind") == "resourcequotas")


def failure(call: Call, status: int, body: Any, retry_after: float = 0.0) -> PenstockError:
    """The error for an answer with this *status*; *body* is its JSON, or its text where it was none."""
    answer = body if isinstance(body, dict) else {}
    said = str(answer.get("message") or body or f"status {status}")[:MOST_WORDS].strip()
    match status:
        case _ if status in (400, 422) or UNKNOWN_FIELD in said:
            return Invalid(said, where=call.where, next_move="correct the field that the API names")
        case 401:
            return Refused(
                f"the API does not accept our credentials: {said}",
                where=call.where,
                next_move="renew the token or certificate of the kubeconfig",
            )
        case 403:
            return _forbidden(call, said)
        case 404:
            return _absent(call, answer, said)
        case _ if not_begun(status, body):
            return _later(call, f"the API has too much to do: {said}", retry_after)
        case 409:
            return _conflict(call, answer, said)
        case 410:
            return TooOld(said, where=call.where, next_move="list again")
        case _ if status >= 500:
            return _later(call, f"the API failed ({status}): {said}", retry_after)
    return Broken(f"the API answered {status}: {said}", where=call.where)


def silence(call: Call, server: str, why: str) -> Unavailable:
    """Nothing came back. Of a change nobody knows whether it was made: read before it is made again."""
    return Unavailable(
        f"the Kubernetes API at {server} does not answer: {why}",
        where=call.where,
        next_move="see that the API server runs and can be reached from here",
    )


def _later(call: Call, what: str, retry_after: float) -> Unavailable:
    move = f"try again after {retry_after:g} s" if retry_after else "try again in a while"
    return Unavailable(what, where=call.where, next_move=move)


def _forbidden(call: Call, said: str) -> PenstockError:
    asked = Refused(
        said, where=call.where, next_move="an admission rule of the cluster says no: ask its owner"
    )
    if said.startswith("admission webhook "):  # whatever else its words may say
        return asked
    if "exceeded quota" in said:
        return Unavailable(
            f"the namespace's quota is used up: {said}",
            where=call.where,
            next_move=f"kubectl describe quota -n {call.namespace}; remove what is not needed, or raise it",
        )
    if "cannot" in said and "resource" in said:
        return Refused(
            f"a right is missing: {call.right} in namespace {call.namespace} ({said})",
            where=call.where,
            next_move="grant it: docs/guides/kubernetes.md lists what Penstock needs",
        )
    return asked


def _absent(call: Call, answer: dict[str, Any], said: str) -> Invalid:
    details = answer.get("details") or {}
    if details.get("kind") == "namespaces" or 'namespaces "' in said:
        move = f"kubectl create namespace {call.namespace}"
        return Invalid(f"there is no namespace {call.namespace}", where=call.where, next_move=move)
    if details.get("name"):
        return Invalid("it is not there", where=call.where, next_move="see whether somebody removed it")
    return Invalid(
        f"this cluster does not know {call.kind.full}/{call.kind.version}",
        where=call.where,
        next_move=f"install what brings the CRD of {call.kind.name} ({call.kind.group or 'core'})",
    )


def _conflict(call: Call, answer: dict[str, Any], said: str) -> Conflict:
    causes = (answer.get("details") or {}).get("causes") or []
    owned = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if not owned:
        return Moved(said, where=call.where, next_move="read it again")
    managers = tuple(sorted({_manager(str(cause.get("message", ""))) for cause in owned}))
    fields = ", ".join(str(cause.get("field", "?")) for cause in owned)
    return Drift(
        f"{', '.join(managers)} changed {fields}, which Penstock sets",
        where=call.where,
        next_move="put it back, or take it out of the other tool's hands",
        managers=managers,
    )


def _manager(message: str) -> str:
    """Of ``conflict with "kubectl" using apps/v1``."""
    return message.split('"')[1] if message.count('"') >= 2 else message
