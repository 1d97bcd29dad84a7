"""The supervisor."""

import http.client
import json
import os
import socket
import subprocess
import time

import machine

from .base import Contender


class ControlConnection(http.client.HTTPConnection):
    """HTTP on the control socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(str(self.path))


class Supervisor(Contender):
    """As an operator has it: nothing runs before `supervisor start FILE`."""

    name = "supervisor"
    logs = {}  # Keys of the file about output.

    def __init__(self, tools):
        super().__init__(tools)
        self.home = self.folder / "home"
        self.env["SUPERVISOR_HOME"] = str(self.home)
        self.socket = self.home / "run" / "control.sock"
        self.ids = None

    def supervisor(self, *arguments):
        return self.command(self.tools.supervisor, *arguments)

    def write_file(self, *apps):
        """Writes an ecosystem file and returns its path."""
        file = self.folder / "ecosystem.yaml"
        file.write_text(json.dumps({"apps": apps}))  # JSON is YAML, too.
        return file

    def idle(self, count):
        """An app of so many workers that do nothing, stable soon."""
        command = [str(self.tools.c("worker")), str(self.event_file)]
        return {"name": "bench", "command": command, "instances": count, "min_uptime": 100}

    def start(self, count):
        return self.spawn(self.tools.supervisor, "start", str(self.write_file(self.idle(count))))

    def count(self):
        # One that refuses so many says so at once.
        if self.process is not None and self.process.poll():
            self.finish_order()
        return super().count()

    def finish_order(self):
        """Waits for the end of the last order: all workers are ready."""
        if self.process.wait(120) != 0:
            raise RuntimeError(
                f"`start` exited with {self.process.returncode}: {(self.folder / 'out').read_text()[-300:]}"
            )

    def supervisors(self):
        if self.ids is None and self.socket.exists():
            try:
                daemon = json.loads(self.get("/v1/ping"))["daemon"]
            except OSError:
                return []  # It is only beginning.
            self.ids = [daemon["keeper_pid"], daemon["pid"]]
        return [pid for pid in self.ids or [] if machine.is_alive(pid)]

    def status_command(self):
        return [self.tools.supervisor, "status"]

    def get(self, path):
        connection = ControlConnection(self.socket)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body.decode()}")
        return body

    @property
    def log_file(self):
        return self.home / "log" / "bench-out-0.log"

    def write(self, lines, per_write):
        command = [str(self.tools.c("writer")), str(self.event_file), str(lines), str(per_write)]
        app = {"name": "bench", "command": command, "instances": 1, "log_max_size": 0, **self.logs}
        self.supervisor("start", "--no-wait", self.write_file(app))

    def web(self, style, workers):
        """An app of servers, which bind their port themselves."""
        self.port = machine.free_port()
        command = [self.tools.peers.program("node"), str(self.tools.js("server.js"))]
        env = {"PORT": self.port, "STYLE": style}
        return {"name": "bench", "command": command, "instances": workers, "ready": "listen", "env": env}

    def serve(self, style, workers):
        self.supervisor("start", self.write_file(self.web(style, workers)))
        self.wait_until_served(workers)

    def reload(self):
        self.supervisor("reload", "bench")

    def end(self):
        if self.home.exists():
            subprocess.run([self.tools.supervisor, "kill", "--now"], env=self.env, capture_output=True, timeout=60)


class Times(Supervisor):
    name = "supervisor, times"
    logs = {"log_date_format": "YYYY-MM-DDTHH:mm:ss"}


class Json(Supervisor):
    name = "supervisor, JSON"
    logs = {"log_type": "json"}


class Declared(Supervisor):
    """The supervisor binds the port."""

    name = "supervisor, `listen:`"

    def web(self, style, workers):
        app = super().web(style, workers)
        del app["ready"]
        return app | {"listen": f"127.0.0.1:{self.port}"}


class Daemon(Supervisor):
    """A daemon that runs already, and gets its orders on the control socket: what
    starting costs without a command's own start."""

    def __init__(self, tools):
        super().__init__(tools)
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise

    def begin(self):
        # As JSON that the API takes; the caller's environment is masked in it.
        self.app = json.loads(self.supervisor("check", "--json", self.write_file(self.idle(1))))[0]
        self.app["inherited_env"] = dict(os.environ)
        # An app that comes and goes, to have a daemon.
        self.supervisor("start", "--name", "first", "--no-wait", "--", "/bin/sleep", "inf")
        self.supervisor("delete", "--now", "first")

    def start(self, count):
        return self.order("/v1/apply", {"apps": [self.app | {"instances": count}]})

    def order(self, path, body):
        """Gives an order and returns when. Nobody reads its answer before
        `finish_order`, so that the client takes no CPU from what is measured."""
        self.connection = ControlConnection(self.socket)
        body = json.dumps(body)
        begin = time.monotonic_ns()
        self.connection.request("POST", path, body, {"Content-Type": "application/json"})
        return begin

    def finish_order(self):
        response = self.connection.getresponse()
        body = response.read()
        self.connection.close()
        lines = [json.loads(line) for line in body.splitlines()]
        if response.status != 200 or lines[-1].get("exit_code") != 0:
            raise RuntimeError(f"refused or failed: {response.status} {body[-1000:].decode()}")
