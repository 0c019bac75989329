"""Asks slotd for the release of a build that it is not part of: connects as soon as there is somebody to connect to, and counts what it is
given."""

import socket
import sys
import time

print("looking", flush=True)
deadline = time.monotonic() + 30
given = None
while given is None and time.monotonic() < deadline:
    with socket.socket(socket.AF_UNIX) as slotd:
        try:
            slotd.connect(sys.argv[1])
            given = b""
            while more := slotd.recv(65536):
                given += more
        except ConnectionResetError:
            pass
        except OSError:
            time.sleep(0.001)
print(f"{len(given)} bytes" if given is not None else "nobody was there")
