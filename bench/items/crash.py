"""SIGKILL of the oldest worker until the first act of its replacement's `main()`. Each contender and the C floor (a parent
that only reaps and spawns) run side by side and lose a worker in turns; the workers do nothing. Node's workers begin with
the first line of their script, gunicorn's with its fork."""

import os
import signal
import time

import machine
from contenders import PEERS, Daemon, Floor, present
from results import Aim, Comparison, Figure
from stats import median
from tools import say

# A contender that waits for a second or more each time is killed less often.
MOST_SECONDS = 30


def crash(tools, plan, absent):
    for workers in (2, plan.sizes[-2] if len(plan.sizes) > 2 else plan.sizes[-1]):
        floors, shown = [], []
        for contender in (Daemon, *present(PEERS, tools, absent)):
            if workers > contender.most:
                continue
            try:
                ours, its, cpu, floor_cpu = pair(contender, tools, workers, plan)
            except Exception as error:
                absent.append(f"{contender.name}, {workers} workers: {error}")
                continue
            say(f"  crash, {workers} workers, {contender.name}: {median(ours):.2f} ms, floor {median(its):.2f} ms")
            floors += its
            is_ours = contender is Daemon
            notes = (
                f"CPU of the supervising processes {median(cpu):.0f} µs, floor {median(floor_cpu):.0f} µs"
                if is_ours
                else ""
            )
            shown.append(Figure(contender.name, ours, its, Aim(1.3) if is_ours else None, notes))
        yield Comparison(
            f"Crash → replacement, {workers} workers", "ms", [Figure(Floor.name, floors), *shown], Floor.name
        )


def pair(contender, tools, workers, plan):
    """Milliseconds and CPU microseconds for each kill, of the contender and of the floor."""
    ours, its, cpu, floor_cpu = [], [], [], []
    with Floor(tools) as floor, contender(tools) as peer:
        for each in (floor, peer):
            each.start(workers)
        for each in (floor, peer):
            each.wait_for(workers)
        if contender is Daemon:
            peer.finish_order()
        time.sleep(1.5)  # Until all count as started: some wait longer after an early death.
        begin = time.monotonic()
        while len(ours) < plan.kills and (len(ours) < 5 or time.monotonic() - begin < MOST_SECONDS):
            machine.wait_for_quiet(plan.patience)
            for each in (floor, peer) if len(ours) % 2 else (peer, floor):
                elapsed, used = kill_one(each)
                (its if each is floor else ours).append(elapsed)
                (floor_cpu if each is floor else cpu).append(used)
    return ours, its, cpu, floor_cpu


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
    event = contender.wait_for(wanted, 20)[-1]
    time.sleep(0.02)
    used = contender.cpu_ns() - before
    # The replacement must be stable before its turn as a victim comes.
    time.sleep(0.15)
    return (event.at_ns - begin) / 1e6, used / 1e3
