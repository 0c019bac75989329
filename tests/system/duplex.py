#!/usr/bin/env python3
"""WebSockets with as much as they carry both ways at once, checked to their last byte. Standard library only.

    duplex.py HOST:PORT [--count 4] [--megabytes 60] [--pace-ms 5] [--until FILE]

The last megabyte each way goes only once FILE is there: until then all of them are open, and have something left to carry.

Prints `open` once data flows on all of them, and at the end one line of JSON: for each whether it was whole. All the while
connections are made and closed again; how many were refused is in that line too.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import struct

from load import connect
from streams import head_of


async def one(options, opened):
    reader, writer = await connect(options.address)
    writer.write(
        f"GET /duplex?megabytes={options.megabytes} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status, _ = await head_of(reader)
    if status != "101":
        return {"whole": False, "error": f"status {status}"}
    frames = options.megabytes * 16
    sent, came, due = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()

    async def go(number):
        """Each frame has its pace; the last 16 wait for whoever says that they may go."""
        await asyncio.sleep(options.pace_ms / 1000)
        while options.until and frames - number <= 16 and not os.path.exists(options.until):
            await asyncio.sleep(0.02)

    async def send():
        for number in range(frames):
            await go(number)
            mask, data = os.urandom(4), os.urandom(4096) * 16
            sent.update(data)
            masked = int.from_bytes(data, "big") ^ int.from_bytes(mask * 16384, "big")
            writer.write(struct.pack(">BBQ", 0x82, 0xFF, 65536) + mask + masked.to_bytes(65536, "big"))
            await writer.drain()

    sending = asyncio.ensure_future(send())
    error, said, number = None, b"", 0
    try:
        for number in range(frames):
            await go(number)
            await reader.readexactly(10)
            came.update(await reader.readexactly(65536))
            due.update(hashlib.sha256(str(number).encode()).digest() * 2048)
            opened.set()
        await sending
        said = await asyncio.wait_for(reader.readexactly(66), 60)
    except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError) as cut:
        error = repr(cut)
        sending.cancel()
    writer.close()
    whole = said[2:] == sent.hexdigest().encode() and came.digest() == due.digest()
    return {"whole": whole, "error": error, "frames": number + 1}


async def knock(options, tally):
    while True:
        try:
            _, writer = await connect(options.address)
            writer.close()
            tally["made"] += 1
        except OSError as error:
            tally["refused"].append(str(error))
        await asyncio.sleep(0.002)


async def main(options):
    opened = [asyncio.Event() for _ in range(options.count)]
    tally = {"made": 0, "refused": []}
    ways = [asyncio.ensure_future(one(options, event)) for event in opened]
    knocking = asyncio.ensure_future(knock(options, tally))
    await asyncio.wait([asyncio.ensure_future(asyncio.gather(*(event.wait() for event in opened))), *ways], return_when=asyncio.FIRST_COMPLETED)
    print("open", flush=True)
    ended = await asyncio.gather(*ways)
    knocking.cancel()
    print(json.dumps({"ways": ended, **tally}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--pace-ms", type=float, default=5)
    parser.add_argument("--until")
    asyncio.run(main(parser.parse_args()))
