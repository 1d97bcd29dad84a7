"""The same with asyncio: a line of text instead of HTTP. `get KEY`, `put KEY VALUE`."""

import asyncio
import os
import socket
from pathlib import Path

from channel import AsyncChannel

cache = {}


async def main():
    channel = await AsyncChannel.open()
    channel.subscribe("cache.*", lambda topic, data: cache.pop(topic.removeprefix("cache."), None))
    channel.on_lost = lambda count: cache.clear()

    async def serve(reader, writer):
        verb, key, *value = (await reader.readline()).decode().split()
        file = Path(os.environ.get("VALUES", "/tmp"), f"value-{key}")
        if verb == "put":
            file.write_text(" ".join(value))
            cache.pop(key, None)
            channel.publish(f"cache.{key}")
        else:
            if key not in cache:
                cache[key] = file.read_text() if file.exists() else ""
            writer.write(f"{cache[key]} of slot {os.environ.get('SUPERVISOR_INSTANCE')}\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, sock=socket.socket(fileno=3))
    await server.serve_forever()


asyncio.run(main())
