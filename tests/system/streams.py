#!/usr/bin/env python3
"""A long answer or a WebSocket, held open and checked to its last byte. Standard library only.

    streams.py sse HOST:PORT|unix:PATH [--path '/sse?seconds=60']
    streams.py ws  HOST:PORT|unix:PATH [--path /ws] [--seconds 60]

With --until FILE it goes on until that file is there.

Prints `open` with the release that serves it once data flows, and one line of JSON when it has ended. `whole` is true
if the stream ended by itself and its SHA-256 is the one that the server gave (sse), or everything that was sent came back
and the close handshake was kept (ws). `goodbye` is the code with which the server closed first, if it did: then what it had not echoed yet is lost,
and `whole` says that the handshake was kept.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import struct
import time

from load import connect


async def head_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    fields = dict(line.split(":", 1) for line in head[1:])
    return head[0].split(" ")[1], {name.lower(): value.strip() for name, value in fields.items()}


async def pieces(reader, fields):
    """The body as it comes: chunked, or to the end of the connection."""
    if "chunked" not in fields.get("transfer-encoding", ""):
        while data := await reader.read(65536):
            yield data
        return
    while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)


async def sse(options):
    reader, writer = await connect(options.address)
    writer.write(f"GET {options.path} HTTP/1.1\r\nHost: {options.host}\r\nAccept: text/event-stream\r\n\r\n".encode())
    status, fields = await head_of(reader)
    print(json.dumps({"open": fields.get("x-release"), "status": status}), flush=True)
    text, error = b"", None
    try:
        async for data in pieces(reader, fields):
            text += data
    except (asyncio.IncompleteReadError, OSError) as cut:
        error = str(cut)
    # The last event is the digest of all before it.
    body, mark, last = text.rpartition(b"event: end\ndata: ")
    digest = hashlib.sha256(body).hexdigest()
    whole = error is None and bool(mark) and last.decode().strip() == digest
    return {"whole": whole, "bytes": len(text), "sha256": digest, "error": error, "release": fields.get("x-release")}


def frame(opcode, data):
    """A masked frame of a client (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0xFE]) + struct.pack(">H", len(data))
    return bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))


async def read_frame(reader):
    first, size = await reader.readexactly(2)
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    return first & 0x0F, await reader.readexactly(size)


async def ws(options):
    reader, writer = await connect(options.address)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {options.path} HTTP/1.1\r\nHost: {options.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    status, fields = await head_of(reader)
    accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    opened = status == "101" and fields.get("sec-websocket-accept") == accept
    print(json.dumps({"open": fields.get("x-release"), "status": status}), flush=True)
    sent, came, frames, error, closed, goodbye = hashlib.sha256(), hashlib.sha256(), 0, None, False, None
    end = time.monotonic() + options.seconds
    try:
        while opened and (not os.path.exists(options.until) if options.until else time.monotonic() < end):
            data = hashlib.sha256(str(frames).encode()).digest() * (1 + frames % 40)
            sent.update(data)
            writer.write(frame(2, data))
            opcode, echo = await asyncio.wait_for(read_frame(reader), 30)
            if opcode == 8:
                (goodbye,) = struct.unpack(">H", echo)
                break
            came.update(echo)
            frames += 1
            await asyncio.sleep(0.02)
        writer.write(frame(8, struct.pack(">H", goodbye or 1000)))
        if not goodbye:
            opcode, _ = await asyncio.wait_for(read_frame(reader), 30)
        closed = opcode == 8 and await asyncio.wait_for(reader.read(1), 30) == b""
    except (asyncio.IncompleteReadError, asyncio.TimeoutError, OSError) as cut:
        error = repr(cut)
    whole = opened and closed and (goodbye is not None or sent.digest() == came.digest())
    return {"whole": whole, "frames": frames, "error": error, "release": fields.get("x-release"), "goodbye": goodbye}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["sse", "ws"])
    parser.add_argument("address")
    parser.add_argument("--path")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--until")
    options = parser.parse_args()
    if options.kind == "sse":
        options.path = options.path or (f"/sse?until={options.until}" if options.until else f"/sse?seconds={options.seconds}")
        print(json.dumps(asyncio.run(sse(options))), flush=True)
    else:
        options.path = options.path or "/ws"
        print(json.dumps(asyncio.run(ws(options))), flush=True)
