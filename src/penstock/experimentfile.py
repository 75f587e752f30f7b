"""``experiments/*.yaml``: reading what an experiment asks, with file and line in every error.

Called by whoever plans or starts one. Must not know what is live: whether its values fit is for `engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import yaml

from penstock.config import line_of, parse
from penstock.core.environmentconfig import NAME
from penstock.core.experiment import CONTROL, MOST_VARIANTS, Goal, Plan, Terms, Variant
from penstock.core.release import Value
from penstock.core.traffic import WHOLE
from penstock.errors import Invalid

REFERENCE = "the documented reference: penstock doctor --reference experiment"


@dataclass(frozen=True)
class ExperimentConfig:
    """All of one ``experiments/<name>.yaml``. Per cent where people say so: *alpha*, *margin*, *effect*, and
    the *share* of all users that each variant gets (0: all get as many)."""

    experiment: str
    service: str
    variants: Mapping[str, Mapping[str, Value]]
    goal: Goal
    expect: Literal["better", "no-worse"] = "better"
    alpha: float = 5.0
    margin: float = 5.0
    effect: float = 10.0
    share: float = 0.0
    longest_hours: float = 14 * 24.0


def parse_experiment(source: bytes, name: str) -> Plan:
    """What an experiment asks, from its exact text. `Invalid` with file and line."""
    given = parse(ExperimentConfig, source, name, REFERENCE)
    try:
        return _checked(given, source.decode())
    except Invalid as error:
        line = line_of(yaml.compose(source, Loader=yaml.SafeLoader), error.where)
        said = f"{error.where}: {error.what}"
        raise Invalid(said, where=f"{name}:{line}", next_move=error.next_move or REFERENCE) from error


def _checked(given: ExperimentConfig, source: str) -> Plan:
    names = (("experiment", given.experiment), ("service", given.service))
    for where, text in (*names, *((f"variants.{name}", name) for name in given.variants)):
        if not NAME.fullmatch(text):
            raise Invalid(f"{text[:80]!r} is not a name (lower case, digits, dashes)", where=where)
    if not 1 <= len(given.variants) <= MOST_VARIANTS:
        raise Invalid(f"from 1 to {MOST_VARIANTS}, beside what is live", where="variants")
    if CONTROL in given.variants:
        raise Invalid(
            "the control is what is live, and has no values of its own", where=f"variants.{CONTROL}"
        )
    for name, values in given.variants.items():
        if not values:
            raise Invalid("nothing differs from what is live", where=f"variants.{name}")
    given.goal.check("goal")
    terms = Terms(given.expect, given.alpha / 100, given.margin / 100, given.effect / 100)
    terms = replace(terms, longest=given.longest_hours * 3600)
    terms.check()
    share = _share(given)
    variants = tuple(Variant(name, dict(values), share) for name, values in given.variants.items())
    return Plan(given.experiment, given.service, given.goal, terms, variants, source)


def _share(given: ExperimentConfig) -> int:
    """Thousandths of all users for each variant."""
    if not given.share:
        return WHOLE // (len(given.variants) + 1)
    share = round(given.share * WHOLE / 100)
    if not (share >= 1 and share * len(given.variants) <= 900):
        what = f"from 0.1 per cent, and at most 90 in all, found {given.share:g} for each"
        raise Invalid(what, where="share", next_move="leave it out: all get as many")
    return share
