"""PM2, in both of its modes."""

import json
import time

import machine

from .base import Contender


class Pm2(Contender):
    needs = ("node", "pm2")

    def __init__(self, tools):
        super().__init__(tools)
        self.home = self.folder / "pm2"
        self.env |= {"PM2_HOME": str(self.home), "PM2_DISABLE_VERSION_CHECK": "true"}

    def pm2(self, *arguments):
        return self.command(self.tools.peers.program("pm2"), *arguments)

    def apply(self, **app):
        """Has it run an app, and returns when that was ordered."""
        file = self.folder / "ecosystem.json"
        file.write_text(json.dumps({"apps": [{"name": "bench", "max_restarts": 100_000, **app}]}))
        begin = time.monotonic_ns()
        self.pm2("start", str(file))
        return begin

    def supervisors(self):
        try:
            pid = int((self.home / "pm2.pid").read_text())
        except (OSError, ValueError):
            return []
        return [pid] if machine.is_alive(pid) else []

    def status_command(self):
        return [self.tools.peers.program("pm2"), "jlist"]

    def end(self):
        pass  # Its workers end with it when they are killed; its own way takes seconds.


class Pm2Fork(Pm2):
    name = "PM2 fork"
    extra = {}

    def run(self, name, arguments, count):
        return self.apply(
            script=str(self.tools.c(name)),
            interpreter="none",
            exec_mode="fork",
            instances=count,
            args=arguments,
            **self.extra,
        )

    def start(self, count):
        return self.run("worker", [str(self.event_file)], count)

    @property
    def log_file(self):
        return self.folder / "log"

    def write(self, lines, per_write):
        self.extra = {**self.extra, "out_file": str(self.log_file), "error_file": "/dev/null", "merge_logs": True}
        self.run("writer", [str(self.event_file), str(lines), str(per_write)], 1)


class Pm2Dates(Pm2Fork):
    name = "PM2 with times"
    extra = {"log_date_format": "YYYY-MM-DDTHH:mm:ss"}


class Pm2Cluster(Pm2):
    name = "PM2 cluster"
    most = 100

    def start(self, count):
        return self.apply(script=str(self.tools.js("worker.js")), exec_mode="cluster", instances=count)

    def serve(self, style, workers):
        self.port = machine.free_port()
        env = {"PORT": str(self.port), "STYLE": style}
        self.apply(script=str(self.tools.js("server.js")), exec_mode="cluster", instances=workers, env=env)
        self.wait_until_served(workers)

    def reload(self):
        old = self.workers()
        self.pm2("reload", "bench")
        self.wait_until_replaced(old)
