"""Sample apps put into a machine: as a directory to deploy, or by hand where slotd is not what is tested."""


def make(machine, kind, marker, *, faults="", directory=None):
    """A copy of apps/<kind> in the machine, answering `release <marker>`. Returns its directory."""
    directory = directory or f"/srv/{kind}-{marker}"
    machine.run(f"mkdir -p {directory} && cp -rT /tests/apps/{kind} {directory} && chmod -R a+rX {directory}")
    machine.write(f"{directory}/marker", f"{marker}\n")
    if faults:
        machine.write(f"{directory}/faults", f"{faults}\n")
    return directory


def register(machine, name, text):
    """An app's file, its directory and its units, as `slotctl app add` leaves them, but without asking slotd."""
    machine.write(f"/etc/slot/apps/{name}.toml", text)
    machine.run(f"install -d -m 0775 -g slot /var/lib/slot/{name} && systemctl daemon-reload")


def place(machine, name, slot, kind, marker, release="0123abcd", **options):
    """A release of an app, and a slot's symlink to it."""
    base = f"/var/lib/slot/{name}"
    make(machine, kind, marker, directory=f"{base}/releases/{release}", **options)
    machine.run(f"ln -sfnT releases/{release} {base}/{slot}")
