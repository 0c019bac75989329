"""Public sockets are added and taken away while the others serve, and no socket is restarted."""

import json

import pytest
from machine import Machine
from slots import QUICK, App, answers_only, unbroken
from test_api import audited


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    return app


@pytest.fixture
def load(machine, app):
    with unbroken(machine, connections=8, pause_ms=20) as load:
        yield load


def serves(machine, address):
    return machine.out(f"curl -sS -m 10 http://{address}/") == "release one"


def listens(machine, port):
    return machine.out(f"ss -Hltn 'sport = :{port}'") != ""


def listed(machine):
    return {it["name"]: it for it in machine.json("slotctl --json listener list")["listeners"]}


def left(machine, name):
    """What there is of a listener."""
    files = f"/etc/systemd/system/slot-router-{name}.socket /etc/systemd/system/slot-router@.service.d/50-listener-{name}.conf"
    found = machine.out(f"ls {files} 2>/dev/null || true")
    return found + machine.out(f"systemctl list-units --all --plain --no-legend 'slot-router-{name}.socket' | grep -v not-found || true")


def test_a_port_is_added_and_taken_away_and_nothing_is_refused_or_cut(machine, app, load):
    main = machine.show("slot-router.socket", "InvocationID", "ActiveEnterTimestampMonotonic")
    stream = machine.spawn(["python3", "/tests/streams.py", "ws", "127.0.0.1:80", "--seconds", "5"])
    stream.stdout.readline()
    answer = machine.json("slotctl --json listener add 443")
    assert (answer["success"], answer["unit"]) == (True, "slot-router-443.socket")
    assert serves(machine, "127.0.0.1:443") and serves(machine, "[::1]:443")
    assert machine.show("slot-router.socket", "InvocationID", "ActiveEnterTimestampMonotonic") == main
    assert machine.out("systemctl is-enabled slot-router-443.socket") == "enabled"
    assert json.loads(stream.communicate(timeout=60)[0].splitlines()[-1])["whole"]
    answers_only(load, "one", requests=20)
    # Once more changes nothing, not even the router.
    added = machine.show("slot-router-443.socket", "InvocationID")
    assert machine.json("slotctl --json listener add 443")["accepting"] is None
    # Another one leaves both as they are.
    machine.run("slotctl listener add 127.0.0.1:8081 --name internal")
    assert serves(machine, "127.0.0.1:8081")
    assert machine.show("slot-router-443.socket", "InvocationID") == added
    assert machine.show("slot-router.socket", "InvocationID", "ActiveEnterTimestampMonotonic") == main
    names = listed(machine)
    assert set(names) == {"http", "443", "internal"}, names
    assert (names["internal"]["addresses"], names["internal"]["listening"]) == (["127.0.0.1:8081"], True)
    # What came in there outlives it.
    stream = machine.spawn(["python3", "/tests/streams.py", "ws", "127.0.0.1:443", "--seconds", "5"])
    stream.stdout.readline()
    machine.run("slotctl listener remove 443")
    assert not listens(machine, 443)
    assert left(machine, "443") == ""
    assert json.loads(stream.communicate(timeout=60)[0].splitlines()[-1])["whole"]
    assert serves(machine, "127.0.0.1:8081")
    machine.run("slotctl listener remove internal")
    assert set(listed(machine)) == {"http"}
    assert machine.show("slot-router.socket", "InvocationID", "ActiveEnterTimestampMonotonic") == main
    answers_only(load, "one", requests=20)


def test_who_added_and_who_took_away_a_listener_is_in_the_journal(machine, app):
    for number, (words, route) in enumerate((("add 8099", "/listener/add"), ("remove 8099", "/listener/remove"))):
        machine.run(f"systemd-run --quiet --wait --pipe --unit=by-hand-{number} slotctl listener {words}")
        asked, done = audited(machine, f"SLOT_PEER_UNIT=by-hand-{number}.service")
        assert (asked["SLOT_AUDIT"], done["SLOT_AUDIT"]) == ("asked", "done"), (asked, done)
        for line in (asked, done):
            assert (line["SLOT_USER"], line["SLOT_UID"], line["SLOT_METHOD"], line["SLOT_ROUTE"]) == ("root", "0", "POST", route), line
        assert done["SLOT_QUERY"] == "name=8099", done


