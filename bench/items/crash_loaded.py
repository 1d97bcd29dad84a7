"""SIGKILL of a worker until its replacement's `main()`, as in `crash`, while another app's workers say to each other as much as
they can. Their messages are relayed by the daemon that is measured, or by another one, in turns: what differs is the own
relay, and not that CPUs are taken."""

import contextlib
import json

import machine
from contenders import Daemon
from results import Aim, Comparison, Figure
from stats import median

from .crash import kill_one

KILLS_PER_TURN = 5
RECEIVERS = 3
OWN, OTHER = "supervisor, its own relay", "supervisor, another's relay"


def crash_loaded(tools, plan, absent):
    times = {OWN: [], OTHER: []}
    with Daemon(tools) as measured, Daemon(tools) as beside:
        for daemon in (measured, beside):
            daemon.start(2)
            daemon.finish_order()
        for turn in range(max(2, plan.kills // KILLS_PER_TURN)):
            machine.wait_for_quiet(plan.patience)
            for name, relaying in ((OWN, measured), (OTHER, beside))[:: 1 if turn % 2 else -1]:
                with load(tools, relaying):
                    times[name] += [kill_one(measured)[0] for _ in range(KILLS_PER_TURN)]
    notes = f"its own relay at full rate: {median(times[OWN]):.2f} ms, another's: {median(times[OTHER]):.2f} ms"
    yield Comparison(
        "Crash → replacement, 2 workers, beside a channel at full rate",
        "ms",
        [Figure(OTHER, times[OTHER]), Figure(OWN, times[OWN], times[OTHER], Aim(1.1), notes)],
        OTHER,
    )


@contextlib.contextmanager
def load(tools, daemon):
    """An app of a daemon whose workers say as much as they can."""
    app = {
        "name": "load",
        "command": [str(tools.c("channel")), "supervisor"],
        "instances": RECEIVERS + 1,
        "min_uptime": 100,
        "env": {"FOLDER": str(daemon.folder), "WHAT": "max 2000000000"},
    }
    daemon.supervisor("start", daemon.write_file(app))
    daemon.supervisor("send", "load:0", '"go"')
    try:
        begin = relayed(daemon)
        machine.wait_until(lambda: relayed(daemon) > begin + 100_000, "messages", every=0.1)
        yield
    finally:
        daemon.supervisor("delete", "--now", "load")


def relayed(daemon):
    apps = json.loads(daemon.get("/v1/status"))["apps"]
    return sum(worker["channel"]["sent"] for app in apps if app["name"] == "load" for worker in app["workers"])
