"""Asks slotd for a release as `slotctl build` does, and hands back an archive that would write outside of it."""

import io
import socket
import sys
import tarfile

with socket.socket(socket.AF_UNIX) as slotd:
    slotd.connect(sys.argv[1])
    # The order, and the release behind it, to the two empty blocks at its end.
    given = b""
    while not given.endswith(bytes(1024)):
        given += slotd.recv(65536)
    with slotd.makefile("wb") as back, tarfile.open(fileobj=back, mode="w|") as archive:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"here"))
