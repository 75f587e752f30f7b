"""The owner matrix: each role, in each scope, with each verb; and what no role may do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from penstock.core.authority import ADMINISTRATOR, DEPLOYER, LEADS, SOURCE, Authority
from penstock.core.digest import digest, hex_of
from penstock.core.evidence import Entry, Statement, seal
from penstock.core.people import (
    BY_PEOPLE,
    Binding,
    By,
    Genesis,
    KeyGrant,
    KeyRevocation,
    LogKey,
    Override,
    Person,
    PolicyRetirement,
    PolicyVersion,
    Quarantine,
    Review,
    RoleGrant,
    RoleRevocation,
    Said,
    SloRetirement,
    SloVersion,
)
from penstock.core.predicates import Attempt, Ended, Findings, Predicate
from penstock.core.saying import named, spoken, statement_of
from penstock.errors import Conflict, Invalid, PenstockError, Refused

ROLES = (ADMINISTRATOR, *LEADS, DEPLOYER, SOURCE)
SCOPES = ("organisation", "team/shop", "team/other")
#: Held by nobody but the operator and one person for each (role, scope); catalog belongs to shop.
PEOPLE = {f"{role}-{scope.replace('/', '-')}": (role, scope) for role in ROLES for scope in SCOPES}
SOME = "aa" * 32
OP = By("op")


class Hall:
    """An authority, and who says the next thing. Signatures are somebody else's to check."""

    def __init__(self) -> None:
        self.authority, self.size, self.clock = Authority(), 0, 0.0
        self.raw = {
            name: digest(name.encode())[7:] for name in ("op", "w", "server", "src", "nobody", *PEOPLE)
        }
        self.say("op", Genesis("log", self.raw["w"], "op", self.raw["op"], ROLES))
        for name, (role, scope) in PEOPLE.items():
            self.say("op", KeyGrant(OP, name, self.raw[name], "person"))
            self.say("op", RoleGrant(OP, name, role, scope))
        self.say("op", KeyGrant(OP, "nobody", self.raw["nobody"], "person"))
        self.say("op", KeyGrant(OP, "worker", self.raw["w"], "worker"))
        self.say("op", KeyGrant(OP, "src", self.raw["src"], "source"))
        self.say("op", Binding(OP, "catalog", "shop"))
        for scope in ("organisation", "team/shop", "service/catalog", "service/unbound"):
            self.say("op", policy(OP, scope))
        for service in ("catalog", "unbound"):
            self.say("op", SloVersion(OP, service, "availability", "text"))

    def entry(self, signer: str, predicate: Predicate) -> Entry:
        self.clock += 1.0
        if isinstance(predicate, BY_PEOPLE):
            statement = statement_of(spoken(predicate, self.clock))  # type: ignore[arg-type]
        else:
            statement = Statement((named("x"),), predicate)
        keyid = hex_of(digest(bytes.fromhex(self.raw[signer])))
        return Entry(self.size, seal(statement.payload(), keyid, b"s"), statement)

    def say(self, signer: str, predicate: Predicate) -> None:
        self.authority = self.authority.admit(self.entry(signer, predicate))
        self.size += 1

    def may(self, signer: str, predicate: Predicate) -> bool:
        """Whether it would be admitted; nothing changes."""
        try:
            self.authority.admit(self.entry(signer, predicate))
        except Refused:
            return False
        return True


def policy(by: By, scope: str, owner: str = "security-lead") -> PolicyVersion:
    return PolicyVersion(by, f"p-{scope.replace('/', '-')}", owner, scope, f"text for {scope}")


@pytest.fixture(scope="module")
def hall() -> Hall:
    return Hall()