def test_one_that_cannot_be_had_is_taken_away_again(machine, app, load):
    holder = machine.spawn(["python3", "-c", "import socket; s = socket.create_server(('', 8082)); print('there', flush=True); input()"])
    assert holder.stdout.readline() == "there\n"
    refused = machine.run("slotctl listener add 8082", check=False)
    assert refused.returncode != 0 and "port 8082 is taken by python3" in refused.stderr, refused
    assert left(machine, "8082") == ""
    holder.communicate("\n", timeout=30)
    # What systemd holds for slot is told by its name there.
    refused = machine.run("slotctl listener add 80 --name again", check=False)
    assert refused.returncode == 1 and "port 80 is taken by listener http (slot-router.socket)" in refused.stderr, refused
    assert left(machine, "again") == ""
    # The next instance of the router would not come up by such settings.
    machine.write("/etc/slot/machine.toml", "[limits]\nhead_bites = 1\n")
    refused = machine.run("slotctl listener add 8082", check=False)
    assert refused.returncode != 0 and "/etc/slot/machine.toml:2: " in refused.stderr, refused
    assert left(machine, "8082") == "" and not listens(machine, 8082)
    machine.run("rm /etc/slot/machine.toml")
    answers_only(load, "one", requests=20)


def test_an_address_has_one_form_and_is_the_machines_own(machine, app):
    machine.run("slotctl listener add 127.0.0.1:08092 --name forms")
    assert listed(machine)["forms"]["addresses"] == ["127.0.0.1:8092"] and serves(machine, "127.0.0.1:8092")
    # The same place in other words.
    for same in ("127.0.0.1:8092", "[::ffff:127.0.0.1]:8092", "[::FFFF:7F00:1]:8092"):
        assert machine.json(f"slotctl --json listener add {same} --name forms")["accepting"] is None
    refused = machine.run("slotctl listener add 127.0.0.2:8092 --name forms", check=False)
    assert refused.returncode == 6 and "there is a listener forms already" in refused.stderr, refused
    machine.run("slotctl listener remove forms")
    # As an octal number, which it is to systemd, it would be another port.
    machine.run("slotctl listener add 010093")
    assert listed(machine)["10093"]["addresses"] == ["[::]:10093"]
    machine.run("slotctl listener remove 10093")
    routers = machine.out("systemctl list-units --plain --no-legend 'slot-router@*.service'")
    for wrong, code, why in [
        ("192.0.2.7:8094", 6, "192.0.2.7 is no address of this machine"),
        ("[2001:db8::7]:8094", 6, "2001:db8::7 is no address of this machine"),
        ("[fe80::1%2]:8094", 2, "one interface"),
        ("224.0.0.1:8094", 2, "multicast"),
    ]:
        refused = machine.run(f"slotctl listener add '{wrong}'", check=False)
        assert refused.returncode == code and why in refused.stderr, refused
        assert left(machine, "8094") == ""
    assert machine.out("systemctl list-units --plain --no-legend 'slot-router@*.service'") == routers


def exchanging(machine, words):
    """Begins a command, kills slotd while it exchanges the router for it, and returns how the command ended."""
    slow = "/run/systemd/system/slot-router@.service.d/slow.conf"
    # An instance is up, and takes connections, some time before its unit is.
    machine.write(slow, "[Service]\nExecStartPost=/bin/sleep 3\n")
    machine.run("systemctl daemon-reload")
    try:
        command = machine.spawn(f"slotctl --json {words}")
        machine.wait_for("systemctl list-units --plain --no-legend --state=activating 'slot-router@*.service' | grep -q .")
        machine.run("systemctl kill -s KILL slotd.service")
        answer = json.loads(command.communicate(timeout=60)[0])
        assert command.returncode == 0, answer
        return answer
    finally:
        machine.run(f"rm {slow} && systemctl daemon-reload")


def test_an_answer_that_is_lost_with_slotd_leaves_nothing_half_done(machine, app, load):
    exchanging(machine, "listener add 8095")
    assert serves(machine, "127.0.0.1:8095") and listed(machine)["8095"]["listening"]
    exchanging(machine, "listener remove 8095")
    assert left(machine, "8095") == "" and not listens(machine, 8095)
    answers_only(load, "one", requests=20)


# What a removal has done when it is killed, step by step.
STEPS = [
    "rm /etc/systemd/system/slot-router@.service.d/50-listener-8096.conf",
    "systemctl daemon-reload",
    "slotctl router upgrade",
    "systemctl disable --now slot-router-8096.socket",
]


@pytest.mark.parametrize("done", range(1, len(STEPS) + 1))
def test_a_removal_that_was_killed_goes_on_where_it_was(machine, app, done):
    machine.run("slotctl listener add 8096")
    machine.run(" && ".join(STEPS[:done]))
    machine.run("slotctl listener remove 8096")
    assert left(machine, "8096") == "" and not listens(machine, 8096)
    assert serves(machine, "127.0.0.1:80")


def test_a_listener_whose_unit_somebody_has_deleted_is_taken_away(machine, app):
    machine.run("slotctl listener add 8097")
    machine.run("rm /etc/systemd/system/slot-router-8097.socket")
    machine.run("slotctl listener remove 8097")
    assert left(machine, "8097") == "" and not listens(machine, 8097)
    assert machine.run("test -e /etc/systemd/system/sockets.target.wants/slot-router-8097.socket -o -L /etc/systemd/system/sockets.target.wants/slot-router-8097.socket", check=False).returncode == 1
    # There is nothing of it any more.
    assert machine.run("slotctl listener remove 8097", check=False).returncode == 7


