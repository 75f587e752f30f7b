"""Compare the vendored code with the advisories, and write what was found as SARIF."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def numbers(version):
    return [int(part) for part in version.split(".")]


def vendored():
    lines = (ROOT / "vendored.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def main(report):
    present = vendored()
    rules, results = [], []
    for advisory in json.loads((ROOT / "advisories.json").read_text()):
        version = present.get(advisory["package"])
        if version is None or numbers(version) >= numbers(advisory["below"]):
            continue
        rules.append({"id": advisory["id"], "properties": {"security-severity": str(advisory["score"])}})
        text = f"{advisory['package']} {version}: {advisory['title']}"
        place = {"physicalLocation": {"artifactLocation": {"uri": "vendored.txt"}}}
        results.append({"ruleId": advisory["id"], "level": "error", "message": {"text": text}, "locations": [place]})
    run = {"tool": {"driver": {"name": "vendored-audit", "rules": rules}}, "results": results}
    path = Path(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "2.1.0", "runs": [run]}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
