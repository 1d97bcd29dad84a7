"""What all contenders have: a folder, a file of events, and what is read of
their processes. What a contender can do beyond that says which items it is in:

- `start(count)` starts so many workers that do nothing, and returns when it was
  ordered. Each tells the event file that its main() has begun.
- `write(lines, per_write)` has a worker write lines, which arrive in `log_file`.
- `serve(style, workers)` serves `port` with `js/server.js`; `reload()` returns when
  the old workers are gone.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import machine

EVENT_SIZE = 32


class Event(NamedTuple):
    """A worker's main() began."""

    pid: int
    at_ns: int


class Contender:
    name = ""
    needs = ()  # Peers that must be installed.
    most = 10_000  # Workers: more take too much of a machine.

    def __init__(self, tools):
        self.tools = tools
        self.folder = Path(tempfile.mkdtemp(dir=tools.scratch))
        self.event_file = self.folder / "events"
        self.event_file.touch()
        self.env = {**os.environ, **tools.peers.environment(), "EVENTS": str(self.event_file)}
        self.process = None
        self.port = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        supervisors = self.supervisors()
        # Whoever would start others again goes first.
        members = supervisors + [pid for pid in machine.family(supervisors) if pid not in supervisors]
        self.end()
        for pid in filter(machine.is_alive, members):
            with contextlib.suppress(ProcessLookupError):  # It has just ended.
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        machine.wait_until(lambda: not any(map(machine.is_alive, members)), f"the end of {self.name}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, *command, **env):
        """Starts what supervises, in a session of its own. Returns when."""
        with open(self.folder / "out", "ab") as out:
            begin = time.monotonic_ns()
            self.process = subprocess.Popen(
                command,
                env={**self.env, **env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return begin

    def command(self, *command, **env):
        """Runs a command to its end and returns what it says."""
        result = subprocess.run(
            command,
            env={**self.env, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if result.returncode != 0:
            raise RuntimeError(
                f"`{' '.join(map(str, command[:3]))}` exited with {result.returncode}: {result.stderr[-300:]}"
            )
        return result.stdout

    def supervisors(self):
        """The processes that supervise, those of them that live."""
        return [self.process.pid] if self.process is not None and self.process.poll() is None else []

    def status_command(self):
        """What an operator runs to see the workers, or None."""
        return None

    def end(self):
        """Asks it to end; what it leaves is killed."""
        for pid in self.supervisors():
            os.kill(pid, signal.SIGTERM)

    def count(self):
        """How many workers have begun so far."""
        return self.event_file.stat().st_size // EVENT_SIZE

    def events(self):
        lines = self.event_file.read_text().splitlines()
        return [Event(*map(int, line.split())) for line in lines]

    def wait_for(self, count, timeout=60.0):
        """Waits until so many workers have begun, and returns their events."""
        machine.wait_until(lambda: self.count() >= count, f"{count} workers of {self.name}", timeout)
        return self.events()

    def cpu_ns(self):
        """CPU time that the supervising processes have used."""
        return machine.cpu_ns(self.supervisors())

    def workers(self):
        """The processes that answer, as far as they are known from outside."""
        supervisors = self.supervisors()
        return [pid for pid in machine.family(supervisors) if pid not in supervisors]

    def wait_until_served(self, workers):
        machine.wait_until(
            lambda: machine.answers(self.port) and len(self.workers()) >= workers, f"answers of {self.name}", every=0.05
        )

    def wait_until_replaced(self, old):
        """Waits until none of these workers is left, and as many others are there."""

        def is_done():
            new = self.workers()
            return len(new) >= len(old) and not set(new) & set(old)

        machine.wait_until(is_done, f"the end of a reload of {self.name}", 30, 0.02)


def missing(contender, tools):
    """Why a contender cannot take part, or None."""
    return next(filter(None, map(tools.peers.missing, contender.needs)), None)


def present(contenders, tools, absent):
    """Those of the contenders that can take part; why others cannot is added to
    the list `absent`."""
    able = []
    for contender in contenders:
        if (reason := missing(contender, tools)) is None:
            able.append(contender)
        elif (told := f"{contender.name}: {reason}") not in absent:
            absent.append(told)
    return able


def begun(contenders, begin, tools, absent, stack):
    """Those of the contenders that `begin(contender)` starts, by name. They run
    until `stack` ends them."""
    running = {}
    for contender in contenders:
        try:
            each = stack.enter_context(contender(tools))
            begin(each)
            running[contender.name] = each
        except Exception as error:  # Whatever is wrong with one, the others go on.
            absent.append(f"{contender.name}: {error}")
    return running