def test_an_addition_that_was_killed_goes_on_where_it_was(machine, app):
    machine.run("slotctl listener add 8098")
    # As before the router was exchanged.
    machine.run("rm /etc/systemd/system/slot-router@.service.d/50-listener-8098.conf && systemctl daemon-reload && slotctl router upgrade")
    assert machine.json("slotctl --json listener add 8098")["accepting"] is not None
    assert serves(machine, "127.0.0.1:8098") and listed(machine)["8098"]["listening"]
    machine.run("slotctl listener remove 8098")


def test_what_is_needed_or_not_its_own_is_not_taken_away(machine, app):
    machine.run("slotctl listener add 8083")
    app.configure(QUICK + 'listener = "8083"\npaths = ["/", "/x"]\n')
    refused = machine.run("slotctl listener remove 8083", check=False)
    assert refused.returncode == 6 and "/etc/slot/apps/web.toml says `listener = \"8083\"`" in refused.stderr, refused
    app.configure(QUICK)
    machine.run("slotctl listener remove 8083")
    refused = machine.run("slotctl listener remove http", check=False)
    assert refused.returncode == 7, refused
    refused = machine.run("slotctl listener add 80 --name http", check=False)
    assert refused.returncode == 6 and "there is a listener http already" in refused.stderr, refused
    machine.run("useradd bob")
    assert machine.run("slotctl listener add 8084", user="bob", check=False).returncode == 4


def test_without_a_router_the_first_connection_to_a_new_port_starts_one(fresh):
    app = App(fresh, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    fresh.run("systemctl stop 'slot-router@*.service'")
    assert fresh.json("slotctl --json listener add 8085")["accepting"] is None
    assert [line["SLOT_AUDIT"] for line in audited(fresh, "SLOT_ROUTE=/listener/add")] == ["asked", "done"]
    assert serves(fresh, "127.0.0.1:8085")
    assert serves(fresh, "127.0.0.1:80")


def test_a_slotd_that_stands_still_holds_nobody_up_for_longer_than_said(fresh):
    app = App(fresh, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    assert serves(fresh, "127.0.0.1:80")
    routers = "systemctl list-units --plain --no-legend 'slot-router@*.service'"
    # Or it would be started anew before long.
    fresh.write("/run/systemd/system/slotd.service.d/still.conf", "[Service]\nWatchdogSec=0\n")
    fresh.run("systemctl daemon-reload && systemctl restart slotd.service && systemctl kill -s STOP slotd.service")
    # With a router that is to be exchanged, nothing is done.
    refused = fresh.run("slotctl listener add 8089", check=False)
    assert refused.returncode == 3 and "slotd has not answered GET /router in 10 s; `systemctl status slotd`" in refused.stderr, refused
    assert left(fresh, "8089") == "" and not listens(fresh, 8089)
    # Without one nothing depends on slotd.
    fresh.run("systemctl stop 'slot-router@*.service'")
    assert fresh.out(routers) == ""
    for words, name in (("add 8089", "add"), ("remove 8089", "remove")):
        done = fresh.run(f"slotctl listener {words}")
        assert f"slotd has not answered POST /listener/{name}?name=8089 in 10 s" in done.stderr, done
        assert listens(fresh, 8089) == (name == "add")
    fresh.run("systemctl kill -s KILL slotd.service")
    assert serves(fresh, "127.0.0.1:80")


def test_a_purge_of_the_package_takes_away_what_was_added_and_nothing_that_an_administrator_wrote(fresh):
    own = "/etc/systemd/system/slot-router-own.socket"
    fresh.write(own, "[Socket]\nListenStream=8087\nService=slot-router@98.service\n")
    fresh.run("slotctl listener add 8086")
    assert listens(fresh, 8086)
    fresh.run("dpkg -P slotctl", timeout=120)
    assert not listens(fresh, 8086) and left(fresh, "8086") == ""
    assert fresh.out(f"cat {own} | head -n 1") == "[Socket]"


def test_a_listener_is_there_after_a_reboot():
    with Machine(kept=True) as machine:
        machine.install()
        app = App(machine, "web", QUICK)
        app.deploy("one", "--wait=stopped")
        machine.run("slotctl listener add 8088")
        machine.reboot()
        # The listener that was added is the first that is asked.
        assert serves(machine, "127.0.0.1:8088") and serves(machine, "127.0.0.1:80")
        assert machine.json("slotctl --json listener add 8088")["accepting"] is None
        machine.run("slotctl listener remove 8088")
        assert not listens(machine, 8088) and serves(machine, "127.0.0.1:80")
