"""``penstock import``: what carries over from real manifests, what is told, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.config import MAX_BYTES, ServiceConfig, parse
from penstock.core.trafficconfig import EarlyConfig
from penstock.errors import Invalid
from penstock.manifests.carry import Carried, carry
from penstock.manifests.place import Note

FILES = Path(__file__).parent / "manifests"
POD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: shop, image: shop}]
"""
ROLLOUT = """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: shop}
spec:
  template: {spec: {containers: [{name: shop, image: shop}]}}
  strategy:
"""


def carried(*texts: str) -> Carried:
    return carry({f"{number}.yaml": text.encode() for number, text in enumerate(texts)})


def config(found: Carried, number: int = 0) -> ServiceConfig:
    return parse(ServiceConfig, found.services[number].text.encode(), "penstock.yaml")


def told(notes: tuple[Note, ...], path: str) -> Note:
    """The one note about *path*, which ends like that."""
    (found,) = (note for note in notes if note.path.endswith(path))
    return found


def strategy(text: str, *more: str) -> Carried:
    return carried(ROLLOUT + "\n".join(f"    {line}" for line in text.splitlines()), *more)


def test_a_rollout_with_everything_beside_it() -> None:
    found = carry({"rollout.yaml": (FILES / "rollout.yaml").read_bytes()})
    assert [service.name for service in found.services] == ["checkout", "catalog"]
    checkout = config(found)
    assert checkout.command == ("gunicorn", "--bind", "0.0.0.0:8080", "checkout.web:app")
    assert (checkout.health, checkout.replicas, checkout.drain_seconds) == ("/healthz", 4, 45)
    assert (checkout.liveness.path, checkout.liveness.every, checkout.liveness.timeout) == ("/livez", 15, 3)
    assert (checkout.limits.memory_mb, checkout.limits.cpus) == (512, 1)
    assert checkout.calls == ("catalog",)
    assert {name: one.default for name, one in checkout.environment.items()} == {
        "CURRENCY": "EUR",
        "RETRY_BUDGET": "3",
        "PAYMENT_KEY": None,
        "SESSION_SECRET": None,
        "REGION": "eu-west",
    }
    assert (checkout.canary.steps, checkout.canary.seconds_per_step) == ((5, 20, 60), 600)
    assert (checkout.canary.judge.ratio, checkout.canary.judge.points) == (1, 2)  # type: ignore[union-attr]
    assert checkout.traffic.early == (EarlyConfig(header="x-beta", value="1"),)
    assert checkout.warm.bake_seconds == 600
    assert config(found, 1).replicas == 2


def test_every_loss_has_its_line_its_reason_and_what_to_do() -> None:
    text = (FILES / "rollout.yaml").read_text()
    found = carry({"rollout.yaml": text.encode()})
    notes = found.services[0].notes
    lines = text.splitlines()
    for note in (*notes, *found.notes):
        last = re.split(r"[.\[]", note.path)[-1].rstrip("]")
        assert note.what
        assert note.next
        assert last.isdigit() or last in lines[note.line - 1], note
    assert "waits for a person" in told(notes, "steps[8].pause").what
    assert "docs/guides/policies-and-people.md" in told(notes, "steps[8].pause").next
    assert "log-shipper" in told(notes, "containers[1]").what
    assert "histogram_quantile" in told(notes, "metrics[0]").what
    assert "somewhere-else" in told(notes, "templates[1]").what
    assert told(found.notes, "").what.startswith("NetworkPolicy only-checkout")


def test_the_list_stands_in_the_file_too() -> None:
    found = carry({"canary.yaml": (FILES / "canary.yaml").read_bytes()})
    (service,) = found.services
    for note in service.notes:
        assert f"# * {note}\n#   next: {note.next}\n" in service.text


