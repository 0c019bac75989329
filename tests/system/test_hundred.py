"""Many deploys in a row leave nothing behind."""

from slots import App, nothing_failed

DEPLOYS = 100
KEEP = 3


def left(machine):
    """All that a deploy could leak, as text to compare."""
    pids = machine.out("systemctl show -P MainPID slotd slot-router@1").split()
    return {
        "units": machine.out("systemctl list-units --plain --no-legend 'slot*' 'web*' | awk '{print $1}' | sed 's/blue\\|green/SLOT/'"),
        "failed": machine.out("systemctl list-units --failed --plain --no-legend 'slot*' 'web*'"),
        "processes": machine.out("cat $(find /sys/fs/cgroup -path '*slot.slice*' -name cgroup.procs) | wc -l"),
        "sockets": machine.out("find /run/slot | sed 's/blue\\|green/SLOT/' | sort"),
        "listeners": machine.out("ss -Hltnx | wc -l"),
        "staging": machine.out("find /var/lib/slot/web -mindepth 1 -maxdepth 1 | sort"),
        "pids": pids,
    }


def fds(machine, pid):
    """Of a process, those that are no connection of a client."""
    return int(machine.out(f"ls /proc/{pid}/fd | wc -l"))


def test_a_hundred_deploys_under_load_fail_no_request_and_leak_nothing(machine):
    app = App(
        machine, "web",
        f'bind = "unix"\nready = "notify"\nhealth = "/healthz"\nsoak = "0s"\nstop_timeout = "5s"\nkeep = {KEEP}\n',
    )  # fmt: skip
    for number in range(DEPLOYS):
        app.release(f"r{number}")
    app.deploy("warm-up-one")
    app.deploy("warm-up-two", "--wait=stopped")
    with machine.load("127.0.0.1:80", "--connections", "32", "--pause-ms", "20") as load:
        # Every connection is there before what is open is counted.
        while load.snapshot()["reconnects"] < 32:
            pass
        before = left(machine)
        open_before = [fds(machine, pid) for pid in before["pids"]]
        script = f"cd {app.home}; for n in $(seq 0 {DEPLOYS - 1}); do slotctl --json deploy {app.home}/r$n || exit 1; done"
        machine.run(script, timeout=200)
        status = app.wait_until(lambda status: all(slot["condition"] in ("active", "idle") for slot in status["slots"]))
        after = left(machine)
        open_after = [fds(machine, pid) for pid in after["pids"]]
        result = load.stop()
    nothing_failed(result, reconnects=32)
    assert {f"release r{number}" for number in range(DEPLOYS)} <= set(result["answers"])
    assert status["generation"] == DEPLOYS + 2
    assert after == before
    # Upstream connections come and go with the load, by a few for each of its clients.
    assert open_after[0] <= open_before[0] + 2, (open_before, open_after)
    assert open_after[1] <= open_before[1] + 32, (open_before, open_after)
    releases = machine.out("find /var/lib/slot/web/releases -mindepth 1 -maxdepth 1 -type d").split()
    # The old ones, and those that the slots and `rollback` name.
    assert len(releases) <= KEEP + 3, releases
    sums = machine.out("find /var/lib/slot/web/releases -mindepth 1 -maxdepth 1 -name '*.json'").split()
    assert len(sums) == len(releases)
