"""The shop's unit test: the page has its button. Writes a JUnit report."""

from pathlib import Path

from serve import page

found = page()["button"] == "Buy"
case = f'<testcase classname="shop" name="has a button">{"" if found else "<failure/>"}</testcase>'
Path("junit.xml").write_text(f"<testsuite>{case}</testsuite>")
raise SystemExit(not found)
