"""slotd and the router are killed with SIGKILL, or hang, at any time: one slot is active, no request fails, and what was
begun ends."""

import json
import os
import random
import time

import pytest
from machine import Machine
from slots import App, answers_only

TIMES = 'ready = "notify"\nhealth = "/healthz"\nstop_timeout = "2s"\nstart_timeout = "10s"\nhealth_timeout = "10s"\n'


@pytest.fixture(scope="module")
def machine():
    with Machine() as booted:
        booted.install()
        # A hang is seen soon enough for a test.
        for unit in ("slotd.service", "slot-router@.service"):
            booted.write(f"/etc/systemd/system/{unit}.d/watchdog.conf", "[Service]\nWatchdogSec=3s\n")
        booted.run("systemctl daemon-reload")
        yield booted


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", TIMES + 'soak = "0s"\n')
    app.deploy("one")
    return app


def pid_of(machine, unit):
    return machine.show(unit, "MainPID")["MainPID"]


def kill(machine, unit="slotd.service", signal="KILL"):
    """Returns when its successor says that it is ready."""
    before = pid_of(machine, unit)
    machine.run(f"kill -{signal} {before}")
    machine.wait_for(f"test $(systemctl show {unit} -P MainPID) -ne {before} && systemctl is-active {unit}")


def settled(machine, app):
    """Nothing is under way any more: then units, table and state agree, and one slot is active."""
    status = app.wait_until(
        lambda status: status["state"] == "idle"
        and all(slot["condition"] in ("active", "idle", "failed") for slot in status["slots"])
    )
    assert status["serving"] and status["warnings"] == [], status
    conditions = [slot["condition"] for slot in status["slots"]]
    assert conditions.count("active") == 1, status
    for slot in status["slots"]:
        shown = machine.show(slot["unit"], "ActiveState", "InvocationID")
        if slot["condition"] == "active":
            assert (shown["ActiveState"], shown["InvocationID"]) == ("active", slot["boot_id"]), (shown, slot)
        else:
            assert shown["ActiveState"] in ("inactive", "failed"), (shown, slot)
    table = machine.json("cat /run/slot/table.json")
    routed = [slot for slot in table["apps"][0]["slots"] if slot["weight"] == 100]
    assert [(slot["name"], slot["boot_id"]) for slot in routed] == [
        (slot["slot"], slot["boot_id"]) for slot in status["slots"] if slot["condition"] == "active"
    ]
    assert machine.out("readlink -f /var/lib/slot/web/live").endswith(status["live"])
    assert machine.run("ls /var/lib/slot/web/incoming /var/lib/slot/web/*.corrupt*", check=False).stdout == ""
    return status


def begin(app, marker, faults="", words=""):
    """A deployment that goes on while the test does something else."""
    release = app.release(marker, faults=faults)
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release} {words}")


def ended(deploy):
    """What slotctl, which has lost slotd in between, says in the end."""
    said = deploy.communicate(timeout=60)[0]
    return json.loads(said), deploy.returncode


def marker_of(app):
    return app.machine.out("curl -sS -m 10 http://127.0.0.1/").split()[1]


def test_while_a_release_is_uploaded(machine, app, load):
    live, marker = app.status()["live"], marker_of(app)
    upload = machine.spawn(f"exec python3 /tests/held_upload.py web {app.release('cut')}")
    assert upload.stdout.readline() == "begun\n"
    kill(machine)
    upload.communicate("go\n", timeout=60)
    status = settled(machine, app)
    assert (status["live"], status["last"]["cause"]) == (live, "interrupted"), status
    answers_only(load, marker)


@pytest.mark.parametrize(("phase", "faults"), [("starting", "slow-start"), ("ready", "healthy-after=2")])
def test_while_a_candidate_is_gated(machine, app, load, phase, faults):
    deploy = begin(app, f"gated-{phase}", faults)
    app.wait_until(lambda status: status["state"] == phase)
    kill(machine)
    outcome, status = ended(deploy)
    assert (outcome["success"], outcome["cause"], status) == (True, "switched", 0), outcome
    answers_only(load, f"gated-{phase}")
    settled(machine, app)


def test_a_candidate_that_fails_while_slotd_is_away_is_refused_when_it_is_back(machine, app, load):
    marker, idle = marker_of(app), app.idle()
    deploy = begin(app, "crashes", "exit-after=2 unhealthy")
    app.wait_until(lambda status: status["state"] == "ready")
    machine.run("systemctl stop slotd.socket slotd.service")
    machine.wait_for(f"journalctl -o cat -u web@{idle} | grep -q status=7")
    machine.run("systemctl start slotd.socket slotd.service")
    outcome, status = ended(deploy)
    # It may have given slotd up.
    assert not outcome["success"] and status in (1, 3), (outcome, status)
    answers_only(load, marker)
    assert settled(machine, app)["last"]["success"] is False
    assert app.idle() == idle