def test_a_canary_of_flagger() -> None:
    found = carry({"canary.yaml": (FILES / "canary.yaml").read_bytes()})
    (service,) = found.services
    search = config(found)
    assert search.command == ("./search", "--index", "/data set")
    assert (search.replicas, search.start_seconds) == (3, 60)
    assert (search.canary.steps, search.canary.seconds_per_step) == ((20, 40, 60), 30)
    assert (search.canary.judge.ratio, search.canary.judge.points) == (1, 0.5)  # type: ignore[union-attr]
    assert search.traffic.early == (
        EarlyConfig(header="x-insider", value="yes"),
        EarlyConfig(cookie="canary", value="always"),
    )
    assert (search.traffic.sticky, search.traffic.mirror) == (True, 40)
    assert (search.traffic.timeout_seconds, search.traffic.retries) == (3, 3)
    assert (search.traffic.most_connections, search.traffic.most_requests) == (50, 300)
    load = search.acceptance.load
    assert load is not None
    assert (load.requests_per_second, load.seconds, load.paths, load.connections) == (20, 60, ("/find",), 2)
    assert search.acceptance.p95_ms == 500
    assert "in_flight" in told(service.notes, "maxReplicas").next
    assert told(found.notes, "").what.startswith("Secret search-secret")


def test_a_pipeline_of_spinnaker() -> None:
    found = carry({"pipeline.json": (FILES / "pipeline.json").read_bytes()})
    (service,) = found.services
    orders = config(found)
    assert (orders.service, orders.replicas, orders.canary.seconds_per_step) == ("orders", 3, 600)
    assert orders.command == ("python3", "-m", "orders")
    assert "redblack" in told(service.notes, "trafficManagement").what
    assert "Ask operations: waits for a person" in told(service.notes, "stages[2]").what
    assert told(service.notes, "env[0]").next.endswith("$PORT")


def test_no_secret_is_written_anywhere() -> None:
    files = {path.name: path.read_bytes() for path in FILES.iterdir()}
    found = carry({name: data for name, data in files.items() if name != "pipeline.json"})
    words = json.dumps([[s.text, *map(str, s.notes)] for s in found.services]) + str(found.notes)
    assert "checkout" in words
    for secret in ("correct horse", "never-to-be-seen", "abcdef"):
        assert secret in b"".join(files.values()).decode()
        assert secret not in words


@pytest.mark.parametrize(
    "entry",
    ["{name: DATABASE, value: 'postgres://shop:hunter22@db/shop'}", "{name: API_KEY, value: hunter22}"],
)
def test_what_looks_like_a_secret_is_not_copied(entry: str) -> None:
    found = carried(POD.replace("image: shop", f"image: shop, env: [{entry}]"))
    assert [one.secret for one in config(found).environment.values()] == [True]
    assert "hunter22" not in found.services[0].text


def test_a_secret_among_the_words_of_a_command() -> None:
    found = carried(POD.replace("image: shop", "image: shop, command: [./shop, --api-token=hunter22]"))
    assert config(found).run is None
    assert "hunter22" not in found.services[0].text
    assert "secret" in told(found.services[0].notes, "command").what


@pytest.mark.parametrize(
    ("steps", "expected", "seconds"),
    [
        (
            "[{setWeight: 10}, {pause: {duration: 1h}}, {setWeight: 10}, {pause: {duration: 30m}}]",
            (10,),
            5400,
        ),
        ("[{setWeight: 0}, {setWeight: 25}, {pause: {}}]", (25,), 20),
        ("[{setWeight: 50}, {setWeight: 20}, {setWeight: 100}]", (50,), 20),
        ("[{setWeight: 10}, {pause: {duration: 90}}, {setWeight: 20}, {pause: {}}]", (10, 20), 90),
    ],
)
def test_steps_of_a_rollout(steps: str, expected: tuple[float, ...], seconds: float) -> None:
    canary = config(strategy(f"canary:\n  steps: {steps}")).canary
    assert (canary.steps, canary.seconds_per_step) == (expected, seconds)


def test_long_steps_are_looked_at_less_often() -> None:
    """The validator refuses more than 500 looks, and looking less often loses nothing."""
    found = strategy("canary: {steps: [{setWeight: 10}, {pause: {duration: 24h}}]}")
    assert config(found).canary.look_every == 173


