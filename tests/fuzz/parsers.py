"""Every parser of outside input, as a function of bytes that may raise a `PenstockError` only.

Used by the table in `targets`.
"""

from __future__ import annotations

import base64
import contextlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz import proof
from penstock.adapters._archive import unpack
from penstock.adapters.build import NodeBuilder, PythonBuilder
from penstock.adapters.cel import Cel
from penstock.adapters.rego.check import Flaw, check
from penstock.adapters.unsandboxed import Unsandboxed
from penstock.analysis.replay import replay, rows_of
from penstock.analysis.spans import spans_of
from penstock.bootstrap.archive import FORMAT, Manifest, Writer
from penstock.bootstrap.archive import check as check_backup
from penstock.checks import intake
from penstock.checks.cyclonedx import parse_cyclonedx
from penstock.checks.reports import parse_coverage, parse_junit
from penstock.checks.sarif import parse_sarif
from penstock.checks.untrusted import document as openapi_document
from penstock.checks.untrusted import requests as openapi_requests
from penstock.checks.untrusted.exchange import PlanCall
from penstock.config import (
    ServiceConfig,
    environment_data,
    load_service,
    parse,
    with_authorities,
)
from penstock.core import image, imported, nodecalls, sshsig
from penstock.core.canary import Rule
from penstock.core.codec import decode
from penstock.core.codeowners import owners
from penstock.core.digest import canonical, digest
from penstock.core.environmentconfig import EnvironmentConfig
from penstock.core.evidence import (
    PAYLOAD_TYPE,
    Statement,
    Subject,
    parse_statement,
)
from penstock.core.notes import open_note
from penstock.core.outside import read_json
from penstock.core.policy import PolicyDocument, RuleDocument
from penstock.core.predicates import Predicate
from penstock.core.release import Variable
from penstock.core.tiles import Tile, decode_bundle, encode_bundle
from penstock.errors import Invalid, PenstockError
from penstock.ledger import bundle
from penstock.ledger.signatures import signed_by
from penstock.manifests.carry import carry
from penstock.policyfile import parse_policy
from penstock.policytests import load_tests
from penstock.server import podimages
from penstock.server.guard import OPEN, Guard
from penstock.slofile import parse_slo

# --- evidence ---------------------------------------------------------------------------------------------


def statement(data: bytes) -> None:
    assert parse_statement(data).payload() == data


def note(data: bytes) -> None:
    found = open_note(data.decode("utf-8", "surrogateescape"), "penstock", proof.LOG.public_key, signed_by)
    assert found == proof.HEAD, "a note that was never signed"


def whole_bundle(data: bytes) -> None:
    """What verifies shows nothing but entries of the one ledger, at the one checkpoint."""
    steps = bundle.check(data, proof.TRUST, {"cel": CEL})
    if not all(step.ok for step in steps):
        raise Invalid("; ".join(step.reason for step in steps))
    shown = decode(bundle.Bundle, read_json(data, "bundle", limit=bundle.MAX_BYTES, depth=9))
    known = {entry.index: entry.envelope for entry in proof.bundle().entries}
    assert shown.entries
    assert all(known.get(entry.index) == entry.envelope for entry in shown.entries), "a forged entry"
    assert shown.checkpoint.startswith(proof.HEAD.body() + "\n"), "a forged checkpoint"
    assert shown.delivery == proof.DELIVERY, "a delivery that the bundle does not hold"


def parts_of_a_bundle(data: bytes) -> None:
    try:
        closed = proof.closed(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Invalid(f"not the parts of a bundle: {error!r}") from error
    whole_bundle(closed)


def foreign(data: bytes) -> None:
    found = imported.foreign(data)
    assert found.subjects
    assert found.signatures


def translation(data: bytes) -> None:
    """*data* is the payload: a fuzzer does not find its way through base64."""
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(data).decode(),
        "signatures": [{"sig": "AA=="}],
    }
    signable(imported.translate(base64.b64encode(canonical(envelope)).decode()))


