"""How long an operator waits for a list of all workers: `supervisor status`, `sv status`, `s6-svstat` of each,
`supervisorctl status`, `circusctl list`, `pm2 jlist`. All of them run at once, and are asked in turns."""

import contextlib
import subprocess
import time

from contenders import Circus, Daemon, Pm2Cluster, Pm2Fork, Runit, S6, Supervisord, begun, present
from results import Aim, Comparison
from turns import figures, in_turns

# Gunicorn and Node's cluster have nothing to ask.
ASKED = (Runit, S6, Supervisord, Circus, Pm2Fork, Pm2Cluster)
API, JSON = "supervisor, API", "supervisor, --json"


def status(tools, plan, absent):
    sizes = plan.sizes[1:]
    for workers in sizes:
        # Beyond a few hundred the others' thousands of processes would be in each other's way.
        peers = present(ASKED, tools, absent) if workers == sizes[0] else []
        contenders = [each for each in (Daemon, *peers) if workers <= each.most]

        def begin(contender):
            contender.start(workers)
            contender.wait_for(workers)

        with contextlib.ExitStack() as stack:
            running = begun(contenders, begin, tools, absent, stack)
            daemon = running[Daemon.name]
            daemon.finish_order()
            time.sleep(2)
            asked = {name: command(each, each.status_command()) for name, each in running.items()}
            asked[JSON] = command(daemon, [*daemon.status_command(), "--json"])
            asked[API] = lambda: daemon.get("/v1/status")
            order = [Daemon.name, JSON, API, *(name for name in running if name != Daemon.name)]
            turns = in_turns(
                order,
                max(plan.rounds * 2, plan.kills // 3),
                lambda name: timed(asked[name]),
                plan.patience,
                f"status, {workers} workers",
            )
            absent += turns.failed.values()
            aims = {name: Aim(value=20) for name in (Daemon.name, JSON, API)}
            yield Comparison(
                f"Status of {workers} workers",
                "ms",
                figures(turns, order, Daemon.name, aims=aims),
                Daemon.name,
                notes=(f"`/v1/status` has {len(daemon.get('/v1/status')) >> 10} KiB of JSON.",),
            )


def command(contender, words):
    """Something that runs a status command to its end."""
    return lambda: subprocess.run(
        words,
        env=contender.env,
        cwd=contender.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )


def timed(what):
    begin = time.monotonic_ns()
    what()
    return (time.monotonic_ns() - begin) / 1e6