def test_weights_of_another_whole() -> None:
    text = "canary:\n  trafficRouting: {maxTrafficWeight: 1000}\n  steps: [{setWeight: 5}, {setWeight: 50}]"
    assert config(strategy(text)).canary.steps == (0.5, 5)


def test_blue_green() -> None:
    found = strategy(
        "blueGreen:\n  activeService: shop\n  previewService: shop-preview\n"
        "  autoPromotionEnabled: false\n  scaleDownDelaySeconds: 120"
    )
    notes = found.services[0].notes
    assert config(found).warm.bake_seconds == 120
    assert "waits for a person" in told(notes, "autoPromotionEnabled").what
    assert "all users at once" in told(notes, "blueGreen").what


@pytest.mark.parametrize(
    ("condition", "query", "points"),
    [
        ("successCondition: result[0] >= 0.95", 'a{code!~"5.*"} / b', 5),
        ("failureCondition: result[0] < 0.99", 'a{code!~"5.."} / b', 1),
        ("successCondition: result < 0.03", 'a{code=~"5.*"} / b', 3),
        ("failureCondition: result[0] > 0.02", 'a{code=~"5xx"} / b', 2),
        ("successCondition: result[0] <= 0.95", 'a{code!~"5.*"} / b', None),
        ("successCondition: result[0] >= 0.95", "up / all", None),
        ("successCondition: result[0] >= 0.95 && result[1] == 0", 'a{code!~"5.*"} / b', None),
        ("successCondition: result[0] <= 0.95", 'a{code=~"5.*"} / b', None),
    ],
)
def test_a_share_of_failures_is_a_margin_and_nothing_else_is(
    condition: str, query: str, points: float | None
) -> None:
    template = f"""
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {{name: rate}}
spec:
  metrics:
    - name: rate
      {condition}
      provider: {{prometheus: {{address: "http://p", query: '{query}'}}}}
"""
    found = strategy("canary: {analysis: {templates: [{templateName: rate}]}}", template)
    judge = config(found).canary.judge
    assert (judge.points if judge else None) == points
    assert [note for note in found.services[0].notes if note.file == "1.yaml"]


def test_templates_that_two_rollouts_share_are_told_to_both() -> None:
    template = (
        "apiVersion: argoproj.io/v1alpha1\nkind: AnalysisTemplate\nmetadata: {name: t}\n"
        "spec: {metrics: [{name: m, successCondition: 'true', provider: {job: {}}}]}"
    )
    one = ROLLOUT + "    canary: {analysis: {templates: [{templateName: t}]}}"
    found = carried(one, one.replace("name: shop", "name: desk"), template)
    assert [told(service.notes, "metrics[0]").what for service in found.services] == [
        "the metric m (job)"
    ] * 2


def test_unknown_fields_are_told_and_never_lost() -> None:
    found = carried(POD + "      futureField: {deep: [1, 2]}\n  anotherOne: true\n")
    notes = found.services[0].notes
    assert told(notes, "spec.template.spec.futureField").next
    assert told(notes, "spec.anotherOne").line == 11


def test_the_same_word_of_another_group_is_something_else() -> None:
    knative = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: s}\n"
    knative += "spec: {selector: {app: shop}, ports: [{name: grpc}]}"
    found = carried(POD, knative)
    assert config(found).protocol == "http/1.1"
    assert told(found.notes, "").what.startswith("Service (serving.knative.dev) s: ")


def test_what_a_pipeline_says_besides_is_told() -> None:
    pipeline = json.loads((FILES / "pipeline.json").read_text()) | {"freezeWindow": {"days": ["fri"]}}
    (service,) = carried(json.dumps(pipeline)).services
    assert told(service.notes, "freezeWindow").next


def test_grpc_has_no_path() -> None:
    text = POD.replace("image: shop", "image: shop, readinessProbe: {grpc: {port: 1}}")
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: shop}, "
    service += "ports: [{name: grpc-api, port: 1}]}"
    assert config(carried(text)).protocol == "grpc"
    text = POD.replace("image: shop", "image: shop, readinessProbe: {httpGet: {path: /ok, port: 1}}")
    found = carried(text, service)
    assert (config(found).protocol, config(found).health) == ("grpc", "")


