"""Load: `wrk` for how fast, and a strict client of our own for what fails."""

import json
import re
import subprocess
from typing import NamedTuple

SHORT, KEEP = "short", "keep"
NAMES = {SHORT: "short connections", KEEP: "keep-alive"}
CLIENTS = 32
LATE_MS = 1000
FAILURES = ("refused", "reset", "empty", "short", "bad", "timeout")


class Rate(NamedTuple):
    """What `wrk` saw."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


def wrk(tools, port, connections, seconds):
    close = ["-H", "Connection: close"] if connections == SHORT else []
    command = [
        tools.peers.program("wrk"),
        "-t1",
        f"-c{CLIENTS}",
        f"-d{seconds}s",
        "--latency",
        *close,
        f"http://127.0.0.1:{port}/",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {name: milliseconds(value) for name, value in re.findall(r"(?m)^\s+(50|99)%\s+(\S+)", text)}
    requests = int(re.search(r"(\d+) requests in", text)[1])
    return Rate(requests, float(re.search(r"Requests/sec:\s+(\S+)", text)[1]), latency["50"], latency["99"])


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}[unit]


def strict(tools, port, connections, seconds, clients=CLIENTS):
    """Starts the strict client; `result` waits for it."""
    command = [tools.c("client"), str(port), str(clients), str(seconds), connections, str(LATE_MS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(client):
    """What came of a strict client; `failed` is the sum of all that failed."""
    output, _ = client.communicate(timeout=120)
    told = json.loads(output)
    return told | {"failed": sum(told[kind] for kind in FAILURES)}
