"""A real browser, driven through two pipes (the DevTools protocol): opens pages, and asks what they show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Chromium reads its orders from descriptor 3 and answers on 4.
START = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 203); os.dup2(w, 204); os.dup2(203, 3); \
os.dup2(204, 4); os.execvp(sys.argv[3], sys.argv[3:])"
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server")


class Browser:
    """One page. Close it."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None and os.environ.get("CI") == "true":
            raise FileNotFoundError("chromium")
        if program is None:
            pytest.skip("needs a browser: apt install chromium")
        orders, self._out = os.pipe()
        self._in, answers = os.pipe()
        command = [sys.executable, "-c", START, str(orders), str(answers), program, *OPTIONS]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet, pass_fds=(orders, answers))
        os.close(orders)
        os.close(answers)
        self._rest, self._number, self._session = b"", 0, ""
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def ask(self, method: str, **parameters: Any) -> Any:
        """One call of the protocol; what the browser tells of itself meanwhile is passed over."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._out, json.dumps(order).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                data = os.read(self._in, 1 << 16)
                if not data:
                    raise ConnectionError("the browser went away")
                self._rest += data
            message, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str, **cookies: str) -> None:
        for name, value in cookies.items():
            self.ask("Network.setCookie", name=name, value=value, url=url)
        self.ask("Page.navigate", url=url)

    def until(self, condition: str, seconds: float = 30.0) -> Any:
        """What a JavaScript expression gives, as soon as that counts as true."""
        looked = f"""new Promise((done, fail) => {{
            const late = Date.now() + {seconds * 1000};
            const look = () => {{
                const found = (() => {{ try {{ return {condition} }} catch {{ return null }} }})();
                if (found) done(found);
                else if (Date.now() > late) fail("never: " + document.body?.innerText.slice(0, 2000));
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        for _ in range(3):  # a page that is being left forgets what it was asked
            try:
                answer = self.ask(
                    "Runtime.evaluate", expression=looked, awaitPromise=True, returnByValue=True
                )
            except AssertionError:
                continue
            assert "exceptionDetails" not in answer, answer["exceptionDetails"]
            return answer["result"]["value"]
        raise AssertionError("the page was left again and again")