@pytest.mark.parametrize(
    ("text", "where", "problem", "move"),
    [
        ("a: 1\nkind: [Deployment\n", "0.yaml:3", "not valid YAML", ""),
        ("a: {{ .Values.image }}\n", "0.yaml:1", "not valid YAML", "helm template"),
        ("a: &x [1]\nb: *x\n", "0.yaml:1", "aliases are not supported", "explode"),
        ("a: !!python/object/apply:os.system [id]\n", "0.yaml:1", "not valid YAML", ""),
        ("a: 1\na: 2\n", "0.yaml:2", "the key 'a' is given twice", ""),
        ("[" * 5000, "0.yaml:1", "nested more than 200 deep", ""),
        ("# nothing", "0.yaml", "no Rollout, Canary, Deployment", "helm template"),
        (POD + "  replicas: many\n", "0.yaml:10", "spec.replicas: expected a number, found many", ""),
        (POD.replace("[{name: shop, image: shop}]", "3"), "0.yaml:9", "expected a list, found 3", ""),
        (POD.replace("{name: shop}", "{}", 1), "0.yaml:2", "a Deployment without metadata.name", ""),
        (f"{POD}---{POD}", "0.yaml:11", "two objects would be the service shop", "one namespace"),
        (
            POD.replace("image: shop", "image: x, resources: {limits: {memory: lots}}"),
            "0.yaml:9",
            "expected a quantity",
            "",
        ),
        (
            ROLLOUT + "    canary: {steps: [{setWeight: 5}, {pause: {duration: soon}}]}",
            "0.yaml:8",
            "expected a time such as 30s",
            "",
        ),
    ],
)
def test_bad_input_is_refused_with_file_line_and_next_move(
    text: str, where: str, problem: str, move: str
) -> None:
    with pytest.raises(Invalid) as caught:
        carried(text)
    assert caught.value.where == where
    assert problem in caught.value.what
    assert move in caught.value.next_move


def test_too_much_is_refused() -> None:
    with pytest.raises(Invalid, match="larger than 1048576 bytes"):
        carried("a: " + "b" * 2**20)
    with pytest.raises(Invalid, match="at most 500"):
        carry({str(number): b"" for number in range(501)})
    values = ", ".join(f"{{name: V{number}, value: {'x' * 1000}}}" for number in range(MAX_BYTES // 1000))
    with pytest.raises(Invalid, match="shop cannot become a"):
        carried(POD.replace("image: shop", f"image: shop, env: [{values}]"))


def penstock(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "penstock.cli.main", "import", *words]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)


def test_the_command_writes_a_file_for_each_service_and_replaces_none(tmp_path: Path) -> None:
    folder = str(FILES)
    done = penstock(folder, "--into", str(tmp_path), "-o", "json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert {service["name"] for service in view["services"]} == {"checkout", "catalog", "search", "orders"}
    for service in view["services"]:
        assert Path(service["file"]).read_text() == service["text"]
    assert penstock(folder, "--into", str(tmp_path)).returncode == 0  # the same again is no conflict
    (tmp_path / "orders/penstock.yaml").write_text("service: mine\n")
    refused = penstock(folder, "--into", str(tmp_path))
    assert (refused.returncode, (tmp_path / "orders/penstock.yaml").read_text()) == (1, "service: mine\n")
    assert b"--force" in refused.stderr


def test_the_command_reads_standard_input_and_may_write_nothing(tmp_path: Path) -> None:
    done = penstock("-", "--dry-run", "--into", str(tmp_path), given=POD.encode())
    assert done.returncode == 0
    assert parse(ServiceConfig, done.stdout, "out").service == "shop"
    assert b"the image shop" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert penstock(str(tmp_path)).returncode == 2
    assert penstock(str(tmp_path / "absent.yaml")).returncode == 2
