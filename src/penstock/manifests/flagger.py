"""Flagger: a ``Canary`` to ``canary``, ``traffic`` and ``acceptance``.

Called by `carry`, which reads the Deployment that it points at with `pods`.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import urlsplit

from penstock.manifests.draft import Draft
from penstock.manifests.place import Place
from penstock.manifests.rollout import PERSON, TEST, add_early
from penstock.manifests.steps import SLO, Step, set_margin, set_steps

#: How Flagger's documentation has a cookie matched.
COOKIE = re.compile(r"\^\(\.\*\??;?\)\?\(([A-Za-z0-9_.-]+)=([A-Za-z0-9_.-]+)\)\(;\.\*\)\?\$")
GATES = ("confirm-rollout", "confirm-traffic-increase", "confirm-promotion")
LED = "users reach it through Penstock's own proxy, or the cluster's gateway: docs/guides/traffic.md"
TELL = "penstock webhook add URL tells what happens: docs/guides/telemetry.md"


def set_canary(draft: Draft, spec: Place) -> None:
    """What the *spec* of a Canary says."""
    for name in ("targetRef", "autoscalerRef", "provider", "metricsServer", "revertOnDeletion"):
        spec.at(name).done()  # followed elsewhere, or about Flagger itself
    for name in ("ingressRef", "routeRef", "upstreamRef"):
        draft.lost(spec.at(name), "an object that Flagger changes", LED)
    deadline = spec.at("progressDeadlineSeconds")
    if deadline:
        draft.set("start_seconds", max(1.0, deadline.seconds()), deadline)
    if spec.at("suspend").flag():
        draft.lost(spec.at("suspend"), "suspended: nothing is delivered unless it is shipped", "leave it out")
    if spec.at("skipAnalysis").flag():
        draft.lost(spec.at("skipAnalysis"), "every release is judged", "a policy's override, with a reason")
    _service(draft, spec.at("service"))
    _analysis(draft, spec.at("analysis"))


def _service(draft: Draft, service: Place) -> None:
    for name in ("name", "port", "targetPort", "portDiscovery", "apex", "primary", "canary", "headless"):
        service.at(name).done()
    for name in ("unmanagedMetadata", "meshName", "backends", "trafficDistribution"):
        service.at(name).done()
    set_protocol(draft, service.at("appProtocol"))
    set_protocol(draft, service.at("portName"))
    timeout, attempts = service.at("timeout"), service.at("retries.attempts")
    if timeout:
        draft.set("traffic.timeout_seconds", min(max(timeout.seconds(), 0.001), 3600.0), timeout)
    if attempts:
        draft.set("traffic.retries", min(max(attempts.whole(), 0), 10), attempts)
    for name in ("retries.perTryTimeout", "retries.retryOn", "backendTimeout"):
        what = "only what no copy has seen is sent again, within traffic.timeout_seconds"
        draft.lost(service.at(name), what, "leave it out")
    for name in ("hosts", "gateways", "gatewayRefs", "delegation", "match"):
        draft.lost(service.at(name), "how users find it", LED)
    for name in ("rewrite", "headers", "corsPolicy"):
        draft.lost(service.at(name), "requests and answers are not rewritten", "do it in the program")
    _pool(draft, service.at("trafficPolicy.connectionPool"))


def set_protocol(draft: Draft, place: Place) -> None:
    """What a port speaks, where its name or its protocol says more than HTTP."""
    spoken = place.text().lower()
    if spoken == "grpc" or spoken.startswith("grpc-"):
        draft.set("protocol", "grpc", place)
    elif spoken in ("h2c", "http2", "kubernetes.io/h2c") or spoken.startswith("http2-"):
        draft.set("protocol", "h2c", place)


def _pool(draft: Draft, pool: Place) -> None:
    """Istio's circuit breakers are ours by another name."""
    connections = pool.at("tcp.maxConnections")
    requests = pool.at("http.http2MaxRequests")
    if connections:
        draft.set("traffic.most_connections", max(0, connections.whole()), connections)
    if requests:
        draft.set("traffic.most_requests", max(0, requests.whole()), requests)


def _analysis(draft: Draft, analysis: Place) -> None:
    for name in ("primaryReadyThreshold", "canaryReadyThreshold"):
        analysis.at(name).done()  # every copy is ready before it has users
    move = "canary.judge says what is promised and what is asked"
    draft.lost(analysis.at("threshold"), "so many failed checks: the judge stops at the first proof", move)
    what = "users of the promoted release move at once, as most have by then"
    draft.lost(analysis.at("stepWeightPromotion"), what, "leave it out")
    _weights(draft, analysis)
    for match in analysis.at("match").each():
        _match(draft, match)
    if analysis.at("mirror").flag():
        draft.set("traffic.mirror", analysis.at("mirrorWeight").number(100.0), analysis.at("mirror"))
    _affinity(draft, analysis.at("sessionAffinity"))
    for metric in analysis.at("metrics").each():
        _metric(draft, metric)
    for hook in analysis.at("webhooks").each():
        _webhook(draft, hook)
    for alert in analysis.at("alerts").each():
        draft.lost(alert, f"the alert {alert.at('name').shown()}", TELL)


