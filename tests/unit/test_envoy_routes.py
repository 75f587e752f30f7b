"""Routes are read back as they were rendered; keys open one thing each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penstock.adapters.envoy.admission import CALLING_HEADER, LIMIT, breakers_of, thresholds
from penstock.adapters.envoy.config import Listening, manager
from penstock.adapters.envoy.keys import Keys
from penstock.adapters.envoy.routes import Active, active, chains, kept_by, routes, wanted
from penstock.core.admission import Admission, Breakers
from penstock.core.traffic import Backend, Field, Handling, Mirror, Rule, TrafficPlan, Weight

KEYS = Keys("secret")
BACKENDS = (Backend("web-1", ("unix:/1",)), Backend("web-2", ("unix:/2",)), Backend("web-3", ("unix:/3",)))
PLAN = TrafficPlan("web", "production", BACKENDS, (Weight("web-1", 900), Weight("web-2", 100)))
RULES = (
    Rule((Weight("web-2", 1000),), "/beta", (Field("x-a", "1"), Field("baggage", "a=b")), (Field("c", "d"),)),
    Rule((Weight("web-1", 1), Weight("web-2", 999)), headers=(Field("x-request-id", "abc"),)),
)


def let_in(of: Admission) -> tuple[Backend, ...]:
    return (replace(BACKENDS[0], admission=of), *BACKENDS[1:])


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, weights=()),
        replace(PLAN, weights=(), backends=()),
        replace(PLAN, rules=RULES),
        replace(PLAN, sticky="web-2"),
        replace(PLAN, mirror=Mirror("web-3", 1)),
        replace(PLAN, backends=let_in(Admission(callers=()))),
        replace(PLAN, backends=let_in(Admission(("shop", "cart-2"), False, 3, 7)), rules=RULES, sticky="a"),
        replace(PLAN, backends=let_in(Admission(("shop",))), weights=()),
        replace(PLAN, handling=Handling(0.0015, 0, 2.5)),
        replace(
            PLAN, rules=RULES, sticky="a.b-c", mirror=Mirror("web-3", 1000), handling=Handling(3600, 10, 3600)
        ),
    ],
)
def test_routes_are_read_back_as_they_were_rendered(plan: TrafficPlan) -> None:
    assert active(routes(plan, KEYS)) == wanted(plan)


def test_routes_of_an_earlier_release_are_understood() -> None:
    """They had no names, and one time limit for all of an answer: after an upgrade Envoy still follows them,
    and users must be seen where they are."""
    plan = replace(PLAN, handling=Handling(5.0, 1))
    rendered = routes(plan, KEYS)
    for route in rendered["virtual_hosts"][0]["routes"]:
        route.pop("name", None)
        if "route" in route:
            del route["route"]["idle_timeout"]
            route["route"]["timeout"] = route["route"]["retry_policy"].pop("per_try_timeout")
    assert active(rendered) == wanted(plan)


@pytest.mark.parametrize(
    "limits", [Breakers(), Breakers(requests=1), Breakers(9, 7), Breakers(connections=1)]
)
def test_limits_are_read_back_as_they_were_rendered(limits: Breakers) -> None:
    assert breakers_of(thresholds(limits)) == limits


def test_a_listener_of_no_service_of_ours_takes_nobodys_word_for_one() -> None:
    """What it does not know itself is taken off, whoever sent it."""
    of = Listening("in", "127.0.0.1:1", "web", Path("f"), caller="somebody")
    (arrival,) = manager(of, Path("log"))["early_header_mutation_extensions"]
    assert {"remove": CALLING_HEADER} in arrival["typed_config"]["mutations"]


def test_limits_of_an_earlier_release_are_understood() -> None:
    assert breakers_of({"thresholds": [LIMIT, {"priority": "HIGH", "max_requests": 1}]}) == Breakers()


def test_a_key_opens_one_thing() -> None:
    keys = {KEYS.preview("web.production"), KEYS.preview("web.staging"), KEYS.preview("shop.production")}
    keys |= {KEYS.chain("web.production"), Keys("other").preview("web.production")}
    assert len(keys) == 5


def test_a_chain_leads_within_its_environment_to_what_is_there() -> None:
    shop = Backend("shop-1", ("unix:/s",), chain=("web-2", "web-9", "cart-1"))
    callers = [
        TrafficPlan("shop", "production", (shop,), ()),
        TrafficPlan("shop", "staging", (replace(shop, release="shop-9"),), ()),
    ]
    assert [(c.caller, c.release) for c in chains(callers, PLAN)] == [("shop-1", "web-2")]


def test_what_is_no_plan_is_not_kept() -> None:
    odd = Active(weights=(Weight("web-9", 1000),))
    assert kept_by(odd, PLAN) == PLAN
    moved = Active(weights=(Weight("web-2", 1000),))
    assert kept_by(moved, PLAN) == replace(PLAN, weights=moved.weights)
