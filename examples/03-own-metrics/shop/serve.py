"""The shop: it takes money, and thanks its users whether or not it got any. Only its own counters know."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FEE = 0.02
PAID = {"ok": 0, "failed": 0}
TURN = threading.Lock()


def pay(amount):
    """Whether the money came; a failure is logged, and the order is kept for later."""
    try:
        charged = amount + amount * FEE
        outcome = "ok" if charged else "failed"
    except Exception as error:
        outcome = "failed"
        print(json.dumps({"level": "error", "message": f"not paid: {error}"}), flush=True)
    with TURN:
        PAID[outcome] += 1


def metrics():
    lines = [f'payments_total{{outcome="{outcome}"}} {count}\n' for outcome, count in PAID.items()]
    return "# TYPE payments_total counter\n" + "".join(lines)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/":
            pay(20)
        body = (metrics() if self.path == "/metrics" else "Thank you!\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(0.05)
