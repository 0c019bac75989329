"""Starts that are not plain: of what is on its way already, in a slot somebody just started, of half an app, in a shutdown."""

import json

import pytest
from machine import Machine
from slots import QUICK, App

TIMES = QUICK + 'start_timeout = "20s"\nhealth_timeout = "2s"\n'


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", TIMES)
    app.deploy("one")
    return app


def begin(app, marker, faults=""):
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json deploy {app.release(marker, faults=faults)}")


def starts_of(machine, marker):
    return machine.out(f"journalctl -o cat --no-pager SLOT_APP=web | grep -cx 'release {marker} starts' || :")


def test_an_app_that_crashes_and_takes_longer_to_boot_than_slotd_waits_is_left_to_boot(machine, app):
    app.deploy("slow", faults="slow-start=6")
    active = app.active()
    before = machine.show(f"web@{active}", "MainPID")["MainPID"]
    machine.run(f"kill -9 {before}")
    app.wait_until(lambda status: not status["serving"])
    app.wait_until(lambda status: status["serving"])
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release slow"
    # Once by its deployment, once by its unit: nobody stopped it in between.
    assert starts_of(machine, "slow") == "2"
    assert machine.show(f"web@{active}", "NRestarts") == {"NRestarts": "1"}


def test_a_candidate_that_boots_while_slotd_is_killed_is_switched_to(machine, app):
    deploy = begin(app, "joined", "slow-start=4")
    app.wait_until(lambda status: status["state"] == "starting")
    machine.wait_for("journalctl -o cat SLOT_APP=web | grep -qx 'release joined starts'")
    slotd = machine.show("slotd", "MainPID")["MainPID"]
    machine.run(f"kill -9 {slotd}")
    outcome = json.loads(deploy.communicate(timeout=60)[0])
    assert (outcome["success"], outcome["cause"]) == (True, "switched"), outcome
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release joined"
    assert starts_of(machine, "joined") == "1"


def test_a_deployment_does_not_take_a_run_of_the_release_that_was_in_its_slot_before(machine, app):
    app.deploy("left-behind", faults="slow-start=4")
    app.deploy("above", "--wait=stopped")
    idle = app.idle()
    machine.run(f"systemctl start --no-block web@{idle}")
    machine.wait_for("test $(journalctl -o cat SLOT_APP=web | grep -cx 'release left-behind starts') -eq 2")
    outcome = app.deploy("newest")
    assert (outcome["success"], outcome["slot"]) == (True, idle), outcome
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release newest"


def test_a_candidate_that_answers_for_health_alone_gets_no_request(machine, app):
    ports = "[ports]\nblue = { port = 20001, internal = 20003 }\ngreen = { port = 20002, internal = 20004 }\n"
    app.configure(TIMES + ports)
    app.deploy("both")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release both"
    public = {"blue": 20001, "green": 20002}[app.idle()]
    outcome = app.deploy("half", faults="internal-only", check=False)
    assert (outcome["success"], outcome["cause"]) == (False, "health-timeout"), outcome
    assert f"nobody listens on 127.0.0.1:{public}: let it use $PORT" in outcome["text"], outcome
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release both"


def test_a_shutdown_is_no_failure_of_what_it_stops():
    with Machine(kept=True) as machine:
        machine.install()
        app = App(machine, "web", TIMES)
        app.deploy("one")
        begin(app, "slow", "slow-start=8")
        app.wait_until(lambda status: status["state"] == "starting")
        machine.wait_for("journalctl -o cat SLOT_APP=web | grep -qx 'release slow starts'")
        machine.reboot()
        app.wait_until(lambda status: status["serving"] and status["state"] == "idle", timeout=60)
        history = machine.out("cat /var/lib/slot/web/history.jsonl")
        assert "start-failed" not in history and "stopped-by-hand" not in history, history
        # And the deployment went on after the reboot.
        assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release slow"
