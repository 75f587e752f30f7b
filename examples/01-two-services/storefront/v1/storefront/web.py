"""A small HTTP server: keep-alive, JSON answers, an orderly end on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str, str]


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256


def handler(answer: Callable[[str], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 30

        def do_GET(self) -> None:
            status, kind, text = answer(self.path.partition("?")[0])
            body = text.encode()
            head = f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def as_json(value: object, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(value)


def serve(answer: Callable[[str], Answer]) -> None:
    """Serve on 127.0.0.1:$PORT until SIGTERM."""
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8000"))), handler(answer))
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on {server.server_address}", flush=True)
    server.serve_forever(poll_interval=0.1)
