"""Memory (PSS) and idle CPU of all supervising processes, without their workers, which do nothing: from one worker on, with
all sampling at its defaults. *Mixed* has Node workers with a child each among those in C. Each figure is one daemon's, read
several times."""

import time

import machine
from contenders import PEERS, Daemon, Floor, present
from results import Aim, Comparison, Curve, Figure
from stats import exponent, median, slope
from tools import say

NODES = 50  # Node workers of the mix: 40 MiB each.
AIMS_MIB = {"master": 12, "keeper": 1.5}


def memory(tools, plan, absent):
    grown, burnt, ours = {}, {}, []
    peers = present(PEERS, tools, absent)
    for workers in (*plan.sizes, *plan.large):
        is_large = workers in plan.large
        figures, cpu = [], []
        for contender in (Floor, Daemon, *(() if is_large else peers)):
            if workers > contender.most:
                continue
            try:
                with contender(tools) as each:
                    each.start(workers)
                    if contender is Daemon:
                        each.finish_order()  # Says at once when it is refused.
                    each.wait_for(workers, 120)
                    pss, percent = readings(each, plan)
                    parts = own_parts(each, plan) if contender is Daemon else None
            except Exception as error:
                absent.append(f"{contender.name}, {workers} workers: {error}")
                continue
            name = contender.name
            say(f"  {workers} workers, {name}: {median(pss):.1f} MiB, {median(percent):.3f} % of a core")
            floor_pss = next((each.samples for each in figures if each.who == Floor.name), [])
            figures.append(Figure(name, pss, floor_pss))
            aim = Aim(value=1) if contender is Daemon and workers <= 1000 else None
            cpu.append(Figure(name, percent, aim=aim))
            grown.setdefault(name, []).append((workers, median(pss)))
            burnt.setdefault(name, []).append((workers, median(percent)))
            if parts:
                ours.append((workers, parts))
        yield Comparison(f"Memory, {workers} workers", "MiB PSS", figures, Floor.name, charted=False)
        yield Comparison(f"Idle CPU, {workers} workers", "% of a core", cpu, charted=False)
    for workers, parts in ours:
        if workers <= 1000:
            rows = [
                Figure(f"supervisor, {part}", values, aim=Aim(value=AIMS_MIB[part])) for part, values in parts.items()
            ]
            yield Comparison(f"Memory of each process, {workers} workers", "MiB PSS", rows, charted=False)
    yield from mixed(tools, plan, absent)
    yield Curve("Memory of the supervising processes", "workers", "MiB PSS", grown, cost(grown, "KiB", 1024))
    yield Curve(
        "Idle CPU of the supervising processes",
        "workers",
        "% of a core",
        burnt,
        cost(burnt, "thousandths of a percent of a core", 1000),
    )


def mixed(tools, plan, absent):
    """Workers in C, and Node workers with a child each."""
    if reason := tools.peers.missing("node"):
        absent.append(f"mixed workers: {reason}")
        return
    workers = plan.sizes[-1]
    nodes = min(NODES, workers // 2)
    with Daemon(tools) as daemon:
        node = {
            "name": "node",
            "command": [tools.peers.program("node"), str(tools.js("worker.js")), "child"],
            "instances": nodes,
            "env": {"EVENTS": str(daemon.event_file)},
        }
        daemon.supervisor("start", daemon.write_file(daemon.idle(workers - nodes), node))
        daemon.wait_for(workers, 120)
        _, percent = readings(daemon, plan)
        parts = own_parts(daemon, plan)
    title = f"{workers - nodes} workers in C, {nodes} in Node with a child each"
    rows = [Figure(f"supervisor, {part}", values, aim=Aim(value=AIMS_MIB[part])) for part, values in parts.items()]
    yield Comparison(f"Memory of each process, mixed: {title}", "MiB PSS", rows, charted=False)
    yield Comparison(
        f"Idle CPU, mixed: {title}", "% of a core", [Figure(Daemon.name, percent, aim=Aim(value=1))], charted=False
    )


def readings(contender, plan):
    """MiB, and percent of a core, in windows one after another."""
    time.sleep(plan.settle)
    supervisors, pss, percent = contender.supervisors(), [], []
    for _ in range(plan.rounds):
        before, begin = machine.cpu_ns(supervisors), time.monotonic()
        time.sleep(plan.window)
        percent.append((machine.cpu_ns(supervisors) - before) / 1e7 / (time.monotonic() - begin))
        pss.append(machine.pss_kib(supervisors) / 1024)
    return pss, percent


def own_parts(daemon, plan):
    """MiB of keeper and master apart."""
    keeper, master = daemon.supervisors()
    return {
        part: [machine.pss_kib([pid]) / 1024 for _ in range(plan.rounds)]
        for part, pid in (("keeper", keeper), ("master", master))
    }


def cost(lines, unit, times):
    """What one more worker costs each, and how the whole grows."""
    notes = []
    for name, points in lines.items():
        points = [point for point in points if point[0] >= 100]
        if len(points) >= 2 and all(y > 0 for _, y in points):
            notes.append(
                f"{name}: {slope(points) * times:.3g} {unit} for one more worker; grows with their number to the power of "
                f"{exponent(points):.2f} from {points[0][0]} on (1 is linear)."
            )
    return tuple(notes)
