"""runit and s6: a supervising process for each worker, and their loggers."""

import machine

from .base import Contender
from .floor import Cat


class Chain(Contender):
    def folders(self, count):
        """A folder for each service, as both want them."""
        services = self.folder / "services"
        for number in range(count):
            service = services / f"{number:04}"
            service.mkdir(parents=True)
            run = service / "run"
            run.write_text(f"#!/bin/sh\nexec {self.tools.c('worker')} {self.event_file}\n")
            run.chmod(0o755)
        return services

    def supervisors(self):
        """The one above, and the one of each worker; not the workers."""
        above = super().supervisors()
        return above + [child for pid in above for child in machine.children().get(pid, [])]

    def end(self):
        pass


class Runit(Chain):
    name = "runit"
    needs = ("runit",)

    def start(self, count):
        return self.spawn(self.tools.peers.program("runit"), str(self.folders(count)))

    def status_command(self):
        return ["sh", "-c", f"exec sv status {self.folder}/services/*"]


class S6(Chain):
    name = "s6"
    needs = ("s6",)

    def start(self, count):
        return self.spawn(self.tools.peers.program("s6"), "-c", str(count + 100), str(self.folders(count)))

    def status_command(self):
        return ["sh", "-c", f"for service in {self.folder}/services/*; do s6-svstat $service; done"]


class Logger(Cat):
    """A program at the end of a pipe that writes a folder `log`."""

    @property
    def log_file(self):
        return self.folder / "log" / "current"

    def write(self, lines, per_write):
        self.log_file.parent.mkdir()
        # Nothing is rotated, as elsewhere.
        (self.log_file.parent / "config").write_text("s2000000000\nn0\n")
        super().write(lines, per_write)


class S6Log(Logger):
    name = "s6-log"
    needs = ("s6",)

    def piped(self):
        return [self.tools.peers.beside("s6", "s6-log"), "n1000", "s268435455", str(self.log_file.parent)]


class Svlogd(Logger):
    name = "svlogd"
    needs = ("runit",)

    def piped(self):
        return [self.tools.peers.beside("runit", "svlogd"), str(self.log_file.parent)]