RELEASE = digest(b"release")
Verb = Callable[[By], Said]
VERBS: dict[str, Verb] = {
    "grant a key": lambda by: KeyGrant(by, "new", SOME, "person"),
    "grant a worker's key": lambda by: KeyGrant(by, "new", SOME, "worker"),
    "let the server attest logins": lambda by: KeyGrant(by, "server", SOME, "server"),
    "trust a source": lambda by: KeyGrant(by, "new", SOME, "source"),
    "take somebody's key": lambda by: KeyRevocation(by, _keyid("nobody"), "lost"),
    "say whose address it is": lambda by: Person(by, "nobody", ("n@example.org",)),
    "change the log's key": lambda by: LogKey(by, SOME, "yearly"),
    "bind a service": lambda by: Binding(by, "catalog", "other"),
    "grant a role to all": lambda by: RoleGrant(by, "nobody", "test-lead"),
    "grant a role in shop": lambda by: RoleGrant(by, "nobody", "test-lead", "team/shop"),
    "revoke a role of all": lambda by: RoleRevocation(
        by, "test-lead-organisation", "test-lead", "organisation", "x"
    ),
    "revoke a role in shop": lambda by: RoleRevocation(
        by, "test-lead-team-shop", "test-lead", "team/shop", "x"
    ),
    "publish for all": lambda by: policy(by, "organisation"),
    "publish for shop": lambda by: policy(by, "team/shop"),
    "publish for catalog": lambda by: policy(by, "service/catalog"),
    "publish for an unbound service": lambda by: policy(by, "service/unbound"),
    "retire for all": lambda by: PolicyRetirement(by, "p-organisation", "x"),
    "retire for shop": lambda by: PolicyRetirement(by, "p-team-shop", "x"),
    "retire for catalog": lambda by: PolicyRetirement(by, "p-service-catalog", "x"),
    "publish an SLO of catalog": lambda by: SloVersion(by, "catalog", "availability", "text"),
    "publish an SLO of an unbound service": lambda by: SloVersion(by, "unbound", "availability", "text"),
    "retire an SLO of catalog": lambda by: SloRetirement(by, "catalog", "availability", "x"),
    "retire an SLO of an unbound service": lambda by: SloRetirement(by, "unbound", "availability", "x"),
    "override for all": lambda by: Override(by, "p-organisation", "deploy", RELEASE, "x", 1.0),
    "override for shop": lambda by: Override(by, "p-team-shop", "deploy", RELEASE, "x", 1.0),
    "quarantine in catalog": lambda by: Quarantine(by, "catalog", "test_a", "x", 1.0),
    "quarantine in an unbound service": lambda by: Quarantine(by, "unbound", "test_a", "x", 1.0),
    "review": lambda by: Review(by, "ab" * 20, "approve", ""),
}
ADMINISTRATORS = {(ADMINISTRATOR, "organisation")}
SECURITY = {("security-lead", "organisation")}
TESTING = {("test-lead", "organisation")}
OPERATIONS = {("operations-lead", "organisation")}
SHOP_OPERATIONS = OPERATIONS | {("operations-lead", "team/shop")}
SHOP_SECURITY = SECURITY | {("security-lead", "team/shop")}
#: Who may do it, beside the operator, who holds every role.
ALLOWED: dict[str, set[tuple[str, str]]] = {
    "grant a key": ADMINISTRATORS,
    "grant a worker's key": ADMINISTRATORS,
    "let the server attest logins": ADMINISTRATORS,
    "trust a source": ADMINISTRATORS,
    "take somebody's key": ADMINISTRATORS,
    "say whose address it is": ADMINISTRATORS,
    "change the log's key": ADMINISTRATORS,
    "bind a service": ADMINISTRATORS,
    "grant a role to all": ADMINISTRATORS,
    "grant a role in shop": ADMINISTRATORS | {(ADMINISTRATOR, "team/shop")},
    "revoke a role of all": ADMINISTRATORS,
    "revoke a role in shop": ADMINISTRATORS | {(ADMINISTRATOR, "team/shop")},
    "publish for all": SECURITY,
    "publish for shop": SHOP_SECURITY,
    "publish for catalog": SHOP_SECURITY,
    "publish for an unbound service": SECURITY,
    "retire for all": SECURITY,
    "retire for shop": SHOP_SECURITY,
    "retire for catalog": SHOP_SECURITY,
    "publish an SLO of catalog": SHOP_OPERATIONS,
    "publish an SLO of an unbound service": OPERATIONS,
    "retire an SLO of catalog": SHOP_OPERATIONS,
    "retire an SLO of an unbound service": OPERATIONS,
    "override for all": SECURITY,
    "override for shop": SHOP_SECURITY,
    "quarantine in catalog": TESTING | {("test-lead", "team/shop")},
    "quarantine in an unbound service": TESTING,
    "review": {*PEOPLE.values()},
}


def _keyid(name: str) -> str:
    return hex_of(digest(bytes.fromhex(digest(name.encode())[7:])))


@pytest.mark.parametrize("verb", VERBS)
def test_the_owner_matrix(hall: Hall, verb: str) -> None:
    """Each (role, scope) holder with this verb: 21 of them, and those who hold nothing."""
    allowed = {name for name in PEOPLE if hall.may(name, VERBS[verb](By(name)))}
    assert {PEOPLE[name] for name in allowed} == ALLOWED[verb]
    assert hall.may("op", VERBS[verb](OP))
    assert hall.may("nobody", VERBS[verb](By("nobody"))) == (verb in ("review", "take somebody's key"))


def test_the_matrix_has_every_statement_that_people_make() -> None:
    said = {type(make(OP)) for make in VERBS.values()}
    assert said == {*BY_PEOPLE} - {Genesis}


