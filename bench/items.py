"""What is measured. Each item is a generator of rows, see `Row`."""

import os
import signal
import statistics
import subprocess
import time

import channel as between
import machine
from contenders import Cat, Daemon, Floor
from policies import policies
from report import Row


def p95(values):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


def compared(what, ours, floor, limit, ours_cpu, floor_cpu):
    """A row of two contenders in milliseconds, with CPU microseconds a worker."""
    value, base = statistics.median(ours), statistics.median(floor)
    ratio = value / base
    paired = statistics.median(mine / its for mine, its in zip(ours, floor))
    notes = (
        f"paired {paired:.2f}; p95 {p95(ours):.2f} to {p95(floor):.2f} ms; "
        f"CPU {statistics.median(ours_cpu):.0f} to {statistics.median(floor_cpu):.0f} µs"
    )
    samples = {"ours_ms": ours, "floor_ms": floor, "ours_cpu_us": ours_cpu, "floor_cpu_us": floor_cpu}
    return Row(what, "ms", value, base, ratio, f"≤ {limit}×", ratio <= limit, notes, samples)


def crash(tools, options):
    """SIGKILL of a worker until its replacement's main(), in turns."""
    for workers in (2, 500):
        times = {Floor.name: [], Daemon.name: []}
        cpu = {Floor.name: [], Daemon.name: []}
        with Floor(tools) as floor, Daemon(tools) as daemon:
            for contender in (floor, daemon):
                contender.start(workers)
                contender.wait_for(workers)
            daemon.finish_order()  # All are ready.
            for turn in range(options.kills):
                machine.wait_for_quiet(options.patience)
                order = (floor, daemon) if turn % 2 else (daemon, floor)
                for contender in order:
                    elapsed, used = kill_one(contender)
                    times[contender.name].append(elapsed)
                    cpu[contender.name].append(used)
        yield compared(
            f"crash → replacement's main(), {workers} workers",
            times[Daemon.name], times[Floor.name], 1.3, cpu[Daemon.name], cpu[Floor.name],
        )


