"""People with roles and keys of their own: publishing, reviewing, overriding, bringing evidence."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from office import Office
from playhouse import Playhouse, opened
from shop_repository import git

from penstock.adapters.ed25519 import Ed25519
from penstock.core.evidence import Statement, Subject, pre_authentication_encoding, seal
from penstock.core.people import By, PolicyVersion
from penstock.core.predicates import TestResult
from penstock.core.saying import spoken, statement_of
from penstock.ledger.log import attest

REVIEWED = """
policy: four-eyes
owner: review-lead
scope: team/reviewers
guards: [deploy]
environments: [production]
waits: 600
rules:
  - id: two-approve
    patient: true
    when: evidence.reviews.approvals >= 2
    say: "'approved by ' + evidence.reviews.approvers.join(', ')"
    else: "string(evidence.reviews.approvals) + ' of 2 approvals; not counted: '
      + evidence.reviews.discounted.join(', ')"
"""
EXTERNAL = """
policy: load-tests
owner: test-lead
scope: team/loaded
guards: [deploy]
environments: [production]
waits: 600
rules:
  - id: somebody-else-tested
    patient: true
    when: evidence.tests.independent >= 2
    say: "string(evidence.tests.independent) + ' tests by others'"
    else: "string(evidence.tests.independent) + ' tests by others than the change itself'"
