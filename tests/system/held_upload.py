"""An upload that stops half-way: begins a deployment over slotd's socket, says `begun` once it holds the lock, goes on when told.

    held_upload.py APP DIRECTORY

`go` on stdin sends the rest, anything else breaks it off. Prints the status of slotd's answer, or `broken` if it went away without one.
"""

import io
import socket
import subprocess
import sys
import tarfile
import time

app, directory = sys.argv[1:]
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
    archive.add(directory, arcname=".")
data = packed.getvalue()
half = len(data) // 2 // 512 * 512


def chunk(piece):
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


with socket.socket(socket.AF_UNIX) as slotd:
    slotd.connect("/run/slot/slotd.sock")
    slotd.sendall(
        f"POST /apps/{app}/deploy HTTP/1.1\r\nHost: slotd\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + chunk(data[:half])
    )
    while '"phase":"preparing"' not in subprocess.run(
        ["slotctl", "--json", "--app", app, "status"], capture_output=True, text=True
    ).stdout.replace(" ", ""):
        time.sleep(0.02)
    print("begun", flush=True)
    if sys.stdin.readline() != "go\n":
        sys.exit()
    try:
        slotd.sendall(chunk(data[half:]) + b"0\r\n\r\n")
        answer = slotd.recv(65536).decode()
    except OSError:
        answer = ""
print(answer.split(" ")[1] if answer else "broken", flush=True)
