"""The command line of `scripts/bench`."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import machine
import report
from contenders import Tools
from items import ITEMS

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "bench"


def build(supervisor):
    """Builds the C parts, and the program unless one is given."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in ("worker", "reaper", "writer", "server", "channel"):
        source = ROOT / "bench" / "c" / f"{name}.c"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", OUTPUT / name, source], check=True)
    if supervisor is None:
        cargo = ["cargo", "build", "--locked", "--release", "--bin", "supervisor"]
        subprocess.run(cargo, cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        supervisor = target / "release" / "supervisor"
    return Tools(*(OUTPUT / name for name in ("worker", "reaper", "writer", "server", "channel")), supervisor)


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the supervisor against a parent in C that only reaps and spawns, in turns. "
        "Prints a Markdown table; all samples go to target/bench/.",
    )
    parser.add_argument("items", nargs="*", metavar="ITEM", help=f"{', '.join(ITEMS)}; all unless given")
    parser.add_argument("--supervisor", type=Path, help="measure this program instead of building one")
    parser.add_argument("--kills", type=int, default=30, help="samples of crash and status (30)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of start (7)")
    parser.add_argument("--settle", type=float, default=10, help="seconds before memory is read (10)")
    parser.add_argument("--idle", type=float, default=20, help="seconds over which idle CPU is measured (20)")
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds that a turn waits for others to leave the CPUs alone (0)"
    )
    parser.add_argument("--lines", type=int, default=2_000_000, help="lines of 200 bytes that logs writes (2,000,000)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each turn of policies (5)")
    options = parser.parse_args()
    unknown = [name for name in options.items if name not in ITEMS]
    if unknown:
        parser.error(f"there is no item {', '.join(unknown)}; there are {', '.join(ITEMS)}")

    # So that an interrupted run ends its workers and removes its folders.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tools = build(options.supervisor)
    rows = []
    for name in options.items or ITEMS:
        for row in ITEMS[name](tools, options):
            rows.append(row)
            print(f"{row.what}: {row.value:.2f} {row.unit}" + (f", ratio {row.ratio:.2f}" if row.ratio else ""),
                  file=sys.stderr, flush=True)
    print(f"\n{machine.description()}, load {os.getloadavg()[0]:.1f}\n")
    print(report.table(rows))
    print(f"\nsamples: {report.write(rows, OUTPUT)}", file=sys.stderr)
