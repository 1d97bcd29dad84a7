"""The policies of `balance:` side by side, beside workers without a supervisor: each has an app of its own with the same
program, all run at once, and take turns under 32 clients of `wrk`. Not `source-ip`, as wrk has one address; `weighted` is
`random` with other numbers. Ratios are to `random`, the default."""

import time

import machine
from charts import number
from contenders import Bare, Supervisor
from load import KEEP, NAMES, SHORT, wrk
from results import Comparison
from stats import median
from turns import figures, in_turns

POLICIES = ("random", "cpu", "least-queue", "kernel", "shared")
# What every tenth answer takes.
MIXES = {"even": "0", "10 % take 50 ms of CPU": "cpu", "10 % wait for 100 ms": "wait"}
CASES = [*((2, mix) for mix in MIXES), (4, "even")]


def policies(tools, plan, absent):
    for peer in ("node", "wrk"):
        if reason := tools.peers.missing(peer):
            absent.append(reason)
            return
    node = [tools.peers.program("node"), str(tools.js("server.js"))]
    for language, command in {"Node": node, "C": [str(tools.c("server"))]}.items():
        for workers, mix in CASES:
            title = f"{workers} workers in {language}, {mix}"
            yield from compare(tools, plan, absent, title, [*command, MIXES[mix]], workers)


def compare(tools, plan, absent, title, command, workers):
    with Supervisor(tools) as supervisor, Bare(tools) as bare:
        ports = {policy: machine.free_port() for policy in POLICIES}
        apps = [
            {
                "name": policy,
                "command": command,
                "instances": workers,
                "balance": policy,
                "listen": f"127.0.0.1:{port}",
                "min_uptime": 100,
            }
            for policy, port in ports.items()
        ]
        supervisor.supervisor("start", supervisor.write_file(*apps))
        bare.serve("plain", workers, command)
        ports[Bare.name] = bare.port
        time.sleep(0.5)
        seconds = 1
        for connections in (SHORT, KEEP):
            measure = lambda name: wrk(tools, ports[name], connections, seconds)
            turns = in_turns(list(ports), plan.rounds, measure, plan.patience, f"{title}, {NAMES[connections]}")
            absent += turns.failed.values()
            notes = {
                name: f"p50 {number(median(turns.sample(name, 2)))} ms, p99 {number(median(turns.sample(name, 3)))} ms"
                for name in turns.samples
            }
            yield Comparison(
                f"{title}, {NAMES[connections]}",
                "requests/s",
                figures(turns, list(ports), POLICIES[0], 1, notes=notes),
                POLICIES[0],
                less_is_better=False,
                charted=title.endswith("even"),
            )
