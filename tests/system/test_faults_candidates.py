"""Candidates that fail in every way they can: each is refused with what is wrong with it; the active slot is not touched."""

import json
import re

import pytest
from slots import App, answers_only, nothing_failed

APP = 'ready = "notify"\nhealth = "/healthz"\nsoak = "0s"\nstop_timeout = "1s"\nhealth_timeout = "2s"\n'


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", APP + 'start_timeout = "2s"\n')
    app.deploy("one")
    return app


@pytest.fixture
def load(machine, app):
    """Load during the test; afterwards the active slot is the run that it was, and has answered everything."""
    active = app.slot(app.active())
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        yield load
        answers_only(load, "one")
        result = load.stop()
    nothing_failed(result, reconnects=8)
    assert set(result["answers"]) == {"release one"}
    after = app.slot(active["slot"])
    assert {name: after[name] for name in ("condition", "boot_id", "release", "weight")} == {
        name: active[name] for name in ("condition", "boot_id", "release", "weight")
    }
    # Nothing of the candidate runs, and the next deployment may begin.
    status = app.wait_until(lambda status: status["state"] == "idle")
    idle = app.idle()
    shown = machine.show(f"web@{idle}", "ActiveState", "MainPID")
    assert shown["ActiveState"] in ("inactive", "failed") and shown["MainPID"] == "0", shown
    assert next(slot for slot in status["slots"] if slot["slot"] == idle)["weight"] == 0


def failed(app, marker, faults, *, phase, cause):
    """Deploys what is to fail; returns the outcome and what the screen says of it."""
    release = app.release(marker, faults=faults)
    screen = app.machine.run(f"cd {app.home} && slotctl deploy {release}", check=False)
    assert screen.returncode == 1, screen
    outcome = app.status()["last"]
    assert (outcome["success"], outcome["phase"], outcome["cause"]) == (False, phase, cause), outcome
    assert "The active slot is untouched" in screen.stderr, screen.stderr
    return outcome, screen.stderr


def spent(outcome):
    return sum(millis for _, millis in outcome["phases_ms"])


def test_one_that_exits_at_once_is_refused_at_once(app, load):
    outcome, screen = failed(app, "exits", "exit", phase="starting", cause="start-failed")
    # Long before start_timeout.
    assert spent(outcome) < 2000, outcome
    assert outcome["report"]["result"] == "exit-code"
    assert "exited with status 1" in outcome["report"]["exit"]
    assert "cannot start: the fault `exit` was asked for" in "\n".join(outcome["report"]["log"])
    for part in ("exit-code: exited with status 1", "the fault `exit` was asked for", "journalctl", "starting"):
        assert part in screen, screen


def test_one_that_never_says_ready_is_refused_after_its_start_timeout(app, load):
    outcome, screen = failed(app, "silent", "never-ready", phase="starting", cause="start-timeout")
    assert spent(outcome) >= 2000
    assert outcome["report"]["result"] == "timeout"
    assert outcome["report"]["status_text"] == "waiting for a database that never comes"
    for part in ("start_timeout", "2 s", "waiting for a database that never comes", "release silent starts"):
        assert part in screen, screen


def test_one_that_is_ready_but_not_healthy_is_refused_after_its_health_timeout(app, load):
    outcome, screen = failed(app, "sick", "unhealthy", phase="ready", cause="health-timeout")
    assert spent(outcome) >= 2000
    for part in ("health_timeout", "2 s", "/healthz", "503", "database is not there", "serving release sick"):
        assert part in screen, screen


def test_one_that_ends_before_it_is_healthy_is_refused_when_it_does(app, load):
    outcome, screen = failed(app, "short", "unhealthy exit-after=0.5", phase="ready", cause="exited")
    assert spent(outcome) < 2000, outcome
    assert "exited with status 7" in screen, screen


def test_one_that_does_not_end_is_killed_after_its_stop_timeout_and_that_is_recorded(machine, app, load):
    failed(app, "stubborn", "unhealthy ignore-sigterm", phase="ready", cause="health-timeout")
    app.wait_until(lambda status: all(slot["condition"] != "stopping" for slot in status["slots"]))
    lines = machine.out("journalctl -o json SLOT_APP=web SLOT_CAUSE=stop-timeout").splitlines()
    said = json.loads(lines[-1])["MESSAGE"]
    assert "did not end within stop_timeout (1 s) and was killed" in said, said


@pytest.mark.parametrize(
    ("fault", "place", "remedy"),
    [("elsewhere", "127.0.0.1:3000", "$PORT"), ("only-v6", "[::1]:2000", "127.0.0.1")],
)
def test_one_that_listens_elsewhere_is_told_where(app, load, fault, place, remedy):
    outcome, screen = failed(app, fault, fault, phase="ready", cause="health-timeout")
    assert any(place in at for at in outcome["report"]["listens"]), outcome
    assert place in screen and remedy in screen, screen
    assert re.search(r"127\.0\.0\.1:2000[12]", screen), screen


def test_one_whose_port_another_process_has_is_not_started_and_that_one_is_named(machine, app, load):
    idle = app.idle()
    port = next(slot["upstream"] for slot in app.status()["slots"] if slot["slot"] == idle).rpartition(":")[2]
    machine.run(f"systemd-run -q --unit=stranger python3 -m http.server --bind 127.0.0.1 {port}")
    machine.wait_for(f"ss -ltn | grep -q 127.0.0.1:{port}")
    generation = app.status()["generation"]
    refused = app.slotctl(f"deploy {app.release('blocked')}", check=False)
    assert (refused["exit"], refused["code"]) == (1, "refused"), refused
    screen = refused["error"]
    pid = machine.show("stranger", "MainPID")["MainPID"]
    for part in ("python3", pid, f"127.0.0.1:{port}", f"port of {idle} under [ports] in /etc/slot/apps/web.toml"):
        assert part in screen, screen
    assert machine.run(f"journalctl -o cat -u web@{idle} | grep 'release blocked starts'", check=False).returncode != 0
    assert app.status()["generation"] == generation, "no deployment was begun"
    machine.run("systemctl stop stranger")


def test_one_on_whose_port_another_process_answers_is_not_believed(machine, app, load):
    """The stranger takes the port while the candidate starts, which listens elsewhere itself."""
    idle = app.idle()
    port = next(slot["upstream"] for slot in app.status()["slots"] if slot["slot"] == idle).rpartition(":")[2]
    machine.write("/srv/squat/healthz", "ok\n")
    release = app.release("robbed", faults="elsewhere slow-start")
    app.configure(APP + 'start_timeout = "9s"\n')
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    machine.wait_for("ss -ltn | grep -q 127.0.0.1:3000")
    machine.run(f"systemd-run -q --unit=squatter python3 -m http.server -b 127.0.0.1 -d /srv/squat {port}")
    outcome = json.loads(deploy.communicate(timeout=60)[0])
    machine.run("systemctl stop squatter")
    assert (outcome["success"], outcome["cause"]) == (False, "health-timeout"), outcome
    assert "python3" in outcome["text"] and f"answers on 127.0.0.1:{port}, not web@{idle}" in outcome["text"], outcome
