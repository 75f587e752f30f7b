"""The table: every parser of outside input, as a function of bytes that may raise a `PenstockError` only.

Used by `test_fuzz` (mutations, in every test run) and by `atheris_run` (coverage-guided, `make fuzz`). A new
parser is a function and a row here, and a file or two in ``seeds/<name>/``; one of its seeds has to be
accepted, or the fuzzer would only ever see the front door.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fakes.istio import body, told
from fuzz import proof
from fuzz.logins import challenge, docker_config, kubeconfig
from fuzz.meters import counter_selector, exposed_counter, istio_answer, log_lines, prometheus_answer
from fuzz.parsers import (
    admission_review,
    any_report,
    archive,
    backup,
    backup_seed,
    canary_looks,
    coverage,
    cyclonedx,
    entry_bundle,
    environment,
    foreign,
    guard,
    image_configuration,
    junit,
    manifest,
    manifests,
    node_call,
    node_project,
    note,
    openapi,
    ownership,
    parts_of_a_bundle,
    policy,
    policy_tests,
    python_project,
    rego,
    rules,
    sarif,
    service,
    slo,
    ssh_signature,
    ssh_text,
    statement,
    tar_seed,
    tile,
    translation,
    whole_bundle,
)
from penstock.core import sshsig
from penstock.core.evidence import (
    open_envelope,
)
from penstock.core.tiles import encode_bundle
from penstock.errors import PenstockError

SEEDS = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Target:
    """One parser. *made* are seeds that code makes; the others are files in ``seeds/<name>/``."""

    name: str
    run: Callable[[bytes], object]
    made: tuple[bytes, ...] = ()

    @property
    def seeds(self) -> tuple[bytes, ...]:
        files = sorted((SEEDS / self.name).iterdir()) if (SEEDS / self.name).is_dir() else []
        return (*self.made, *(file.read_bytes() for file in files))


def accepts(target: Target, data: bytes) -> bool:
    """Whether the parser takes the bytes. Anything but a `PenstockError` goes through: it is a defect."""
    try:
        target.run(data)
    except PenstockError as error:
        str(error)  # whoever is told has to be able to read it
        return False
    return True


REGO = b"""package p
import rego.v1
deny contains msg if {
  input.evidence.tests.failed > 0
  msg := sprintf("%d failed", [input.evidence.tests.failed])
}
"""
SSH_LINE = sshsig.public_key_line(proof.WORKER.public_key, "ada").encode()
SSH_BLOB = sshsig.SshSignature(proof.WORKER.public_key, "penstock", "sha512", bytes(64)).blob()

CSV = b"seconds,share,requests,errors,slow,stable_requests,stable_errors,stable_slow\n5,10,40,1,2,360,3,4\n"
JSON = b'[{"seconds": 5, "requests": 900, "errors": 0, "stable_requests": 900, "stable_errors": 1}]'

EXPOSED = b"""# TYPE paid_total counter
paid_total{outcome="ok",way="a \\"b\\""} 5
paid_total{outcome="failed"} 2 1700000000000
other 1.5
"""
ANSWER = b"""{"status": "success", "data": {"resultType": "vector", "result": [
  {"metric": {"release": "shop-1"}, "value": [1700000000.5, "41"]}]}}"""

ISTIO_ANSWER = body(told({"shop-1": (41, 2)}, at=1.7e9, start=1.69e9, now=1.7e9))

REVIEW = b"""{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1",
  "operation": "CREATE", "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
  "object": {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "a@sha256:00"}]}}}}}}"""

KUBECONFIG = b"""current-context: a
contexts: [{name: a, context: {cluster: c, user: u, namespace: shop}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:8001"}}]
users: [{name: u, user: {token: t}}]
"""
CHALLENGE = b'Bearer realm="https://tokens.test/",service="registry.test", Basic realm="r"\nBasic realm=x'
DOCKER = b"""{"auths": {"https://registry.test/v1/": {"auth": "YTpi"},
  "registry.test/shop": {"username": "a", "password": "b"}}}"""

TARGETS: tuple[Target, ...] = (
    Target("envelope", lambda data: open_envelope(data).statement(), tuple(e.raw for e in proof.ENVELOPES)),
    Target("statement", statement, tuple(e.payload for e in proof.ENVELOPES)),
    Target("note", note, (proof.NOTE.encode(),)),
    Target("bundle", whole_bundle, (proof.BUNDLE,)),
    Target("bundle-parts", parts_of_a_bundle, (proof.opened(proof.BUNDLE),)),
    Target("foreign", foreign, (proof.ENVELOPES[2].raw,)),
    Target("translation", translation),
    Target("junit", junit),
    Target("coverage", coverage),
    Target("sarif", sarif),
    Target("cyclonedx", cyclonedx),
    Target("any-report", any_report),
    Target("policy", policy),
    Target("slo", slo),
    Target("rules", rules),
    Target("service", service),
    Target("environment", environment),
    Target("manifest", manifest),
    Target("manifests", manifests),
    Target("image-configuration", image_configuration),
    Target("archive", archive, (tar_seed(),)),
    Target("backup", backup, (backup_seed(),)),
    Target("python-project", python_project),
    Target("node-project", node_project),
    Target("node-call", node_call),
    Target("guard", guard),
    Target("openapi", openapi),
    Target("ssh-signature", ssh_signature, (SSH_BLOB,)),
    Target("ssh-text", ssh_text, (SSH_LINE, sshsig.armour(SSH_BLOB).encode())),
    Target("codeowners", ownership, (b"* @everybody\n/policies/ @org/leads ada@example.org # ours\n",)),
    Target("tile", tile, (b"tile/0/x001/234.p/5", b"tile/entries/000")),
    Target("entry-bundle", entry_bundle, (encode_bundle([b"one", b"two"]),)),
    Target("rego", rego, (REGO,)),
    Target("canary-looks", canary_looks, (CSV, JSON)),
    Target("exposed-counter", exposed_counter, (EXPOSED,)),
    Target(
        "counter-selector", counter_selector, (b'paid_total{outcome="ok", way="a \\"b\\""}', b"paid_total")
    ),
    Target("log-lines", log_lines, (b'{"level": "error"}\n{"level": 50}\nan ERROR\n',)),
    Target("prometheus-answer", prometheus_answer, (ANSWER,)),
    Target("istio-answer", istio_answer, (ISTIO_ANSWER,)),
    Target("admission-review", admission_review, (REVIEW,)),
    Target("kubeconfig", kubeconfig, (KUBECONFIG,)),
    Target("challenge", challenge, (CHALLENGE,)),
    Target("docker-config", docker_config, (DOCKER,)),
    Target("policy-tests", policy_tests, (b"cases: [{name: a, expect: PASS}]",)),
)
BY_NAME = {target.name: target for target in TARGETS}
