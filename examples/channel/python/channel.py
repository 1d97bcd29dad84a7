"""The channel between workers: `Channel` with a thread of its own, `AsyncChannel` for asyncio.

Outside the supervisor both do nothing.
"""

import asyncio
import itertools
import json
import os
import socket
import sys
import threading
from concurrent.futures import Future


def _open():
    """The socket that SUPERVISOR_IPC tells of, if it is there: a grandchild has the variable, too."""
    try:
        number, device, inode = map(int, os.environ["SUPERVISOR_IPC"].split(":"))
        stat = os.fstat(number)
    except (KeyError, ValueError, OSError):
        return None
    if (stat.st_dev, stat.st_ino) != (device, inode):
        return None
    os.set_inheritable(number, False)
    return socket.socket(fileno=number)


class _Base:
    def __init__(self):
        self.handlers, self.waiting, self.ids = {}, {}, itertools.count()
        self.on_message = lambda message: None
        self.on_lost = lambda count: None

    def ask(self, **supervisor):
        self.write({"supervisor": supervisor})

    def broadcast(self, **members):
        """Sends an object to all other ready workers."""
        self.write({"broadcast": True, **members})

    def publish(self, topic, data=None, to="others", retain=None):
        """Sends data to the other workers that have subscribed to the topic. The last `retain` can be replayed."""
        self.ask(publish=topic, data=data, to=to, retain=retain)

    def subscribe(self, topic, handler, replay=False):
        """Calls handler(topic, data) for each message, and for the last `replay` before; what it returns is the reply to a request."""
        self.handlers[topic] = handler
        self.ask(subscribe=topic, replay=replay)

    def unsubscribe(self, topic):
        self.handlers.pop(topic, None)
        self.ask(unsubscribe=topic)

    def metric(self, name, value):
        self.ask(metric={name: value})

    def ready(self):
        self.ask(ready=True)

    def _find(self, topic):
        for pattern, handler in list(self.handlers.items()):
            if pattern == topic or pattern.endswith("*") and topic.startswith(pattern[:-1]):
                return handler
        return lambda topic, data: None

    def _hear(self, line):
        message = json.loads(line)
        told = message.get("supervisor") if isinstance(message, dict) else None
        if told is None:
            self.on_message(message)
        elif "message" in told:
            self._find(told["message"])(told["message"], told["data"])
        elif "request" in told:
            self.ask(reply=told["id"], data=self._find(told["request"])(told["request"], told["data"]))
        elif "reply" in told:
            future = self.waiting.pop(told["reply"], None)
            if future and not future.done():
                if "error" in told:
                    future.set_exception(RuntimeError(told["error"]))
                else:
                    future.set_result(told["data"])
        elif "lost" in told:
            self.on_lost(told["lost"])
        elif "error" in told:
            print(f"the channel: {told['error']}", file=sys.stderr)

    def _request(self, future, topic, data, to, timeout):
        number = next(self.ids)
        self.waiting[number] = future
        more = {} if to is None else {"to": to}
        self.ask(request=topic, id=number, data=data, timeout=int(timeout * 1000), **more)
        return future


class Channel(_Base):
    """Handlers run on a thread of the channel's own."""

    def __init__(self):
        super().__init__()
        self.lock, self.socket = threading.Lock(), _open()
        if self.socket:
            self.socket.setblocking(True)
            threading.Thread(target=self._read, daemon=True).start()

    def write(self, value):
        if self.socket:
            with self.lock:
                self.socket.sendall(json.dumps(value).encode() + b"\n")

    def request(self, topic, data=None, to=None, timeout=5.0):
        """Asks one other worker that has subscribed to the topic, and waits. Not within a handler."""
        if not self.socket:
            raise RuntimeError("there is no channel")
        return self._request(Future(), topic, data, to, timeout).result()

    def _read(self):
        for line in self.socket.makefile("rb"):
            self._hear(line)


class AsyncChannel(_Base):
    """For asyncio: `channel = await AsyncChannel.open()`. Handlers are plain functions."""

    @classmethod
    async def open(cls):
        self, opened = cls(), _open()
        self.writer = None
        if opened:
            # Longer lines than workers may send by default.
            reader, self.writer = await asyncio.open_unix_connection(sock=opened, limit=4 << 20)
            self.task = asyncio.create_task(self._read(reader))
        return self

    def write(self, value):
        if self.writer:
            self.writer.write(json.dumps(value).encode() + b"\n")

    async def request(self, topic, data=None, to=None, timeout=5.0):
        """Asks one other worker that has subscribed to the topic."""
        if not self.writer:
            raise RuntimeError("there is no channel")
        return await self._request(asyncio.get_running_loop().create_future(), topic, data, to, timeout)

    async def _read(self, reader):
        while line := await reader.readline():
            self._hear(line)
