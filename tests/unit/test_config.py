"""Configuration: the documented reference is the validator's own example, and errors name file and line."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config import (
    EnvironmentConfig,
    ServiceConfig,
    environment_data,
    load_service,
    parse,
)
from penstock.core.acceptanceconfig import CompareConfig, LoadConfig
from penstock.core.codec import encode
from penstock.core.digest import canonical
from penstock.core.release import Variable
from penstock.errors import Invalid
from penstock.policyfile import parse_policy

REFERENCE = (files("penstock") / "penstock.reference.yaml").read_bytes()


def test_the_reference_is_valid_and_names_every_field() -> None:
    config = parse(ServiceConfig, REFERENCE, "penstock.reference.yaml")
    given_fields = encode(config)
    defaults = ServiceConfig()
    for name in vars(defaults):
        assert name in given_fields, f"{name} is not documented"
    for name in (*vars(defaults.acceptance), *vars(LoadConfig(1.0)), *vars(CompareConfig())):
        assert f"{name}:" in REFERENCE.decode(), f"acceptance: {name} is not documented"
    for name in vars(defaults.canary):
        assert f"{name}:" in REFERENCE.decode(), f"canary.{name} is not documented"
    for name in vars(defaults.traffic):
        assert f"{name}:" in REFERENCE.decode(), f"traffic.{name} is not documented"


#: What is under ``acceptance``, the place below it, and what is wrong there.
WRONG = (
    ("requests_per_second: 0", ".requests_per_second", "from 0.1 to 1000"),
    ("weights: {/b: 2}", ".weights", "'/b' is not among acceptance.paths"),
    ("weights: {/: 0}", ".weights", "from 0.001"),
    ("openapi: ../openapi.yaml", ".openapi", "leaves the repository"),
    ("openapi: ''", ".openapi", "leaves the repository"),
    ("openapi: //elsewhere/openapi.json", ".openapi", "must begin with one slash"),
    ("openapi_cases: 5", "", "need openapi"),
    ("{openapi: a.yaml, openapi_cases: 1001}", ".openapi_cases", "from 0 to 1000"),
    ("{openapi: a.yaml, openapi_operations: [createItem]}", ".openapi_operations", "no operation such as"),
    ("load: {requests_per_second: 1001}", ".load.requests_per_second", "from 0.1 to 1000"),
    ("load: {requests_per_second: 1, seconds: 601}", ".load.seconds", "from 1 to 600"),
    ("load: {requests_per_second: 1, connections: 0}", ".load.connections", "from 1 to 256"),
    ("load: {requests_per_second: 1, error_rate: 2}", ".load.error_rate", "from 0 to 1"),
    ("load: {requests_per_second: 1, p99_ms: 0}", ".load.p99_ms", "above 0 ms"),
    ("load: {requests_per_second: 1, paths: ['http://elsewhere/']}", ".load.paths", "one slash"),
    ("compare: {share: 101}", ".compare.share", "from 0 to 100"),
    ("compare: {seconds: 601}", ".compare.seconds", "from 0 to 600"),
    ("compare: {ignore: [generated_at]}", ".compare.ignore", "'generated_at' is no rule"),
    ("compare: {max_different: 5}", ".compare.max_different", "from 0 to 1"),
    ("compare: {max_slower: 0.5}", ".compare.max_slower", "from 1 to 1000"),
)
ACCEPTANCE = [
    (
        f"acceptance: {text if text.startswith('{') else '{' + text + '}'}\n",
        f"penstock.yaml: acceptance{where}",
        what,
    )
    for text, where, what in WRONG
]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (
            "service: shop\nservise: x\n",
            "penstock.yaml:2",
            "unknown field 'servise'; known fields: acceptance",
        ),
        ("replicas: two\n", "penstock.yaml:1", "expected a whole number, found 'two'"),
        ("a: b: c\n", "penstock.yaml:1", "not valid YAML"),
        ("environment:\n  X: {type: text}\n", "penstock.yaml:2", "expected one of 'string'"),
        ("checks:\n  tests:\n    junit: x\n", "penstock.yaml:2", "missing field 'run'"),
        ("canary: {steps: [50, 10]}\n", "penstock.yaml", "below 100 per cent; found: 50, 10"),
        ("canary: {steps: []}\n", "penstock.yaml", "canary.steps must rise"),
        (
            "canary: {look_every: 0}\n",
            "penstock.yaml",
            "found: seconds_per_step 20, look_every 0, patience 60",
        ),
        ("canary: {setps: [5]}\n", "penstock.yaml:1", "did you mean steps?"),
        ("canary: {steps: [100]}\n", "penstock.yaml", "below 100 per cent"),
        ("liveness: {path: livez}\n", "penstock.yaml", "must begin with a slash"),
        ("liveness: {path: /livez, every: 0}\n", "penstock.yaml", "0.1 s or more"),
        ("limits: {memory_mb: 4}\n", "penstock.yaml", "must be 16 or more"),
        ("limits: {open_files: -1}\n", "penstock.yaml", "must be 64 or more"),
        ("drain_seconds: 301\n", "penstock.yaml", "from 0 to 300"),
        (
            "canary: {steps: [5, 60], baseline: fresh}\n",
            "penstock.yaml",
            "too few users for a fresh baseline",
        ),
        ("canary: {baseline: stale}\n", "penstock.yaml:1", "fresh"),
        ("canary: {look_every: .nan}\n", "penstock.yaml:1", "a finite number"),
        ("replicas: 0\n", "penstock.yaml", "from 1 to 64"),
        ("scaling: {most: 0, in_flight: 5}\n", "penstock.yaml: scaling.most", "no copy can be added"),
        ("replicas: 3\nscaling: {most: 2}\n", "penstock.yaml: scaling.most", "from replicas (3) to 64"),
        ("scaling: {most: 65, in_flight: 5}\n", "penstock.yaml: scaling.most", "to 64, found 65"),
        ("scaling: {most: 4}\n", "penstock.yaml: scaling.in_flight", "1 or more"),
        ("scaling: {most: 4, in_flight: -1}\n", "penstock.yaml: scaling.in_flight", "1 or more"),
        ("scaling: {most: 4, in_flight: 0.5}\n", "penstock.yaml:1", "scaling.in_flight"),
        (
            "scaling: {most: 4, in_flight: 5, idle_seconds: 0}\n",
            "penstock.yaml: scaling.idle_seconds",
            "1 to",
        ),
        ("scaling: {least: 4}\n", "penstock.yaml:1", "known fields: cpu, idle_seconds, in_flight, most"),
        ("scaling: {most: 4, cpu: 70}\n", "penstock.yaml: scaling.cpu", "limits.cpus, which is not given"),
        (
            "limits: {cpus: 1}\nscaling: {most: 4, cpu: 91}\n",
            "penstock.yaml: scaling.cpu",
            "to 90 percent",
        ),
        ("scaling: {most: 4, in_flight: 1, cpu: -1}\n", "penstock.yaml: scaling.cpu", "found -1"),
        (
            "limits: {cpus: 1}\nscaling: {cpu: 70}\n",
            "penstock.yaml: scaling.most",
            "no copy can be added to replicas (1)",
        ),
        ("warm: {bake_seconds: -1}\n", "penstock.yaml: warm.bake_seconds", "from 0 to 86400"),
        ("warm: {replicas: 65}\n", "penstock.yaml: warm.replicas", "from 0 to 64"),
        ("warm: {seconds: -5}\n", "penstock.yaml: warm.seconds", "until the next delivery"),
        ("traffic: {mirror: 101}\n", "penstock.yaml: traffic.mirror", "from 0.1 to 100 per cent"),
        ("traffic: {mirror: 0.01}\n", "penstock.yaml: traffic.mirror", "from 0.1 to 100 per cent"),
        ("traffic: {stick: true}\n", "penstock.yaml:1", "known fields: callers, early, idle_seconds, mirror"),
        ("traffic: {sticky: 1}\n", "penstock.yaml:1", "traffic.sticky"),
        ("traffic: {idle_seconds: 0.5}\n", "penstock.yaml: traffic.idle_seconds", "from 1 to 3600"),
        ("protocol: grpc\nhealth: /healthz\n", "penstock.yaml: health", "no path to be asked for"),
        ("protocol: h2\n", "penstock.yaml:1", "expected one of 'http/1.1', 'h2c', 'grpc'"),
        ("traffic: {timeout_seconds: 0}\n", "penstock.yaml: traffic.timeout_seconds", "from 0.001 to 3600"),
        ("traffic: {callers: [Shop]}\n", "penstock.yaml: traffic.callers", "'Shop' is not a service name"),
        ("traffic: {callers: [a, a]}\n", "penstock.yaml: traffic.callers", "each once"),
        ("traffic: {callers: shop}\n", "penstock.yaml:1", "traffic.callers"),
        ("traffic: {rate: {per_second: -1}}\n", "penstock.yaml: traffic.rate.per_second", "(or 0: no limit)"),
        ("traffic: {rate: {burst: 5}}\n", "penstock.yaml: traffic.rate.burst", "from per_second"),
        ("traffic: {rate: {per_second: 9, burst: 5}}\n", "penstock.yaml: traffic.rate.burst", "found 5"),
        ("traffic: {most_requests: -1}\n", "penstock.yaml: traffic.most_requests", "(or 0: the default)"),
        ("traffic: {retries: 11}\n", "penstock.yaml: traffic.retries", "from 0 to 10"),
        ("traffic: {early: [{}]}\n", "penstock.yaml: traffic.early", "matches everything"),
        ("traffic: {early: [{header: a}]}\n", "penstock.yaml: traffic.early", "the value of a"),
        ("traffic: {early: [{path: /a, value: x}]}\n", "penstock.yaml: traffic.early", "without a header"),
        ("traffic: {early: [{header: a, cookie: b}]}\n", "penstock.yaml: traffic.early", "not both"),
        ("traffic: {early: [{path: beta}]}\n", "penstock.yaml: traffic.early", "no path prefix"),
        ("service: shop\nreplicas: 1\nservice: cart\n", "penstock.yaml:3", "'service' is given twice"),
        ("service: !!int ''\n", "penstock.yaml", "not valid YAML"),
        ("replicas: 9007199254740992\n", "penstock.yaml:1", "at most 9007199254740991"),
        (f"service: 0x{'f' * 5000}\n", "penstock.yaml:1", "expected text, found a huge number"),
        (f"start_seconds: {'9' * 400}\n", "penstock.yaml:1", "at most 9007199254740991"),
        ("service: Shop!\n", "penstock.yaml", "is not a service name"),
        ("run: 'python3 \"'\n", "penstock.yaml", "cannot be split into words"),
        ("checks: {t: {run: x, junit: ../x}}\n", "penstock.yaml: checks.t", "leaves the repository"),
        ("checks: {/etc: {run: x}}\n", "penstock.yaml", "'/etc' is not a name"),
        ("checks: {../../keys: {run: x}}\n", "penstock.yaml", "is not a name"),
        ("checks: {deploy: {run: x}}\n", "penstock.yaml: checks.deploy", "a stage of Penstock's own"),
        ("checks: {rollback: {run: x}}\n", "penstock.yaml: checks.rollback", "a stage of Penstock's own"),
        ("checks: {a: {run: x, after: [b]}}\n", "penstock.yaml: checks.a", "after 'b', which is no check"),
        ("checks: {a: {run: x, after: [build]}}\n", "penstock.yaml: checks.a", "which is no check"),
        ("checks: {a: {run: x, after: [a]}}\n", "penstock.yaml: checks", "in a circle: a after a"),
        (
            "checks: {a: {run: x, after: [b]}, b: {run: x, after: [a]}}\n",
            "penstock.yaml: checks",
            "checks in a circle: ",
        ),
        ("checks: {a: {run: x, each: [b, b]}}\n", "penstock.yaml: checks.a", "none twice"),
        ("checks: {a: {run: x, each: ['']}}\n", "penstock.yaml: checks.a", "none empty"),
        (
            "checks: {a: {run: x, each: [b]}, a-1: {run: x}}\n",
            "penstock.yaml: checks.a-1",
            "the stage 'a-1' would be that of a too",
        ),
        ("acceptance: {junit: /etc/passwd}\n", "penstock.yaml: acceptance", "leaves the repository"),
        ("acceptance: {paths: ['http://elsewhere/']}\n", "penstock.yaml", "must begin with one slash"),
        ("acceptance: {paths: [//elsewhere/]}\n", "penstock.yaml", "must begin with one slash"),
        *ACCEPTANCE,
        ("a: &a [1]\nb: *a\n", "penstock.yaml", "aliases are not supported"),
        ("- just\n- a list\n", "penstock.yaml:1", "expected a mapping, found a list"),
        ("replicas: true\n", "penstock.yaml:1", "expected a whole number, found True"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, text: str, where: str, what: str) -> None:
    (tmp_path / "penstock.yaml").write_text(text)
    with pytest.raises(Invalid) as caught:
        load_service(tmp_path, "shop")
    assert caught.value.where.startswith(where)
    assert what in caught.value.what


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    try:
        found = parse(ServiceConfig, data, "penstock.yaml")
    except Invalid:
        return
    assert isinstance(found, ServiceConfig)


def test_a_document_that_would_take_a_minute_to_read_is_not_read(tmp_path: Path) -> None:
    """Somebody with a token, or a repository: whoever reads it renews leases meanwhile."""
    text = "checks: [" + "a," * 300_000 + "]"
    (tmp_path / "penstock.yaml").write_text(text)
    with pytest.raises(Invalid, match="larger than 65536 bytes"):
        load_service(tmp_path, "shop")
    with pytest.raises(Invalid, match="larger than 65536 bytes"):
        parse_policy(text.encode(), "policy.yaml")


def test_a_repository_without_a_file_is_named_after_its_folder(tmp_path: Path) -> None:
    assert load_service(tmp_path, "My Shop").service == "my-shop"


def test_environment_data_is_typed_and_complete() -> None:
    config = parse(ServiceConfig, REFERENCE, "penstock.reference.yaml")
    data = environment_data(config, "production", {"PAGE_SIZE": 50})
    assert dict(data.values) == {"CURRENCY": "EUR", "PAGE_SIZE": 50, "PAYMENT_KEY": "placeholder"}
    with pytest.raises(Invalid, match="must be of type integer"):
        environment_data(config, "production", {"PAGE_SIZE": "50"})
    with pytest.raises(Invalid, match="not declared by shop"):
        environment_data(config, "production", {"PAGE_SIZ": 50})
    with pytest.raises(Invalid, match="must be of type integer"):
        environment_data(config, "production", {"PAGE_SIZE": True})


@pytest.mark.parametrize("value", [2**60, -(2**60)])
def test_a_value_without_a_canonical_form_is_refused(value: int) -> None:
    config = parse(ServiceConfig, REFERENCE, "penstock.reference.yaml")
    with pytest.raises(Invalid, match="canonical"):
        environment_data(config, "production", {"PAGE_SIZE": value})


def test_equal_data_has_an_equal_digest() -> None:
    config = parse(ServiceConfig, REFERENCE, "penstock.reference.yaml")
    one = environment_data(config, "production", {"CURRENCY": "CHF", "PAGE_SIZE": 20})
    other = environment_data(config, "production", {"PAGE_SIZE": 20, "CURRENCY": "CHF"})
    assert one.digest == other.digest
    assert one.digest != environment_data(config, "production", {}).digest


def test_an_environment_document() -> None:
    text = b"environment: production\nservices:\n  shop: {values: {A: 1, B: yes please, C: 0.5, D: true}}\n"
    found = parse(EnvironmentConfig, text, "production.yaml").services["shop"].values
    assert dict(found) == {"A": 1, "B": "yes please", "C": 0.5, "D": True}


GOOD = """\
policy: my-policy
owner: security-lead
guards: [deploy]
environments: [production]
rules:
  - {id: a, when: "true", say: "'yes'", else: "'no'"}
