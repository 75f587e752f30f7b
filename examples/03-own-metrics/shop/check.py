"""The shop's unit tests: everybody is thanked, and every payment is counted. Writes a JUnit report."""

from pathlib import Path

import serve

serve.pay(20)
results = {
    "every payment is counted": sum(serve.PAID.values()) == 1,
    "payments are told": "payments_total" in serve.metrics(),
}
cases = "".join(
    f'<testcase classname="shop" name="{name}">{"" if good else "<failure/>"}</testcase>'
    for name, good in results.items()
)
Path("junit.xml").write_text(f"<testsuite>{cases}</testsuite>")
raise SystemExit(not all(results.values()))
