"""Slips that would be recorded for ever and help nobody: told at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from office import Office
from playhouse import Playhouse, opened

from penstock.core.digest import digest, hex_of
from penstock.core.sshsig import parse_public_key


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


def test_names_that_look_like_another_are_told(office: Office) -> None:
    sh = office.sh
    office.hire("sam", "security-lead --scope team/payments")
    sh.ok("identity", "bind", "checkout", "payments")
    assert sh.err == ""
    sh.ok("role", "grant", "sam", "test-lead")
    assert sh.err == ""
    sh.ok("role", "grant", "Sam", "securty-lead", "--scope", "team/payment")
    assert "Sam has no key and no address here yet; did you mean sam?" in sh.err
    assert "no role here was called securty-lead before; did you mean security-lead?" in sh.err
    assert "no team here was called payment before; did you mean payments?" in sh.err
    sh.ok("identity", "bind", "checkout", "payment")
    assert "no team here was called payment before; did you mean payments?" in sh.err
    sh.ok("role", "grant", "sam", "release-captain")
    assert sh.err == ""


def test_a_key_that_was_taken_back_is_not_given_again_unnoticed(office: Office) -> None:
    sh, path = office.sh, office.key("lost")
    sh.ok("identity", "add", "lena", "--public-key", f"{path}.pub")
    assert sh.err == ""
    keyid = hex_of(digest(parse_public_key(path.with_suffix(".pub").read_text())))
    sh.ok("identity", "revoke-key", keyid, "--reason", "laptop lost")
    sh.ok("identity", "add", "lena", "--public-key", f"{path}.pub")
    assert "this key was revoked before (entry " in sh.err


def test_a_policy_of_a_role_that_nobody_holds_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh = office.sh
    text = sh.json("policy", "show", "security-lead")["source"]
    good = office.write(text)
    slip = office.write(text.replace("owner: security-lead", "owner: secruity-lead"), "slip.yaml")
    sh.ok("policy", "lint", slip)
    assert "! nobody holds the role secruity-lead" in sh.err
    assert "did you mean security-lead?\n  next: penstock role grant NAME secruity-lead" in sh.err
    sh.ok("policy", "lint", good)
    assert sh.err == ""
    monkeypatch.setenv("PENSTOCK_HOME", str(office.folder / "nobody"))
    sh.ok("policy", "lint", slip)
    assert (
        "! secruity-lead is none of the roles that come with Penstock; did you mean security-lead?" in sh.err
    )
    sh.ok("policy", "lint", good)
    assert sh.err == ""


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("prodcution", True),
        ("Production", True),
        ("prod", True),
        ("pre-production", False),
        ("staging", False),
    ],
)
def test_an_environment_that_looks_like_production_is_told(office: Office, name: str, warned: bool) -> None:
    text = office.sh.json("policy", "show", "security-lead")["source"]
    office.sh.ok("policy", "lint", office.write(text.replace("[production]", f"[{name}]")))
    told = f"guards nothing in production, but in {name}; did you mean production?"
    assert office.sh.err == (f"! security-lead {told}\n" if warned else "")


def test_what_is_wrong_with_a_policy_has_one_next_move(office: Office) -> None:
    text = office.sh.json("policy", "show", "security-lead")["source"]
    office.sh("policy", "lint", office.write(text.replace("[deploy", "[deplyo")))
    assert (office.sh.code, office.sh.err.count("next: ")) == (2, 1)
    known = "it may guard: deploy, shift, promote, experiment"
    assert f"guards 'deplyo'; {known}; did you mean deploy?" in office.sh.err
