"""Every command line and environment that any process has while this looks, until stdin ends: then as two lists in JSON.

Says `looking` first. What lives for less than a look at all processes, some milliseconds, may not be seen.
"""

import json
import os
import select
import sys

seen = {"cmdline": set(), "environ": set()}
print("looking", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for process in filter(str.isdigit, os.listdir("/proc")):
        for name, known in seen.items():
            try:
                with open(f"/proc/{process}/{name}", "rb") as file:
                    known.add(file.read())
            except OSError:
                # It has ended.
                pass
print(json.dumps({name: [text.decode(errors="replace").replace("\0", " ") for text in known] for name, known in seen.items()}))
