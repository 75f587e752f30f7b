"""Answers a Kubernetes API server: may this object be let in? Only images that are cleared may be run.

Called by `app`: beside everything else, where it takes a token, and alone, where it takes none. It decides
nothing: `projections.clearance` says what is cleared. It only reads: a dry run is answered like any other.
What is wrong with the object is said in the answer; what cannot be answered at all (no AdmissionReview, no
database) is an error, and the webhook's ``failurePolicy`` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request

from penstock.bootstrap.control import ControlPlane
from penstock.core.digest import hex_of
from penstock.core.outside import clean
from penstock.core.release import PRODUCTION
from penstock.errors import Invalid, PenstockError, Refused
from penstock.ledger.live import Promotions
from penstock.ledger.log import Ledger
from penstock.ports import Store
from penstock.projections.clearance import Clearance, cleared, known_of
from penstock.server.podimages import API_VERSION, Named, images, open_review
from penstock.server.views import View

PATH = "/v1/admission/kubernetes"
#: What the API server keeps of one warning, and what fits a terminal of an answer.
MOST_WARNING, MOST_WORDS = 250, 4000


@dataclass(frozen=True)
class Judged:
    """Of one image: *refused* unless it may be run; *says* why it may."""

    says: str
    refused: PenstockError | None = None
    warnings: tuple[str, ...] = ()


def routes(control: ControlPlane) -> APIRouter:
    """An environment for each path: which namespaces are which, the webhook's configuration says."""
    router = APIRouter(prefix=PATH)
    known = control.home.settings.admission
    gatekeeper = Gatekeeper(control.store, control.ledger, known.also if known else ())

    @router.post("")
    async def production(request: Request) -> View:
        """Whether an object may be let into production: an AdmissionReview in, an AdmissionReview out."""
        return await gatekeeper.answer(await request.body(), PRODUCTION)

    @router.post("/{environment}")
    async def into(environment: str, request: Request) -> View:
        """The same, for an environment by name."""
        return await gatekeeper.answer(await request.body(), environment)

    @router.post("/{environment}/warn")
    async def trying(environment: str, request: Request) -> View:
        """The same, but everything is let in: what would be refused is a warning."""
        return await gatekeeper.answer(await request.body(), environment, only_warn=True)

    return router


class Gatekeeper:
    """*also* are names of images, or of what they begin with, that are let in unseen."""

    def __init__(self, store: Store, ledger: Ledger, also: Sequence[str] = ()) -> None:
        self._store = store
        self._ledger = ledger
        self._also = also
        self._promotions = Promotions(ledger)

    async def answer(self, body: bytes, environment: str, *, only_warn: bool = False) -> View:
        """The AdmissionReview to answer with. `Invalid` for what is none."""
        review = open_review(body)
        try:
            judged = [await self._judge(named, environment) for named in images(review)]
        except Invalid as error:
            judged = [Judged("", error)]
        refusals = [_words(one.refused) for one in judged if one.refused is not None]
        warnings = [words for one in judged for words in one.warnings]
        if only_warn:
            warnings, refusals = [*warnings, *refusals], []
        response: dict[str, object] = {"uid": review.uid, "allowed": not refusals}
        if refusals:
            words = "\n".join(dict.fromkeys(refusals))[:MOST_WORDS]
            response["status"] = {"code": Refused.http_status, "reason": "Forbidden", "message": words}
        if warnings:
            response["warnings"] = [_warning(words) for words in dict.fromkeys(warnings)]
        if says := _audit(judged):
            response["auditAnnotations"] = {"clearance": says}
        return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}

    async def _judge(self, named: Named, environment: str) -> Judged:
        if any(_begins(named.image, name) for name in self._also):
            return Judged(f"{clean(named.image, 200)} is let in unseen here")
        try:
            artifact = _digest(named)
        except Invalid as error:
            return Judged("", error)
        async with self._store.transaction(write=False) as tx:
            known = await known_of(self._ledger, self._promotions, tx, artifact, environment)
        found = cleared(known)
        if found.cleared:
            return Judged(found.says, warnings=found.overridden)
        return Judged("", _refusal(named, found))


def _begins(image: str, name: str) -> bool:
    """Whether *name* is the image, or all of it up to a ``/``, a tag or a digest."""
    if not image.startswith(name) or name.endswith("/"):
        return image.startswith(name)
    rest = image[len(name) :]
    # After a registry's name comes a port: what listens there is another registry.
    return rest[:1] in ("", "/", "@") or (rest[0] == ":" and "/" not in rest)


def _digest(named: Named) -> str:
    """The digest by which an image is named. `Invalid` if it is by a tag alone: that may be another image
    tomorrow."""
    artifact = named.image.rpartition("@")[2] if "@" in named.image else ""
    try:
        hex_of(artifact)
    except Invalid:
        what = f"{clean(named.image, 200) or '(no image)'} names no sha256 digest"
        move = "name it as NAME@sha256:…; sign-offs are for a digest"
        raise Invalid(what, where=named.where, next_move=move) from None
    return artifact


def _refusal(named: Named, found: Clearance) -> Refused:
    return Refused(found.says, where=f"{named.where} {clean(named.image, 200)}", next_move=found.next_move)


def _words(error: PenstockError) -> str:
    return f"penstock: {error}"


def _warning(words: str) -> str:
    return clean(" ".join(words.split()), MOST_WARNING)


def _audit(judged: Sequence[Judged]) -> str:
    """For the cluster's audit log: what each image was let in for."""
    return clean("; ".join(dict.fromkeys(one.says for one in judged if one.says)), MOST_WORDS)
