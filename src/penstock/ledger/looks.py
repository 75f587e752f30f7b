"""Judges every look of a canary or an experiment again, from the evidence alone.

Called by `fsck` for every look in the ledger, and by `bundle` for those that a sign-off rests on. A look of
a canary that kept no spans is believed: early ones kept none; one that could not tell has none either, and is
UNKNOWN, which never passes.
"""

from __future__ import annotations

from penstock.analysis import experiment, series
from penstock.analysis.judge import judge, spans_of
from penstock.analysis.readings import Reading, latencies
from penstock.core.canary import Latencies
from penstock.core.evidence import Entry
from penstock.core.experiment import Experiment
from penstock.core.predicates import Look
from penstock.core.traffic import WHOLE, Counters
from penstock.errors import Invalid


def faults(entry: Entry) -> list[str]:
    """What is wrong with a look; nothing if its spans are its readings, and give its verdict."""
    look = entry.statement.predicate
    if isinstance(look, Experiment):
        return _of_experiment(look)
    if not isinstance(look, Look) or look.spans is None or look.rule is None:
        return []
    try:
        look.rule.check("rule")
        spans = spans_of(look.spans)
        if look.latencies is not None:
            look.latencies.check()
        found = judge(spans, look.rule, look.latencies, look.series or ()).verdict
        wrong = [fault for one in look.series or () for fault in series.faults(one)]
    except Invalid as error:
        return [str(error)]
    new, stable = [span.new for span in spans], [span.stable for span in spans]
    if (sum(a.requests for a in new), sum(a.errors for a in new)) != _between(look.new_from, look.new_to):
        wrong.append("the looks at the new release do not add up to its readings")
    if (sum(a.requests for a in stable), sum(a.errors for a in stable)) != _between(
        look.stable_from, look.stable_to
    ):
        wrong.append("the looks at the stable release do not add up to its readings")
    if look.latencies is not None and _pooled(look.latencies) != _pooled(_latencies(look)):
        wrong.append("the latencies of its steps do not add up to its readings")
    if found.result.value != look.verdict:
        wrong.append(f"the canary's judge said {look.verdict}, and its evidence gives {found.result}")
    if look.cause is not None and (found.cause is None or found.cause.value != look.cause):
        wrong.append(f"the canary's judge said {look.cause}, and its evidence gives {found.cause}")
    return wrong


def _of_experiment(look: Experiment) -> list[str]:
    """What is wrong with a look at an experiment; nothing if its counts give its verdict."""
    shares = [arm.share for arm in look.arms]
    mine = [arm for arm in look.arms[1:] if arm.name == look.variant]
    if len(mine) != 1 or sum(shares) != WHOLE or min(shares) < 1:
        return ["it is of no variant, or its shares are none"]
    if any(not 0 <= arm.reached <= arm.users for arm in look.arms):
        return ["more users reached the goal than there were"]
    try:
        look.terms.check()
        look.guard.check("guard")
        found = experiment.judge(look).verdict
    except Invalid as error:
        return [str(error)]
    wrong = []
    counts = (look.arms[0].users, look.arms[0].reached, mine[0].users, mine[0].reached)
    if not look.course or look.course[-1][1:] != counts:
        wrong.append("the users of its last look are not those of its course")
    if found.result.value != look.verdict:
        wrong.append(f"the experiment's judge said {look.verdict}, and its evidence gives {found.result}")
    return wrong


def _between(since: Counters, until: Counters) -> tuple[int, int]:
    return until.requests - since.requests, until.errors - since.errors


def _latencies(look: Look) -> Latencies | None:
    """Of the whole canary as one step."""
    since = Reading(0, look.new_from, look.stable_from)
    return latencies([since, Reading(0, look.new_to, look.stable_to)])


def _pooled(of: Latencies | None) -> tuple[object, ...]:
    return (of.bounds, *map(sum, zip(*(step[1:] for step in of.steps), strict=True))) if of else ()