"""


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("[deploy]", "[rollback]", "it may guard: deploy, shift, promote"),
        (
            "[deploy]",
            "[promte]",
            "guards 'promte'; it may guard: deploy, shift, promote, experiment; did you mean promote?",
        ),
        ("[deploy]", "[]", "it may guard"),
        ("[production]", "[]", "needs an environment"),
        ("guards:", "guard:", "unknown field 'guard'"),
        ("else:", "otherwise:", "unknown field 'otherwise'"),
        ("my-policy", "My Policy", "must be names"),
    ],
)
def test_a_policy_is_checked_before_it_is_published(old: str, new: str, what: str) -> None:
    assert parse_policy(GOOD.encode(), "p.yaml").rules[0].id == "a"
    with pytest.raises(Invalid) as caught:
        parse_policy(GOOD.replace(old, new).encode(), "p.yaml")
    assert what in str(caught.value)
    assert caught.value.next_move


def test_a_secret_is_a_string_that_can_be_masked_and_is_never_repeated() -> None:
    config = ServiceConfig("shop", environment={"KEY": Variable("string", "placeholder", secret=True)})
    data = environment_data(config, "production", {"KEY": "a-real-key"})
    assert (data.shown, data.secrets) == ({"KEY": "***"}, ("a-real-key",))
    for value in ("short", 1234567):
        with pytest.raises(Invalid) as caught:
            environment_data(config, "production", {"KEY": value})
        assert "KEY" in str(caught.value)
        assert str(value) not in str(caught.value)


def test_without_secrets_environment_data_has_the_digest_that_it_always_had() -> None:
    data = environment_data(ServiceConfig("shop", environment={"A": Variable()}), "production", {"A": "x"})
    assert canonical(data) == (
        b'{"environment":"production","schema":"penstock.environment/v1","service":"shop","values":{"A":"x"}}'
    )


def test_only_a_string_can_be_secret(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("environment: {PIN: {type: integer, secret: true}}\n")
    with pytest.raises(Invalid, match="PIN is secret, and so must be a string"):
        load_service(tmp_path, "shop")
