"""The policies of `balance:` side by side: each has an app of its own with the
same program, all run at once, and take turns with `wrk`."""

import re
import statistics
import subprocess
import time
from pathlib import Path

import machine
from contenders import Daemon
from report import Row

# Not `source-ip`, as wrk has one address; `weighted` is `random` with other numbers.
POLICIES = ("random", "cpu", "least-queue", "kernel", "shared")
# What every tenth answer takes.
MIXES = {"even": "0", "10 % take 50 ms of CPU": "cpu", "10 % wait for 100 ms": "wait"}
CONNECTIONS = {"short": ["-H", "Connection: close"], "keep-alive": []}
PORT = 29_500


def policies(tools, options):
    """Requests a second and latency by policy, connections and mix."""
    node = ["node", str(Path(__file__).with_name("server.js"))]
    for name, command in {"Node": node, "native": [str(tools.server)]}.items():
        for workers in (2, 4):
            for mix, kind in MIXES.items():
                yield from compare(tools, options, f"{workers} {name}, {mix}", [*command, kind], workers)


def compare(tools, options, what, command, workers):
    with Daemon(tools) as daemon:
        ports = dict(zip(POLICIES, range(PORT, PORT + len(POLICIES))))
        apps = [
            daemon.app | {
                "name": policy, "command": command, "instances": workers, "balance": policy,
                "listen": [{"tcp": {"address": f"127.0.0.1:{port}", "dual_stack": False}}],
            }
            for policy, port in ports.items()
        ]
        daemon.order("/v1/apply", {"apps": apps})
        daemon.finish_order()
        time.sleep(0.5)
        for connections, flags in CONNECTIONS.items():
            results = {policy: [] for policy in POLICIES}
            for turn in range(options.rounds):
                machine.wait_for_quiet(options.patience)
                # Nobody has always the same neighbour's heat.
                first = turn % len(POLICIES)
                for policy in POLICIES[first:] + POLICIES[:first]:
                    results[policy].append(wrk(ports[policy], flags, options.seconds))
            for policy, samples in results.items():
                rate, p50, p99 = map(statistics.median, zip(*samples))
                yield Row(
                    f"{what}, {connections}: {policy}", "requests/s", rate,
                    notes=f"p50 {p50:.2f} ms, p99 {p99:.1f} ms", samples={"rate_p50_p99": samples},
                )


def wrk(port, flags, seconds):
    """Requests a second, median latency and its 99th percentile in ms."""
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", *flags, f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {name: milliseconds(value) for name, value in re.findall(r"(?m)^\s+(50|99)%\s+(\S+)", text)}
    return float(re.search(r"Requests/sec:\s+(\S+)", text)[1]), latency["50"], latency["99"]


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]
