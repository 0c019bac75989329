"""The router is killed with SIGKILL, again and again: streams and WebSockets go on, and nobody is refused."""

import json

import pytest
from slots import QUICK, App
from streams_open import open_stream


# Once it is there what was open before the kills may end.
KILLED = "/srv/killed"


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + 'drain = "0s"\n')
    app.deploy("one")
    return app


def running(machine):
    """Every instance that runs, and its process."""
    units = machine.out("systemctl list-units --plain --no-legend --state=active 'slot-router@*' | cut -d' ' -f1").split()
    return {unit: machine.show(unit, "MainPID")["MainPID"] for unit in units}


def kill(machine):
    """Kills every instance; returns when each is there again."""
    before = running(machine)
    machine.run(["kill", "-KILL", *before.values()])
    for unit, process in before.items():
        machine.wait_for(f"test $(systemctl show {unit} -P MainPID) -ne {process} && systemctl is-active {unit}")
    return list(before)


def stored(machine, unit):
    return int(machine.show(unit, "NFileDescriptorStore")["NFileDescriptorStore"])


def last_line(stream, timeout=120):
    return json.loads(stream.communicate(timeout=timeout)[0].splitlines()[-1])


def test_four_websockets_of_60_megabytes_each_way_and_streams_survive_20_kills(machine, app):
    # None of them can end before the last kill.
    streams = [open_stream(machine, kind, until=KILLED)[0] for kind in ("sse", "sse", "ws")]
    duplex = machine.spawn(f"exec python3 /tests/duplex.py 127.0.0.1:80 --pace-ms 10 --until {KILLED}")
    assert duplex.stdout.readline() == "open\n"
    for number in range(20):
        if number == 10:
            # From here on one of them drains, and comes back draining each time.
            old, new = running(machine).popitem()[0], app.slotctl("router upgrade")["accepting"]
        units = kill(machine)
        assert len(units) == (2 if number >= 10 else 1)
    machine.run(f"touch {KILLED}")
    states = {router["instance"]: router for router in app.status()["routers"]}
    assert states[str(new)]["accepting"]
    assert sum(router["accepting"] for router in states.values()) == 1
    result = last_line(duplex)
    assert [way["whole"] for way in result["ways"]] == [True] * 4, result
    assert result["refused"] == [] and result["made"] > 1000, result
    ended = [last_line(stream) for stream in streams]
    assert [end["whole"] for end in ended] == [True] * 3, ended
    machine.wait_for(f"systemctl show {old} -P ActiveState | grep -qx inactive")
    # Each process could write down what it was picking up.
    assert "picked up" not in machine.out("journalctl -o cat -p warning -u 'slot-router@*'")
    # Nothing of them is left with PID 1: only the file that says what is kept, if something is.
    machine.wait_for(f"test $(systemctl show slot-router@{new} -P NFileDescriptorStore) -le 1")


def test_eight_hundred_websockets_survive_two_kills(machine, app):
    # Under long names less than a fifth of them would keep the next process from starting (execve(2), E2BIG).
    many = machine.spawn("exec python3 /tests/many.py 127.0.0.1:80 --count 800")

    def alive():
        many.stdin.write("\n")
        many.stdin.flush()
        return json.loads(many.stdout.readline())["alive"]

    assert alive() == 800
    (unit,) = running(machine)
    # PID 1 compares each with all that it has: on a busy machine that takes its time, and none is left out.
    machine.wait_for(f"test $(systemctl show {unit} -P NFileDescriptorStore) = 4801", timeout=120)
    for _ in range(2):
        kill(machine)
        assert alive() == 800
    assert machine.out("curl -sS -m 30 http://127.0.0.1/").startswith("release ")
    many.communicate()
    machine.wait_for(f"test $(systemctl show {unit} -P NFileDescriptorStore) = 1")


def test_a_slot_that_drains_is_not_stopped_because_its_router_is_away(machine, app):
    stream, release = open_stream(machine, "ws", seconds=12)
    old = app.active()
    # It stays away for longer than anybody waits before he asks again.
    machine.write("/etc/systemd/system/slot-router@.service.d/away.conf", "[Service]\nRestartSec=2s\n")
    machine.run("systemctl daemon-reload")
    app.deploy("two")
    assert app.slot(old)["condition"] == "draining"
    for _ in range(3):
        kill(machine)
    machine.run("rm /etc/systemd/system/slot-router@.service.d/away.conf && systemctl daemon-reload")
    assert app.slot(old)["in_flight"] == {"requests": 0, "streams": 0, "tunnels": 1}
    end = last_line(stream)
    assert end["whole"] and end["release"] == release, end
    app.wait_for_slot(old, "idle")


def test_a_router_that_was_away_at_a_deadline_cuts_what_is_overdue_when_it_is_back(machine, app):
    app.configure(QUICK + 'drain_streams = "1s"\ndrain_tunnels = "0s"\n')
    app.deploy("three")
    stream, ws = (open_stream(machine, kind, seconds=40)[0] for kind in ("sse", "ws"))
    old = app.active()
    machine.write("/etc/systemd/system/slot-router@.service.d/away.conf", "[Service]\nRestartSec=4s\n")
    machine.run("systemctl daemon-reload")
    app.deploy("four")
    kill(machine)
    machine.run("rm /etc/systemd/system/slot-router@.service.d/away.conf && systemctl daemon-reload")
    end = last_line(stream)
    assert not end["whole"] and "reset" in end["error"].lower(), end
    # And the slot is there for what has no deadline.
    held = app.slot(old)
    assert (held["condition"], held["in_flight"]) == ("draining", {"requests": 0, "streams": 0, "tunnels": 1}), held
    app.slotctl(f"drain --now {old}")
    assert not last_line(ws)["whole"]
    app.configure(QUICK + 'drain = "0s"\n')
    app.wait_for_slot(old, "idle")


def test_what_cannot_live_on_is_cut_by_a_reset(machine, app):
    stream, _ = open_stream(machine, "sse", seconds=60)
    (unit,) = running(machine)
    assert stored(machine, unit) == 5
    app.slotctl("router upgrade --drain 1s")
    end = last_line(stream)
    assert not end["whole"] and "reset" in end["error"].lower(), end
