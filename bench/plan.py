"""How much is measured."""

from typing import NamedTuple


class Plan(NamedTuple):
    sizes: tuple  # numbers of workers
    large: tuple  # more of them, for the supervisor and the floor alone
    rounds: int  # turns of everything that has no number of its own
    kills: int  # of workers, one after another
    patience: float  # seconds that a turn waits for others to leave the CPUs alone
    settle: float  # seconds before memory is read
    window: float  # seconds of one reading of idle CPU
    pairs: int  # of a steady state
    seconds: float  # of one turn of a steady state
    short_seconds: int  # of one turn with reloads or kills
    lines: int  # of 200 bytes
    messages: int  # from one worker to others


FULL = Plan(
    sizes=(1, 100, 500, 1000),
    large=(2000,),
    rounds=5,
    kills=30,
    patience=2,
    settle=4,
    window=2,
    pairs=15,
    seconds=10,
    short_seconds=6,
    lines=1_000_000,
    messages=1_000_000,
)
QUICK = Plan(
    sizes=(1, 50),
    large=(),
    rounds=2,
    kills=5,
    patience=0,
    settle=2,
    window=1,
    pairs=2,
    seconds=1,
    short_seconds=4,
    lines=100_000,
    messages=50_000,
)
