"""Back, and back again: a rollback of a rollback goes one pair further, and says when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playhouse import Playhouse, opened


@pytest.fixture(scope="module")
def house() -> Iterator[Playhouse]:
    with opened() as found:
        yield found


def roll_back(house: Playhouse, client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/v1/services/shop/rollback", json={})
    assert answer.status_code == 200, answer.text
    (delivery,) = answer.json()["deliveries"]
    return house.ended(client, delivery)


def live(client: httpx.Client) -> str:
    (row,) = client.get("/v1/status").json()["services"]
    return str(row["live"])


def test_each_rollback_goes_one_pair_further_and_the_fix_is_shippable(house: Playhouse) -> None:
    oldest, older, newest = (house.ship(f"good {number}")["release"] for number in range(3))
    with house.client() as client:
        assert live(client) == newest
        for expected in (older, oldest):
            assert roll_back(house, client)["outcome"] == "restored"
            assert live(client) == expected
        answer = client.post("/v1/services/shop/rollback", json={})
        assert answer.status_code == 409
        assert "has nothing earlier to come back to" in answer.text
        fix = house.ship("good again")
        assert fix["outcome"] == "promoted"
        assert live(client) == fix["release"]
        assert roll_back(house, client)["outcome"] == "restored"
        assert live(client) == oldest
        assert client.post("/v1/ledger/verify").json()["verified"]
