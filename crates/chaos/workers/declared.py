"""A Python server on the socket that it is given; `GET /BYTES?MS` as the others."""

import http.server
import os
import socket
import sys
import threading
import time

NAME = " ".join(os.environ[name] for name in ("SUPERVISOR_APP", "SUPERVISOR_INSTANCE"))
HEAD = f"{NAME} {os.getpid()} {os.environ['RELEASE']}\n".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        size, _, delay = self.path[1:].partition("?")
        time.sleep(int(delay) / 1000)
        body = HEAD.ljust(int(size), b"x")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Requests that are being answered need not outlive it: that is the supervisor's part.
    daemon_threads = True

    def handle_error(self, *_):
        # A client that breaks off is nobody's concern.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)


def notify(text):
    name = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text, name)


failure = os.environ.get("FAILURE")
if failure == "throw":
    raise RuntimeError("a bad release")
if failure == "die":
    # On a busy machine Python itself takes a while to start.
    started = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    lived = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    threading.Timer(max(0, 0.5 - lived), os._exit, [3]).start()
listener = socket.fromfd(3, socket.AF_INET, socket.SOCK_STREAM)
server = Server(listener.getsockname(), Handler, bind_and_activate=False)
server.socket.close()
server.socket = listener
if failure != "silent":
    notify(b"READY=1")
server.serve_forever()
