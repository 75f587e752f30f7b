"""The one way in for what people and outside sources say: checked, recorded at once, and told to deliveries.

Called by the server (API, files in git). A statement comes signed with a person's own key, or the server
attests a verified login where an administrator has allowed that. Whoever may not say what they try to say is
refused, and the attempt goes into the ledger.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.core.authority import SOURCE, Authority
from penstock.core.digest import digest
from penstock.core.evidence import Entry, Envelope, Statement, Subject
from penstock.core.imported import foreign, translate
from penstock.core.people import By, Genesis, Override, PolicyVersion, Quarantine, Said
from penstock.core.predicates import Attempt, Imported, Predicate
from penstock.core.saying import spoken, statement_of
from penstock.core.selection import report_name
from penstock.engine.journal import Journal
from penstock.errors import Conflict, Invalid, Refused
from penstock.ledger.again import compiled, document_of
from penstock.ledger.log import Ledger, attest
from penstock.ports import Language, Signer, Store, Transaction

#: What a source sends again within this time (seconds) is one report.
REPEAT = 600.0
#: How far a signer's clock may be from ours, seconds. What was signed long ago is not taken any more.
SKEW = 600.0
#: So many refused attempts of one login are kept within this time (seconds).
MOST_ATTEMPTS, ATTEMPTS_WITHIN = 20, 3600.0
#: The longest that an override may hold, seconds: a week; and a quarantine: long enough to mend a test.
LONGEST_OVERRIDE = 7 * 86400.0
LONGEST_QUARANTINE = 60 * 86400.0


@dataclass(frozen=True)
class Login:
    """Whom the server knows the caller to be, and from what ("token", "socket")."""

    identity: str
    kind: str


class Door:
    """*worker* signs attempts and what sources bring; *server* attests logins."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        journal: Journal,
        languages: Mapping[str, Language],
        worker: Signer,
        server: Signer,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._journal = journal
        self._languages = languages
        self._worker = worker
        self._server = server
        #: When each login's attempts were kept, as far as that still limits the next.
        self._kept: dict[str, list[float]] = {}

    # --- people ------------------------------------------------------------------------------------

    async def accept(self, envelope: Envelope, login: Login) -> Entry:
        """Record what somebody signed with a key of their own; *login* is whoever brought it."""
        return await self._say(envelope, login)

    async def attest(self, said: Said, login: Login) -> Entry:
        """Record what a verified login says, attested by the server's key: the statement says so."""
        if isinstance(said, Genesis):
            raise Invalid("a ledger begins once")
        async with self._store.transaction(write=False) as tx:
            authority = await self._ledger.authority(tx)
            now = await tx.now()
        if self._server.keyid not in authority.keys:
            raise Refused(
                "this organisation takes only statements signed with a person's own key",
                next_move="sign with --key or --ssh-agent; an administrator may allow logins: "
                "penstock identity attest-logins",
            )
        at = max(now, authority.latest.get(login.identity, 0.0) + 1e-3)
        by = By(login.identity, at, "attested", login.kind)
        return await self._say(attest(self._server, statement_of(replace(said, by=by))), login)

    async def _say(self, envelope: Envelope, login: Login) -> Entry:
        statement = envelope.statement()
        said = statement.predicate
        if not isinstance(said, Said) or isinstance(said, Genesis):
            raise Invalid(f"{said.TYPE} is not for people to say")
        if isinstance(said, PolicyVersion):
            # Beside the loop: nobody was asked yet who this is, and a long text takes seconds.
            document = await asyncio.to_thread(document_of, said)
            await asyncio.to_thread(compiled, document, self._languages)
        try:
            async with self._store.transaction() as tx:
                _timely(said, await tx.now())
                (entry,) = await self._ledger.append(tx, [envelope])
                await self._journal.nudge(tx)
                return entry
        except Refused as error:
            await self._keep_attempt(envelope, login, error)
            raise

    async def _keep_attempt(self, envelope: Envelope, login: Login, error: Refused) -> None:
        """Once for each statement, however often it is tried, and only so many of one login.

        The ledger is for ever, and whoever has a token can make refused statements by the thousand.
        """
        tried = digest(envelope.payload)
        async with self._store.transaction() as tx:
            now = await tx.now()
            kept = [at for at in self._kept.get(login.identity, ()) if at > now - ATTEMPTS_WITHIN]
            if len(kept) < MOST_ATTEMPTS and not await self._ledger.tagged(tx, f"about:{tried}"):
                signer = (await self._ledger.authority(tx)).keys.get(envelope.keyid)
                what, who = envelope.statement().predicate.TYPE, signer.identity if signer else ""
                attempt = Attempt(who, login.identity, what, error.what, tried)
                subject = Subject(login.identity, tried)
                await self._ledger.append(tx, [attest(self._worker, Statement((subject,), attempt))])
                self._kept[login.identity] = [*kept, now]

    # --- sources ---------------------------------------------------------------------------------------

    async def bring(self, subject: Subject, reports: Sequence[Predicate], login: Login) -> tuple[Entry, ...]:
        """Record reports about a digest; one that is known already is found again, not kept twice."""
        async with self._store.transaction(write=False) as tx:
            authority = await self._ledger.authority(tx)
        if not authority.covers(login.identity, SOURCE, "organisation"):
            raise Refused(
                f"{login.identity} does not hold the role {SOURCE}",
                next_move=f"an administrator grants it: penstock role grant {login.identity} {SOURCE}",
            )
        statements = [Statement((subject,), report) for report in reports]
        async with self._store.transaction() as tx:
            return tuple([await self._keep(tx, statement) for statement in statements])

    async def bring_statement(self, inner: Imported, subjects: tuple[Subject, ...]) -> Entry:
        """Record a statement that a trusted source signed elsewhere, with its signature.

        What is known already is found again, however old and in whatever formatting: anybody may bring it,
        and by bringing an earlier result once more nobody makes it the newest, or fresh. `Invalid` if it is
        of a type that policies read and cannot be read: later it would stop every gate.
        """
        translate(inner.envelope)
        async with self._store.transaction() as tx:
            for held in await self._ledger.tagged(tx, f"about:{subjects[0].digest}"):
                if _signed(held.statement.predicate) == _signed(inner):
                    return held
            return await self._keep(tx, Statement(subjects, inner))

    async def _keep(self, tx: Transaction, statement: Statement) -> Entry:
        now, said = await tx.now(), statement.predicate
        about = await self._ledger.tagged(tx, f"about:{statement.subjects[0].digest}")
        same = [e for e in about if report_name(e.statement.predicate) == report_name(said)]
        if same and _repeats(same[-1].statement.predicate, said, now):
            return same[-1]
        predicate = replace(said, at=now)  # type: ignore[arg-type]
        envelope = attest(self._worker, replace(statement, predicate=predicate))
        (entry,) = await self._ledger.append(tx, [envelope])
        await self._journal.nudge(tx)
        return entry


