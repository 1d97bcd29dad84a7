"""Node's own `cluster`, with the primary that its documentation shows."""

import os
import signal

import machine

from .base import Contender


class NodeCluster(Contender):
    name = "Node cluster"
    needs = ("node",)
    most = 100

    def primary(self, script, workers, **env):
        node = self.tools.peers.program("node")
        return self.spawn(node, str(self.tools.js("cluster.js")), str(workers), str(self.tools.js(script)), **env)

    def start(self, count):
        return self.primary("worker.js", count)

    def serve(self, style, workers):
        self.port = machine.free_port()
        self.primary("server.js", workers, PORT=str(self.port), STYLE=style)
        self.wait_until_served(workers)

    def reload(self):
        old = self.workers()
        os.kill(self.process.pid, signal.SIGHUP)
        self.wait_until_replaced(old)
