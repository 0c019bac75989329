"""Memory of open connections. Each function measures with a rig and prints a table of benches/README.md."""
import asyncio, contextlib

import rig as on
from rig import markdown, name, note


async def ask(port, expected):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    writer.write(b'GET / HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n')
    await reader.readuntil(expected)
    return writer


async def hold(port, count, expected):
    """Opens connections, some at a time, and waits for the answer on each."""
    kept = []
    for start in range(0, count, 100):
        kept += await asyncio.gather(*(ask(port, expected) for _ in range(min(100, count - start))))
    return kept


async def stream(reader, writer):
    """An event, and nothing more until the other side has left."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        await reader.readuntil(b'\r\n\r\n')
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: hello world\n\n')
        await reader.read()
    writer.transport.abort()


async def measure(rig, count, what):
    rows = []
    for kind in rig.kinds:
        note(f'{what} {kind}')
        pid, port = rig.proxy(kind, 'tcp')
        (await hold(port, 1, b'hello world'))[0].close()
        await asyncio.sleep(1)
        before, had, kernel = on.pss(pid), on.descriptors(pid), on.slab()
        kept = await hold(port, count, b'hello world')
        # A moment of quiet, in which a proxy may give back what it does not need.
        await asyncio.sleep(4)
        if (still := len(on.established(port))) != count:
            note(f'! {still} of {count} connections are open')
        after, has = on.pss(pid), on.descriptors(pid)
        figures = [after / count, (after - before) / count, before / 1000, (on.slab() - kernel) / count]
        rows.append([name(kind), *(f'{figure:,.0f}' for figure in figures), f'{(has - had) / count:.2f}'])
        for writer in kept:
            writer.transport.abort()
        await asyncio.sleep(1)
        rig.stop(kind, port)
    head = [f'{count:,} {what}', 'bytes each, all told', 'beyond what it had before', 'which was, kB', "kernel's objects, both ends", 'descriptors each']
    markdown(head, rows)


def idle(rig):
    """Of connections that have made a request."""
    rig.origin()
    asyncio.run(measure(rig, rig.args.count or 9000, 'idle connections'))


def streams(rig):
    """Of event streams."""

    async def run():
        await asyncio.start_server(stream, '127.0.0.1', rig.origin_port, backlog=4096)
        await measure(rig, rig.args.count or 3000, 'event streams')

    asyncio.run(run())
