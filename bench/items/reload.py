"""One rolling reload of four workers under 32 strict clients with short connections: answers and failures in each tenth of a
second. The program is the same, unmodified Node server for both, without any handler for signals."""

import time

from contenders import Pm2Cluster, Supervisor, present
from load import SHORT, result, strict
from results import Timeline

WORKERS = 4
LEAD = 2  # Seconds before it begins, and after it has ended.
LEAST = 10  # Seconds that are shown.
MOST = 130  # Seconds after which the clients end by themselves.


def reload(tools, plan, absent):
    lines = {}
    for contender in present((Supervisor, Pm2Cluster), tools, absent):
        try:
            with contender(tools) as each:
                each.serve("plain", WORKERS)
                result(strict(tools, each.port, SHORT, 1))  # Warm: Node compiles what is used.
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
    """The client's bins, and from when to when the reload took."""
    client = strict(tools, contender.port, SHORT, MOST)
    begin = time.monotonic()
    time.sleep(LEAD)
    span = [time.monotonic() - begin, None]
    contender.reload()
    span[1] = time.monotonic() - begin
    time.sleep(max(LEAD, LEAST - span[1]))
    client.terminate()
    return {"bins": result(client)["bins"], "spans": [span]}
