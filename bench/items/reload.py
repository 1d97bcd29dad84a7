"""One rolling reload of four workers under 32 strict clients with short connections: answers and failures in each tenth of a
second. The program is the same, unmodified Node server for both, without any handler for signals."""

import time

from contenders import Pm2Cluster, Supervisor, present
from load import SHORT, strict
from results import Timeline

WORKERS = 4
LEAD = 2  # Seconds before it begins, and after it has ended.
LEAST = 10  # Seconds that are shown.


def reload(tools, plan, absent):
    lines = {}
    for contender in present((Supervisor, Pm2Cluster), tools, absent):
        try:
            with contender(tools) as each:
                each.serve("plain", WORKERS)
                with strict(tools, each.port, SHORT):
                    time.sleep(1)  # Node compiles what is used.
                lines[contender.name] = watch(tools, each)
        except Exception as error:  # The other one goes on.
            absent.append(f"{contender.name}: {error}")
    yield Timeline(
        "A rolling reload under load",
        "reload",
        lines,
        (f"{WORKERS} workers; each bar is a tenth of a second. A bar without any answer is not drawn.",),
    )


def watch(tools, contender):
    """The clients' bins, and from when to when the reload took."""
    with strict(tools, contender.port, SHORT) as seen:
        begin = time.monotonic()
        time.sleep(LEAD)
        span = [time.monotonic() - begin, None]
        contender.reload()
        span[1] = time.monotonic() - begin
        time.sleep(max(LEAD, LEAST - span[1]))
    return {"bins": seen["bins"], "spans": [span]}
