"""The floors: what a supervisor in C, `cat` and the kernel alone would take.

All of them are in sessions of their own, as the supervisor and its workers are:
with the kernel's `sched_autogroup` each session gets the same share of a busy
CPU, and who shares one with the load would get less."""

import os
import signal
import socket
import subprocess
import time

import machine

from .base import Contender


class Floor(Contender):
    """A parent in C that only reaps and spawns (`c/reaper.c`)."""

    name = "C floor"

    def __init__(self, tools):
        super().__init__(tools)
        self.order, order = os.pipe()
        command = [tools.c("reaper"), tools.c("worker"), self.event_file]
        self.process = subprocess.Popen(command, stdin=self.order, cwd="/", start_new_session=True)
        os.close(self.order)
        self.order = order

    def start(self, count):
        begin = time.monotonic_ns()
        os.write(self.order, f"{count}\n".encode())
        return begin

    def end(self):
        os.close(self.order)
        self.process.wait(30)


class Cat(Contender):
    """`writer | cat > file`."""

    name = "cat"

    def piped(self):
        return ["cat"]

    @property
    def log_file(self):
        return self.folder / "out"

    def write(self, lines, per_write):
        read, write = os.pipe()
        command = [self.tools.c("writer"), self.event_file, str(lines), str(per_write)]
        self.writer = subprocess.Popen(command, stdout=write, start_new_session=True)
        os.close(write)
        with open(self.folder / "out", "wb") as out:
            self.process = subprocess.Popen(
                self.piped(), stdin=read, stdout=out, cwd=self.folder, env=self.env, start_new_session=True
            )
        os.close(read)

    def end(self):
        self.writer.kill()
        self.writer.wait()
        self.process.wait(60)


class Bare(Contender):
    """Workers that have a socket each of one SO_REUSEPORT group, and nobody who
    supervises them: what steady state costs with no supervisor at all."""

    name = "bare SO_REUSEPORT"
    needs = ("node",)

    def __init__(self, tools):
        super().__init__(tools)
        self.pids = []

    def serve(self, style, workers, command=None):
        self.port = machine.free_port()
        command = command or [self.tools.peers.program("node"), str(self.tools.js("server.js"))]
        env = {**self.env, "LISTEN_FDS": "1", "STYLE": style}
        for _ in range(workers):
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen(511)
                given = [(os.POSIX_SPAWN_DUP2, listener.fileno(), 3)]
                self.pids.append(os.posix_spawn(command[0], command, env, file_actions=given, setsid=True))
        machine.wait_until(lambda: machine.answers(self.port), "answers of bare workers", every=0.05)

    def supervisors(self):
        return []

    def workers(self):
        return self.pids

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
