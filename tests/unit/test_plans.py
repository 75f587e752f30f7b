"""Plans: which stages ``penstock.yaml`` makes, and that deliveries keep the plan they were given."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from penstock.config import STAGES, CanaryConfig, ServiceConfig, SuiteConfig
from penstock.core.acceptanceconfig import AcceptanceConfig, CompareConfig, LoadConfig
from penstock.core.codec import decode, encode
from penstock.core.pipeline import Pipeline, Stage, State
from penstock.core.release import Change
from penstock.core.stages import ALL_CHECKS
from penstock.engine.journal import Delivery, Header
from penstock.engine.plans import AROUND_SECONDS, check_stages, plan, planned, with_plan

CHECKS = {
    "browsers": SuiteConfig("x", after=("unit",), each=("firefox", "chrome"), seconds=60.0),
    "unit": SuiteConfig("x"),
    "style": SuiteConfig("x", optional=True),
    "report": SuiteConfig("x", after=("browsers", "style")),
}
CONFIG = ServiceConfig(service="shop", checks=CHECKS)
CHANGE = Change("code", "shop", "production", "/repo", "1" * 40, "Dana", "A change")


def delivery(header: Header) -> Delivery:
    return Delivery("shop-1", header, State.PENDING, "", "", "", 0, 0.0, 0.0)


def test_each_check_is_a_stage_and_each_target_of_it() -> None:
    found = {stage.name: stage for stage in check_stages(CONFIG)}
    assert set(found) == {"unit", "browsers-1", "browsers-2", "style", "report"}
    assert found["unit"].after == found["style"].after == ("build",)
    assert found["browsers-2"] == Stage(
        "browsers-2",
        "suite",
        after=("unit",),
        seconds=60.0 + AROUND_SECONDS,
        part="browsers",
        target="chrome",
    )
    assert found["report"].after == ("browsers-1", "browsers-2", "style")
    assert [stage.name for stage in found.values() if stage.optional] == ["style"]


def test_nothing_is_deployed_before_every_check_and_the_scan() -> None:
    (deploy,) = [stage for stage in planned("code", CONFIG).stages if stage.name == "deploy"]
    assert set(deploy.after) == {"scan", *(stage.name for stage in check_stages(CONFIG))}


def test_who_names_no_checks_has_one_stage_for_what_is_found() -> None:
    assert check_stages(ServiceConfig(service="shop")) == ALL_CHECKS


@pytest.mark.parametrize("kind", ["code", "configuration", "rollback"])
def test_a_new_delivery_keeps_its_plan(kind: str) -> None:
    change = Change(kind, "shop", "production", "/repo", "1" * 40, "Dana", "A change")  # type: ignore[arg-type]
    header = with_plan(Header(change, CONFIG))
    kept = decode(Header, encode(header))
    assert kept.version == 2
    assert plan(delivery(kept)) == planned(kind, CONFIG)


def test_a_plan_that_is_kept_is_followed_whatever_would_be_planned_now() -> None:
    own = Pipeline("standard", (Stage("begin", "begin"),), planned("code", CONFIG).canary)
    assert plan(delivery(Header(CHANGE, CONFIG, pipeline=own))) == own


def test_the_first_releases_deliveries_have_one_stage_for_all_checks_and_no_deadlines() -> None:
    found = plan(delivery(Header(CHANGE, CONFIG)))
    assert [stage.name for stage in found.stages if stage.verb == "suite"] == ["tests"]
    assert {stage.seconds for stage in found.stages} == {math.inf}


def test_what_the_canary_is_compared_with_is_kept_and_absent_where_nothing_is_said() -> None:
    fresh = replace(CONFIG, canary=CanaryConfig((5.0, 50.0), baseline="fresh"))
    kept = decode(Header, encode(with_plan(Header(CHANGE, fresh))))
    assert plan(delivery(kept)).canary.baseline == kept.config.canary.rule().baseline == "fresh"
    assert "baseline" not in json.dumps(encode(with_plan(Header(CHANGE, CONFIG)))), (
        "as releases before had it"
    )


def test_no_check_can_have_the_name_of_a_stage() -> None:
    kinds = ("code", "configuration", "rollback")
    ours = {stage.name for kind in kinds for stage in planned(kind, CONFIG, objectives=True).stages}
    assert ours - {stage.name for stage in check_stages(CONFIG)} == STAGES


def test_a_load_test_and_a_comparison_have_the_time_they_ask_for() -> None:
    def seconds(config: ServiceConfig) -> float:
        return next(s.seconds for s in planned("code", config).stages if s.verb == "acceptance")

    asked = AcceptanceConfig(load=LoadConfig(1.0, seconds=600.0), compare=CompareConfig(seconds=60.0))
    assert seconds(replace(CONFIG, acceptance=asked)) == seconds(CONFIG) + 660.0
