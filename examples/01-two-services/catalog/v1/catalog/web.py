"""A small HTTP server: keep-alive, JSON answers, an orderly end on SIGTERM."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str, str]


#: How long the end waits for answers that are under way.
FINISH_SECONDS = 10.0


class Server(ThreadingHTTPServer):
    daemon_threads = True  # a kept connection that is idle must not hold up the end
    request_queue_size = 256
    stopping = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._under_way = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        self.stopping = True
        self.shutdown()

    def finish(self) -> None:
        """Wait until every request that has begun is answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, FINISH_SECONDS)


def handler(answer: Callable[[str], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 30

        def do_GET(self) -> None:
            with self.server.answering():
                status, kind, text = answer(self.path.partition("?")[0])
                body = text.encode()
                lines = [f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
                if self.server.stopping:
                    self.close_connection = True
                    lines.append("Connection: close")
                self.wfile.write("\r\n".join([*lines, "", ""]).encode() + body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def as_json(value: object, status: int = 200) -> Answer:
    return status, "application/json", json.dumps(value)


def serve(answer: Callable[[str], Answer]) -> None:
    """Serve on 127.0.0.1:$PORT until SIGTERM; then take no more, and finish what has begun."""
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8000"))), handler(answer))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
    print(f"listening on {server.server_address}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    server.finish()
