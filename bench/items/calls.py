"""What a system call takes in a worker whose `bind` and `listen` are captured by a seccomp filter (`exec_mode: cluster`), beside
the same program started by nobody in particular: a call that does next to nothing (`getppid`), and a byte through a pipe and
back. What steering costs a connection is in the rows of `policies`, beside workers that are not steered."""

import machine
from contenders import Supervisor
from contenders.base import Contender
from results import Comparison
from turns import figures, in_turns


class Plain(Contender):
    name = "no supervisor"

    def run(self, command):
        self.spawn(*command)


class Captured(Supervisor):
    mode = "cluster"

    def run(self, command):
        app = {"name": "bench", "command": command, "instances": 1, "exec_mode": self.mode}
        self.supervisor("start", "--no-wait", self.write_file(app))


class Alone(Captured):
    name = "supervisor, fork"
    mode = "fork"


def calls(tools, plan, absent):
    contenders = {each.name: each for each in (Plain, Captured, Alone)}

    def once(name):
        with contenders[name](tools) as contender:
            result = contender.folder / "result"
            contender.run([str(tools.c("calls")), str(result)])
            machine.wait_until(result.exists, "its figures", every=0.1)
            return tuple(map(float, result.read_text().split()))

    turns = in_turns(list(contenders), 2 * plan.rounds, once, plan.patience, "system calls")
    absent += turns.failed.values()
    for part, what in enumerate(("A call that does nothing", "A byte through a pipe and back")):
        yield Comparison(what, "ns of CPU", figures(turns, list(contenders), Plain.name, part), Plain.name)
