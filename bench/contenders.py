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
    server: Path
    channel: Path
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
    """Keeper and master in a home of their own, without any app at first."""

    name = "supervisor"

    def __init__(self, tools, min_uptime_ms=100):
        super().__init__(tools)
        self.env = {**os.environ, "SUPERVISOR_HOME": str(self.folder)}
        self.socket = self.folder / "run" / "control.sock"
        self.ecosystem = self.folder / "ecosystem.yaml"
        self.min_uptime_ms = min_uptime_ms
        self.ids = None
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise

    def begin(self):
        self.write_file(1)
        # As JSON that the API takes; the caller's environment is masked in it.
        self.app = json.loads(self.command("check", "--json", self.ecosystem))[0]
        self.app["inherited_env"] = dict(os.environ)
        # An app that comes and goes, to have a daemon.
        self.command("start", "--name", "first", "--no-wait", "--", "/bin/sleep", "inf")
        self.ids = self.get("/v1/ping")["daemon"]
        self.command("delete", "--now", "first")

    def command(self, *arguments):
        """Runs a command of the program to its end and returns what it says."""
        command = [self.tools.supervisor, *arguments]
        result = subprocess.run(command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"{arguments[0]} exited with {result.returncode}: {result.stderr}")
        return result.stdout

    def write_file(self, count):
        """Writes the ecosystem file of an app with so many workers."""
        self.ecosystem.write_text(
            "apps:\n"
            "  - name: bench\n"
            f"    command: [{self.tools.worker}, {self.event_file}]\n"
            f"    instances: {count}\n"
            f"    min_uptime: {self.min_uptime_ms}\n"
        )

    def processes(self):
        return {"keeper": self.ids["keeper_pid"], "master": self.ids["pid"]}

    def start(self, count):
        return self.order("/v1/apply", {"apps": [self.app | {"instances": count}]})

    def write(self, lines, per_write, **logs):
        """Has a worker write lines, which are kept as `logs` says."""
        command = [str(self.tools.writer), str(self.event_file), str(lines), str(per_write)]
        app = self.app | {"command": command, "logs": self.app["logs"] | {"max_size": 0} | logs}
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
        """Waits for the end of the last order."""
        response = self.connection.getresponse()
        body = response.read()
        self.connection.close()
        lines = [json.loads(line) for line in body.splitlines()]
        if response.status != 200 or lines[-1].get("exit_code") != 0:
            raise RuntimeError(f"refused or failed: {response.status} {body[-1000:].decode()}")

    def get(self, path):
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path):
        connection = ControlConnection(self.socket)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body.decode()}")
        return body

    def stop(self):
        if self.ids is None:
            return  # It has not begun.
        self.command("kill", "--now")
        keeper = self.ids["keeper_pid"]
        machine.wait_until(lambda: not machine.is_alive(keeper), "the keeper's end")
