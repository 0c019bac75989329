"""Other versions of the package than the one that packaging/build made, and whether what runs in a machine is the one that is installed."""

OURS = "/packages/slotctl_*.deb"
BINARIES = ("usr/bin/slotctl", "usr/lib/slot/slotd", "usr/lib/slot/slot-router")


def another(machine, version, change="true"):
    """A package of the same contents but for its version and the bytes of its binaries, and what `change` does in its tree; its path."""
    tree, made = f"/srv/{version}", f"/srv/slotctl_{version}.deb"
    marks = " && ".join(f"printf %s {version} >>{binary}" for binary in BINARIES)
    machine.run(
        f"dpkg-deb -R {OURS} {tree} && cd {tree} && sed -i 's/^Version: .*/Version: {version}/' DEBIAN/control && {marks} && {change}"
        f" && dpkg-deb --root-owner-group -Znone --build . {made} && rm -r {tree}",
        timeout=120,
    )
    return made


def install(machine, package, words=""):
    """Installs a package, whichever version there is. What its scripts said."""
    done = machine.run(f"dpkg -i {words} {package}", timeout=180)
    return done.stdout + done.stderr


def is_of(machine, process, path):
    """Whether a process runs the file that is there now."""
    return machine.run(f"cmp /proc/{process}/exe {path}", check=False).returncode == 0


def runs_as_installed(machine, app):
    """slotd, and the router that takes connections, are the installed ones."""
    accepts = [router["instance"] for router in app.status()["routers"] if router["accepting"]]
    assert len(accepts) == 1, accepts
    for unit, path in (("slotd", "/usr/lib/slot/slotd"), (f"slot-router@{accepts[0]}", "/usr/lib/slot/slot-router")):
        assert is_of(machine, machine.show(unit, "MainPID")["MainPID"], path), unit


def of_systemd(machine, *apps, but=()):
    """What no upgrade may touch: every socket of slot's that is open, those that were added and those of these apps among them, by when and in
    which run it came up; and every slot of the apps that is up, with its process. `but`: sockets that are left out."""
    patterns = " ".join(f"'{app}@*'" for app in apps)
    up = machine.out(f"systemctl list-units --plain --no-legend --state=active,activating 'slot*.socket' {patterns} | cut -d' ' -f1").split()
    facts = {
        "socket": ("ActiveEnterTimestampMonotonic", "InvocationID", "ActiveState"),
        "service": ("MainPID", "ExecMainStartTimestampMonotonic", "InvocationID", "NRestarts", "ActiveState"),
    }
    return {unit: machine.show(unit, *facts[unit.rsplit(".")[-1]]) for unit in up if unit not in but}
