"""An HTTP worker in Python, with the standard library alone. It serves the
socket that it is given, and finishes its requests before it ends."""

import http.server
import os
import signal
import socket
import threading

SLOT = os.environ["SUPERVISOR_INSTANCE"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from slot {SLOT}, pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    # Closing waits for the threads that are still answering.
    daemon_threads = False

    def __init__(self, listener):
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def notify(message):
    """Tells the supervisor something (sd_notify)."""
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        address = "\0" + name[1:] if name.startswith("@") else name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(message.encode(), address)


# The supervisor passes the sockets of `listen` from descriptor 3 on.
with Server(socket.socket(fileno=3)) as server:
    # `shutdown` waits for the loop, which runs in this very thread: hence another.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    notify("READY=1")
    server.serve_forever()
