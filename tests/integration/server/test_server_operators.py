"""Who may ship, abort, promote, retry and roll back: each verb, for each kind of holder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from office import Office
from playhouse import Playhouse, opened
from shop_repository import new_repository

Answer = Callable[[httpx.Client], httpx.Response]

#: Whom the tests know, with what they hold; the shop belongs to the team sales.
HOLDERS = {
    "ci": "deployer",
    "ci-sales": "deployer --scope team/sales",
    "ci-other": "deployer --scope team/other",
    "dev": "development-lead",
    "tess-sales": "test-lead --scope team/sales",
    "sec-other": "security-lead --scope team/other",
    "root-sales": "administrator --scope team/sales",
    "reporter": "evidence-source",
    "reviewer": "review-lead",
    "nobody": "",
}
MAY = {"ci", "ci-sales", "dev", "tess-sales", "root-sales"}
VERBS = ("ship", "ship together", "abort", "promote", "retry", "roll back", "roll back together")


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


@pytest.fixture
def tokens(house: Playhouse, office: Office, request: pytest.FixtureRequest) -> dict[str, str]:
    """A token of everybody's: made once, for all tests here."""
    if not TOKENS:
        office.sh.ok("identity", "bind", "shop", "sales")
        for name, held in HOLDERS.items():
            TOKENS[name] = office.sh.json("identity", "token", name)["token"]
            if held:
                office.sh.ok("role", "grant", name, *held.split(" "))
    return TOKENS


TOKENS: dict[str, str] = {}


def asked(house: Playhouse, verb: str, token: str, delivery: str) -> httpx.Response:
    location, at = str(house.repository), f"/v1/deliveries/{delivery}"
    calls: dict[str, tuple[str, dict[str, object]]] = {
        "ship": ("/v1/ship", {"location": location}),
        "ship together": ("/v1/changesets", {"changes": [{"location": location}]}),
        "abort": (f"{at}/abort", {}),
        "promote": (f"{at}/promote", {}),
        "retry": (f"{at}/retry", {}),
        "roll back": ("/v1/services/shop/rollback", {}),
        "roll back together": ("/v1/services/shop/rollback", {"together": True}),
    }
    path, body = calls[verb]
    with house.client(authorization=f"Bearer {token}") as client:
        return client.post(path, json=body)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_for_those_who_operate_the_service(
    house: Playhouse, tokens: dict[str, str], verb: str
) -> None:
    """Whoever may gets the verb's own answer, which may be that there is nothing to do."""
    ended = house.ship(f"for {verb}")["id"]
    answers = {name: asked(house, verb, token, ended) for name, token in tokens.items()}
    assert {name for name, answer in answers.items() if answer.status_code != 403} == MAY
    refused = answers["ci-other"].json()
    assert refused["word"] == "refused"
    assert "the role deployer" in refused["what"]
    assert "deployer is held by ci, ci-sales, operator" in refused["next"]
    assert "administrator (operator, root-sales)" in refused["next"]
    assert "penstock role grant ci-other deployer --scope team/sales" in refused["next"]
    assert asked(house, verb, house.token, ended).status_code != 403
    with house.client() as client:
        for delivery in client.get("/v1/deliveries", params={"limit": 100}).json()["deliveries"]:
            house.ended(client, delivery["id"])


def test_everybody_with_a_token_reads(house: Playhouse, tokens: dict[str, str]) -> None:
    with house.client(authorization=f"Bearer {tokens['nobody']}") as client:
        for path in ("/v1/status", "/v1/deliveries", "/v1/evidence", "/v1/policies", "/v1/identities"):
            assert client.get(path).status_code == 200


def test_nothing_is_fetched_for_whoever_operates_nothing(
    house: Playhouse, tokens: dict[str, str], tmp_path: Path
) -> None:
    for path, body in (
        ("/v1/ship", {"location": str(tmp_path / "absent")}),
        ("/v1/changesets", {"changes": [{"location": str(tmp_path / "absent")}]}),
    ):
        with house.client(authorization=f"Bearer {tokens['reporter']}") as client:
            assert client.post(path, json=body).status_code == 403
        with house.client(authorization=f"Bearer {tokens['ci-other']}") as client:
            assert client.post(path, json=body).status_code == 422


def test_a_team_ships_no_service_by_naming_its_own_after_it(
    house: Playhouse, tokens: dict[str, str], tmp_path: Path
) -> None:
    """What counts is the service that the commit says it is, not the repository's name."""
    mine = new_repository(tmp_path / "mine")
    (mine / "penstock.yaml").write_text("service: shop\n")
    with house.client(authorization=f"Bearer {tokens['ci-other']}") as client:
        answer = client.post("/v1/ship", json={"location": str(mine)})
    assert answer.status_code == 403
    assert "may not ship" in answer.json()["what"]


def test_who_lost_the_role_operates_no_more(house: Playhouse, office: Office, tokens: dict[str, str]) -> None:
    ended = house.ship("lost")["id"]
    office.sh.ok("identity", "token", "gone")
    token = office.sh.json("identity", "token", "gone")["token"]
    assert asked(house, "abort", token, ended).status_code == 403
    office.sh.ok("role", "grant", "gone", "deployer")
    assert asked(house, "abort", token, ended).status_code == 409
    office.sh.ok("role", "revoke", "gone", "deployer", "--reason", "left")
    assert asked(house, "abort", token, ended).status_code == 403


def test_the_beginning_of_an_id_is_enough(house: Playhouse) -> None:
    ended = house.ship("short")["id"]
    assert f"{ended}" in asked(house, "abort", house.token, ended[:-1]).json()["where"]
