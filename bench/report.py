"""Rows as a Markdown table and as JSON."""

import json
import time
from typing import NamedTuple

import machine


class Row(NamedTuple):
    """One figure. `floor`, `ratio` and `aim` are None where there is none."""

    what: str
    unit: str
    value: float
    floor: float | None = None
    ratio: float | None = None
    aim: str = ""
    met: bool | None = None
    notes: str = ""
    samples: dict = {}


def table(rows):
    def number(value):
        if value is None:
            return ""
        return f"{value:.2f}" if value < 100 else f"{value:.0f}"

    lines = ["| what | supervisor | C floor | ratio | aim | met | notes |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        cells = [
            row.what, f"{number(row.value)} {row.unit}", f"{number(row.floor)} {row.unit}" if row.floor else "",
            number(row.ratio), row.aim, met, row.notes,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(rows, folder):
    """Writes all samples to a new file in `folder` and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.json")
    result = {
        "machine": machine.description(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [row._asdict() for row in rows],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
