"""What goes from directories, in the order in which it goes, as the kernel tells it (inotify(7)): a name per line, when stdin ends.

    removed.py DIRECTORY...

Says `looking` first.
"""

import ctypes
import os
import struct
import sys

MOVED_FROM, DELETE, OVERFLOW = 0x40, 0x200, 0x4000
# struct inotify_event, without its name.
HEAD = struct.Struct("iIII")

libc = ctypes.CDLL(None, use_errno=True)
queue = libc.inotify_init1(os.O_NONBLOCK)
for directory in sys.argv[1:]:
    if libc.inotify_add_watch(queue, directory.encode(), MOVED_FROM | DELETE) < 0:
        sys.exit(f"{directory}: {os.strerror(ctypes.get_errno())}")
print("looking", flush=True)
sys.stdin.read()
while True:
    try:
        events = os.read(queue, 1 << 16)
    except BlockingIOError:
        break
    while events:
        _, mask, _, length = HEAD.unpack_from(events)
        name, events = events[HEAD.size : HEAD.size + length], events[HEAD.size + length :]
        if mask & OVERFLOW:
            sys.exit("more has gone than the kernel keeps")
        if mask & (MOVED_FROM | DELETE):
            print(name.rstrip(b"\0").decode())
