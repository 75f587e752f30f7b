"""A small image in a layout of its own, for tests of whatever runs images. Must not run a builder."""

from __future__ import annotations

import gzip
import io
import platform
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from penstock.config import ServiceConfig
from penstock.core.digest import canonical, digest, hex_of
from penstock.core.image import (
    ABI_LABEL,
    CONFIG_LABEL,
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    File,
    Recipe,
    assemble,
)

ABI = f"cp{sys.version_info.major}{sys.version_info.minor}"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

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
    labels = {ABI_LABEL: ABI, CONFIG_LABEL: canonical(ServiceConfig("web")).decode()}
    recipe = Recipe(tuple(command), {"IMAGE": "yes"}, labels, f"linux/{ARCHITECTURE}", 1_700_000_000)
    return _put(layout, assemble([File("program.py", PROGRAM)], recipe).all)


def put_base(layout: Path) -> str:
    """An image that has ``python3``, which is this machine's, and nothing else; returns its digest."""
    buffer, program = io.BytesIO(), f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("usr/local/bin/python3")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    config = canonical(
        {"os": "linux", "architecture": ARCHITECTURE, "config": {"Env": ["PATH=/usr/local/bin"]}}
    )
    kinds = ((CONFIG_TYPE, config), (LAYER_TYPE, layer))
    parts = [{"mediaType": kind, "digest": digest(data), "size": len(data)} for kind, data in kinds]
    said = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": parts[0], "layers": parts[1:]}
    return _put(layout, (layer, config, canonical(said)))


def _put(layout: Path, blobs: tuple[bytes, ...]) -> str:
    """The digest of the last one, the manifest."""
    folder = layout / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    for blob in blobs:
        (folder / hex_of(digest(blob))).write_bytes(blob)
    return digest(blobs[-1])
