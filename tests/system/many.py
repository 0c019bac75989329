#!/usr/bin/env python3
"""Many WebSockets that are silent but when they are asked. Standard library only.

    many.py HOST:PORT [--count 800]

For each line on stdin, the first one included, something is sent on all of them, and one line of JSON says how many gave it back.
"""

import argparse
import asyncio
import base64
import json
import os
import sys

from load import connect
from streams import frame, head_of, read_frame


async def opened(options):
    reader, writer = await connect(options.address)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status, _ = await head_of(reader)
    assert status == "101", status
    return reader, writer


async def answers(reader, writer):
    data = os.urandom(32)
    try:
        writer.write(frame(2, data))
        return (await asyncio.wait_for(read_frame(reader), 60))[1] == data
    except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError):
        return False


async def run(options):
    sockets = []
    while len(sockets) < options.count:
        sockets += await asyncio.gather(*(opened(options) for _ in range(min(50, options.count - len(sockets)))))
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps({"alive": sum(await asyncio.gather(*(answers(*socket) for socket in sockets)))}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=800)
    asyncio.run(run(parser.parse_args()))
