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


def of_systemd(machine, *apps):
    """What no upgrade may touch: the sockets, by when and in which run they came up, and the apps' slots with their processes."""
    sockets = {unit: machine.show(unit, "ActiveEnterTimestampMonotonic", "InvocationID", "ActiveState") for unit in ("slot-router.socket", "slotd.socket")}
    units = {unit: machine.show(unit, "MainPID", "InvocationID", "NRestarts", "ActiveState") for unit in apps}
    return {**sockets, **units}
