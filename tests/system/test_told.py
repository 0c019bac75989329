"""What an administrator is told of what happened while he looked elsewhere, and what he types next."""

import json
import re

import pytest
from slots import QUICK, App

SOAK = 'ready = "notify"\nhealth = "/healthz"\nstop_timeout = "2s"\nsoak = "60s"\n'


def in_soak(machine, name, faults=""):
    """An app whose release two has just switched, and the releases."""
    app = App(machine, name, f'hosts = ["{name}.test"]\n' + SOAK)
    one = app.deploy("one")["release"]
    return app, one, app.deploy("two", faults=faults)["release"]


def tells_that_it_went_back(app, one, two, cause):
    back = app.wait_until(lambda status: status.get("rolled_back") and status["state"] == "idle")
    told = back["rolled_back"]
    assert (told["from_release"], told["from_slot"], told["to_release"], told["to_slot"]) == (two, "green", one, "blue"), told
    assert told["cause"] == cause and abs(told["at_ms"] / 1000 - float(app.machine.out("date +%s"))) < 60, told
    assert (back["live"], back["last"]["success"], back["last"]["cause"]) == (one, False, cause), back
    shown = app.machine.out(f"cd {app.home} && slotctl status")
    assert f"the traffic went from release {two} in green back to release {one} in blue, because" in shown, shown
    assert f"last: deploy 2 switched, and was rolled back: {cause}" in shown, shown
    return told


@pytest.mark.parametrize("restarted", [False, True])
def test_status_tells_of_a_rollback_by_itself_also_after_a_restart_of_slotd(machine, restarted):
    name = f"crash{restarted}".lower()
    app, one, two = in_soak(machine, name, "exit-after=1")
    if restarted:
        app.wait_until(lambda status: status.get("rolled_back"))
        machine.run("systemctl restart slotd.service")
    told = tells_that_it_went_back(app, one, two, "exited")
    assert f"{name}@green ended by itself" in told["text"], told
    three = app.deploy("three")
    assert three["success"] and "rolled_back" not in app.status(), "another switch is the last word"


def test_status_tells_that_the_active_slot_was_stopped_by_hand_in_its_soak_and_the_traffic_went_back(machine):
    app, one, two = in_soak(machine, "stopped")
    machine.run("systemctl stop stopped@green")
    told = tells_that_it_went_back(app, one, two, "stopped-by-hand")
    assert told["text"] == "an administrator stopped stopped@green"


def test_the_package_removed_during_a_soak_and_installed_again_serves_what_it_served(fresh):
    machine = fresh
    app, one, two = in_soak(machine, "web")
    three = app.deploy("three")["release"]
    assert app.active() == "blue"
    machine.run("dpkg --remove slotctl", timeout=120)
    machine.install()
    machine.run("systemctl enable --now slot-router.socket slotd.socket slotd.service")
    status = app.wait_until(lambda status: status["app"] == "web")
    assert (status["active"], status["live"]) == ("blue", three), status
    status = app.wait_until(lambda status: status["serving"])
    assert (status["active"], status["live"]) == ("blue", three), status
    assert "rolled_back" not in status, status
    assert machine.out("curl -sS -m 10 -H 'Host: web.test' http://127.0.0.1/") == "release three"


def test_the_times_of_every_phase_are_told_although_slotd_is_killed_in_one(machine):
    app = App(machine, "times", 'hosts = ["times.test"]\n' + QUICK)
    app.deploy("one")
    directory = app.release("two", faults="slow-start=3")
    watching = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")
    app.wait_until(lambda status: status["state"] == "starting")
    machine.run("systemctl kill -s KILL slotd.service")
    outcome = json.loads(watching.communicate(timeout=60)[0])
    phases = dict(outcome["phases_ms"])
    assert outcome["success"] and list(phases) == ["preparing", "starting", "ready", "shifting"], outcome
    assert phases["starting"] >= 2500, outcome
    assert outcome["slot"] == "green" and outcome["previous"], outcome
    machine.run("systemctl restart slotd.service")
    assert app.status()["last"]["phases_ms"] == outcome["phases_ms"]


def test_a_restart_of_the_sockets_is_one_of_what_they_are_for(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    for words in ("restart slotd.socket", "restart slotd.socket slotd.service", "restart slot-router.socket"):
        machine.run(f"systemctl {words}")
        assert app.status()["serving"], words
        assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
        # PID 1 removes those in a child that has the public socket for a moment, so that now and then it could not be bound again.
        assert "slot-router" not in machine.out("ls /tmp /var/tmp"), words
    machine.run("systemctl stop slotd.socket")
    gone = machine.run("slotctl status", check=False)
    assert gone.returncode == 3, gone
    machine.run(re.search(r"`(systemctl enable --now [^`]+)`", gone.stderr)[1])
    assert app.status()["serving"]
    machine.run("rm /run/slot/slotd.sock")
    gone = machine.run("slotctl status", check=False)
    machine.run(re.search(r"`(systemctl restart [^`]+)`", gone.stderr)[1])
    assert app.status()["serving"]


def test_slot_listens_elsewhere_after_a_restart_of_its_socket(fresh):
    machine = fresh
    app = App(machine, "web", QUICK)
    app.deploy("one")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
    listen = "[Socket]\nListenStream=\nListenStream=8080\n"
    machine.write("/etc/systemd/system/slot-router.socket.d/listen.conf", listen)
    machine.run("systemctl daemon-reload && systemctl restart slot-router.socket")
    assert machine.out("curl -sS -m 10 http://127.0.0.1:8080/") == "release one"
    assert app.wait_until(lambda status: status["addresses"])["addresses"] == ["http://127.0.0.1:8080/"]
    assert app.deploy("two")["success"]
    assert machine.out("curl -sS -m 10 http://127.0.0.1:8080/") == "release two"


def test_a_deploy_knows_slots_own_router_on_the_public_port_and_says_what_to_restart(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    machine.out("curl -sS -m 10 http://127.0.0.1/")
    # The socket alone, as it was possible before a stop of it was one of its routers.
    machine.run("systemctl stop --job-mode=ignore-dependencies slot-router.socket")
    refused = app.deploy("two", check=False)
    assert "slot-router@1.service still serves port 80" in refused["error"], refused
    machine.run(re.search(r"`(systemctl restart [^`]+)`", refused["error"])[1])
    assert app.deploy("two")["success"]
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release two"


def test_the_address_is_shown_before_any_router_has_started(fresh):
    machine = fresh
    app = App(machine, "web", QUICK)
    assert app.status()["addresses"] == ["http://127.0.0.1/"]
    assert "http://127.0.0.1/" in machine.out(f"cd {app.home} && slotctl status")
