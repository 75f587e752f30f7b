"""How fast a policy in Rego decides, from the facts to the words, the way to its process included.

    benchmarks/rego.py [--json FILE]

One decision is the policy of docs/guides/rego.md on facts that it refuses. The process is started first.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from penstock.adapters.rego import Rego
from penstock.core.facts import Fact
from penstock.policyfile import parse_policy

GUIDE = Path(__file__).parents[1] / "docs/guides/rego.md"
DECISIONS = 2000
FACTS: dict[str, Fact] = {
    "artifact.name": "catalog",
    "evidence.tests.failed": 1,
    "evidence.findings.ids": ("CVE-2024-1", "CVE-2024-2"),
}


def example() -> str:
    """The policy that the guide shows."""
    found = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def measure() -> dict[str, float]:
    policy = parse_policy(example().encode(), "rego.yaml")
    language = Rego()
    rules = language.compile(policy)
    (verdict,) = rules.decide(FACTS)
    assert verdict.verdict.result == "FAIL", verdict
    figures = {
        "decisions in rego/s": rate(lambda: rules.decide(FACTS), DECISIONS),
        "modules checked and compiled/s": rate(lambda: language.compile(policy), DECISIONS // 10),
    }
    language.close()
    return figures


def rate(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return times / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:34} {value:10,.0f}")
    if given.json:
        given.json.write_text(json.dumps({"figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
