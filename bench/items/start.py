"""From the order until the last worker's `main()`; the workers do nothing. *Order* is what a daemon that runs already takes
beside a C parent, order on a socket or a pipe. *Command* is what an operator waits for: nothing runs before, and each
contender is started in its own way (`supervisor start FILE`, `pm2 start FILE`, `supervisord`, …)."""

import time

from contenders import PEERS, Daemon, Floor, Supervisor, present
from results import Aim, Comparison, Curve
from stats import exponent, median
from turns import figures, in_turns


def start(tools, plan, absent):
    curve = {}
    for workers in plan.sizes:
        measured = measure(tools, plan, workers, (Floor, Daemon), absent, "order")
        cpu = {name: f"CPU a worker {median(measured.sample(name, 1)):.0f} µs" for name in measured.samples}
        aims = {Daemon.name: Aim(1.5)} if workers >= 100 else {}
        yield Comparison(
            f"Order → {workers} workers run",
            "ms",
            figures(measured, (Floor.name, Daemon.name), Floor.name, 0, aims, cpu),
            Floor.name,
            charted=False,
        )
    for workers in plan.sizes:
        contenders = [each for each in (Floor, Supervisor, *present(PEERS, tools, absent)) if workers <= each.most]
        measured = measure(tools, plan, workers, contenders, absent, "command")
        names = [each.name for each in contenders]
        for name in measured.samples:
            curve.setdefault(name, []).append((workers, median(measured.sample(name, 0))))
        yield Comparison(
            f"Command → {workers} workers run", "ms", figures(measured, names, Floor.name, 0), Floor.name, charted=False
        )
    yield Curve("Command → all workers run", "workers", "ms", curve, growth(curve))


def measure(tools, plan, workers, contenders, absent, how):
    """Turns of milliseconds until all run, and CPU microseconds a worker."""
    by_name = {each.name: each for each in contenders}

    def once(name):
        with by_name[name](tools) as contender:
            time.sleep(0.1)
            before = contender.cpu_ns()
            begin = contender.start(workers)
            last = max(event.at_ns for event in contender.wait_for(workers))
            time.sleep(0.1)
            return (last - begin) / 1e6, (contender.cpu_ns() - before) / 1e3 / workers

    turns = in_turns(list(by_name), plan.rounds, once, plan.patience, f"{how}, {workers} workers")
    absent += turns.failed.values()
    return turns


def growth(curve):
    """How the supervisor's line grows between its larger sizes."""
    points = [point for point in curve.get(Supervisor.name, []) if point[0] >= 100]
    if len(points) < 2:
        return ()
    return (
        f"From {points[0][0]} to {points[-1][0]} workers the supervisor's time grows with their number to the power of "
        f"{exponent(points):.2f} (1 is linear).",
    )
