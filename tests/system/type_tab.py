#!/usr/bin/env python3
"""Types at an interactive bash that has slotctl's completion, and prints what the line became. Standard library only.

    type_tab.py 'slotctl --app w' 'slotctl --app web '

types the first, then TAB, and ends when the terminal shows the second, within 30 s.
"""

import os
import pty
import select
import sys
import time


def read_until(wanted):
    """What the terminal shows up to what is wanted. What follows is for the next call."""
    global seen
    while wanted not in seen:
        if time.monotonic() > deadline:
            sys.exit(f"not within 30 s; the terminal shows {seen!r}")
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    shown, _, seen = seen.partition(wanted)
    return shown + wanted


typed, wanted = sys.argv[1:]
shell, terminal = pty.fork()
if shell == 0:
    os.environ.update(PS1="ready> ", TERM="dumb", INPUTRC="/dev/null")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
deadline, seen = time.monotonic() + 30, ""
read_until("ready> ")
# The typed words are not what is waited for: the terminal shows them too.
os.write(terminal, b". /usr/share/bash-completion/completions/slotctl && echo sour''ced\n")
read_until("sourced")
read_until("ready> ")
os.write(terminal, typed.encode() + b"\t")
print(read_until(wanted))
os.write(terminal, b"\x03exit\n")
os.close(terminal)
os.waitpid(shell, 0)
