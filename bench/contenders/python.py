"""supervisord, circus and gunicorn."""

import os
import signal

import machine

from .base import Contender


class Supervisord(Contender):
    name = "supervisord"
    needs = ("supervisord",)

    def run(self, count, *command, log="/dev/null"):
        socket = self.folder / "socket"
        self.file = self.folder / "supervisord.conf"
        self.file.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={self.folder}/daemon.log\npidfile={self.folder}/pid\nminfds=16384\n"
            f"[unix_http_server]\nfile={socket}\n"
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[supervisorctl]\nserverurl=unix://{socket}\n"
            f"[program:bench]\ncommand={' '.join(map(str, command))}\nnumprocs={count}\n"
            "process_name=%(program_name)s_%(process_num)04d\nautorestart=true\n"
            f"stdout_logfile={log}\nstdout_logfile_maxbytes=0\nstderr_logfile=/dev/null\nstderr_logfile_maxbytes=0\n"
        )
        return self.spawn(self.tools.peers.program("supervisord"), "-c", str(self.file))

    def start(self, count):
        return self.run(count, self.tools.c("worker"), self.event_file)

    def status_command(self):
        return [self.tools.peers.beside("supervisord", "supervisorctl"), "-c", str(self.file), "status"]

    @property
    def log_file(self):
        return self.folder / "log"

    def write(self, lines, per_write):
        self.run(1, self.tools.c("writer"), self.event_file, lines, per_write, log=self.log_file)

    def end(self):
        pass  # As its workers wait for nothing, killing is the same and faster.


class Circus(Contender):
    name = "circus"
    needs = ("circus",)

    def run(self, count, program, *arguments, stream=""):
        self.endpoint = f"ipc://{self.folder}/control"
        file = self.folder / "circus.ini"
        file.write_text(
            f"[circus]\nendpoint = {self.endpoint}\npubsub_endpoint = ipc://{self.folder}/events-of-circus\n"
            f"[watcher:bench]\ncmd = {program}\nargs = {' '.join(map(str, arguments))}\nnumprocesses = {count}\n{stream}"
        )
        return self.spawn(self.tools.peers.program("circus"), str(file))

    def start(self, count):
        return self.run(count, self.tools.c("worker"), self.event_file)

    def status_command(self):
        return [self.tools.peers.beside("circus", "circusctl"), "--endpoint", self.endpoint, "list", "bench"]

    @property
    def log_file(self):
        return self.folder / "log"

    def write(self, lines, per_write):
        stream = f"stdout_stream.class = FileStream\nstdout_stream.filename = {self.log_file}\n"
        self.run(1, self.tools.c("writer"), self.event_file, lines, per_write, stream=stream)

    def end(self):
        pass


class Gunicorn(Contender):
    name = "gunicorn"
    needs = ("gunicorn",)
    most = 100

    def run(self, bind, workers):
        folder = str(self.tools.js("..") / "py")
        return self.spawn(
            self.tools.peers.program("gunicorn"),
            "--config",
            f"{folder}/gunicorn.conf.py",
            "--chdir",
            folder,
            "--workers",
            str(workers),
            "--no-control-socket",
            "--bind",
            bind,
            "app:app",
        )

    def start(self, count):
        return self.run(f"unix:{self.folder}/socket", count)

    def serve(self, style, workers):
        self.port = machine.free_port()
        self.run(f"127.0.0.1:{self.port}", workers)
        self.wait_until_served(workers)

    def reload(self):
        old = self.workers()
        os.kill(self.process.pid, signal.SIGHUP)
        self.wait_until_replaced(old)
