"""What /proc tells of processes and of the machine, and waiting for facts."""

import os
import socket
import subprocess
import time
from pathlib import Path

# Below the range that the kernel gives to clients.
PORTS = iter(range(28_000, 28_500))


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


def stat(pid):
    """The fields of /proc/PID/stat from the state on, or None."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None


def is_alive(pid):
    """Whether the process runs; a zombie does not."""
    fields = stat(pid)
    return fields is not None and fields[0] not in b"ZX"


def children():
    """The living children of each process: parent → pids."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat(name)) and fields[0] not in b"ZX":
            found.setdefault(int(fields[1]), []).append(int(name))
    return found


def family(pids):
    """These processes and all that descend from them, each once."""
    parents, found, left = children(), {}, [pid for pid in pids if is_alive(pid)]
    while left:
        pid = left.pop()
        if pid not in found:
            found[pid] = True
            left += parents.get(pid, [])
    return list(found)


def cpu_ns(pids):
    """Time on a CPU of all living threads of these processes, nanoseconds."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            pass  # It has just ended.
    return total


def pss_kib(pids):
    """The proportional share of these processes' memory, KiB."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


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


def free_port():
    """A port of the loopback address that nobody has."""
    for port in PORTS:
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no port from 28000 to 28499 is free")


def answers(port):
    """Whether somebody answers HTTP there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.")
    except OSError:
        return False


def commit(root):
    """What is checked out."""
    git = lambda *words: subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()
    changes = " with changes" if git("status", "--porcelain", "-uno") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changes


def environment():
    """Where and when it was measured."""
    name = os.uname()
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        name.machine,
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    autogroup = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": f"{name.sysname} {name.release} {name.machine}",
        "cpu": f"{len(os.sched_getaffinity(0))} × {cpu}",
        "memory": f"{memory:.0f} GiB",
        "load": f"{os.getloadavg()[0]:.1f}",
        "autogroup": autogroup.exists() and autogroup.read_text().strip() == "1",
    }