"""
JUNIT = (
    '<testsuite tests="2"><testcase classname="a" name="b"/><testcase classname="a" name="c"/></testsuite>'
)


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


def test_only_a_holder_of_the_owning_role_publishes_and_the_attempt_is_kept(office: Office) -> None:
    sh = office.sh
    sam = office.hire("sam", "security-lead")
    tess = office.hire("tess", "test-lead")
    file = office.write(sh.json("policy", "show", "security-lead")["source"] + "# stricter\n")
    sh("policy", "publish", file, tess)
    assert sh.code == 1
    assert "tess does not hold the role security-lead" in sh.err
    assert "operator, sam" in sh.err
    tried = office.attempts()[-1]
    assert (tried["identity"], tried["broughtBy"]) == ("tess", "operator")
    assert tried["what"] == PolicyVersion.TYPE
    assert "tess does not hold" in tried["reason"]
    published = sh.json("policy", "publish", file, sam)
    view = sh.json("evidence", "show", str(published["index"]))
    assert view["predicate"]["by"]["identity"] == "sam"
    assert view["predicate"]["by"]["how"] == "own-key"
    sh.ok("role", "revoke", "sam", "security-lead", "--reason", "moved on")
    sh("policy", "publish", office.write("# once more\n" + Path(file).read_text()), sam)
    assert sh.code == 1
    sh("policy", "retire", "security-lead", "--reason", "x", tess)
    assert sh.code == 1
    assert "security-lead" in sh.ok("policy", "list")
    assert sh.json("ledger", "verify")["verified"]


def test_a_kept_statement_cannot_be_brought_again(office: Office) -> None:
    """Nor one that was signed long ago, nor one that is not what it was signed as."""
    operator = Ed25519.load(office.house.home.keys / "operator.key")
    with office.house.client() as client:
        source = client.get("/v1/policies/test-lead").json()["source"]
        now = client.get("/v1/whoami").json()["now"]
        version = PolicyVersion(By("operator"), "test-lead", "test-lead", "organisation", source)
        good = attest(operator, statement_of(spoken(version, now)))
        first = client.post("/v1/statements", content=good.raw)
        assert first.status_code == 200, first.text
        again = client.post("/v1/statements", content=good.raw)
        assert (again.status_code, again.json()["word"]) == (409, "conflict")
        for at in (now - 3600, now + 3600):
            old = attest(operator, statement_of(spoken(version, at)))
            answer = client.post("/v1/statements", content=old.raw)
            assert (answer.status_code, "clock" in answer.json()["what"]) == (409, True)
        changed = good.raw.replace(b"signatures", b"signaturez")
        assert client.post("/v1/statements", content=changed).status_code == 422
        forged = seal(statement_of(spoken(version, now + 1)).payload(), operator.keyid, bytes(64))
        answer = client.post("/v1/statements", content=forged.raw)
        assert (answer.status_code, "not signed by operator" in answer.json()["what"]) == (403, True)


def test_a_login_is_attested_only_where_that_is_allowed(office: Office) -> None:
    sh = office.sh
    file = office.write(sh.json("policy", "show", "test-lead")["source"] + "# by login\n")
    sh("policy", "publish", file, "--login")
    assert sh.code == 1
    assert "a person's own key" in sh.err
    sh.ok("identity", "attest-logins")
    published = sh.json("policy", "publish", file, "--login")
    by = sh.json("evidence", "show", str(published["index"]))["predicate"]["by"]
    assert (by["identity"], by["how"], by["login"]) == ("operator", "attested", "socket")
    sh.ok("identity", "attest-logins", "--off")
    sh("policy", "publish", file, "--login")
    assert sh.code == 1


def test_a_token_is_somebodys_and_can_be_dropped(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    sh, url = office.sh, office.house.url
    token = sh.json("identity", "token", "jenkins")["token"]
    monkeypatch.setenv("PENSTOCK_URL", url)
    monkeypatch.setenv("PENSTOCK_TOKEN", token)
    sh("identity", "token", "mallory")
    assert sh.code == 1
    assert "jenkins does not hold the role administrator" in sh.err
    sh("ledger", "rotate-key", "--reason", "x")
    assert sh.code == 1
    monkeypatch.delenv("PENSTOCK_URL")
    assert sh.json("identity", "token", "jenkins", "--drop")["dropped"] == 1
    monkeypatch.setenv("PENSTOCK_URL", url)
    sh("status")
    assert sh.code == 1


def test_a_change_waits_for_two_people_who_are_not_its_author(office: Office) -> None:
    sh = office.sh
    sh.ok("role", "grant", "operator", "review-lead")
    lead = office.hire("lena", "review-lead")
    ada = office.hire("ada-the-author", address="ada@example.com")
    bob = office.hire("bob", "test-lead", address="bob@example.com")
    eve = office.hire("eve")
    sh.ok("policy", "publish", office.write(REVIEWED), lead)
    sh.ok("identity", "bind", "shop", "reviewers")
    delivery = office.ship("good, but reviewed", until="waits")
    waiting = sh.json("status", delivery)["waiting"]
    assert [(b["policy"], b["holders"]) for b in waiting["blocked"]] == [("four-eyes", ["lena", "operator"])]
    assert "evidence.reviews.approvals" in waiting["blocked"][0]["says"]
    assert "lena" in sh.ok("status", delivery)
    sh.ok("review", "approve", delivery, ada, "--comment", "mine is good")
    assert "will not count: ada-the-author is the author" in sh.err
    sh.ok("review", "approve", delivery, bob)
    sh.ok("review", "approve", "shop", bob)  # its newest delivery
    assert "will not count" not in sh.err
    sh.ok("review", "approve", delivery, eve)
    assert "will not count: eve has no known address" in sh.err
    assert office.comes_to_say(delivery, "1 of 2 approvals")
    says = sh.json("status", delivery)["waiting"]["blocked"][0]["says"]
    assert "ada-the-author: is the author" in says
    assert "eve: has no known address" in says
    sh.ok("identity", "add", "eve", "--address", "eve@example.com")
    assert office.outcome(delivery) == "promoted"
    explained = sh.ok("policy", "explain", delivery, "four-eyes")
    assert "approved by bob, eve" in explained
    assert explained.count("four-eyes for") == 1, "what was asked again since is not the answer"
    assert sh.ok("policy", "explain", delivery, "four-eyes", "--all").count("four-eyes for") > 1
    assert len(sh.json("why", "shop")["reviews"]) == 3
    office.bundle_verifies(delivery)
    sh.ok("identity", "bind", "shop", "nobody")


def test_a_rejection_takes_an_approval_back_and_a_lost_role_is_lost(office: Office) -> None:
    sh = office.sh
    fay = office.hire("fay", "test-lead", address="fay@example.com")
    gus = office.hire("gus", "test-lead", address="gus@example.com")
    sh.ok("identity", "bind", "shop", "reviewers")
    delivery = office.ship("good, doubted", until="waits")
    sh.ok("review", "approve", delivery, fay)
    assert office.comes_to_say(delivery, "1 of 2 approvals")
    sh.ok("review", "reject", delivery, fay, "--comment", "on second thoughts")
    assert office.comes_to_say(delivery, "0 of 2 approvals")
    sh.ok("review", "approve", delivery, gus)
    key = next(
        k
        for one in sh.json("identity", "list")["identities"]
        if one["identity"] == "gus"
        for k in one["keys"]
    )
    sh.ok("role", "revoke", "gus", "test-lead", "--reason", "left")
    sh.ok("identity", "revoke-key", key["keyid"], "--reason", "left")
    sh.ok("review", "approve", delivery, fay)
    assert office.comes_to_say(delivery, "gus: no longer known here")
    sh.ok("abort", delivery)
    assert office.outcome(delivery) == "aborted"
    sh.ok("identity", "bind", "shop", "nobody")
    assert sh.json("ledger", "verify")["verified"]


def test_a_report_from_outside_is_waited_for(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    sh = office.sh
    sh.ok("policy", "publish", office.write(EXTERNAL))
    sh.ok("identity", "bind", "shop", "loaded")
    delivery = office.ship("good, tested elsewhere", until="waits")
    report = office.write(JUNIT, "junit.xml")
    token = sh.json("identity", "token", "jenkins")["token"]
    monkeypatch.setenv("PENSTOCK_URL", office.house.url)
    monkeypatch.setenv("PENSTOCK_TOKEN", token)
    sh("evidence", "add", report, "--for", delivery, "--suite", "load")
    assert sh.code == 1
    assert "penstock role grant jenkins evidence-source" in sh.err
    monkeypatch.delenv("PENSTOCK_URL")
    sh.ok("role", "grant", "jenkins", "evidence-source")
    monkeypatch.setenv("PENSTOCK_URL", office.house.url)
    (entry,) = sh.json("evidence", "add", report, "--for", delivery, "--suite", "load")["entries"]
    (again,) = sh.json("evidence", "add", report, "--for", delivery, "--suite", "load")["entries"]
    assert again["index"] == entry["index"]
    monkeypatch.delenv("PENSTOCK_URL")
    assert office.outcome(delivery) == "promoted"
    shown = sh.json("evidence", "show", str(entry["index"]))["predicate"]
    assert (shown["origin"], shown["source"], shown["suite"]) == ("external", "jenkins", "load")
    office.bundle_verifies(delivery)
    # It came late for this delivery; nothing happens but that it is kept.
    other = office.write(JUNIT.replace('name="c"', 'name="d"'), "late.xml")
    sh.ok("evidence", "add", other, "--for", delivery, "--suite", "late")
    sh.ok("identity", "bind", "shop", "nobody")
    sh.ok("policy", "retire", "load-tests", "--reason", "tried")


def test_a_statement_signed_elsewhere_counts_if_its_source_is_trusted(office: Office) -> None:
    sh = office.sh
    artifact = sh.json("status")["services"][0]["artifact"]
    scanner = Ed25519.create(office.folder / "scanner.key")
    public = _openssh(scanner)
    result = TestResult("PASSED", "outside", (), 3, 0, 0, ())
    payload = Statement((Subject("shop", artifact),), result).payload()
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {
                "keyid": "",
                "sig": base64.b64encode(scanner.sign(pre_authentication_encoding(payload)).value).decode(),
            }
        ],
    }
    file = office.write(json.dumps(envelope, indent=3), "signed.json")
    sh("evidence", "add", file)
    assert sh.code == 1
    assert "no trusted source signed this" in sh.err
    sh.ok("identity", "add", "scanner", "--public-key", office.write(public, "scanner.pub"), "--source",
          "--type", "https://example.org/other")  # fmt: skip
    sh("evidence", "add", file)
    assert sh.code == 1
    assert "may not say" in sh.err
    sh.ok("identity", "add", "scanner", "--public-key", office.write(public, "scanner.pub"), "--source")
    (entry,) = sh.json("evidence", "add", file)["entries"]
    assert entry["what"] == "Imported"
    assert sh.json("evidence", "add", file)["entries"][0]["index"] == entry["index"]
    office.write(json.dumps(envelope).replace("PASSED", "FAILED"), "signed.json")
    assert sh.json("ledger", "verify")["verified"]


def _openssh(signer: Ed25519) -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", signer.public_key))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} scanner"


def test_an_override_lets_a_refused_release_pass_for_a_while(office: Office) -> None:
    sh = office.sh
    sue = office.hire("sue", "security-lead", address="sue@example.com")
    refused = office.ship("critical finding", until="refused")
    words = ("override", refused, "--policy", "security-lead", "--reason", "the fix is on its way")
    sh(*words, "--for", "30d", sue)
    assert sh.code == 2
    assert "7 days" in sh.err
    sh(*words, "--for", "soon", sue)
    assert sh.code == 2
    sh(*words, office.hire("tom", "test-lead", address="tom@example.com"))
    assert sh.code == 1
    assert "security-lead lets deploy of" in sh.ok(*words, "--for", "2h", sue), "as it was refused"
    assert f"penstock retry {refused}, or penstock ship" in sh.err
    (delivery,) = sh.json("ship", str(office.house.repository), "--no-wait")["deliveries"]
    assert office.outcome(delivery) == "promoted"
    explained = sh.ok("policy", "explain", delivery, "security-lead")
    assert "FAIL, overridden by sue: the fix is on its way" in explained
    out = office.bundle_verifies(delivery)
    assert "FAIL, overridden by sue (the fix is on its way)" in out
    assert "overridden by sue" in sh.ok("why", "shop")
    assert "overridden by sue" in sh.ok("status", delivery)


def test_the_logs_key_changes_and_the_trust_file_stays_good(office: Office) -> None:
    sh, home = office.sh, office.house.home
    before = sh.ok("ledger", "checkpoint")
    sh.ok("ledger", "rotate-key", "--reason", "yearly")
    sh.ok("ledger", "rotate-key", "--reason", "and once more")
    listed = sh.json("identity", "list")["log_keys"]
    assert len(listed) == 3
    assert len({key["public_key"] for key in listed}) == 3
    after = sh.ok("ledger", "checkpoint")
    assert before.split("\n")[4][:20] != after.split("\n")[4][:20]  # another key's hash in the signature line
    delivery = office.ship("good, under a new key", until="promoted")
    assert sh.json("ledger", "verify")["verified"]
    office.bundle_verifies(delivery)
    # Without the entry that names it, the new key is nobody's.
    with sqlite3.connect(home.store) as database:
        rows = database.execute("SELECT count(*) FROM checkpoints").fetchone()
    assert rows[0] > 3


def test_replay_tells_before_publishing_whom_it_would_have_refused(office: Office) -> None:
    sh = office.sh
    for number in range(4):
        office.ship(f"good, number {number}", until="promoted")
    source = sh.json("policy", "show", "development-lead")["source"]
    same = sh.json("policy", "replay", office.write(source))
    assert same["questions"] > 3
    assert all(answer["then"] == answer["now"] for answer in same["answers"])
    assert (same["refused"], same["let_through"]) == (0, 0)
    strict = source.replace("evidence.tests.passed > 0", "evidence.tests.passed > 1000")
    changed = sh.json("policy", "replay", office.write(strict))
    assert changed["refused"] > 2
    assert changed["let_through"] == 0
    assert "would have refused" in sh.ok("policy", "replay", office.write(strict), "--limit", "2")


def test_a_repository_publishes_what_its_owners_signed(office: Office) -> None:
    sh, folder = office.sh, office.folder / "organisation"
    (folder / "policies").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    val = office.key("val")
    sh.ok("identity", "add", "val", "--public-key", f"{val}.pub")
    source = sh.json("policy", "show", "operations-lead")["source"]
    (folder / "policies/operations-lead.yaml").write_text(source)
    (folder / "policies/operations-lead.test.yaml").write_text("cases: []")

    def commit(text: str, *options: str) -> None:
        (folder / "policies/operations-lead.yaml").write_text(text)
        git(folder, "add", "--all")
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={val}")
        git(folder, *signing, "commit", "--quiet", "--allow-empty", "--message", "x", *options)

    commit(source)
    sh("policy", "sync", str(folder))
    assert sh.code == 2
    assert "no CODEOWNERS" in sh.err
    (folder / "CODEOWNERS").write_text("* @somebody\n")
    commit(source, "-S")
    assert sh.json("policy", "sync", str(folder))["policies"][0]["what"] == "unchanged"
    commit(source + "# one\n", "-S")
    sh("policy", "sync", str(folder))
    assert sh.code == 1
    assert "CODEOWNERS gives this file to @somebody" in sh.err
    (folder / "CODEOWNERS").write_text("* @somebody\n/policies/operations-lead.yaml @org/operations-lead\n")
    commit(source + "# two\n")
    sh("policy", "sync", str(folder))
    assert sh.code == 1
    assert "is not signed with an ssh key" in sh.err
    commit(source + "# three\n", "-S")
    sh("policy", "sync", str(folder))
    assert "a person's own key" in sh.err
    sh.ok("identity", "attest-logins")
    sh("policy", "sync", str(folder))
    assert sh.code == 1
    assert "val does not hold the role operations-lead" in sh.err
    sh.ok("role", "grant", "val", "operations-lead")
    (done,) = sh.json("policy", "sync", str(folder))["policies"]
    assert (done["what"], done["identity"]) == ("published", "val")
    by = sh.json("evidence", "show", str(done["index"]))["predicate"]["by"]
    assert (by["identity"], by["how"]) == ("val", "attested")
    assert by["login"].startswith(f"signed commit {done['commit']} of ")
    assert sh.json("policy", "show", "operations-lead")["source"].endswith("# three\n")
    # An older revision that its owner signed once does not come back by itself.
    sh.ok("policy", "publish", office.write(source))
    sh("policy", "sync", str(folder))
    assert sh.code == 1
    assert "is not newer than what is in force" in sh.err
    sh.ok("identity", "attest-logins", "--off")
