"""Two workers under 32 strict clients that count whatever is not a whole answer in time, and try nothing again: during
reloads one after another, and with one worker killed each second, when all are there (SIGKILL). All Node contenders run the same program, which
ends in one of three ways: *plain* has no handler for signals at all, *docs* calls `server.close()` as the documentations of
PM2 and Node show, *careful* answers `Connection: close` for 0.6 s before. gunicorn has its sync worker, which knows how to
end. With *kill*, what a worker was answering is lost by whoever supervises; what waits for it need not be."""

import contextlib
import os
import random
import signal
import time

import machine
from contenders import SERVERS, present
from load import FAILURES, KEEP, NAMES, SHORT, strict
from results import Comparison, Figure
from turns import in_turns

WORKERS = 2
LEAD, SETTLE = 0.5, 1.5  # Seconds under load before the first reload or kill, and after the end of the last one.
CASES = (
    ("reload", SHORT, "plain"),
    ("reload", SHORT, "docs"),
    ("reload", KEEP, "docs"),
    ("reload", KEEP, "careful"),
    ("kill", SHORT, "plain"),
    ("kill", KEEP, "plain"),
)


def failures(tools, plan, absent):
    contenders = {each.name: each for each in present(SERVERS, tools, absent)}
    for what, connections, style in CASES:
        with contextlib.ExitStack() as stack:
            running = {}

            def tally(name):
                if name not in running:
                    running[name] = stack.enter_context(contenders[name](tools))
                    running[name].serve(style, WORKERS)
                return under_load(tools, running[name], what, connections, plan.short_seconds)

            case = f"{what}, {NAMES[connections]}, {style}"
            turns = in_turns(list(contenders), plan.rounds, tally, plan.patience, case)
        absent += turns.failed.values()
        yield Comparison(
            case.capitalize(),
            f"failed for each {what}",
            [
                Figure(name, [each["failed"] / each["acts"] for each in tallies], notes=summary(tallies, what))
                for name, tallies in turns.samples.items()
            ],
        )


def under_load(tools, contender, what, connections, seconds):
    """What the clients saw in a turn with reloads or kills in it, all of which
    have ended before the clients do: a turn is as much longer as the last takes."""
    with strict(tools, contender.port, connections) as seen:
        end = time.monotonic() + seconds - SETTLE
        time.sleep(LEAD)
        acts = 0
        while acts == 0 or time.monotonic() < end:
            if what == "reload":
                contender.reload()
            else:
                kill_one(contender)
            acts += 1
        time.sleep(SETTLE)
    return seen | {"acts": acts}


def kill_one(contender):
    machine.wait_until(lambda: len(contender.workers()) >= WORKERS, f"all workers of {contender.name}", 20, 0.05)
    os.kill(random.choice(contender.workers()), signal.SIGKILL)
    time.sleep(1)


def summary(tallies, what):
    """Failed of all, by kind."""
    total = lambda key: sum(each[key] for each in tallies)
    kinds = ", ".join(f"{total(kind)} {kind}" for kind in FAILURES if total(kind))
    late = f", {total('late')} after more than 1 s" if total("late") else ""
    return (
        f"{total('failed'):,} of {total('ok') + total('failed'):,} in {total('acts')} {what}s"
        + (f": {kinds}" if kinds else "")
        + late
    )
