"""Load: `wrk` for how fast, and a strict client of our own for what fails."""

import contextlib
import json
import re
import subprocess
from typing import NamedTuple

SHORT, KEEP = "short", "keep"
NAMES = {SHORT: "short connections", KEEP: "keep-alive"}
CLIENTS = 32
LATE_MS = 1000
MOST = 180  # Seconds after which strict clients end by themselves: longer than any order takes.
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


@contextlib.contextmanager
def strict(tools, port, connections):
    """Strict clients for as long as a block runs. What they saw is in its dict
    after it; `failed` is the sum of all that failed."""
    command = [tools.c("client"), str(port), str(CLIENTS), str(MOST), connections, str(LATE_MS)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = {}
    try:
        yield seen
    finally:
        client.terminate()
        output, _ = client.communicate(timeout=60)
    seen |= json.loads(output)
    seen["failed"] = sum(seen[kind] for kind in FAILURES)
