"""The two that are compared: the floor in C, and the daemon.

Both start copies of the same worker, which appends a line to an event file as
the first act of its main(). Their interface is the same:

    with Floor(tools) as contender:
        begin = contender.start(500)       # returns the time of the order
        contender.wait_for(500)
        contender.cpu_ns()
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import machine

EVENT_SIZE = 32


def memory_folder():
    """Where files cost no disk: a file system that has just lost a thousand
    files is slow to make new ones (ext4 skips inodes that were freed lately)."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Tools(NamedTuple):
    """The built programs."""

    worker: Path
    reaper: Path
    writer: Path
    supervisor: Path


class Event(NamedTuple):
    """A worker's main() began."""

    pid: int
    at_ns: int


class Contender:
    """What both have: a folder, an event file, and what is read from it."""

    def __init__(self, tools):
        self.tools = tools
        self.folder = Path(tempfile.mkdtemp(prefix="bench.", dir=memory_folder()))
        self.event_file = self.folder / "events"
        self.event_file.touch()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        workers = [event.pid for event in self.events()]
        self.stop()
        for pid in filter(machine.is_alive, workers):
            os.kill(pid, signal.SIGKILL)
        machine.wait_until(lambda: not any(map(machine.is_alive, workers)), "the workers' end")
        shutil.rmtree(self.folder)

    def count(self):
        """How many workers have begun so far."""
        return self.event_file.stat().st_size // EVENT_SIZE

    def events(self):
        lines = self.event_file.read_text().splitlines()
        return [Event(*map(int, line.split())) for line in lines]

    def wait_for(self, count, timeout=60.0):
        """Waits until so many workers have begun, and returns their events."""
        machine.wait_until(lambda: self.count() >= count, f"{count} workers", timeout)
        return self.events()

    def cpu_ns(self):
        """CPU time that the supervising processes have used."""
        return machine.cpu_ns(self.processes().values())


class Floor(Contender):
    """The parent that only reaps and spawns."""

    name = "floor"

    def __init__(self, tools):
        super().__init__(tools)
        command = [tools.reaper, tools.worker, self.event_file]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/")

    def processes(self):
        return {"reaper": self.process.pid}

    def start(self, count):
        begin = time.monotonic_ns()
        self.process.stdin.write(f"{count}\n".encode())
        self.process.stdin.flush()
        return begin

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


class Cat(Contender):
    """`writer | cat > file`."""

    name = "cat"

    def __init__(self, tools):
        super().__init__(tools)
        self.processes_started = []
        self.file = self.folder / "out.log"

    def write(self, lines, per_write):
        command = [self.tools.writer, self.event_file, str(lines), str(per_write)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        with open(self.file, "wb") as file:
            cat = subprocess.Popen(["cat"], stdin=writer.stdout, stdout=file)
        writer.stdout.close()
        self.processes_started = [writer, cat]

    def stop(self):
        for process in self.processes_started:
            process.kill()
            process.wait()


class ControlConnection(http.client.HTTPConnection):
    """HTTP on the control socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Daemon(Contender):
    """Keeper and master in a home of their own."""

    name = "supervisor"

    def __init__(self, tools, min_uptime_ms=100):
        super().__init__(tools)
        self.min_uptime_ms = min_uptime_ms
        self.socket = self.folder / "run" / "control.sock"
        self.log = open(self.folder / "daemon.log", "wb")
        self.env = {**os.environ, "SUPERVISOR_HOME": str(self.folder)}
        folders = {name: self.folder / name for name in ("run", "log")}
        for folder in folders.values():
            folder.mkdir(mode=0o700)
        # As `supervisor start` does it.
        self.process = subprocess.Popen(
            [tools.supervisor, "keeper", "--runtime-dir", folders["run"], "--log-dir", folders["log"]],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.env,
        )
        try:
            self.ids = machine.wait_until(self.ping, "the daemon's answer", 10)
        except machine.TooLate:
            self.process.terminate()
            raise

    def ping(self):
        try:
            return self.get("/v1/ping")["daemon"]
        except OSError:
            return None  # It does not listen yet.

    def processes(self):
        return {"keeper": self.ids["keeper_pid"], "master": self.ids["pid"]}

    def app(self, count):
        """The settings of an app as the command line would send them."""
        return {
            "name": "bench", "namespace": "default",
            "command": [str(self.tools.worker), str(self.event_file)],
            "cwd": "/", "exec_mode": "cluster", "instances": count,
            "inherited_env": dict(os.environ), "env": {}, "instance_var": "NODE_APP_INSTANCE",
            "listen": [], "backlog": 511, "ready": "started", "listen_timeout": 30000,
            "min_uptime": self.min_uptime_ms, "max_restarts": 16, "restart_delay": 100,
            "restart_backoff_percent": 200, "breaker_retry": 60000, "autorestart": True,
            "stop_exit_codes": [], "kill_signal": 15, "kill_timeout": 5000, "user": None,
            "group": None, "umask": None, "nice": None, "limits": {}, "oom_score_adj": None,
            "out_file": "default", "error_file": "default",
            "logs": {"combined_file": None, "merge": False, "json": False, "date_format": None,
                     "max_size": 0, "rotate": "never", "keep": 10, "compress": False},
        }

    def start(self, count):
        return self.order("/v1/apply", {"apps": [self.app(count)]})

    def write(self, lines, per_write, **logs):
        """Has a worker write lines, which are kept as `logs` says."""
        app = self.app(1)
        app["command"] = [str(self.tools.writer), str(self.event_file), str(lines), str(per_write)]
        app["logs"].update(logs)
        self.order("/v1/apply", {"apps": [app]})
        self.finish_order()

    @property
    def file(self):
        """Where its output goes."""
        return self.folder / "log" / "bench-out-0.log"

    def order(self, path, body):
        """Gives an order and returns when. Nobody reads its answer before
        `finish_order`, so that the client takes no CPU from what is measured."""
        self.connection = ControlConnection(self.socket)
        body = json.dumps(body)
        begin = time.monotonic_ns()
        self.connection.request("POST", path, body, {"Content-Type": "application/json"})
        return begin

    def finish_order(self):
        """Waits for the end of the last order and returns its answer's lines."""
        body = self.connection.getresponse().read()
        self.connection.close()
        return [json.loads(line) for line in body.splitlines()]

    def get(self, path):
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path):
        connection = ControlConnection(self.socket)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"{path}: {response.status} {body.decode()}")
        connection.close()
        return body

    def stop(self):
        self.order("/v1/kill", {"now": True})
        self.process.wait(60)
        self.log.close()