def _signed(said: Predicate) -> tuple[str, bytes] | None:
    """Who signed it elsewhere, and the very bytes that were signed; None for all else."""
    if not isinstance(said, Imported):
        return None
    return said.source, foreign(base64.b64decode(said.envelope)).payload


def _repeats(last: Predicate, said: Predicate, now: float) -> bool:
    """Whether it is only sent again. The same result of a later run is news: it is fresh."""
    at = getattr(last, "at", None)
    return at is not None and now - at < REPEAT and replace(last, at=None) == said  # type: ignore[arg-type]


def _timely(said: Said, now: float) -> None:
    assert not isinstance(said, Genesis)
    if isinstance(said, Quarantine) and said.expires > now + LONGEST_QUARANTINE:
        raise Invalid(f"a quarantine ends within {LONGEST_QUARANTINE / 86400:.0f} days")
    if abs(said.by.at - now) > SKEW:
        off = said.by.at - now
        raise Conflict(
            f"signed {abs(off):.0f} seconds {'ahead of' if off > 0 else 'behind'} this server's clock",
            next_move="set the clock, and sign it again",
        )
    if isinstance(said, Override):
        if not now < said.expires <= now + LONGEST_OVERRIDE:
            longest = f"{LONGEST_OVERRIDE / 86400:.0f} days"
            raise Invalid(f"an override ends in the future, and within {longest}")
        if not said.reason.strip():
            raise Invalid("an override needs a reason", next_move="--reason 'why it must pass'")


def own(said: Said, identity: str, at: float) -> Statement:
    """The statement that somebody signs with a key of their own."""
    assert not isinstance(said, Genesis)
    return statement_of(spoken(replace(said, by=By(identity)), at))


def identity_of(authority: Authority, keyid: str) -> str:
    """Who signs with a key. `Invalid` if nobody does."""
    key = authority.keys.get(keyid)
    if key is None or key.purpose != "person":
        raise Invalid(
            f"the key {keyid[:16]}… is nobody's here",
            next_move="an administrator adds it: penstock identity add NAME --public-key FILE.pub",
        )
    return key.identity