def crash_loaded(tools, options):
    """The same while another app's channel takes all CPUs. Its messages are
    relayed by the daemon that is measured, or by another one, in turns: what
    differs is the own relay, and not that CPUs are taken."""
    own, other = "own relay", "another's"
    times = {own: [], other: []}
    with Daemon(tools) as measured, Daemon(tools) as beside:
        for daemon in (measured, beside):
            daemon.start(2)
            daemon.finish_order()
        for turn in range(max(2, options.kills // 5)):
            for name, relaying in ((own, measured), (other, beside))[:: 1 if turn % 2 else -1]:
                with between.load(tools, relaying):
                    for _ in range(5):
                        times[name].append(kill_one(measured)[0])
    value, base = statistics.median(times[own]), statistics.median(times[other])
    notes = f"p95 {p95(times[own]):.2f} to {p95(times[other]):.2f} ms; here the floor is the other daemon's relay"
    yield Row(
        "crash → replacement's main(), own relay at full rate", "ms", value, base, value / base,
        "≤ 1.1×", value / base <= 1.1, notes, times,
    )


def kill_one(contender):
    """Kills the oldest worker, the one that is stable for sure. Returns the
    milliseconds until the next one's main() and the CPU microseconds that the
    supervising processes took for it."""
    victim = next(event.pid for event in contender.events() if machine.is_alive(event.pid))
    wanted = contender.count() + 1
    time.sleep(0.02)
    before = contender.cpu_ns()
    begin = time.monotonic_ns()
    os.kill(victim, signal.SIGKILL)
    # Whoever waits must not take the CPU from those who work.
    time.sleep(0.01)
    event = contender.wait_for(wanted)[-1]
    time.sleep(0.02)
    used = contender.cpu_ns() - before
    # The replacement must be stable before its turn as a victim comes.
    time.sleep(0.15)
    return (event.at_ns - begin) / 1e6, used / 1e3


def start(tools, options):
    """From the order to the last worker's main(), in turns."""
    for workers in (100, 500):
        times = {Floor.name: [], Daemon.name: []}
        cpu = {Floor.name: [], Daemon.name: []}
        for turn in range(options.rounds):
            machine.wait_for_quiet(options.patience)
            for Contender in (Floor, Daemon) if turn % 2 else (Daemon, Floor):
                with Contender(tools) as contender:
                    time.sleep(0.2)
                    before = contender.cpu_ns()
                    begin = contender.start(workers)
                    last = max(event.at_ns for event in contender.wait_for(workers))
                    time.sleep(0.1)
                    cpu[contender.name].append((contender.cpu_ns() - before) / 1e3 / workers)
                    times[contender.name].append((last - begin) / 1e6)
        yield compared(
            f"start, {workers} workers", times[Daemon.name], times[Floor.name], 1.5, cpu[Daemon.name], cpu[Floor.name]
        )


def start_command(tools, options):
    """`supervisor start FILE` until the last worker's main(); the daemon runs."""
    workers = 500
    times, floor_times = [], []
    for _ in range(options.rounds):
        machine.wait_for_quiet(options.patience)
        with Floor(tools) as floor:
            time.sleep(0.2)
            begin = floor.start(workers)
            floor_times.append((max(event.at_ns for event in floor.wait_for(workers)) - begin) / 1e6)
        with Daemon(tools) as daemon:
            daemon.write_file(workers)
            time.sleep(0.2)
            begin = time.monotonic_ns()
            command = subprocess.Popen(
                [tools.supervisor, "start", daemon.ecosystem], env=daemon.env,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            times.append((max(event.at_ns for event in daemon.wait_for(workers)) - begin) / 1e6)
            if command.wait(60) != 0:
                raise RuntimeError(f"`start` exited with {command.returncode}")
    value, base = statistics.median(times), statistics.median(floor_times)
    yield Row(
        f"`supervisor start FILE`, {workers} workers", "ms", value, base, value / base,
        notes="with the command's own start", samples={"ours_ms": times, "floor_ms": floor_times},
    )


def status(tools, options):
    """How long a status takes."""
    with Daemon(tools) as daemon:
        daemon.start(500)
        daemon.finish_order()
        time.sleep(2)
        api = [timed(lambda: daemon.get_bytes("/v1/status")) for _ in range(options.kills)]
        size = len(daemon.get_bytes("/v1/status"))
        yield limited("status by the API, 500 workers", "ms", api, 20, f"{size >> 10} KiB of JSON")
        for flags in ([], ["--json"]):
            command = [tools.supervisor, "status", *flags]
            run = lambda: subprocess.run(command, env=daemon.env, stdout=subprocess.DEVNULL, check=True)
            times = [timed(run) for _ in range(options.kills)]
            yield limited(f"`supervisor {' '.join(command[1:])}`, 500 workers", "ms", times, 20)


def timed(what):
    begin = time.monotonic_ns()
    what()
    return (time.monotonic_ns() - begin) / 1e6


def limited(what, unit, values, limit, notes=""):
    """A row of one contender against an absolute limit."""
    value = statistics.median(values)
    notes = "; ".join(filter(None, [f"p95 {p95(values):.1f}", notes]))
    return Row(what, unit, value, aim=f"≤ {limit} {unit}", met=value <= limit, notes=notes, samples={"ours": values})


def memory(tools, options):
    """Memory and idle CPU as the number of workers grows."""
    for workers in (1, 100, 500, 1000):
        with Daemon(tools, min_uptime_ms=1000) as daemon:
            daemon.start(workers)
            daemon.finish_order()
            # Until the PSS of all has been read once, at the sampler's pace.
            time.sleep(options.settle)
            if workers >= 500:
                before, begin = daemon.cpu_ns(), time.monotonic()
                time.sleep(options.idle)
                percent = (daemon.cpu_ns() - before) / 1e7 / (time.monotonic() - begin)
                yield Row(
                    f"idle CPU, {workers} workers", "% of a core", percent, aim="≤ 1 %", met=percent <= 1,
                    notes=f"over {options.idle:.0f} s, sampling on",
                )
            limits = {"keeper": 1.5, "master": 12}
            for name, pid in daemon.processes().items():
                mib = machine.pss_kib(pid) / 1024
                yield Row(
                    f"memory of the {name}, {workers} workers", "MiB PSS", mib,
                    aim=f"≤ {limits[name]} MiB", met=mib <= limits[name],
                )


def logs(tools, options):
    """Bytes a second from one worker into its file, against `cat > file`."""
    forms = {
        "raw": ({}, {1: 0.9, 20: 0.9}),
        "with times": ({"date_format": "YYYY-MM-DDTHH:mm:ss"}, {1: 0.6, 20: 0.35}),
        "JSON": ({"json": True}, {}),
    }
    for per_write in (1, 20):
        rates = {name: [] for name in (Cat.name, *forms)}
        for turn in range(options.rounds):
            names = list(rates)
            for name in names if turn % 2 else reversed(names):
                make = (lambda: Cat(tools)) if name == Cat.name else (lambda: Daemon(tools))
                how = forms[name][0] if name in forms else {}
                with make() as contender:
                    rates[name].append(log_rate(contender, options.lines, per_write, how))
        floor = statistics.median(rates[Cat.name])
        for name, (_, aims) in forms.items():
            value = statistics.median(rates[name])
            paired = statistics.median(ours / its for ours, its in zip(rates[name], rates[Cat.name]))
            aim = aims.get(per_write)
            yield Row(
                f"log {name}, {per_write} lines a write", "MB/s", value, floor, paired,
                aim=f"≥ {aim}×" if aim else "", met=paired >= aim if aim else None,
                notes="the floor is `cat > file`; the ratio is paired",
                samples={"ours": rates[name], "floor": rates[Cat.name]},
            )


def log_rate(contender, lines, per_write, how):
    """Megabytes a second that the writer got rid of and that arrived: from its
    first byte until the file was last written to."""
    earlier = contender.count()
    contender.write(lines, per_write, **how)
    contender.wait_for(earlier + 2)
    begin = contender.events()[earlier].at_ns + time.time_ns() - time.monotonic_ns()
    last = lambda: (contender.file.stat().st_size, contender.file.stat().st_mtime_ns)
    before = None
    while before != (before := last()):
        time.sleep(0.2)
    size, end = before
    if size < lines * 200:
        raise RuntimeError(f"{contender.name} lost output: {size} bytes of {lines * 200}")
    return lines * 200 / ((end - begin) / 1e9) / 1e6


def channel(tools, options):
    """Messages between workers."""
    yield from between.channel(Row, tools, options)


ITEMS = {
    item.__name__.replace("_", "-"): item
    for item in (crash, crash_loaded, start, start_command, status, memory, logs, policies, channel)
}