def signable(predicates: tuple[Predicate, ...]) -> None:
    """What was read can be recorded, and comes back the same."""
    for predicate in predicates:
        counts = [value for value in vars(predicate).values() if type(value) is int]
        assert all(count >= 0 for count in counts)
        payload = Statement((Subject("shop", digest(b"")),), predicate).payload()
        assert parse_statement(payload).predicate == predicate


# --- reports -----------------------------------------------------------------------------------------------


def junit(data: bytes) -> None:
    found = parse_junit(data, "junit.xml")
    assert len(found.failing) <= found.failed


def coverage(data: bytes) -> None:
    found = parse_coverage(data, "coverage")
    assert 0 <= found.covered <= found.total


def sarif(data: bytes) -> None:
    signable(parse_sarif(data, "report.sarif", "platform"))


def cyclonedx(data: bytes) -> None:
    signable(parse_cyclonedx(data, "bom.json", "external"))


def any_report(data: bytes) -> None:
    signable(intake.read(intake.guess(data, "report"), data, source="ci", suite="unit"))


# --- what people write --------------------------------------------------------------------------------------

CEL = Cel()


def openapi(data: bytes) -> None:
    """A document, and the requests that come of it."""
    call = PlanCall("plan", "openapi.yaml", "", 3, 1, ())
    openapi_requests.plan(openapi_document.parse(data, call.name), call)


FACTS = {"evidence.tests.failed": 0, "change.author": "ada", "evidence.tests.failing": ("a", "b")}


def policy(data: bytes) -> None:
    found = parse_policy(data, "policy.yaml")
    assert found.rules
    CEL.compile(found)


def slo(data: bytes) -> None:
    found = parse_slo(data, "slo.yaml")
    assert found.objectives
    assert all(0 < one.allowed < 1 and one.window >= 3600 for one in found.objectives)


def manifests(data: bytes) -> None:
    """What is made of anybody's manifests is a file that our own validator takes."""
    for found in carry({"m.yaml": data}).services:
        service(found.text.encode())


def rules(data: bytes) -> None:
    """Lines: an expression that decides, and two that give words. What it says can be recorded."""
    when, say, otherwise = [*data.decode("utf-8", "surrogateescape").split("\n"), "'yes'", "'no'"][:3]
    document = PolicyDocument(
        "p", "o", ("deploy",), ("production",), (RuleDocument("r", when, say, otherwise),), ""
    )
    (decided,) = CEL.compile(document).decide(FACTS)
    assert decided.verdict.passed or decided.verdict.reason
    canonical({"says": decided.says, "reason": decided.verdict.reason, "values": decided.values})


def service(data: bytes) -> None:
    with folder() as tree:
        (tree / "penstock.yaml").write_bytes(data)
        canonical(load_service(tree, "shop"))


def canary_looks(data: bytes) -> None:
    rows = rows_of(data.decode(errors="replace"), "looks.csv")
    replay(spans_of(rows[:10]), Rule(5.0, 20.0))


def environment(data: bytes) -> None:
    found = with_authorities(parse(EnvironmentConfig, data, "production.yaml"), "production.yaml")
    declared = {"GREETING": Variable(), "LIMIT": Variable("number", 1.0)}
    config = ServiceConfig("shop", calls=("catalog",), environment=declared)
    for name, given in found.services.items():
        assert environment_data(config, found.environment, given.values, found.mesh_of(name)).digest


# --- projects and images -----------------------------------------------------------------------------------


def manifest(data: bytes) -> None:
    image.read_manifest(data)


def image_configuration(data: bytes) -> None:
    image.read_config(data)


def archive(data: bytes) -> None:
    with folder() as tree:
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                unpack(tar, tree / "inside")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise Invalid("not an archive") from error
        finally:
            assert [path.name for path in tree.iterdir()] in ([], ["inside"]), "it wrote outside"


def python_project(data: bytes) -> None:
    with folder() as tree:
        (tree / "pyproject.toml").write_bytes(data)
        if PythonBuilder(Unsandboxed(), tree).detect(tree, ServiceConfig("shop")) is None:
            raise Invalid("nothing to start")


