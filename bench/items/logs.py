"""Lines of 200 bytes from one worker that writes as fast as it is let, into a file: from its first byte until the file has
them all. The baseline is `cat > file`, which splits no lines, rotates nothing and puts no times before them."""

import time

import machine
from contenders import LOGGERS, Cat, Supervisor, Times, present
from results import Aim, Comparison
from turns import figures, in_turns

LINE = 200
AIMS = {1: {Supervisor.name: 0.9, Times.name: 0.6}, 20: {Supervisor.name: 0.9, Times.name: 0.6}}


def logs(tools, plan, absent):
    loggers = {each.name: each for each in present(LOGGERS, tools, absent)}
    for per_write in (1, 20):

        def rate(name):
            with loggers[name](tools) as logger:
                return written(logger, plan.lines, per_write)

        turns = in_turns(list(loggers), plan.rounds, rate, plan.patience, f"{per_write} lines a write")
        absent += turns.failed.values()
        aims = {name: Aim(limit) for name, limit in AIMS[per_write].items()}
        yield Comparison(
            f"Output kept, {per_write} line{'s' * (per_write > 1)} a write",
            "MB/s",
            figures(turns, list(loggers), Cat.name, aims=aims),
            Cat.name,
            less_is_better=False,
        )


def written(logger, lines, per_write):
    """Megabytes a second that the writer got rid of and that arrived."""
    logger.write(lines, per_write)
    logger.wait_for(2, 180)  # The writer tells when it begins and when it ends.
    begin = logger.events()[0].at_ns + time.time_ns() - time.monotonic_ns()
    size = lambda: logger.log_file.stat().st_size if logger.log_file.exists() else 0
    before = None

    def is_still():
        nonlocal before
        last, before = before, size()
        return last == before and before >= lines * LINE

    machine.wait_until(is_still, f"{lines * LINE} bytes in its file", 60, 0.3)
    return lines * LINE / ((logger.log_file.stat().st_mtime_ns - begin) / 1e9) / 1e6
