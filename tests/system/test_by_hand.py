"""What an administrator does with systemctl is taken as it is."""

import json

import pytest
from slots import QUICK, App, answers_only, nothing_failed


SHORT = 'start_timeout = "3s"\nhealth_timeout = "2s"\n'


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + SHORT)
    app.deploy("one")
    app.deploy("two", "--wait=stopped")
    return app


def test_a_slot_that_is_started_by_hand_passes_the_gates_and_stands_by_until_it_is_promoted(machine, app):
    active, idle = app.active(), app.idle()
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        machine.run(f"systemctl start web@{idle}")
        status = app.wait_for_slot(idle, "standby")
        assert (status["active"], status["last"]["kind"], status["last"]["cause"]) == (active, "by-hand", "standby")
        assert app.slot(idle)["weight"] == 0
        answers_only(load, "two")
        promoted = app.slotctl(f"promote {idle}")
        assert (promoted["kind"], promoted["success"], promoted["slot"]) == ("promote", True, idle)
        answers_only(load, "one")
        result = load.stop()
    nothing_failed(result, reconnects=8)
    app.wait_for_slot(active, "idle")


def test_a_slot_that_is_started_by_hand_and_is_not_healthy_is_stopped_and_gets_no_request(machine, app):
    idle, live = app.idle(), app.status()["live"]
    app.deploy("sick", faults="unhealthy", check=False)
    app.wait_for_slot(idle, "failed", "idle")
    machine.run(f"systemctl start web@{idle}")
    app.wait_until(lambda status: status["last"]["kind"] == "by-hand" and status["last"]["cause"] == "health-timeout")
    status = app.wait_for_slot(idle, "failed")
    assert status["live"] == live
    assert machine.show(f"web@{idle}", "ActiveState") == {"ActiveState": "inactive"}


def test_the_active_slot_that_is_stopped_by_hand_stays_stopped_and_its_requests_are_held_then_refused(machine, app):
    active, live = app.active(), app.status()["live"]
    machine.run(f"systemctl stop web@{active}")
    status = app.wait_until(lambda status: not status["serving"])
    assert next(slot["detail"] for slot in status["slots"] if slot["slot"] == active) == "stopped-by-hand"
    assert "an administrator stopped" in machine.out("slotctl --app web logs -n 50")
    refused = machine.out("curl -sS -i -m 30 -w '%{time_total}' http://127.0.0.1/")
    assert refused.startswith("HTTP/1.1 503 "), refused
    assert "\nretry-after: " in refused.lower()
    assert float(refused.splitlines()[-1].rpartition("}")[2]) > 2, "it was not held"
    assert machine.show(f"web@{active}", "ActiveState") == {"ActiveState": "inactive"}
    held = machine.spawn("exec curl -sS -m 30 http://127.0.0.1/")
    machine.run(f"systemctl start web@{active}")
    assert held.communicate(timeout=30)[0].startswith("release ")
    status = app.wait_until(lambda status: status["serving"])
    assert (status["active"], status["live"]) == (active, live)


def test_a_slot_that_is_started_by_hand_while_the_active_one_is_stopped_becomes_active(machine, app):
    active, idle = app.active(), app.idle()
    machine.run(f"ln -sfnT $(readlink /var/lib/slot/web/{active}) /var/lib/slot/web/{idle}")
    machine.run(f"systemctl stop web@{active}")
    app.wait_until(lambda status: not status["serving"])
    machine.run(f"systemctl start web@{idle}")
    status = app.wait_until(lambda status: status["serving"])
    assert (status["active"], status["last"]["kind"]) == (idle, "by-hand")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/").startswith("release ")


def test_a_crash_of_the_active_slot_is_mended_by_its_unit_and_its_requests_are_held(machine, app):
    active = app.active()
    before = machine.show(f"web@{active}", "MainPID", "InvocationID")
    machine.run(f"kill -9 {before['MainPID']}")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/").startswith("release ")
    app.wait_until(lambda status: status["serving"])
    assert machine.show(f"web@{active}", "InvocationID") != {"InvocationID": before["InvocationID"]}
    # Whatever happened, the journal has a line of it with the app's name.
    lines = machine.out("journalctl -o json SLOT_APP=web SLOT_CAUSE=signal").splitlines()
    assert any("down" in json.loads(line)["MESSAGE"] for line in lines), lines
