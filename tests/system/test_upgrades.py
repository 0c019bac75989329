"""Upgrades and downgrades of the package under load: nobody notices, whatever is going on."""

import contextlib
import json

import pytest
from slots import QUICK, App, answers_only
from streams_open import open_stream
from versions import OURS, another, install, of_systemd, runs_as_installed

# Something that a test makes when what waits for it may go on.
GO = "/srv/go"
LOAD = ("--connections", "48", "--pause-ms", "40")


@contextlib.contextmanager
def under_load(machine, *options):
    """About 1,000 requests a second. A router that is left says so on each connection, so that clients come again; that is all that they notice."""
    with machine.load("127.0.0.1:80", *(options or LOAD)) as load:
        yield load
        result = load.stop()
        print(f"{result['requests'] / result['seconds']:.0f} requests/s, the slowest {result['slowest_ms']} ms")
        assert (result["failed"], result["failures"]) == (0, {}), result


def whole(streams):
    """How many streams ended well, once they have ended."""
    ends = [json.loads(stream.communicate(timeout=60)[0].splitlines()[-1]) for stream in streams]
    assert all(end["whole"] for end in ends), ends
    return len(ends)


def test_twenty_upgrades_and_downgrades_in_a_row_under_load_fail_refuse_and_cut_nothing(fresh):
    machine = fresh
    app = App(machine, "web", QUICK)
    app.deploy("one")
    versions = [another(machine, "0.2.0~test"), OURS]
    before = of_systemd(machine, "web@blue")
    with under_load(machine) as requests:
        streams = [open_stream(machine, kind, until=GO)[0] for kind in ("sse", "sse", "ws", "ws")]
        for number in range(20):
            install(machine, versions[number % 2])
            runs_as_installed(machine, app)
            # A second's.
            answers_only(requests, "one", requests=1000)
        held = [router for router in app.status()["routers"] if router["in_flight"]["streams"]]
        assert [(router["accepting"], router["in_flight"]["streams"], router["in_flight"]["tunnels"]) for router in held] == [(False, 2, 2)]
        assert of_systemd(machine, "web@blue") == before
        machine.write(GO, "")
        assert whole(streams) == 4
    app.wait_until(lambda status: len(status["routers"]) == 1)


@pytest.fixture(scope="module")
def other(machine):
    return another(machine, "0.2.0~test")


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("zero")
    app.deploy("one", "--wait=stopped")
    return app


@pytest.fixture
def upgraded(machine, app, other):
    """Installs the version that is not installed, under load and with streams from before, on whatever is active."""
    machine.run(f"rm -f {GO}")
    with under_load(machine, "--connections", "8", "--pause-ms", "10") as requests:
        streams = [open_stream(machine, kind, until=GO)[0] for kind in ("sse", "ws")]

        def upgrade(*untouched):
            before = of_systemd(machine, *untouched)
            has = machine.out("dpkg-query -Wf '${Version}' slotctl")
            install(machine, OURS if has == "0.2.0~test" else other)
            runs_as_installed(machine, app)
            assert of_systemd(machine, *untouched) == before

        upgrade.requests, upgrade.streams = requests, streams
        yield upgrade
        machine.write(GO, "")
        assert whole(streams) == 2
    app.wait_until(lambda status: status["state"] == "idle")
    app.wait_until(lambda status: {slot["condition"] for slot in status["slots"]} == {"active", "idle"})


def begin(app, directory, words=""):
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory} {words}")


def ended(deploying):
    outcome = json.loads(deploying.communicate(timeout=120)[0])
    assert outcome["success"], outcome
    return outcome


def slots(app):
    """The units of the active slot and of the other one."""
    active, idle = app.active(), app.idle()
    return f"web@{active}", f"web@{idle}"


def test_while_a_release_is_prepared_which_slotctl_deploys_again(machine, app, upgraded):
    app.configure(QUICK + 'setup_command = "./setup"\n')
    directory = app.release("built")
    machine.write(f"{directory}/setup", f"#!/bin/sh\nwhile ! test -e {GO}; do sleep 0.05; done\n", mode="0755")
    active, _ = slots(app)
    deploying = begin(app, directory)
    generation = app.wait_until(lambda status: status.get("deployment", {}).get("phase") == "build")["deployment"]["generation"]
    upgraded(active)
    app.wait_until(lambda status: status.get("deployment", {}).get("generation") == generation + 1)
    machine.write(GO, "")
    assert ended(deploying)["generation"] == generation + 1
    answers_only(upgraded.requests, "built")
    app.configure(QUICK)


@pytest.mark.parametrize(("marker", "fault", "state"), [("slow", "ready-once", "starting"), ("healing", "healthy-once", "ready")])
def test_while_a_candidate_starts_or_is_asked_for_its_health(machine, app, upgraded, marker, fault, state):
    active, idle = slots(app)
    deploying = begin(app, app.release(marker, faults=f"{fault}={GO}"))
    app.wait_until(lambda status: status["state"] == state and machine.show(idle, "MainPID")["MainPID"] != "0")
    upgraded(active, idle)
    assert app.status()["state"] == state
    machine.write(GO, "")
    ended(deploying)
    answers_only(upgraded.requests, marker)


def test_while_a_candidate_has_a_share(machine, app, upgraded):
    active, idle = slots(app)
    ended(begin(app, app.release("shared"), "--weight 50"))
    upgraded(active, idle)
    weights = {slot["slot"]: slot["weight"] for slot in app.status()["slots"]}
    assert set(weights.values()) == {50}, weights
    assert app.slotctl("promote")["success"]
    answers_only(upgraded.requests, "shared")


def test_in_a_soak_after_which_one_may_still_go_back_at_once(machine, app, upgraded):
    app.configure(QUICK.replace('"0s"', '"60s"'))
    before = app.slot(app.active())["release"]
    active, idle = slots(app)
    ended(begin(app, app.release("soaking")))
    upgraded(active, idle)
    assert app.status()["state"] == "switched"
    back = app.slotctl("rollback")
    assert (back["success"], back["release"]) == (True, before), back
    assert "starting" not in dict(back["phases_ms"]), back
    # Which ends this soak too.
    app.configure(QUICK)
    app.deploy("past")


def test_while_an_old_slot_drains(machine, app, upgraded):
    active, idle = slots(app)
    app.deploy("after", "--drain 0")
    app.wait_until(lambda status: any(slot["condition"] == "draining" for slot in status["slots"]))
    upgraded(active, idle)
    assert app.slot(active.split("@")[1])["condition"] == "draining"
    answers_only(upgraded.requests, "after")
