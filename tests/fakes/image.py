"""A small image in a layout of its own, for tests of whatever runs images. Must not run a builder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.core.digest import digest, hex_of
from penstock.core.image import ABI_LABEL, File, Recipe, assemble

#: Four lives: ``serve`` listens, ``fail`` ends with 3, ``deaf`` never listens, ``stubborn`` will not end.
PROGRAM = b"""
import http.server, json, os, resource, signal, sys, threading, time

eaten, hanging = [], threading.Event()
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, lambda *_: None)
print("its token is " + os.environ.get("TOKEN", ""), flush=True)
print("hello from the workload", flush=True)
if sys.argv[1] == "fail":
    print("cannot go on", flush=True)
    sys.exit(3)
if sys.argv[1] == "deaf":
    time.sleep(600)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(3)
        if self.path == "/eat":
            eaten.append(b"x" * 300_000_000)
        if self.path == "/hang":
            hanging.set()
        if self.path == "/live" and hanging.is_set():
            time.sleep(600)
        try:
            body = self.look()
        except OSError as error:
            body = f"refused: {error}"
        self.send_response(200)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def look(self):
        if self.path.startswith("/read/"):
            return open(self.path.removeprefix("/read")).read()
        if self.path == "/files":
            return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        return json.dumps(dict(os.environ))

    def log_message(self, *words):
        pass


http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def put_image(layout: Path, command: Iterable[str] = ("python3", "/app/program.py", "serve")) -> str:
    """Write the image into the layout, and return its digest."""
    abi = f"cp{sys.version_info.major}{sys.version_info.minor}"
    recipe = Recipe(tuple(command), {"IMAGE": "yes"}, {ABI_LABEL: abi}, "linux/amd64", 1_700_000_000)
    blobs = assemble([File("program.py", PROGRAM)], recipe)
    folder = layout / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for blob in blobs.all:
        (folder / hex_of(digest(blob))).write_bytes(blob)
    return blobs.digest