@pytest.mark.parametrize(("verb", "machine"), list(itertools.product(VERBS, ("w", "src"))))
def test_a_machine_says_nothing_for_people(hall: Hall, verb: str, machine: str) -> None:
    assert not hall.may(machine, VERBS[verb](By("worker")))
    assert not hall.may(machine, VERBS[verb](OP))
    assert not hall.may(machine, VERBS[verb](By("op", how="attested", login="token")))


@pytest.mark.parametrize("verb", VERBS)
def test_nobody_speaks_in_anothers_name(hall: Hall, verb: str) -> None:
    for by in (OP, By("security-lead-organisation"), By("nobody", how="attested", login="token")):
        assert not hall.may("nobody", VERBS[verb](by))


@pytest.mark.parametrize("verb", VERBS)
def test_an_attested_login_holds_what_its_identity_holds(hall: Hall, verb: str) -> None:
    """Only once the server's key is granted, and only if the statement says how it is known."""
    attested = Hall()
    by = By("op", how="attested", login="token")
    assert "server" not in {key.identity for key in attested.authority.keys.values()}
    with pytest.raises(Refused, match="nobody granted"):
        attested.say("server", VERBS[verb](by))
    attested.say("op", KeyGrant(OP, "server", attested.raw["server"], "server"))
    assert attested.may("server", VERBS[verb](by))
    assert not attested.may("server", VERBS[verb](OP))
    assert not attested.may("server", VERBS[verb](By("op", how="attested")))
    assert not attested.may("server", VERBS[verb](By("stranger", how="attested", login="token")))
    name = "test-lead-organisation"
    assert attested.may("server", VERBS[verb](By(name, how="attested", login="token"))) == (
        ("test-lead", "organisation") in ALLOWED[verb]
    )


def test_a_person_gives_no_machine_evidence(hall: Hall) -> None:
    for signer in ("op", "nobody", "src"):
        assert not hall.may(signer, Ended("d", "success", "x", ""))
        assert not hall.may(signer, Attempt("x", "x", "y", "z", RELEASE))
    assert hall.may("w", Ended("d", "success", "x", ""))


def test_a_report_from_outside_is_brought_by_a_source(hall: Hall) -> None:
    def report(source: str) -> Findings:
        return Findings("t", "external", 0, 0, 0, 0, (), None, source, None)

    assert hall.may("w", report("op"))
    assert hall.may("w", report(f"{SOURCE}-organisation"))
    assert not hall.may("w", report("nobody"))
    assert not hall.may("w", report("security-lead-organisation"))


def test_who_operates_a_service(hall: Hall) -> None:
    """Each (role, scope) holder: catalog belongs to shop, the other to nobody."""
    for service, scopes in (("catalog", ("organisation", "team/shop")), ("unbound", ("organisation",))):
        operating = {PEOPLE[name] for name in PEOPLE if hall.authority.operates(name, service)}
        assert operating == {(r, s) for r in (ADMINISTRATOR, *LEADS, DEPLOYER) for s in scopes}
        assert hall.authority.operates("op", service)
        assert not hall.authority.operates("nobody", service)
        assert not hall.authority.operates("stranger", service)


@pytest.mark.parametrize(
    "service",
    ["shop", "team/shop", "catalog/", "Catalog", "cat", "catalog2", "\u0441atalog", "catalog\0", ""],
)
def test_a_name_that_looks_like_another_is_not_that_service(hall: Hall, service: str) -> None:
    """Prefixes, other cases, letters that look alike, a team's name: only the service itself counts."""
    assert not hall.authority.operates(f"{DEPLOYER}-team-shop", service)


# --- over time -----------------------------------------------------------------------------------------


def test_a_role_that_was_lost_counts_no_more() -> None:
    hall, who = Hall(), "security-lead-organisation"
    assert hall.may(who, policy(By(who), "organisation"))
    hall.say("op", RoleRevocation(OP, who, "security-lead", "organisation", "left"))
    assert not hall.may(who, policy(By(who), "organisation"))
    hall.say("op", RoleGrant(OP, who, "security-lead"))
    assert hall.may(who, policy(By(who), "organisation"))


def test_a_key_that_was_revoked_signs_no_more() -> None:
    hall, who = Hall(), "security-lead-organisation"
    hall.say(who, KeyRevocation(By(who), _keyid(who), "lost"))
    assert not hall.may(who, policy(By(who), "organisation"))
    assert not hall.may(who, Review(By(who), "ab" * 20, "approve", ""))


def test_nothing_is_said_twice() -> None:
    """Whoever kept somebody's signed statement cannot bring it again: not even word for word."""
    hall, who = Hall(), "security-lead-organisation"
    entry = hall.entry(who, policy(By(who), "organisation"))
    hall.authority, hall.size = hall.authority.admit(entry), hall.size + 1
    for again in (replace(entry, index=hall.size), hall.entry(who, policy(By(who), "organisation"))):
        if again.envelope == entry.envelope:
            with pytest.raises(Conflict, match="said something later"):
                hall.authority.admit(again)
        else:
            hall.authority.admit(again)
    earlier = statement_of(spoken(policy(By(who), "organisation"), hall.clock - 1))
    stale = Entry(hall.size, seal(earlier.payload(), _keyid(who), b"s"), earlier)
    with pytest.raises(Conflict):
        hall.authority.admit(stale)


