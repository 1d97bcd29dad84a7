"""Messages of 128 bytes from one worker to others: the channel between workers beside Node's cluster, whose primary relays by
hand, and Redis. As fast as it goes, and at 1,000 messages a second; the receivers are Node's, or in C, where the receivers are
not the limit. The last table is the supervisor alone, with more and more receivers."""

import json
import os
import signal
import time

import machine
from contenders import present
from contenders.base import Contender
from results import Aim, Comparison, Figure
from stats import median, quantile
from turns import figures, in_turns

RECEIVERS = 7
RATE, RATE_MESSAGES = 1000, 6000
# What one sample is made of.
SPEED, P99, CPU = 0, 1, 2


class Relay(Contender):
    """Something that relays, between one sender and so many receivers."""

    def __init__(self, tools, program, receivers, what):
        super().__init__(tools)
        self.program, self.receivers = program, receivers
        self.env |= {"FOLDER": str(self.folder), "RECEIVERS": str(receivers), "WHAT": what}

    def measure(self):
        """Deliveries a second, p99 in µs, CPU µs of the relay for each delivery."""
        self.begin()
        before = self.cpu_ns()
        self.go()
        self.wait_for_files("result-*", self.receivers)
        used = self.cpu_ns() - before
        parts = [json.loads(file.read_text()) for file in self.folder.glob("result-*")]
        count = sum(part["count"] for part in parts)
        seconds = (max(part["end"] for part in parts) - min(part["first"] for part in parts)) / 1e9
        latencies = [each / 1000 for part in parts for each in part["latencies"]]
        return count / seconds, quantile(latencies, 0.99), used / count / 1000

    def wait_for_files(self, pattern, count):
        machine.wait_until(
            lambda: len(list(self.folder.glob(pattern))) >= count, f"{pattern} of {self.name}", 120, 0.01
        )


class SupervisorRelay(Relay):
    name = "supervisor"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.env["SUPERVISOR_HOME"] = str(self.folder / "home")
        self.pids = []

    def supervisors(self):
        return [pid for pid in self.pids if machine.is_alive(pid)]

    def begin(self):
        file = self.folder / "app.yaml"
        file.write_text(
            json.dumps(
                {
                    "apps": [
                        {
                            "name": "bench",
                            "command": [*self.program, "supervisor"],
                            "instances": self.receivers + 1,
                            "min_uptime": 500,
                            "ipc_buffer": "256M",
                        }
                    ]
                }
            )
        )
        self.command(self.tools.supervisor, "start", file)
        daemon = json.loads(self.command(self.tools.supervisor, "status", "--json"))["daemon"]
        self.pids = [daemon["keeper_pid"], daemon["pid"]]

    def go(self):
        self.command(self.tools.supervisor, "send", "bench:0", '"go"')

    def end(self):
        self.command(self.tools.supervisor, "kill", "--now")


class ClusterRelay(Relay):
    name = "Node cluster"
    needs = ("node",)

    def begin(self):
        self.spawn(*self.program, "cluster")
        self.wait_for_files("ready", 1)

    def go(self):
        os.kill(self.process.pid, signal.SIGUSR2)


class RedisRelay(Relay):
    name = "Redis"
    needs = ("redis",)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.clients = []

    def begin(self):
        self.port = machine.free_port()
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        options += ["--client-output-buffer-limit", "pubsub 0 0 0"]
        self.spawn(self.tools.peers.program("redis"), "--port", str(self.port), *options)
        server = self.process
        machine.wait_until(lambda: "Ready to accept connections" in (self.folder / "out").read_text(), "Redis")
        for number in range(self.receivers + 1):
            # The sender is the last, when all have subscribed.
            role = "recv" if number < self.receivers else "send"
            self.spawn(*self.program, "redis", role, str(number + 1), str(self.port))
            self.clients.append(self.process)
        self.process = server
        self.wait_for_files("ready-*", self.receivers + 1)
        time.sleep(0.3)

    def go(self):
        os.kill(self.clients[-1].pid, signal.SIGUSR2)

    def end(self):
        for client in self.clients:
            client.kill()
            client.wait()


def channel(tools, plan, absent):
    native = [str(tools.c("channel"))]
    languages = {
        "C": (native, (RedisRelay, SupervisorRelay), plan.messages, {RedisRelay.name: Aim(3, value=1_000_000)})
    }
    if tools.peers.missing("node") is None:
        node = [tools.peers.program("node"), str(tools.js("channel.js"))]
        aims = {ClusterRelay.name: Aim(1.3)}
        languages = {"Node": (node, (ClusterRelay, SupervisorRelay, RedisRelay), plan.messages // 33, aims)} | languages
    for language, (program, all_relays, count, aims) in languages.items():
        relays = {each.name: each for each in present(all_relays, tools, absent)}
        base = next(iter(relays))
        who = f"{RECEIVERS} receivers in {language}"
        fast = turns_of(tools, plan, absent, relays, program, f"max {count}", f"{who}, as fast as it goes")
        aims = {SupervisorRelay.name: aims[base]} if base in aims else {}
        notes = {name: f"CPU of the relay {median(fast.sample(name, CPU)):.2f} µs a delivery" for name in fast.samples}
        yield Comparison(
            f"Broadcast to {who}", "deliveries/s", figures(fast, list(relays), base, SPEED, aims, notes), base, False
        )
        steady = turns_of(tools, plan, absent, relays, program, f"rate {RATE_MESSAGES} {RATE}", f"{who}, {RATE}/s")
        yield Comparison(
            f"Broadcast to {who}, p99 at {RATE:,} messages/s", "µs", figures(steady, list(relays), base, P99), base
        )
    grown = []
    for receivers in (1, 3, 15, 31, 63):
        one = {SupervisorRelay.name: SupervisorRelay}
        turns = turns_of(
            tools,
            plan,
            absent,
            one,
            native,
            f"max {2 * plan.messages // receivers}",
            f"{receivers} receivers",
            receivers,
        )
        if turns.samples:
            notes = f"CPU of the relay {median(turns.sample(SupervisorRelay.name, CPU)):.2f} µs a delivery"
            grown.append(Figure(f"supervisor, to {receivers}", turns.sample(SupervisorRelay.name, SPEED), notes=notes))
    yield Comparison("Broadcast to more receivers, in C", "deliveries/s", grown, less_is_better=False)


def turns_of(tools, plan, absent, relays, program, what, title, receivers=RECEIVERS):
    def once(name):
        with relays[name](tools, program, receivers, what) as relay:
            return relay.measure()

    turns = in_turns(list(relays), plan.rounds, once, plan.patience, title)
    absent += turns.failed.values()
    return turns