def _weights(draft: Draft, analysis: Place) -> None:
    """``stepWeights``, or ``stepWeight`` up to ``maxWeight``: each lasts one interval."""
    interval = analysis.at("interval").seconds(60.0)
    listed, step = analysis.at("stepWeights"), analysis.at("stepWeight")
    weights = [weight.number() for weight in listed.each()]
    most, iterations = analysis.at("maxWeight").number(100.0), analysis.at("iterations")
    if step and not weights:
        size = step.number()
        if not size >= 1:
            raise step.wrong("a weight from 1 to 100")
        # It goes on while it is below the greatest weight, and so may end above it.
        while (weights[-1] if weights else 0.0) < min(most, 100.0):
            weights.append(size * (len(weights) + 1))
    if iterations:
        seconds = iterations.number() * interval
        what = f"{seconds:g} s of tests, then all users at once: here they move by steps, under a judge"
        draft.lost(iterations, what, "canary: {steps: [50], seconds_per_step: …} is the shortest")
    source = listed or step
    set_steps(draft, [Step(weight, interval, source) for weight in weights], source)


def _match(draft: Draft, match: Place) -> None:
    """Users who are on the new release from the beginning; here too, while the others come by steps."""
    headers = match.at("headers").named()
    if len(headers) == 1 and set(match.parts) == {"headers"}:
        ((name, value),) = headers.items()
        exact, pattern = value.at("exact"), COOKIE.fullmatch(str(value.at("regex").value))
        if exact and name.lower() != "cookie":
            add_early(draft, {"header": name, "value": exact.text()}, match)
            return
        if pattern and name.lower() == "cookie":
            add_early(draft, {"cookie": pattern[1], "value": pattern[2]}, match)
            return
    move = "traffic.early takes a header or a cookie with an exact value, and a path"
    draft.lost(match, "users told apart in another way", move)


def _affinity(draft: Draft, affinity: Place) -> None:
    if not affinity:
        return
    draft.set("traffic.sticky", True, affinity)
    draft.lost(affinity, "a cookie of Penstock's own, one for each canary", "leave its name and age out")


def _metric(draft: Draft, metric: Place) -> None:
    name, least, most = (
        metric.at("name").text(),
        metric.at("thresholdRange.min"),
        metric.at("thresholdRange.max"),
    )
    own = not metric.at("templateRef") and not metric.at("query")
    metric.at("interval").done()  # the judge looks as often as it may
    if own and name == "request-success-rate" and least:
        share = least.number()
        if set_margin(draft, 100.0 - share, least, f"{share:g}% succeed"):
            return
    if own and name == "request-duration" and most:
        draft.set("acceptance.p95_ms", max(1.0, most.number()), most)
        what = f"99% within {most.number():g} ms, of all users: here 95% of the tests' requests"
        draft.lost(most, what, SLO)
        return
    template = metric.at("templateRef.name")
    said = f" (template {template.shown()})" if template else ""
    draft.lost(metric, f"the metric {metric.at('name').shown()}{said}", TEST)


def _webhook(draft: Draft, hook: Place) -> None:
    kind, command = hook.at("type").text() or "rollout", hook.at("metadata.cmd").text()
    name = hook.at("name").shown()
    if load := _load(command):
        for field, value in load.items():
            draft.set(f"acceptance.load.{field}", value, hook)
        draft.lost(
            hook, f"{name}: the same load, of the dark release, once", "add limits: p95_ms, error_rate"
        )
    elif kind in GATES:
        draft.lost(hook, f"{name}: somebody else agrees", PERSON)
    elif kind in ("event", "post-rollout"):
        draft.lost(hook, f"{name}: somebody else is told", TELL)
    elif kind == "rollback":
        draft.lost(hook, f"{name}: somebody else takes it back", "have it call penstock abort DELIVERY")
    else:
        draft.lost(hook, f"{name}: a test", "acceptance.run: tests against the dark release")


def _load(command: str) -> dict[str, object]:
    """What ``hey -z 1m -q 10 -c 2 URL`` sends, as `acceptance.load`; {} for anything else."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    if len(words) < 2 or words[0] != "hey" or len(words) % 2:
        return {}
    options = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    if not {"-z", "-q", "-c"} >= options.keys() >= {"-z", "-q"}:
        return {}
    rate, connections = options["-q"], options.get("-c", "50")
    lasts = re.fullmatch(r"([0-9]{1,5})(s|m)", options["-z"])
    if not (lasts and re.fullmatch("[0-9]{1,4}", rate) and re.fullmatch("[0-9]{1,3}", connections)):
        return {}
    seconds = int(lasts[1]) * (60 if lasts[2] == "m" else 1)
    try:
        path = urlsplit(words[-1]).path or "/"
    except ValueError:
        return {}
    return {
        "requests_per_second": min(max(int(rate) * int(connections), 1), 1000),
        "seconds": min(max(seconds, 1), 600),
        "paths": [path] if path.startswith("/") and not path.startswith("//") else ["/"],
        "connections": min(max(int(connections), 1), 256),
    }