def test_the_name_of_a_retired_policy_stays_its_owners() -> None:
    hall = Hall()
    hall.say("op", PolicyRetirement(OP, "p-organisation", "x"))
    assert "p-organisation" not in hall.authority.policies
    takeover = policy(By("test-lead-organisation"), "organisation", "test-lead")
    assert not hall.may("test-lead-organisation", takeover)
    own = policy(By("security-lead-organisation"), "organisation")
    assert hall.may("security-lead-organisation", own)


@pytest.mark.parametrize("scope", ["organisation", "team/other"])
def test_a_team_cannot_take_a_policy_out_of_its_scope(scope: str) -> None:
    """Nor may anybody hand a policy to a role, or move it to a scope, that is not theirs."""
    hall, who = Hall(), "security-lead-team-shop"
    moved = replace(policy(By(who), scope), name="p-team-shop")
    assert not hall.may(who, moved)
    taken = replace(policy(By(who), "team/shop"), name="p-organisation")
    assert not hall.may(who, taken)
    handed = replace(policy(By(who), "team/shop"), owner="test-lead")
    assert not hall.may(who, handed)


def test_rebinding_a_service_moves_its_policies() -> None:
    hall, shop, other = Hall(), "security-lead-team-shop", "security-lead-team-other"
    assert hall.may(shop, policy(By(shop), "service/catalog"))
    hall.say("op", Binding(OP, "catalog", "other"))
    assert not hall.may(shop, policy(By(shop), "service/catalog"))
    assert hall.may(other, policy(By(other), "service/catalog"))


def test_somebody_is_always_left_who_can_grant() -> None:
    hall = Hall()
    name = f"{ADMINISTRATOR}-organisation"
    hall.say("op", RoleRevocation(OP, name, ADMINISTRATOR, "organisation", "x"))
    with pytest.raises(Invalid, match="nobody would be left"):
        hall.say("op", RoleRevocation(OP, "op", ADMINISTRATOR, "organisation", "x"))
    with pytest.raises(Invalid, match="nobody would be left"):
        hall.say("op", KeyRevocation(OP, _keyid("op"), "x"))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (KeyGrant(OP, "x y", SOME, "person"), "not an identity"),
        (KeyGrant(OP, "", SOME, "person"), "not an identity"),
        (KeyGrant(OP, "x", "zz", "person"), "hex"),
        (KeyGrant(OP, "thief", digest(b"nobody")[7:], "person"), "signs as nobody already"),
        (KeyRevocation(OP, "ff", "x"), "there is no key"),
        (LogKey(OP, "ab", "x"), "hex"),
        (Binding(OP, "Not A Name", "shop"), "not a name"),
        (RoleGrant(OP, "x", "Not A Role"), "not a name"),
        (RoleGrant(OP, "x", "test-lead", "service/catalog"), "not a scope"),
        (RoleGrant(OP, "x", "test-lead", "team/"), "not a scope"),
        (RoleRevocation(OP, "nobody", "test-lead", "organisation", "x"), "does not hold"),
        (PolicyVersion(OP, "p", "security-lead", "everywhere", "t"), "not a scope"),
        (PolicyRetirement(OP, "p", "x"), "no policy 'p' is in force"),
        (SloVersion(OP, "Not A Name", "a", "t"), "not a name"),
        (SloVersion(OP, "catalog", "not/a/name", "t"), "not a name"),
        (SloRetirement(OP, "catalog", "p", "x"), "catalog has no SLO 'p' in force; in force: availability"),
        (SloRetirement(OP, "shop", "availability", "x"), "in force: none"),
        (Override(OP, "p", "deploy", RELEASE, "x", 1.0), "no policy 'p' is in force"),
    ],
)
def test_what_makes_no_sense_is_invalid(hall: Hall, said: Said, problem: str) -> None:
    with pytest.raises(PenstockError, match=problem) as caught:
        hall.authority.admit(hall.entry("op", said))
    assert isinstance(caught.value, Invalid)
    assert caught.value.where == f"entry {hall.size}"


def test_a_refusal_names_who_could(hall: Hall) -> None:
    with pytest.raises(Refused) as caught:
        hall.say("nobody", policy(By("nobody"), "team/shop"))
    assert "nobody does not hold the role security-lead for team/shop" in str(caught.value)
    assert "security-lead-organisation, security-lead-team-shop" in caught.value.next_move
