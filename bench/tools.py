"""What an item gets: the built programs, the peers, a folder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from peers import Peers

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "bench"
OUTPUT = ROOT / "target" / "bench"
PARTS = ("worker", "reaper", "writer", "server", "channel", "client", "calls")


class Tools(NamedTuple):
    supervisor: Path
    peers: Peers
    scratch: Path  # for what a run leaves nothing of

    def c(self, name):
        """A program of ours in C."""
        return OUTPUT / "bin" / name

    def js(self, name):
        return HERE / "js" / name


def say(words):
    """Progress, for whoever waits."""
    print(words, file=sys.stderr, flush=True)


def build(supervisor):
    """Builds the C parts, and the program unless one is given; returns its path."""
    (OUTPUT / "bin").mkdir(parents=True, exist_ok=True)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    for name in PARTS:
        made, source = OUTPUT / "bin" / name, HERE / "c" / f"{name}.c"
        if not made.exists() or made.stat().st_mtime < max(file.stat().st_mtime for file in source.parent.iterdir()):
            subprocess.run([os.environ.get("CC", "cc"), *flags, "-o", made, source], check=True)
    if supervisor is not None:
        return supervisor.resolve()
    subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "supervisor"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "supervisor"
