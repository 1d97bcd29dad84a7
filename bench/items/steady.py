"""Two Node workers under 32 clients of `wrk`, nothing else happening: what a request costs beside workers that have their own
`SO_REUSEPORT` sockets and no supervisor at all. The supervisor has the default policy and a program that binds its port
itself; `listen:` is the same with a declared socket. Each turn has fresh workers: two processes of one program differ by some
per cent for as long as they live."""

import machine
from contenders import Bare, Declared, NodeCluster, Pm2Cluster, Supervisor, missing, present
from load import KEEP, NAMES, SHORT, wrk
from results import Aim, Comparison
from turns import figures, in_turns

WORKERS = 2
WARM_UP = 2  # seconds
PARTS = {"requests/s": 0, "CPU µs a request": 1, "p99 ms": 2}


def steady(tools, plan, absent):
    if reason := missing(Bare, tools) or tools.peers.missing("wrk"):
        absent.append(reason)
        return
    rest = (Declared, *present((NodeCluster, Pm2Cluster), tools, absent))
    contenders = {each.name: each for each in (Bare, Supervisor, *rest)}
    for connections in (KEEP, SHORT):
        measure = lambda name: load(tools, contenders[name], connections, plan.seconds)
        pairs = in_turns([Bare.name, Supervisor.name], plan.pairs, measure, plan.patience, f"{NAMES[connections]}, pairs")
        others = [Bare.name, *(each.name for each in rest)]
        rounds = in_turns(others, plan.rounds, measure, plan.patience, f"{NAMES[connections]}, others")
        absent += [*pairs.failed.values(), *rounds.failed.values()]
        for unit, part in PARTS.items():
            is_rate = unit == "requests/s"
            aims = {Supervisor.name: Aim(0.98, lower_end=0.95)} if is_rate else {}
            shown = figures(pairs, [Bare.name, Supervisor.name], Bare.name, part, aims)
            shown += figures(rounds, others, Bare.name, part)[1:]
            what = {
                "requests/s": "Throughput",
                "CPU µs a request": "CPU of workers and supervisors",
                "p99 ms": "Latency",
            }[unit]
            yield Comparison(
                f"{what}, {NAMES[connections]}", unit, shown, Bare.name, not is_rate, charted=unit != "p99 ms"
            )


def load(tools, contender, connections, seconds):
    """Requests a second, CPU µs a request, p99 in ms."""
    with contender(tools) as running:
        running.serve("plain", WORKERS)
        wrk(tools, running.port, connections, WARM_UP)  # Node compiles what is used.
        pids = [*running.workers(), *running.supervisors()]
        before = machine.cpu_ns(pids)
        rate = wrk(tools, running.port, connections, seconds)
        return rate.per_second, (machine.cpu_ns(pids) - before) / 1e3 / rate.requests, rate.p99_ms
