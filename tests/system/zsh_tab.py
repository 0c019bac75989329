#!/usr/bin/env python3
"""Types at an interactive zsh that has its completion system on, presses TAB, and prints as JSON what was proposed and what the line became.
Standard library only.

    zsh_tab.py 'slotctl --app w'        {"proposed": ["web"], "line": "slotctl --app web "}
"""

import json
import os
import pty
import re
import select
import sys
import time

# What is proposed is what completion functions hand to compadd, as far as it fits the word that was begun (zshcompwid(1): with -O they are put
# into an array, and nothing else is done). What they ask it by -A, -D or -O is theirs.
CAPTURE = r"""
autoload -Uz compinit && compinit -D -u
zstyle ':completion:*' insert-tab false
proposed=()
compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        local -a hits
        builtin compadd -O hits "$@"
        proposed+=("${hits[@]}")
    fi
    builtin compadd "$@"
}
show() {
    zle complete-word
    local -a lines=("line $BUFFER" "word "${^proposed})
    print -rn -- "<<${(pj:\x01:)lines}>>"
}
zle -N show
bindkey '^I' show
"""


def read_until(pattern):
    """The first match in what the terminal shows. What follows it is for the next call."""
    global seen
    while not (found := re.search(pattern, seen, re.DOTALL)):
        if time.monotonic() > deadline:
            sys.exit(f"not within 30 s; the terminal shows {seen!r}")
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    seen = seen[found.end() :]
    return found


with open("/root/capture.zsh", "w") as file:
    file.write(CAPTURE)
shell, terminal = pty.fork()
if shell == 0:
    os.environ.update(PS1="ready> ", TERM="dumb")
    os.execvp("zsh", ["zsh", "-f", "-i"])
deadline, seen = time.monotonic() + 30, ""
read_until("ready> ")
# The typed words are not what is waited for: the terminal shows them too.
os.write(terminal, b". /root/capture.zsh && echo sour''ced\n")
read_until("sourced")
read_until("ready> ")
os.write(terminal, sys.argv[1].encode() + b"\t")
lines = read_until("<<(.*)>>")[1].split("\x01")
proposed = sorted(line.removeprefix("word ") for line in lines if line.startswith("word "))
print(json.dumps({"proposed": proposed, "line": lines[0].removeprefix("line ")}))
os.write(terminal, b"\x03exit\n")
os.close(terminal)
os.waitpid(shell, 0)