def node_project(data: bytes) -> None:
    with folder() as tree:
        (tree / "package.json").write_bytes(data)
        if NodeBuilder(Unsandboxed(), tree).detect(tree, ServiceConfig("shop")) is None:
            raise Invalid("nothing to start")


# --- sockets -----------------------------------------------------------------------------------------------


def node_call(data: bytes) -> None:
    """As the node's agent reads a line of its socket."""
    value = read_json(data, "call", limit=1 << 20, depth=100)
    call = decode(nodecalls.Envelope, {"call": value}).call
    assert decode(nodecalls.Envelope, {"call": value}).call == call


class NobodysStore:
    """Has no rows."""

    @contextlib.asynccontextmanager
    async def transaction(self, *, write: bool = True) -> AsyncIterator[NobodysStore]:
        yield self

    async def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[object]:
        return []


def guard(data: bytes) -> None:
    """A request line and headers. Without a token nobody gets to anything but the open paths."""
    first, *lines = data.decode("latin-1").split("\n")
    method, _, path = first.partition(" ")
    pairs = [line.partition(":") for line in lines if ":" in line]
    headers = [(k.strip().lower().encode("latin-1"), v.strip().encode("latin-1")) for k, _, v in pairs]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    answers: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: object, send: object) -> None:
        assert scope["path"].startswith(OPEN), "a stranger got in"
        assert "penstock.identity" not in scope

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    finish(Guard(app, NobodysStore(), trusted=False)(scope, None, send))  # type: ignore[arg-type]
    if answers:
        assert 300 <= answers[0]["status"] < 500
        raise Invalid("it was turned away")


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run one that waits for nothing: a loop for each would cost more than the work."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("it waits for something")


class folder:
    """An empty folder for the block."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="ps-fuzz-"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def tar_seed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind in (
            ("app", tarfile.DIRTYPE),
            ("app/a.py", tarfile.REGTYPE),
            ("app/l", tarfile.SYMTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, "a.py", 2 if kind == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(b"hi"))
    return buffer.getvalue()


def backup(data: bytes) -> None:
    check_backup(io.BytesIO(data), "backup.tar")


def backup_seed() -> bytes:
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.add("store.db", b"rows")
    writer.add("keys/log.key", b"seed")
    manifest = Manifest(FORMAT, "0.1.0", 1.0, "penstock", 1, "00", "note", "sqlite", {"ledger": 2}, "/home/p")
    writer.end(lambda members: replace(manifest, members=members))
    return buffer.getvalue()


def ssh_signature(data: bytes) -> None:
    """A signature blob: what is accepted comes out the same, and verifies nothing that it did not sign."""
    found = sshsig.parse(data)
    assert found.blob() == data
    assert not signed_by(found.public_key, b"never signed", data), "a stranger's signature"


def ssh_text(data: bytes) -> None:
    """Armoured signatures, public keys and signed commits."""
    text = data.decode("utf-8", "replace")
    readers: tuple[Callable[[], object], ...] = (
        lambda: sshsig.parse(sshsig.dearmour(text)),
        lambda: sshsig.parse_public_key(text),
        lambda: sshsig.split_commit(data),
    )
    errors = []
    for reader in readers:
        try:
            reader()
        except PenstockError as error:
            errors.append(error)
    if len(errors) == len(readers):
        raise errors[0]


def ownership(data: bytes) -> None:
    text = data[:4096].decode("utf-8", "replace")
    owners(text, "policies/security-lead.yaml")


def tile(data: bytes) -> None:
    path = data.decode("latin-1")
    assert Tile.parse(path).path == path


def entry_bundle(data: bytes) -> None:
    assert encode_bundle(decode_bundle(data)) == data


def policy_tests(data: bytes) -> None:
    load_tests(data, "p.test.yaml")


def rego(data: bytes) -> None:
    """The checker of Rego modules; what it accepts is not run here."""
    try:
        check(data.decode("utf-8", "replace"))
    except Flaw as flaw:
        raise Invalid(str(flaw)) from flaw


def admission_review(data: bytes) -> None:
    podimages.images(podimages.open_review(data))
