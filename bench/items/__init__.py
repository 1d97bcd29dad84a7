"""What is measured: a module an item, whose first lines are what a reader of the
report is told. An item is a generator of results; contenders that are missing or
fail are told in the list that it is given."""

import sys
from typing import Callable, NamedTuple

from .calls import calls
from .channel import channel
from .crash import crash
from .crash_loaded import crash_loaded
from .failures import failures
from .logs import logs
from .memory import memory
from .policies import policies
from .reload import reload
from .start import start
from .status import status
from .steady import steady


class Item(NamedTuple):
    run: Callable
    minutes: int  # After which it is ended, whatever it has.
    peers: tuple  # Whose versions belong into the report.

    @property
    def about(self):
        return sys.modules[self.run.__module__].__doc__.strip()


MANAGERS = ("runit", "s6", "supervisord", "circus", "gunicorn", "node", "pm2")
ITEMS = {
    "reload": Item(reload, 3, ("node", "pm2")),
    "failures": Item(failures, 25, ("node", "pm2", "gunicorn")),
    "steady": Item(steady, 25, ("node", "pm2", "wrk")),
    "crash": Item(crash, 15, MANAGERS),
    "crash-loaded": Item(crash_loaded, 5, ()),
    "start": Item(start, 20, MANAGERS),
    "memory": Item(memory, 20, MANAGERS),
    "status": Item(status, 8, MANAGERS),
    "logs": Item(logs, 15, ("runit", "s6", "supervisord", "circus", "pm2")),
    "calls": Item(calls, 3, ()),
    "channel": Item(channel, 15, ("node", "redis")),
    "policies": Item(policies, 15, ("node", "wrk")),
}
