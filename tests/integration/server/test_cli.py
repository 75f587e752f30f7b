"""The commands against a real server: what they print, for people and for scripts, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playhouse import Playhouse, Told, opened
from shell import Shell
from shop_repository import git

from fakes.witness import WitnessServer


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    """A server of their own: commands change what is live."""
    with opened() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def told(house: Playhouse) -> Told:
    return house.tell()


def test_ship_shows_its_steps_and_ends_well(sh: Shell, house: Playhouse) -> None:
    house.commit("good again")
    out = sh("ship", str(house.repository))
    assert (sh.code, sh.err) == (0, "")
    for step in ("✓ build", "✓ deploy: sign-offs", "✓ canary: 5%", "✓ promote", "✓ promoted"):
        assert step in out
    assert out.rstrip().endswith("answers at http://127.0.0.1:8600")


def test_ship_says_who_refused_why_and_what_next(sh: Shell, house: Playhouse) -> None:
    house.commit("critical finding")
    out = sh("ship", str(house.repository))
    assert sh.code == 1
    assert "✗ refused by security-lead" in out
    assert "1 critical: CVE-1" in out
    assert "security-lead: security-lead" not in out
    assert "next: penstock logs shop-" in sh.err


def test_ship_says_what_it_leaves_out(sh: Shell, house: Playhouse) -> None:
    file = house.repository / "edited.py"
    file.write_text("price = 1\n")
    git(house.repository, "add", "edited.py")
    house.commit("good, with a file")
    try:
        file.write_text("price = 2\n")
        (house.repository / "never_added.txt").touch()
        sh("ship", str(house.repository), "--no-wait")
        assert (sh.code, "not committed: edited.py of" in sh.err) == (0, True)
        assert "next: git commit" in sh.err
        sh("ship", str(house.repository), "--revision", "HEAD", "--no-wait")
        assert sh.err == "", "whoever names a commit knows which one"
    finally:
        git(house.repository, "checkout", "--quiet", "--", ".")
        (house.repository / "never_added.txt").unlink()


def test_an_override_takes_the_newest_delivery_of_a_service(sh: Shell, house: Playhouse) -> None:
    refused = house.ship("critical finding, overridden")
    sh.ok("override", "shop", "--policy", "security-lead", "--reason", "known", "--for", "5m")
    newest = sh.json("evidence", "list")["entries"][-1]
    assert refused["release_digest"] in str(sh.json("evidence", "show", str(newest["index"])))


def test_ship_without_waiting_gives_ids(sh: Shell, house: Playhouse) -> None:
    house.commit("good, later")
    (delivery,) = sh.json("ship", str(house.repository), "--no-wait")["deliveries"]
    with house.client() as client:
        assert house.ended(client, delivery)["outcome"] == "promoted"


def test_a_document_on_standard_output_is_whole_and_alone(sh: Shell, house: Playhouse) -> None:
    house.commit("slow once more")
    view = sh.json("ship", str(house.repository))
    assert sh.code == 1
    assert (view["outcome"], sh.err) == ("rolled-back", "")


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("why", "shop"),
        ("policy", "list"),
        ("policy", "show", "test-lead"),
        ("policy", "facts"),
        ("evidence", "list"),
        ("evidence", "show", "0"),
        ("ledger", "verify"),
        ("ledger", "checkpoint"),
        ("ledger", "witness"),
        ("logs", "shop"),
    ],
)
def test_a_command_has_words_for_people_and_a_document_for_scripts(sh: Shell, words: tuple[str, ...]) -> None:
    assert sh(*words).strip()
    assert (sh.code, sh.err) == (0, "")
    assert sh.json(*words)
    assert (sh.code, sh.err) == (0, "")


def test_status_shows_what_is_live_and_who_refused(sh: Shell, told: Told) -> None:
    out = sh("status")
    assert "100%" in out
    assert told.refused["id"] in out
    assert "development-lead" in out
    assert sh.json("status", told.good["id"])["outcome"] == "promoted"


def test_logs_of_a_stage(sh: Shell, told: Told) -> None:
    assert "suite <of>" in sh("logs", told.good["id"], "tests")
    assert "build <of>" not in sh.out


def test_rollback_comes_back_and_why_says_so(sh: Shell, told: Told) -> None:
    before = sh.json("why", "shop")["release"]["id"]
    view = sh.json("rollback", "shop", "--reason", "prices must be in EUR")
    assert (sh.code, view["outcome"]) == (0, "restored")
    why = sh.json("why", "shop")
    assert why["release"]["id"] != before
    assert "restored      by a rollback" in sh("why", "shop")
    (running,) = sh.json("status")["services"]
    assert running["live"] == why["release"]["id"]


def test_abort_stops_a_running_delivery(sh: Shell, house: Playhouse) -> None:
    house.commit("hangs here too")
    (delivery,) = sh.json("ship", str(house.repository), "--no-wait")["deliveries"]
    assert sh.json("abort", delivery) == {"delivery": delivery}
    with house.client() as client:
        assert house.ended(client, delivery)["outcome"] == "aborted"


def test_what_has_ended_says_what_is_and_what_can_be_done(sh: Shell, told: Told) -> None:
    back = told.rolled_back["id"]
    for delivery, what, move in (
        (told.good["id"], "it has ended already: promoted", "penstock rollback shop"),
        (back, "it has ended already: rolled-back, and has no users", f"penstock rerun {back}"),
    ):
        sh("abort", delivery)
        assert (sh.code, sh.err.splitlines()[0]) == (1, f"✗ {delivery}: {what}")
        assert sh.err.splitlines()[1].startswith(f"  next: {move}")


def test_after_a_rollback_everything_says_why_and_where_to_look(sh: Shell, told: Told) -> None:
    name = told.rolled_back["id"]
    why = f"✗ rolled-back at canary: look 1: {told.rolled_back['reason']}"
    move = (
        f"next: penstock logs {name} rollback; penstock canary replay {name}; penstock policy explain {name}"
    )
    assert "p95 900 ms against 20 ms" in why
    for words in (("policy", "explain"), ("why",), ("status",)):
        assert why in sh(*words, name)
        assert move in sh.out
    assert "rollback <of>" in sh("logs", name, "rollback")
    assert (why in sh.err, move in sh.err) == (True, True)


def test_a_service_is_taken_for_its_newest_delivery_where_that_is_only_looked_at(sh: Shell) -> None:
    newest = sh.json("status")["deliveries"][0]["id"]
    for words in (("status", "shop"), ("policy", "explain", "shop")):
        view = sh.json(*words)
        assert view.get("id", view.get("delivery")) == newest
    assert sh("evidence", "list", "shop") == sh("evidence", "list", newest)
    sh("abort", "shop")
    assert sh.code == 2
    assert "shop is a service, not a delivery" in sh.err
    assert f"next: its newest delivery: {newest} (" in sh.err


def test_a_name_that_nobody_has_is_told_what_it_may_have_been(sh: Shell) -> None:
    sh("why", "shpo")
    assert (sh.code, "did you mean shop?\n  next: penstock status" in sh.err) == (2, True)
    sh("why", "nope")
    assert (sh.code, "did you mean" in sh.err, "next: penstock status" in sh.err) == (2, False, True)
    sh("status", "shpo")
    assert (sh.code, "delivery 'shpo' is not known; did you mean shop?" in sh.err) == (2, True)


def test_a_bundle_is_exported_and_verified_offline(
    sh: Shell, house: Playhouse, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.json"
    sh("evidence", "export", told.good["id"], "--file", str(bundle))
    assert sh.code == 0
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "nobody"))
    report = sh.json("verify", str(bundle), "--trust", str(house.home.trust))
    assert (sh.code, report["verified"]) == (0, True)
    bundle.write_bytes(bundle.read_bytes().replace(b'"index":0,', b'"index":1,'))
    out = sh("verify", str(bundle), "--trust", str(house.home.trust))
    assert sh.code == 1
    assert "NOT verified" in out


def test_a_bundle_on_standard_output_is_the_bundle(
    sh: Shell, told: Told, house: Playhouse, tmp_path: Path
) -> None:
    piped = tmp_path / "piped.json"
    piped.write_text(sh("evidence", "export", told.refused["id"]))
    assert sh.json("verify", str(piped), "--trust", str(house.home.trust))["verified"] is True


def test_a_policy_is_linted_and_published_from_a_file(sh: Shell, tmp_path: Path) -> None:
    file = tmp_path / "lead.yaml"
    file.write_text(sh.json("policy", "show", "operations-lead")["source"] + "# reviewed\n")
    linted = [{"file": str(file), "policy": "operations-lead", "rules": 2}]
    assert sh.json("policy", "lint", str(file)) == linted
    assert sh.json("policy", "publish", str(file))["policy"] == "operations-lead"
    file.write_text(file.read_text().replace("evidence.canary.verdict", "evidence.canary.verdikt", 1))
    good = tmp_path / "lead2.yaml"
    good.write_text(sh.json("policy", "show", "test-lead")["source"])
    said = sh("policy", "lint", str(file), str(good))
    assert sh.code == 2
    assert "verdikt" in sh.err
    assert "✓ test-lead" in said
    assert not sh.json("policy", "replay", str(good), "--limit", "1")["refused"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("why", "nothing"), 2, "services: shop"),
        (("why", "a/../b"), 2, ""),
        (("logs", "nothing"), 2, "nothing"),
        (("status", "nothing"), 2, "penstock status"),
        (("ship", "/does/not/exist"), 2, "/does/not/exist"),
        (("ship", "/does/not/exist", "--environment", "EU west"), 2, "not the name of an environment"),
        (("abort", "nothing"), 2, "not known"),
        (("rollback", "nothing"), 1, "never been promoted"),
        (("rollback", "shop", "--environment", "us"), 1, "shop has never been promoted in us"),
        (("why", "shop", "--environment", "us"), 2, "not live in us; others of its environments: production"),
        (("why", "shop", "--environment", "prodution"), 2, "production; did you mean production?"),
        (("why", "shpo"), 2, "did you mean shop?"),
        (("logs", "shop", "--lines", "-3"), 2, "--lines: -3 lines; from 1"),
        (("logs", "shop", "--environment", "us"), 2, "it is in: production"),
        (("ship", "a", "b", "--together", "--environment", "eu", "--environment", "us"), 2, "several"),
        (("policy", "show", "nothing"), 2, "in force: development-lead"),
        (("policy", "test", "/does/not/exist"), 2, "cannot be read"),
        (("policy", "explain", "nothing"), 2, "penstock status"),
        (("policy", "retire", "nothing", "--reason", "x"), 2, "in force: development-lead"),
        (("identity", "add", "ada"), 2, "nothing to add"),
        (("identity", "add", "not an identity", "--address", "a@b"), 2, "is not an identity"),
        (("identity", "revoke-key", "zz", "--reason", "x"), 2, "penstock identity list"),
        (("role", "grant", "ada", "tester", "--scope", "everywhere"), 2, "team/NAME"),
        (("role", "revoke", "ada", "tester", "--reason", "x"), 2, "does not hold"),
        (("role", "revoke", "operator", "administrator", "--reason", "x"), 2, "nobody would be left"),
        (("review", "approve", "nothing"), 2, "penstock status"),
        (("review", "approve", "ab" * 20, "--login"), 1, "a person's own key"),
        (("review", "approve", "ab" * 20, "--key", "/does/not/exist"), 2, "no key to sign with"),
        (("override", "nothing", "--policy", "x", "--reason", "y"), 2, "penstock status"),
        (("evidence", "add"), 2, "needs a file"),
        (("policy", "lint", "/does/not/exist"), 2, "cannot be read"),
        (("evidence", "show", "x"), 2, "not the index"),
        (("evidence", "show", "99999999"), 2, "no entry"),
        (("evidence", "export", "nothing"), 2, "no evidence"),
        (("verify", "/does/not/exist", "--trust", "/does/not/exist"), 2, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_an_exit_code(
    sh: Shell, words: tuple[str, ...], code: int, says: str
) -> None:
    assert sh(*words) == ""
    assert sh.code == code
    assert sh.err.startswith("✗ ")
    assert says in sh.err


def test_a_url_and_a_token_lead_to_the_same_server(
    sh: Shell, house: Playhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_URL", house.url)
    monkeypatch.setenv("PENSTOCK_TOKEN", house.token)
    assert sh.json("status")["home"] == str(house.home.path)
    monkeypatch.setenv("PENSTOCK_TOKEN", "wrong")
    sh("status")
    assert sh.code == 1
    assert "nobody here has this token" in sh.err
    monkeypatch.delenv("PENSTOCK_TOKEN")
    sh("status")
    assert "a token is needed" in sh.err


def test_a_checkpoint_that_was_kept_is_looked_for(sh: Shell, told: Told, tmp_path: Path) -> None:
    kept = tmp_path / "checkpoint.txt"
    kept.write_text(sh.json("ledger", "checkpoint")["checkpoint"])
    assert f"it begins with the entries of {kept}" in sh("ledger", "verify", "--kept", str(kept))
    assert sh.code == 0
    kept.write_text(kept.read_text().replace("penstock", "other"))
    assert "✗ kept checkpoint: checkpoint: a checkpoint of 'other'" in sh(
        "ledger", "verify", "--kept", str(kept)
    )
    assert sh.code == 1
    kept.write_text("")
    sh("ledger", "verify", "--kept", str(kept))
    assert sh.code == 2
    assert "this is no checkpoint: not a signed note" in sh.err
    sh("ledger", "verify", "--kept", str(tmp_path / "gone"))
    assert (sh.code, "cannot be read" in sh.err) == (2, True)


def test_witnesses_are_added_listed_and_removed(sh: Shell, told: Told) -> None:
    key = WitnessServer("witness.example/w1").key
    sh("ledger", "witness", "add", "http://127.0.0.1:1/w", str(key))
    assert (sh.code, sh.err) == (0, "")
    assert "witness.example/w1" in sh("ledger", "witness", "list")
    (row,) = sh.json("ledger", "witness", "list")["witnesses"]
    assert (row["url"], row["key"], row["signed"]) == ("http://127.0.0.1:1/w", str(key), 0)
    sh("ledger", "witness", "add", "http://127.0.0.1:1/w", str(key))
    assert (sh.code, "remove witness.example/w1" in sh.err) == (1, True)
    sh("ledger", "witness", "remove", "witness.example/w1")
    assert sh.code == 0
    sh("ledger", "witness", "remove", "witness.example/w1")
    assert (sh.code, "known: none" in sh.err) == (2, True)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://w.example", str(WitnessServer().key)),
        ("http://w.example", "w.example+00000000+AAAA"),
        ("http://w.example", str(WitnessServer().key).replace("+", "+0", 1)),
        ("http://w.example", "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"),
        ("http://w.example", "nonsense"),
    ],
    ids=["not http", "no key", "another hash", "of another place", "no name and key"],
)
def test_what_is_no_witness_is_invalid(sh: Shell, told: Told, url: str, key: str) -> None:
    sh("ledger", "witness", "add", url, key)
    assert sh.code == 2
    assert sh.json("ledger", "witness", "list")["witnesses"] == []
