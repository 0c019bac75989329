#!/usr/bin/env python3
"""Continuous HTTP/1.1 load over keep-alive connections, every answer read to its end and checked. Standard library only.

    load.py HOST:PORT|unix:PATH [--connections 32] [--path /] [--host NAME] [--pause-ms 2] [--post BYTES] [--any-body]

Commands on stdin, each answered with one line of JSON: `snapshot`, `mark NAME` (requests that begin from now on are
counted under NAME), `stop`. The end of stdin stops it too.

An answer is good if its status is 200, its framing is right, and its body is `release <marker>` (for --post: that and the
SHA-256 of what was sent). Anything else is a failure, a connection that closes without having said so included.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import sys
import time


class Bad(Exception):
    """A failure, by its kind; the text is for the report."""

    def __init__(self, kind, text=""):
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind


class Tally:
    """Counts of the requests that began under one mark."""

    def __init__(self):
        self.answers = collections.Counter()
        self.failures = collections.Counter()
        self.details = []
        # Milliseconds, in tenths, to how many.
        self.times = collections.Counter()
        self.slowest = 0.0

    def good(self, answer, seconds):
        self.answers[answer] += 1
        self.times[int(seconds * 10_000)] += 1
        self.slowest = max(self.slowest, seconds)

    def bad(self, failure):
        self.failures[failure.kind] += 1
        if len(self.details) < 10:
            self.details.append(str(failure))

    def median_ms(self):
        total, seen = sum(self.times.values()), 0
        for tenths in sorted(self.times):
            seen += self.times[tenths]
            if seen * 2 >= total:
                return tenths / 10
        return None

    def report(self):
        failed = sum(self.failures.values())
        return {
            "requests": sum(self.answers.values()) + failed,
            "failed": failed,
            "answers": dict(self.answers),
            "failures": dict(self.failures),
            "details": self.details,
            "median_ms": self.median_ms(),
            "slowest_ms": round(self.slowest * 1000, 1),
        }


class Run:
    def __init__(self, options):
        self.options = options
        self.total = Tally()
        self.marks = {}
        self.current = []
        self.reconnects = 0
        self.stopping = False
        self.began = time.monotonic()

    def report(self):
        return {
            **self.total.report(),
            "seconds": round(time.monotonic() - self.began, 3),
            "reconnects": self.reconnects,
            "marks": {name: tally.report() for name, tally in self.marks.items()},
        }

    def command(self, line):
        word, _, name = line.strip().partition(" ")
        if word == "mark":
            self.marks[name] = Tally()
            self.current = [*self.current, self.marks[name]]
        elif word == "stop":
            self.stopping = True
        elif word != "snapshot":
            return {"error": f"no such command: {word}"}
        return self.report()


async def connect(address):
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address[5:])
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port))


async def read_answer(reader):
    """Status, fields and body of one answer; interim answers are passed over."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Bad("closed", f"after {len(error.partial)} bytes of a head") from error
        lines = head[:-4].decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise Bad("malformed", lines[0])
        status = int(rest[:3])
        if status >= 200:
            break
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise Bad("malformed", line)
        fields[name.lower()] = value.strip()
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = b""
        while True:
            size = int((await reader.readuntil(b"\r\n"))[:-2].split(b";")[0], 16)
            chunk = await reader.readexactly(size + 2)
            if chunk[size:] != b"\r\n":
                raise Bad("malformed", "the end of a chunk")
            if size == 0:
                break
            body += chunk[:size]
    elif "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    else:
        raise Bad("malformed", "an answer without a length")
    return status, fields, body


async def request(run, reader, writer, message, digest):
    """One request; returns whether the connection stays."""
    tallies = [run.total, *run.current]
    start = time.monotonic()
    try:
        try:
            writer.write(message)
            await writer.drain()
            status, fields, body = await asyncio.wait_for(read_answer(reader), run.options.timeout)
        except asyncio.TimeoutError as error:
            raise Bad("timeout", f"{run.options.timeout} s") from error
        except asyncio.IncompleteReadError as error:
            raise Bad("cut", "in a body") from error
        except ConnectionResetError as error:
            raise Bad("reset", str(error)) from error
        except (BrokenPipeError, OSError) as error:
            raise Bad("broken", str(error)) from error
        except ValueError as error:
            raise Bad("malformed", str(error)) from error
        text = body.decode("utf-8", "replace").strip()
        if status != 200:
            raise Bad(f"status {status}", text[:200])
        lines = text.split("\n")
        if not run.options.any_body and (not lines[0].startswith("release ") or digest not in text):
            raise Bad("wrong body", text[:200])
    except Bad as failure:
        for tally in tallies:
            tally.bad(failure)
        return False
    seconds = time.monotonic() - start
    for tally in tallies:
        tally.good(lines[0] if not run.options.any_body else "200", seconds)
    return fields.get("connection", "").lower() != "close"


async def client(run, number):
    options = run.options
    body = hashlib.sha256(str(number).encode()).digest() * (options.post // 32 + 1)
    body = body[: options.post]
    digest = hashlib.sha256(body).hexdigest() if body else ""
    method = f"POST {options.path} HTTP/1.1\r\nContent-Length: {len(body)}" if body else f"GET {options.path} HTTP/1.1"
    message = f"{method}\r\nHost: {options.host}\r\n\r\n".encode() + body
    while not run.stopping:
        try:
            reader, writer = await connect(options.address)
        except OSError as error:
            kind = "refused" if isinstance(error, ConnectionRefusedError) else "connect"
            for tally in [run.total, *run.current]:
                tally.bad(Bad(kind, str(error)))
            await asyncio.sleep(0.05)
            continue
        run.reconnects += 1
        while not run.stopping:
            if not await request(run, reader, writer, message, digest):
                break
            if options.pause_ms:
                await asyncio.sleep(options.pause_ms / 1000)
        writer.close()


async def main(options):
    run = Run(options)
    clients = [asyncio.create_task(client(run, number)) for number in range(options.connections)]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while not run.stopping:
        line = (await reader.readline()).decode()
        if not line or line.strip() == "stop":
            break
        print(json.dumps(run.command(line)), flush=True)
    run.stopping = True
    await asyncio.gather(*clients)
    print(json.dumps(run.report()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--path", default="/")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--pause-ms", type=float, default=2)
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--post", type=int, default=0)
    parser.add_argument("--any-body", action="store_true")
    asyncio.run(main(parser.parse_args()))
