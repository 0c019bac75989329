"""Long answers and WebSockets that tests keep open; see streams.py."""

import json


def open_stream(machine, kind, seconds=60, host="localhost"):
    """A stream that flows, and the release that serves it. Its last line of output says how it ended."""
    stream = machine.spawn(f"exec python3 /tests/streams.py {kind} 127.0.0.1:80 --seconds {seconds} --host {host}")
    return stream, json.loads(stream.stdout.readline())["open"]
