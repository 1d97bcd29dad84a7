"""Contenders that take turns."""

import machine
from results import Figure
from tools import say


class Turns:
    """Samples by name. `failed` has why a contender that failed is out; it keeps
    no samples, as they would have no neighbours."""

    def __init__(self):
        self.samples = {}
        self.failed = {}

    def sample(self, name, part=None):
        """All samples of a contender, or one part of each of them."""
        values = self.samples.get(name, [])
        return values if part is None else [value[part] for value in values]


def in_turns(names, rounds, measure, patience, what):
    """Measures each by `measure(name)`, forwards and backwards in turn (A B B A)."""
    turns = Turns()
    for turn in range(rounds):
        machine.wait_for_quiet(patience)
        for name in names if turn % 2 == 0 else list(reversed(names)):
            if name in turns.failed:
                continue
            try:
                value = measure(name)
            except Exception as error:  # Whatever is wrong with one, the others go on.
                turns.failed[name] = f"{name}, {what}: {error}"
                turns.samples.pop(name, None)
                say(f"  {turns.failed[name]}")
                continue
            turns.samples.setdefault(name, []).append(value)
        say(f"  {what}: turn {turn + 1} of {rounds}")
    return turns


def figures(turns, names, base, part=None, aims=None, notes=None):
    """A figure of each that has samples, with the baseline's of the same turns."""
    aims, notes = aims or {}, notes or {}
    return [
        Figure(
            name,
            turns.sample(name, part),
            [] if name == base else turns.sample(base, part),
            aims.get(name),
            notes.get(name, ""),
        )
        for name in names
        if turns.sample(name)
    ]
