"""One sender, many receivers, messages of 128 bytes: the channel between
workers beside Node's cluster, whose primary relays by hand, and Redis."""

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import machine
from contenders import memory_folder

HERE = Path(__file__).resolve().parent
PATIENCE = 120


def until(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.01)


class Contest:
    """One way to relay, for one measurement."""

    def __init__(self, tools, program, receivers, what):
        self.tools, self.program, self.receivers = tools, program, receivers
        self.folder = Path(tempfile.mkdtemp(prefix="bench.", dir=memory_folder()))
        self.env = {**os.environ, "FOLDER": str(self.folder), "RECEIVERS": str(receivers), "WHAT": what}
        self.children = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        for child in self.children:
            child.kill()
            child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self):
        pass

    def spawn(self, *command):
        # In a session of its own, as workers and services are: the kernel shares
        # CPUs among sessions first (sched_autogroup_enabled).
        child = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, start_new_session=True)
        self.children.append(child)
        return self.children[-1]

    def measure(self):
        """Deliveries a second, p50 and p99 in µs, CPU µs a delivery, memory in KiB."""
        before = machine.cpu_ns(self.relays())
        self.go()
        until("all has come", lambda: len(list(self.folder.glob("result-*"))) == self.receivers)
        used = machine.cpu_ns(self.relays()) - before
        memory = sum(map(machine.pss_kib, self.relays()))
        parts = [json.loads(file.read_text()) for file in self.folder.glob("result-*")]
        count = sum(part["count"] for part in parts)
        seconds = (max(part["end"] for part in parts) - min(part["first"] for part in parts)) / 1e9
        latencies = sorted(each / 1000 for part in parts for each in part["latencies"])
        at = lambda share: latencies[int(share * (len(latencies) - 1))]
        return count / seconds, at(0.5), at(0.99), used / count / 1000, memory


class Supervisor(Contest):
    name = "supervisor"

    def start(self):
        self.env["SUPERVISOR_HOME"] = str(self.folder / "home")
        file = self.folder / "app.yaml"
        file.write_text(
            f"apps:\n  - name: bench\n    command: {json.dumps([*self.program, self.name])}\n"
            f"    instances: {self.receivers + 1}\n    min_uptime: 500\n    ipc_buffer: 256M\n"
        )
        self.command("start", file)
        self.pids = json.loads(self.command("status", "--json"))["daemon"]

    def command(self, *arguments):
        command = [self.tools.supervisor, *arguments]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout

    def relays(self):
        return [self.pids["pid"], self.pids["keeper_pid"]]

    def go(self):
        self.command("send", "bench:0", '"go"')

    def stop(self):
        subprocess.run([self.tools.supervisor, "kill", "--now"], env=self.env, capture_output=True)


class Cluster(Contest):
    name = "cluster"

    def start(self):
        self.primary = self.spawn(*self.program, self.name)
        until("it is ready", (self.folder / "ready").exists)

    def relays(self):
        return [self.primary.pid]

    def go(self):
        self.primary.send_signal(signal.SIGUSR2)


class Redis(Contest):
    name = "redis"

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        options += ["--client-output-buffer-limit", "pubsub 0 0 0", "--logfile", str(self.folder / "log")]
        self.server = self.spawn("redis-server", "--port", port, *options)

        def is_there():
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", int(port))) == 0

        until("redis listens", is_there)
        for number in range(1, self.receivers + 1):
            self.spawn(*self.program, self.name, "recv", str(number), port)
        self.sender = self.spawn(*self.program, self.name, "send", "0", port)
        until("all are ready", lambda: len(list(self.folder.glob("ready-*"))) == self.receivers + 1)
        time.sleep(0.3)

    def relays(self):
        return [self.server.pid]

    def go(self):
        self.sender.send_signal(signal.SIGUSR2)


@contextlib.contextmanager
def load(tools, daemon, receivers=3):
    """An app of a daemon whose workers say as much as they can."""
    file = daemon.folder / "load.yaml"
    file.write_text(
        f"apps:\n  - name: load\n    command: [{tools.channel}, supervisor]\n    instances: {receivers + 1}\n"
        f"    min_uptime: 100\n    env: {{FOLDER: {daemon.folder}, WHAT: max 2000000000}}\n"
    )
    daemon.command("start", file)
    daemon.command("send", "load:0", '"go"')
    relayed = lambda: sum(worker["channel"]["sent"] for worker in app_of(daemon, "load")["workers"])
    try:
        before = relayed()
        machine.wait_until(lambda: relayed() > before + 100_000, "messages", every=0.1)
        yield
    finally:
        daemon.command("delete", "--now", "load")


def app_of(daemon, name):
    return next(app for app in daemon.get("/v1/status")["apps"] if app["name"] == name)


def compare(tools, options, program, contests, receivers, what):
    """The medians of some rounds, in turns, by name."""
    figures = {contest.name: [] for contest in contests}
    for turn in range(options.rounds):
        machine.wait_for_quiet(options.patience)
        for contest in contests if turn % 2 else contests[::-1]:
            with contest(tools, program, receivers, what) as measured:
                figures[contest.name].append(measured.measure())
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in figures.items()}


def channel(row, tools, options):
    """1 sender, 7 receivers: as fast as it goes, and at 1,000 messages a second."""
    languages = [
        ("Node", ["node", str(HERE / "channel.js")], [Supervisor, Cluster, Redis], 30_000, {"cluster": 1.3, "redis": 1}),
        ("C", [str(tools.channel)], [Supervisor, Redis], 1_000_000, {"redis": 3}),
    ]
    if shutil.which("redis-server") is None:
        languages = [("Node", languages[0][1], [Supervisor, Cluster], 30_000, {"cluster": 1.3})]
    for language, program, contests, count, aims in languages:
        figures = compare(tools, options, program, contests, 7, f"max {count}")
        ours = figures["supervisor"]
        for other, aim in aims.items():
            ratio = ours[0] / figures[other][0]
            notes = f"relay's CPU {ours[3]:.2f} to {figures[other][3]:.2f} µs, memory {ours[4] / 1024:.1f} to {figures[other][4] / 1024:.1f} MiB"
            yield row(
                f"channel, 7 {language} receivers, to {other}", "deliveries/s", ours[0], figures[other][0], ratio,
                f"≥ {aim}×", ratio >= aim, notes, figures,
            )
        figures = compare(tools, options, program, contests, 7, "rate 6000 1000")
        ours = figures["supervisor"]
        for other in aims:
            ratio = ours[2] / figures[other][2]
            notes = f"p50 {ours[1]:.0f} to {figures[other][1]:.0f} µs, relay's CPU {ours[3]:.1f} to {figures[other][3]:.1f} µs"
            yield row(
                f"channel, p99 at 1,000/s, 7 {language} receivers, to {other}", "µs", ours[2], figures[other][2], ratio,
                "< 1×", ratio < 1, notes, figures,
            )
    for receivers in (1, 3, 15, 31, 63):
        count = 2_000_000 // receivers
        ours = compare(tools, options, [str(tools.channel)], [Supervisor], receivers, f"max {count}")["supervisor"]
        notes = f"relay's CPU {ours[3]:.2f} µs a delivery, memory {ours[4] / 1024:.1f} MiB"
        yield row(f"channel, {receivers} C receivers", "deliveries/s", ours[0], notes=notes)
