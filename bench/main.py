"""The command line of `scripts/bench`."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import report
import sandbox
from items import ITEMS
from peers import PEERS, Peers, install
from plan import FULL, QUICK
from results import to_json
from tools import HERE, OUTPUT, ROOT, Tools, build, say

# A disk's file system would be measured otherwise: ext4 without a journal skips
# inodes that were freed in the last minute, and each round frees a thousand.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the supervisor beside its peers, in turns, and writes a report: target/bench/report/benchmarks.md, "
        "a picture for each item, and all samples as JSON. All items take about 90 minutes, and each is ended after "
        f"{max(item.minutes for item in ITEMS.values())} at most; the report has the last results of the items that were not asked for.",
    )
    names = lambda text: text.split(",")
    parser.add_argument("items", nargs="*", metavar="ITEM", help=f"{', '.join(ITEMS)}; all unless given")
    parser.add_argument("--items", dest="more", type=names, default=[], metavar="ITEM,…", help="the same")
    parser.add_argument(
        "--peers", type=names, default=list(PEERS), metavar="PEER,…", help=f"{', '.join(PEERS)}; all unless given"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a look of a few minutes, from which nothing follows; a report of its own"
    )
    parser.add_argument(
        "--resume", action="store_true", help="passes over items that have results of this commit, without changes"
    )
    parser.add_argument("--report", action="store_true", help="measures nothing: the report of what there is")
    parser.add_argument(
        "--docs", action="store_true", help="writes the report to docs/benchmarks.md and docs/benchmarks/, too"
    )
    parser.add_argument(
        "--install", action="store_true", help="installs the peers, and ends: into target/bench/peers, s6 as a package"
    )
    parser.add_argument("--supervisor", type=Path, help="measure this program instead of building one")
    for number in ("rounds", "seconds", "patience"):
        parser.add_argument(
            f"--{number}", type=int, help=f"instead of the plan's (bench/plan.py: {getattr(FULL, number):g})"
        )
    # One item, in the processes that the sandbox has made for it, and what the program is built from.
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--commit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.items += options.more
    for given, known in ((options.items, ITEMS), (options.peers, PEERS)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return options


def plan_of(options):
    given = {
        name: getattr(options, name) for name in ("rounds", "seconds", "patience") if getattr(options, name) is not None
    }
    return (QUICK if options.quick else FULL)._replace(**given)


def results_folder(options):
    return OUTPUT / ("quick" if options.quick else "full")


def measure(name, options):
    """Runs an item in the sandbox, and tells how it went. Whatever it has when it
    ends is kept."""
    file = results_folder(options) / f"{name}.json"
    file.unlink(missing_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench.", dir=MEMORY))
    shown = (["--quick"] if options.quick else []) + [
        f"--{number}={value}"
        for number in ("rounds", "seconds", "patience")
        if (value := getattr(options, number)) is not None
    ]
    begin = time.monotonic()
    try:
        wrong = sandbox.run(
            [
                sys.executable,
                ROOT / "scripts" / "bench",
                name,
                "--inside",
                scratch,
                "--supervisor",
                options.supervisor,
                "--commit",
                options.commit,
                "--peers",
                ",".join(options.peers),
                *shown,
            ],
            ITEMS[name].minutes * 60,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"{name}: {wrong or 'done'} after {(time.monotonic() - begin) / 60:.1f} minutes")
    return wrong is None


def inside(options):
    """Measures one item, and writes what is known after each of its results."""
    sandbox.become_init()
    tools = Tools(options.supervisor, Peers(OUTPUT / "peers", options.peers), options.inside)
    [name] = options.items
    item, begin, absent = ITEMS[name], time.monotonic(), []
    known = {
        "item": name,
        "about": item.about,
        "quick": options.quick,
        "environment": machine.environment() | {"commit": options.commit, "program": program_version(tools.supervisor)},
        "versions": tools.peers.versions(item.peers),
        "results": [],
        "missing": absent,
        "seconds": 0,
        "is_whole": False,
    }
    file = results_folder(options) / f"{name}.json"

    def keep():
        known["seconds"] = time.monotonic() - begin
        part = file.with_suffix(".part")
        part.write_text(json.dumps(known))
        part.rename(file)

    for result in item.run(tools, plan_of(options), absent):
        known["results"].append(to_json(result))
        keep()
        say(f"{name}: {result.title}")
    known["is_whole"] = True
    keep()
    for reason in absent:
        say(f"{name}: missing: {reason}")


def program_version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def write_report(options):
    known = {} if options.quick else published()
    for file in results_folder(options).glob("*.json"):
        known[file.stem] = json.loads(file.read_text())
    items = [known[name] for name in ITEMS if name in known]
    if not items:
        say("there are no results yet")
        return
    pages = [(OUTPUT / ("report-quick" if options.quick else "report"), str(HERE / "README.md"))]
    if options.docs:
        pages.append((ROOT / "docs", "../bench/README.md"))
    for place, readme in pages:
        place.mkdir(parents=True, exist_ok=True)
        report.write(items, place / "benchmarks.md", place / "benchmarks", readme)
        say(f"report: {place / 'benchmarks.md'}")
    print(report.promises(items))


def published():
    """The results that the page in docs/ shows, by item."""
    file = ROOT / "docs" / "benchmarks" / report.SAMPLES
    return {item["item"]: item for item in json.loads(file.read_text())} if file.exists() else {}


def has_results(name, options):
    """Whether this commit has been measured, to the end."""
    file = results_folder(options) / f"{name}.json"
    # One with changes, or no commit at all, does not say what was measured.
    if not file.exists() or not re.fullmatch("[0-9a-f]+", options.commit):
        return False
    result = json.loads(file.read_text())
    return result["is_whole"] and result["environment"]["commit"] == options.commit


def main():
    options = arguments()
    if options.inside:
        return inside(options)
    if options.install:
        return install(OUTPUT / "peers")
    # So that an interrupted run ends its item and removes its folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    all_well = True
    if not options.report:
        results_folder(options).mkdir(parents=True, exist_ok=True)
        options.commit = "" if options.supervisor else machine.commit(ROOT)
        options.supervisor = build(options.supervisor)
        for reason in filter(None, map(Peers(OUTPUT / "peers", options.peers).missing, PEERS)):
            say(f"missing: {reason}")
        for name in options.items or ITEMS:
            if options.resume and has_results(name, options):
                say(f"{name}: measured already")
            else:
                all_well &= measure(name, options)
    write_report(options)
    sys.exit(0 if all_well else 1)
