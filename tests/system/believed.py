"""What PID 1 reads as root on slot's behalf, and what of that another user could replace.

`collect`, as root: the paths, as a JSON list. `replaceable`, as that user: those of standard input, a line each, that it could write, or put
something else in place of.
"""

import glob
import json
import os
import re
import stat
import subprocess
import sys

PROPERTIES = [
    "FragmentPath", "SourcePath", "DropInPaths", "EnvironmentFiles", "BindPaths", "BindReadOnlyPaths", "RootDirectory", "RootImage", "ExtensionImages", "ExtensionDirectories", "PIDFile", "AppArmorProfile", "NetworkNamespacePath", "StandardInput", "StandardOutput", "Symlinks",
]  # fmt: skip

OTHERS = [
    "/usr/share/polkit-1/rules.d/*", "/etc/polkit-1/rules.d/*", "/usr/share/dbus-1/system.d/slot.conf", "/usr/lib/sysusers.d/slot.conf",
    "/usr/lib/tmpfiles.d/slot.conf", "/usr/lib/systemd/system-generators/slot-generator", "/usr/lib/systemd/system-preset/80-slot.preset",
    "/usr/lib/slot/*", "/usr/bin/slotctl", "/etc/slot", "/etc/slot/apps/*", "/etc/slot/machine.toml",
]  # fmt: skip

# Below it PID 1 makes and removes directories that units name (RuntimeDirectory=, StateDirectory=, CacheDirectory=).
BASES = ["/run/slot", "/var/lib/slot-app", "/var/lib/private", "/var/cache/private"]


def units():
    listed = subprocess.check_output(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "slot*", "web@*"], text=True
    )
    names = {line.split()[0] for line in listed.splitlines()}
    templates = glob.glob("/usr/lib/systemd/system/slot-*@.service")
    names |= {os.path.basename(path).replace("@", "@web") for path in templates}
    return sorted(names | {"web@blue.service", "web@green.service", "slotd-tcp.socket"})


def collect():
    paths = set(BASES)
    for unit in units():
        shown = subprocess.check_output(["systemctl", "show", unit, *(f"-p{name}" for name in PROPERTIES)], text=True)
        for value in (line.split("=", 1)[1] for line in shown.splitlines()):
            # Paths among other words; of a mount, `from:to:how`. Where to is a directory of the unit's own, on a tmpfs.
            for word in value.split(" "):
                word = word.lstrip("-+").split(":")[0]
                # What is mounted empty, or is the kernel's.
                if word.startswith("/") and not word.startswith(("/dev/", "/proc/", "/sys/")):
                    paths.add(word)
        # systemctl(1) does not print these.
        text = subprocess.run(["systemctl", "cat", unit], capture_output=True, text=True).stdout
        paths |= set(re.findall(r"^LoadCredential(?:Encrypted)?=[^:]+:(/.*)$", text, re.MULTILINE))
    for pattern in OTHERS:
        paths |= set(glob.glob(pattern)) or {pattern}
    return sorted(paths)


def is_replaceable(path):
    """Whether this user could write a file of that path, or make it another one, now or once it is gone."""
    path = os.path.abspath(path)
    if os.path.islink(path) and is_replaceable(os.path.realpath(path)):
        return True
    if os.path.isfile(path) and os.access(path, os.W_OK):
        return True
    parent = os.path.dirname(path)
    if parent == path:
        return False
    if os.path.isdir(parent) and os.access(parent, os.W_OK):
        about = os.stat(parent)
        is_own = about.st_uid == os.getuid() or (os.path.lexists(path) and os.lstat(path).st_uid == os.getuid())
        # In a sticky directory what is there is safe from all but its owner; what is not there is anybody's to make.
        if not about.st_mode & stat.S_ISVTX or is_own or not os.path.lexists(path):
            return True
    return is_replaceable(parent)


if sys.argv[1] == "collect":
    print(json.dumps(collect()))
else:
    print(json.dumps([line for line in sys.stdin.read().splitlines() if is_replaceable(line)]))
