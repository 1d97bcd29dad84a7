"""What /proc tells of processes, and waiting for facts."""

import os
import time
from pathlib import Path


class TooLate(Exception):
    """Something did not happen before its deadline."""


def wait_until(fact, what, timeout=60.0, every=0.002):
    """Waits until `fact()` is true and returns its value."""
    deadline = time.monotonic() + timeout
    while not (value := fact()):
        if time.monotonic() > deadline:
            raise TooLate(f"waited {timeout:.0f} s for {what}")
        time.sleep(every)
    return value


def is_alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in b"ZX"


def cpu_ns(pids):
    """Time on a CPU of all threads of these processes, nanoseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass  # The thread has just ended.
    return total


def pss_kib(pid):
    """The proportional share of the process's memory, KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"no Pss for {pid}")


def busy_share(seconds=0.25):
    """The share of all CPUs' time that something ran in, over so long."""

    def times():
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    total, idle = times()
    time.sleep(seconds)
    total_after, idle_after = times()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_for_quiet(seconds):
    """Waits until nothing else runs, but not longer than this."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and busy_share() > 0.1:
        pass


def description():
    """The machine in a line, for the report."""
    name = os.uname()
    return f"{name.sysname} {name.release} {name.machine}, {os.cpu_count()} CPUs"