def test_while_a_deployment_waits_for_a_slot_and_the_old_one_drains_a_stream(machine, app, load):
    stream = machine.spawn("exec python3 /tests/streams.py sse 127.0.0.1:80 --seconds 6")
    assert json.loads(stream.stdout.readline())["status"] == "200"
    app.deploy("after-stream", "--drain 0")
    kill(machine)
    assert any(slot["condition"] == "draining" for slot in app.status()["slots"])
    deploy = begin(app, "queued", words="--queue 60s")
    app.wait_until(lambda status: status["state"] == "waiting")
    kill(machine)
    assert app.status()["state"] == "waiting"
    assert json.loads(stream.communicate(timeout=60)[0].splitlines()[-1])["whole"]
    outcome, status = ended(deploy)
    assert (outcome["success"], status) == (True, 0), outcome
    answers_only(load, "queued")
    settled(machine, app)


def test_while_an_old_slot_is_stopped_that_does_not_end(machine, app, load):
    app.deploy("stubborn", faults="ignore-sigterm")
    old = app.active()
    app.deploy("after-stubborn")
    app.wait_for_slot(old, "stopping")
    kill(machine)
    answers_only(load, "after-stubborn")
    settled(machine, app)


def test_during_a_soak_which_goes_on(machine, app, load):
    app.configure(TIMES + 'soak = "2s"\n')
    app.deploy("soaking")
    kill(machine)
    status = app.status()
    others = [slot["condition"] for slot in status["slots"] if slot["weight"] == 0]
    assert (status["state"], others) == ("switched", ["warm"])
    settled(machine, app)
    assert app.slot(app.active())["release"] == app.status()["live"]
    # And still rolls back.
    app.deploy("sick-later", faults="unhealthy-after=2")
    kill(machine)
    app.wait_until(lambda status: status["state"] == "idle")
    answers_only(load, "soaking")
    settled(machine, app)
    app.configure(TIMES + 'soak = "0s"\n')


def test_at_any_time_of_many_deployments(machine, app, load):
    """SLOT_SEED replays the times; the phases that they hit depend on the machine."""
    seed = int(os.environ.get("SLOT_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    print(f"seed {seed}")
    for number in range(12):
        faults = chance.choice(["", "", "slow-start", "exit", "unhealthy exit-after=0.3"])
        deploy = begin(app, f"many-{number}", faults)
        deadline = time.monotonic() + chance.uniform(0, 0.6)
        while time.monotonic() < deadline and deploy.poll() is None:
            time.sleep(0.005)
        kill(machine)
        outcome, status = ended(deploy)
        assert outcome.get("cause") in ("switched", "interrupted", "start-failed", "exited") or outcome.get("code") == "busy" or status == 3, outcome
        settled(machine, app)
    app.deploy("last")
    answers_only(load, "last")


def test_a_router_that_is_killed_leaves_nobody_refused(machine, app):
    marker = marker_of(app)
    with machine.load("127.0.0.1:80", "--connections", "16", "--pause-ms", "20") as load:
        kills = 6
        for _ in range(kills):
            kill(machine, "slot-router@1.service")
            # A new connection is served at once, by the router that comes.
            assert marker_of(app) == marker
        answers_only(load, marker)
        result = load.stop()
    # Only what was on a connection of the router that was killed, at most one request each time.
    assert set(result["failures"]) <= {"closed", "reset", "broken", "cut"}, result
    assert result["failed"] <= 16 * kills, result
    assert machine.show("slot-router.socket", "ActiveState", "Result") == {"ActiveState": "active", "Result": "success"}
    settled(machine, app)


def test_a_router_that_is_killed_during_a_switch_comes_back_with_the_new_table(machine, app):
    deploy = begin(app, "switched-away", "slow-start")
    app.wait_until(lambda status: status["state"] == "starting")
    for _ in range(8):
        kill(machine, "slot-router@1.service")
    outcome, status = ended(deploy)
    assert (outcome["success"], status) == (True, 0), outcome
    assert marker_of(app) == "switched-away"
    settled(machine, app)


def test_a_slotd_that_hangs_is_killed_by_its_watchdog_and_started_again(machine, app, load):
    kill(machine, signal="STOP")
    assert "watchdog" in machine.out("journalctl -o cat -u slotd _PID=1").lower()
    settled(machine, app)


def test_a_router_that_hangs_is_killed_by_its_watchdog_and_what_came_meanwhile_is_served(machine, app):
    marker, before = marker_of(app), pid_of(machine, "slot-router@1.service")
    machine.run(f"kill -STOP {before}")
    held = [machine.spawn("exec curl -sS -m 30 http://127.0.0.1/") for _ in range(5)]
    machine.wait_for(f"test $(systemctl show slot-router@1 -P MainPID) -ne {before} && systemctl is-active slot-router@1")
    # Its workers may have accepted some before they stopped; the queue keeps the others.
    assert {request.communicate(timeout=60)[0].strip() for request in held} == {f"release {marker}"}
    settled(machine, app)
