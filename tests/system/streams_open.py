"""Long answers and WebSockets that tests keep open; see streams.py."""

import json


def open_stream(machine, kind, seconds=60, host="localhost", until=None):
    """A stream that flows, for so long or until there is a file, and the release that serves it. Its last line of output says how it ended."""
    limit = f"--until {until}" if until else f"--seconds {seconds}"
    stream = machine.spawn(f"exec python3 /tests/streams.py {kind} 127.0.0.1:80 {limit} --host {host}")
    return stream, json.loads(stream.stdout.readline())["open"]
