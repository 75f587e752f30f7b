"""The authority of an installation: what it issues, its files, and how one follows another."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from penstock.adapters.issuer import LocalIssuer
from penstock.core.mesh import SKEW
from penstock.errors import Conflict, Invalid

SHOP = "spiffe://west/production/shop"


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_it_says_who_and_for_how_long_and_nothing_more(tmp_path: Path) -> None:
    issuer = LocalIssuer(tmp_path, 3600.0, lambda: 1_800_000_000.0)
    issued = issuer.issue(SHOP)
    leaf, root = certificate(issued.chain), certificate(issuer.trust())
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert [name.value for name in names] == [SHOP]  # type: ignore[attr-defined]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert (issued.validity.made, issued.validity.until) == (1_800_000_000.0, 1_800_003_600.0)
    assert leaf.not_valid_before_utc.timestamp() == 1_800_000_000.0 - SKEW
    assert leaf.not_valid_after_utc.timestamp() == 1_800_003_600.0
    assert issuer.issue(SHOP).key != issued.key
    assert issued.key not in repr(issued)


def test_its_files_are_for_their_owner_and_the_next_one_goes_on_with_them(tmp_path: Path) -> None:
    first = LocalIssuer(tmp_path).trust()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh-0001.crt", "mesh-0001.key"]
    assert stat.S_IMODE((tmp_path / "mesh-0001.key").stat().st_mode) == 0o600
    assert LocalIssuer(tmp_path).trust() == first
    (tmp_path / "mesh-0001.key").chmod(0o640)
    with pytest.raises(Invalid, match="others may read this key"):
        LocalIssuer(tmp_path).issue(SHOP)


def test_two_who_begin_at_once_have_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: LocalIssuer(tmp_path).issue(SHOP).chain, range(8)))
    root = certificate(LocalIssuer(tmp_path).trust())
    for chain in found:
        assert (
            certificate(chain).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            == x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())  # type: ignore[arg-type]
        )
        certificate(chain).verify_directly_issued_by(root)


def test_one_authority_follows_another(tmp_path: Path) -> None:
    issuer = LocalIssuer(tmp_path)
    with pytest.raises(Conflict, match="no next authority"):
        issuer.switch()
    old = issuer.trust()
    assert issuer.prepare() == issuer.prepare() == "mesh-0002"
    assert (issuer.by, issuer.issue(SHOP).by) == ("mesh-0001", "mesh-0001")
    assert issuer.trust().startswith(old)
    assert issuer.trust().count("BEGIN CERTIFICATE") == 2
    assert issuer.switch() == "mesh-0002"
    certificate(issuer.issue(SHOP).chain).verify_directly_issued_by(certificate(issuer.trust()))
    assert old not in issuer.trust()
    assert not list(tmp_path.glob("mesh-0001.*"))


def test_a_lost_key_is_no_reason_for_another_authority(tmp_path: Path) -> None:
    issuer = LocalIssuer(tmp_path)
    before = issuer.trust()
    (tmp_path / "mesh-0001.key").unlink()
    for ask in (lambda: issuer.by, lambda: issuer.issue(SHOP)):
        with pytest.raises(Conflict, match="key of the mesh's authority is gone") as refused:
            ask()
        assert "penstock mesh rotate" in refused.value.next_move
    assert issuer.trust() == before
    issuer.prepare()
    assert issuer.switch() == "mesh-0002"
    assert issuer.issue(SHOP).by == "mesh-0002"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    LocalIssuer(tmp_path).trust()
    (tmp_path / "mesh-0001.key").write_text("nothing")
    with pytest.raises(Invalid, match="not a private key"):
        LocalIssuer(tmp_path).issue(SHOP)
    (tmp_path / "mesh-0001.crt").write_text("nothing")
    with pytest.raises(Invalid, match="not a certificate"):
        LocalIssuer(tmp_path).trust()
