"""With the channel on a thread."""

import os
import re
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from channel import Channel

cache = {}
channel = Channel()
channel.subscribe("cache.*", lambda topic, data: cache.pop(topic.removeprefix("cache."), None))
channel.on_lost = lambda count: cache.clear()


class Handler(BaseHTTPRequestHandler):
    def key(self):
        key = re.sub("[^a-zA-Z0-9]", "", self.path)
        return key, Path(os.environ.get("VALUES", "/tmp"), f"value-{key}")

    def do_PUT(self):
        key, file = self.key()
        file.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        cache.pop(key, None)
        channel.publish(f"cache.{key}")
        self.answer("")

    def do_GET(self):
        key, file = self.key()
        if key not in cache:
            cache[key] = file.read_text() if file.exists() else ""
        channel.metric("cached", len(cache))
        self.answer(f"{cache[key]} of slot {os.environ.get('SUPERVISOR_INSTANCE')}\n")

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
