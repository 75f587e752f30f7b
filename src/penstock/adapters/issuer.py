"""Issuer: a certificate authority of this installation's own, for calls between machines.

Found as ``penstock.issuer: local``. Each authority is two files in *folder*: ``mesh-0001.key`` (0600) and the
certificate ``mesh-0001.crt``. The lowest number signs; a higher one is there to be trusted by peers before it
does. Must not issue anything that lasts: what is short-lived need not be revoked.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.adapters._keyfile import read_private
from penstock.core.mesh import Issued, Validity
from penstock.errors import Conflict, Invalid, Unavailable

#: How long a certificate is good.
SECONDS = 3600.0
AUTHORITY_SECONDS = 10 * 365 * 24 * 3600.0


class LocalIssuer:
    """Its certificates are good for *seconds* from what *clock* says."""

    def __init__(
        self, folder: Path, seconds: float = SECONDS, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._clock = clock

    # --- Issuer ----------------------------------------------------------------------------------------

    @property
    def by(self) -> str:
        name = self._current()
        if not self._file(name, "key").exists():
            raise Conflict(
                "the key of the mesh's authority is gone: no certificate can be renewed",
                where=str(self._file(name, "key")),
                next_move="put it back (0600), or: penstock mesh rotate, hand over penstock mesh trust, and "
                "penstock mesh rotate --switch",
            )
        return name

    def issue(self, identity: str) -> Issued:
        by = self.by
        signer, authority = _key(self._file(by, "key")), _certificate(self._file(by, "crt"))
        key, made = ec.generate_private_key(ec.SECP256R1()), self._clock()
        validity = Validity(made, made + self._seconds)
        certificate = _signed(_leaf(identity, authority), key, validity, signer)
        return Issued(_pem(certificate), _private(key).decode(), by, validity)

    def trust(self) -> str:
        self._current()
        return "".join(_pem(_certificate(self._file(name, "crt"))) for name in self.authorities)

    # --- rotation, by hand -----------------------------------------------------------------------------

    @property
    def authorities(self) -> tuple[str, ...]:
        """Names of all authorities, the one that signs first."""
        return tuple(sorted(path.stem for path in self._folder.glob("mesh-*.crt")))

    def prepare(self) -> str:
        """Make the next authority, unless there is one; it signs nothing yet."""
        self._current()
        if len(self.authorities) == 1:
            self._make(f"mesh-{int(self.authorities[0].removeprefix('mesh-')) + 1:04}")
        return self.authorities[-1]

    def switch(self) -> str:
        """Let the next authority sign, and forget the one that did. `Conflict` if there is none."""
        if len(self.authorities) < 2:
            raise Conflict(
                "there is no next authority to switch to",
                where=str(self._folder),
                next_move="penstock mesh rotate, and hand penstock mesh trust to the peers first",
            )
        old = self.authorities[0]
        self._file(old, "key").unlink(missing_ok=True)
        self._file(old, "crt").unlink()
        return self._current()

    def _current(self) -> str:
        if not self.authorities:
            self._make("mesh-0001")
        return self.authorities[0]

    def _make(self, name: str) -> None:
        """The key first: a certificate without a key says that it was lost."""
        file = self._file(name, "key")
        # Two processes may be at it: whoever comes second takes the key of the first.
        with contextlib.suppress(FileExistsError):
            _put_once(file, _private(ec.generate_private_key(ec.SECP256R1())))
        key, made = _key(file), self._clock()
        certificate = _signed(_root(key), key, Validity(made, made + AUTHORITY_SECONDS), key)
        _put_once(self._file(name, "crt"), _pem(certificate).encode(), again=True)

    def _file(self, name: str, kind: str) -> Path:
        return self._folder / f"{name}.{kind}"


def _root(key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    # Whoever looks for an issuer by name must not take one authority for another, and two who make the
    # certificate of one key at once must give it the same.
    keyid = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    unique = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Penstock mesh {keyid[:16]}")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(unique)
        .issuer_name(unique)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )


def _leaf(identity: str, authority: x509.Certificate) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    try:
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    except ValueError as error:
        raise Invalid(f"{identity!r} cannot be in a certificate: {error}") from error
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(name, critical=True)  # with no other name, it is the one that counts
        .add_extension(usage, critical=True)
        .add_extension(both, critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    validity: Validity,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    own, above = key.public_key(), signer.public_key()
    return (
        builder.public_key(own)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(validity.since))
        .not_valid_after(_moment(validity.until))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read_private(path), None)
    except (ValueError, TypeError) as error:
        raise Invalid("not a private key (PEM)", where=str(path)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid("not a key for ECDSA", where=str(path))
    return key


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise Unavailable(f"cannot read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise Invalid("not a certificate (PEM)", where=str(path)) from error


def _put_once(path: Path, data: bytes, *, again: bool = False) -> None:
    """Write the whole file (0600), or nothing; what is there already stays, unless *again*."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if again:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
