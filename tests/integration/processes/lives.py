"""The program of the images of `test_processes`: one file, several lives. Must need nothing but Python."""

PROGRAM = r"""
import http.server, os, signal, socket, subprocess, sys, threading, time, urllib.request

life = sys.argv[1]
if life == "child":
    time.sleep(600)
if life == "parent":
    subprocess.Popen([sys.executable, __file__, "child"])
if life == "mute":
    listener, kept = socket.create_server(("127.0.0.1", int(os.environ["PORT"]))), []
    while True:
        kept.append(listener.accept()[0])
        if kept[-1].recv(1):
            print("asked", flush=True)
if life == "echo":
    def echo(peer):
        while data := peer.recv(65536):
            peer.sendall(data)
        peer.sendall(b"(the end)")
        peer.close()

    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/events":
            return self.tell()
        try:
            body = self.answer()
        except OSError as error:
            body = f"refused: {error}"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def tell(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        while True:
            self.wfile.write(b"data: tick\n\n")
            time.sleep(0.05)

    def answer(self):
        if self.path == "/long":
            print("long has begun", flush=True)
            time.sleep(2)
            return urllib.request.urlopen(os.environ["PRICE_LIST_URL"], timeout=5).read().decode()
        if self.path == "/slow":
            print("slow has begun", flush=True)
            time.sleep(0.5)
            return "z" * 1_000_000
        if self.path == "/call":
            return urllib.request.urlopen(os.environ["PRICE_LIST_URL"], timeout=5).read().decode()
        if self.path.startswith("/plant/"):
            os.symlink("/etc/passwd", self.path.removeprefix("/plant"))
            return "planted"
        return life

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for what is under way


server = Server(("127.0.0.1", 0 if life == "elsewhere" else int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.05)
server.server_close()
"""
