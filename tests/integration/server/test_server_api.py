"""The API over a real server: what it answers, and how it says no."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from playhouse import Playhouse, Told

from penstock.core.codec import decode
from penstock.ledger.bundle import check
from penstock.ledger.fsck import Trust


def ask(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_stories_ended_as_their_commits_say(told: Told) -> None:
    assert told.first["outcome"] == "promoted"
    assert told.good["outcome"] == "promoted"
    assert (told.refused["outcome"], told.refused["refused_by"]) == ("refused", ["development-lead"])
    assert told.rolled_back["outcome"] == "rolled-back"


def test_a_delivery_has_its_stages_with_states_times_and_reasons(told: Told) -> None:
    stages = {stage["name"]: stage for stage in told.good["stages"]}
    assert list(stages) == ["begin", "build", "tests", "scan", "deploy", "acceptance", "canary", "promote"]
    assert {stage["state"] for stage in stages.values()} == {"success"}
    assert all(stage["seconds"] >= 0 for stage in stages.values())


def test_stages_that_a_refusal_left_out_do_not_wait_for_anything(told: Told) -> None:
    stages = {stage["name"]: stage["state"] for stage in told.refused["stages"]}
    assert stages == {
        "begin": "success",
        "build": "success",
        "tests": "success",
        "scan": "success",
        "deploy": "failure",
        "acceptance": "skip",
        "canary": "skip",
        "promote": "skip",
    }


def test_a_refusal_says_which_rule_and_which_values(told: Told) -> None:
    (signed,) = [s for s in told.refused["sign_offs"] if s["verdict"] == "FAIL"]
    (rule,) = [r for r in signed["rules"] if r["verdict"] == "FAIL"]
    assert signed["policy"] == signed["owner"] == "development-lead"
    assert rule["id"] == "no-test-failed"
    assert rule["values"]["evidence.tests.failed"] == "1"


def test_a_delivery_is_found_by_the_beginning_of_its_id(client: httpx.Client, told: Told) -> None:
    assert ask(client, f"/v1/deliveries/{told.good['id'][:-1]}")["id"] == told.good["id"]


def test_deliveries_are_listed_newest_first(client: httpx.Client, told: Told) -> None:
    listed = ask(client, "/v1/deliveries", service="shop", limit=500)["deliveries"]
    ids = [delivery["id"] for delivery in listed]
    assert ids.index(told.rolled_back["id"]) < ids.index(told.good["id"]) < ids.index(told.first["id"])
    assert ask(client, "/v1/deliveries", service="nothing")["deliveries"] == []
    for other in ("sho", "sho_", "%", "SHOP", "shop/production", "x" * 60_000):
        assert ask(client, "/v1/deliveries", service=other)["deliveries"] == []


def test_deliveries_are_listed_page_by_page(client: httpx.Client, told: Told) -> None:
    whole = ask(client, "/v1/deliveries", service="shop", limit=500)["deliveries"]
    paged = ask(client, "/v1/deliveries", service="shop", limit=2)["deliveries"]
    while more := ask(client, "/v1/deliveries", service="shop", limit=2, before=paged[-1]["id"])[
        "deliveries"
    ]:
        paged += more
    assert [one["id"] for one in paged] == [one["id"] for one in whole]
    answer = client.get("/v1/deliveries", params={"before": "shop-no-such"})
    assert answer.status_code == 422
    assert "shop-no-such" in answer.text


def test_why_goes_back_to_the_change_and_forward_to_the_sign_offs(client: httpx.Client, told: Told) -> None:
    why = ask(client, "/v1/services/shop/why")
    assert why["delivery"] == told.good["id"]
    assert why["change"]["revision"] == told.good["change"]["revision"]
    assert why["change"]["work_items"] == ["SHOP-7"]
    assert why["change"]["reviewers"] == ["Rae <rae@example.com>"]
    assert why["data"] == {"CURRENCY": "EUR", "PAYMENT_KEY": "***"}
    carried = {(signed["policy"], signed["action"]) for signed in why["sign_offs"]}
    assert carried >= {("development-lead", "deploy"), ("security-lead", "deploy"), ("test-lead", "shift")}
    assert {signed["verdict"] for signed in why["sign_offs"]} == {"PASS"}
    assert why["canary"] == "PASS: no worse: 0 of 500 errors"


def test_a_canary_that_failed_restored_nothing(client: httpx.Client, told: Told) -> None:
    """The stable pair served all along; only a rollback by hand brings a pair back."""
    assert told.rolled_back["outcome"] == "rolled-back"
    assert ask(client, "/v1/services/shop/why")["restored_by"] is None


def test_status_has_the_ledgers_word_and_the_data_planes(
    client: httpx.Client, house: Playhouse, told: Told
) -> None:
    (shop,) = ask(client, "/v1/status")["services"]
    assert shop["live"] == told.good["release"]
    assert shop["weights"] == [{"release": told.good["release"], "per_cent": 100.0}]
    assert shop["drift"] is False


def test_one_service_is_told_as_in_the_status(client: httpx.Client, told: Told) -> None:
    assert ask(client, "/v1/services/shop") == ask(client, "/v1/status")["services"][0]
    answer = client.get("/v1/services/shpo")
    assert (answer.status_code, "did you mean shop?" in answer.text) == (422, True)
    elsewhere = client.get("/v1/services/shop", params={"environment": "eu"})
    assert "shop was never in eu; it is in: production" in elsewhere.text


def test_status_notices_drift(client: httpx.Client, house: Playhouse, told: Told) -> None:
    kept = house.proxy.states["shop/production"]
    try:
        house.proxy.states.clear()
        assert ask(client, "/v1/status")["services"][0]["drift"] is True
    finally:
        house.proxy.states["shop/production"] = kept


def test_status_answers_without_a_data_plane(client: httpx.Client, house: Playhouse, told: Told) -> None:
    house.proxy.away = True
    try:
        (shop,) = ask(client, "/v1/status")["services"]
    finally:
        house.proxy.away = False
    assert "does not answer" in shop["problem"]
    assert shop["drift"] is False


def test_logs_of_a_delivery_and_of_one_stage(client: httpx.Client, told: Told) -> None:
    path = f"/v1/deliveries/{told.good['id']}/logs"
    assert "build <of> " in client.get(path).text
    one = client.get(path, params={"stage": "build"}).text
    assert "build <of> " in one
    assert "suite <of> " not in one
    assert client.get(path, params={"stage": "build", "offset": 10**9}).text == "--- build\n"


def test_logs_of_a_service(client: httpx.Client, told: Told) -> None:
    assert f"{told.good['release']} listens" in client.get("/v1/services/shop/logs").text


def test_evidence_by_delivery_by_digest_and_by_type(client: httpx.Client, told: Told) -> None:
    own = ask(client, "/v1/evidence", delivery=told.good["id"])["entries"]
    assert {"Proposed", "SignOff", "Promoted", "Ended"} <= {entry["what"] for entry in own}
    artifact = own[-2]["subjects"][0]["digest"]
    about = ask(client, "/v1/evidence", digest=artifact)["entries"]
    assert all(artifact in [s["digest"] for s in entry["subjects"]] for entry in about)
    promotions = ask(client, "/v1/evidence", type="urn:penstock:promotion:v1")["entries"]
    assert {entry["what"] for entry in promotions} == {"Promoted"}
    assert ask(client, "/v1/evidence", delivery=told.good["id"], limit=2)["entries"] == own[-2:]
    assert len(ask(client, "/v1/evidence", limit=3)["entries"]) == 3


def test_an_entry_gives_the_exact_bytes_that_were_signed(client: httpx.Client, told: Told) -> None:
    entry = ask(client, "/v1/evidence/0")
    assert entry["what"] == "Genesis"
    assert json.loads(entry["envelope"])["payloadType"] == "application/vnd.in-toto+json"


def test_a_bundle_is_proven_with_the_trust_file_alone(
    client: httpx.Client, house: Playhouse, told: Told
) -> None:
    assert house.control
    data = client.get(f"/v1/deliveries/{told.refused['id']}/bundle").content
    trust = decode(Trust, json.loads(house.home.trust.read_text()))
    assert [step for step in check(data, trust, house.control.languages) if not step.ok] == []
    broken = data.replace(b'"index":0,', b'"index":1,')
    assert not all(step.ok for step in check(broken, trust, house.control.languages))


def test_the_ledger_verifies_and_has_a_signed_head(client: httpx.Client, told: Told) -> None:
    report = client.post("/v1/ledger/verify").json()
    assert (report["verified"], report["problems"]) == (True, [])
    assert report["sign_offs"] > 0
    assert client.get("/v1/ledger/checkpoint").text.startswith("penstock\n")


def test_policies_are_listed_and_shown(client: httpx.Client, told: Told) -> None:
    names = [policy["name"] for policy in ask(client, "/v1/policies")["policies"]]
    assert names == ["development-lead", "operations-lead", "security-lead", "test-lead"]
    shown = ask(client, "/v1/policies/test-lead")
    assert shown["source"].endswith("\n")
    assert shown["holders"] == ["operator"]


def test_events_tell_of_commits(client: httpx.Client, house: Playhouse, told: Told) -> None:
    with client.stream("GET", "/v1/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        lines = events.iter_lines()
        assert next(lines).startswith("retry:")
        assert client.post("/v1/ship", json={"location": str(house.repository)}).status_code == 200
        assert next(line for line in lines if line.startswith("event:")) == "event: change"


PROBLEMS: list[tuple[str, str, object, int, str]] = [
    ("GET", "/v1/nothing", None, 404, "invalid"),
    ("GET", "/v1/deliveries/nobody-00000000", None, 422, "invalid"),
    ("GET", "/v1/deliveries/shop-", None, 422, "invalid"),
    ("GET", "/v1/deliveries?limit=many", None, 422, "invalid"),
    ("GET", "/v1/services/nothing/why", None, 422, "invalid"),
    ("GET", "/v1/services/nothing/logs", None, 422, "invalid"),
    ("GET", "/v1/policies/nothing", None, 422, "invalid"),
    ("GET", "/v1/evidence/99999999", None, 422, "invalid"),
    ("GET", f"/v1/evidence/{2**70}", None, 422, "invalid"),
    ("GET", "/v1/evidence/-1", None, 422, "invalid"),
    ("GET", "/v1/deliveries/nobody-00000000/bundle", None, 422, "invalid"),
    ("POST", "/v1/ship", {"location": "/does/not/exist"}, 422, "invalid"),
    ("POST", "/v1/ship", {"location": "/tmp/\u0000"}, 422, "invalid"),
    ("POST", "/v1/ship", {"location": "--upload-pack=touch /tmp/pwned"}, 422, "invalid"),
    ("POST", "/v1/ship", {}, 422, "invalid"),
    ("POST", "/v1/ship", [], 422, "invalid"),
    ("POST", "/v1/services/nothing/rollback", {}, 409, "conflict"),
    ("POST", "/v1/statements", {"payload": "x"}, 422, "invalid"),
    ("POST", "/v1/statements", None, 422, "invalid"),
    ("POST", "/v1/say", {"type": "urn:penstock:policy:v1", "predicate": {"name": "x"}}, 422, "invalid"),
    ("POST", "/v1/say", {"type": "urn:penstock:canary:v1", "predicate": {}}, 422, "invalid"),
    ("POST", "/v1/say", {"type": "x", "predicate": {}}, 422, "invalid"),
    ("GET", "/v1/whoami?keyid=ab", None, 422, "invalid"),
    ("POST", "/v1/tokens", {"identity": "no body"}, 422, "invalid"),
    ("POST", "/v1/evidence", None, 422, "invalid"),
    ("POST", "/v1/evidence?format=junit&about=nobody", None, 422, "invalid"),
    ("POST", "/v1/evidence?format=nothing&about=sha256:00", None, 422, "invalid"),
    ("POST", "/v1/policies/replay", {"source": "policy: x"}, 422, "invalid"),
    ("POST", "/v1/policies/replay", {"source": "policy: x", "limit": 0}, 422, "invalid"),
    ("POST", "/v1/policies/lint", {"source": "\t: ["}, 422, "invalid"),
    ("DELETE", "/v1/policies", None, 405, "invalid"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "word"), PROBLEMS)
def test_what_is_wrong_is_a_problem_document(
    client: httpx.Client, method: str, path: str, body: object, status: int, word: str
) -> None:
    answer = client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["word"] == word
    assert problem["what"]


def test_bad_offsets_and_lone_surrogates_are_invalid(client: httpx.Client, told: Told) -> None:
    path = f"/v1/deliveries/{told.good['id']}/logs"
    assert client.get(path, params={"stage": "build", "offset": -5}).status_code == 422
    assert client.get(path, params={"stage": "../../keys/log"}).status_code == 422
    text = b'{"reason": "\\ud800"}'
    headers = {"content-type": "application/json"}
    assert client.post("/v1/services/shop/rollback", content=text, headers=headers).status_code == 422


def test_a_delivery_that_has_ended_cannot_be_asked_for_anything(client: httpx.Client, told: Told) -> None:
    answer = client.post(f"/v1/deliveries/{told.good['id']}/abort")
    assert (answer.status_code, answer.json()["word"]) == (409, "conflict")


def test_what_has_ended_is_tried_again_as_a_new_delivery(
    client: httpx.Client, house: Playhouse, told: Told
) -> None:
    first = told.good["id"]
    answer = client.post(f"/v1/deliveries/{first}/retry", json={"stage": "acceptance"})
    delivery = answer.json()["delivery"]
    assert delivery != first
    view = house.ended(client, delivery)
    assert view["retries"] == first
    keys = [step["key"] for step in view["steps"]]
    assert keys.index("build/build/0") < keys.index("begin/begin/0"), "the build was not reused"
    refused = client.post(f"/v1/deliveries/{first}/retry", json={"stage": "nothing"})
    assert (refused.status_code, "no stage 'nothing'" in refused.text) == (422, True)
    assert client.post("/v1/deliveries/nothing/retry", json={}).status_code == 422


def test_what_can_be_no_change_set_is_refused(client: httpx.Client, house: Playhouse, told: Told) -> None:
    place = {"location": str(house.repository)}
    for changes, words in (
        ([place, place], "shop is twice in one change set"),
        ([], "at least 1 item"),
        ([place, {"location": "/nowhere"}], "/nowhere"),
    ):
        answer = client.post("/v1/changesets", json={"changes": changes})
        assert (answer.status_code, words in answer.text) == (422, True), answer.text
    alone = client.post("/v1/services/shop/rollback", json={"together": True})
    assert (alone.status_code, "came with no other service" in alone.text) == (409, True)
    assert client.get("/v1/deliveries").json()["deliveries"][0]["together"] == []


def test_a_running_delivery_says_what_it_does_and_can_be_aborted(
    client: httpx.Client, house: Playhouse, told: Told
) -> None:
    house.commit("hangs in its tests")
    (delivery,) = client.post("/v1/ship", json={"location": str(house.repository)}).json()["deliveries"]
    for _ in range(2000):
        view = client.get(f"/v1/deliveries/{delivery}").json()
        if view["stages"][2]["state"] == "executing":
            break
    states = {stage["name"]: stage["state"] for stage in view["stages"]}
    assert [states[name] for name in ("begin", "build", "tests")] == ["success", "success", "executing"]
    assert states["scan"] in ("executing", "success"), "it runs beside the tests"
    assert states["deploy"] == "pending"
    assert client.post(f"/v1/deliveries/{delivery}/abort").json() == {"delivery": delivery}
    assert house.ended(client, delivery)["outcome"] == "aborted"
