"""A slot that still drains is not idle, and nothing is cut to make room unless somebody says so, or wants to go back and it is a candidate's."""

import itertools
import json
import re

import pytest
from slots import QUICK, App, answers_only, nothing_failed
from streams_open import open_stream


numbers = itertools.count(1)


@pytest.fixture
def draining(machine):
    """An app of its own whose release `one` serves; what is opened to it with hold() is closed at the end."""
    name = f"drain{next(numbers)}"
    app = App(machine, name, f'hosts = ["{name}.test"]\n{QUICK}')
    app.host = f"{name}.test"
    app.deploy("one")
    app.streams = []
    yield app
    for stream in app.streams:
        if stream.poll() is None:
            stream.stdin.close()
            stream.terminate()
        stream.wait(10)


def hold(app, kind="sse", seconds=60):
    """Opens a stream to the app as it is."""
    stream, release = open_stream(app.machine, kind, seconds, app.host)
    app.streams.append(stream)
    return stream, release


def test_a_deploy_that_finds_no_idle_slot_is_refused_after_ten_seconds_with_who_holds_it_and_the_ways_out(draining):
    app = draining
    hold(app)
    hold(app, "ws")
    app.deploy("two", "--drain 1h")
    refused = app.deploy("three", check=False)
    assert (refused["success"], refused["cause"], refused["exit"]) == (False, "no-idle-slot", 1), refused
    text = refused["text"]
    for part in ("blue is draining", "1 streams and 1 tunnels", "--queue 10m", "slotctl drain --now blue", "third slot"):
        assert part in text, text
    waited = dict(refused["phases_ms"])["waiting"]
    assert 9_000 < waited < 20_000
    status = app.status()
    assert (status["active"], status["serving"]) == ("green", True)
    # The first way out: it is freed at once, and what was cut is on record.
    app.slotctl("drain --now blue")
    app.wait_for_slot("blue", "idle")
    assert app.deploy("three")["success"]
    assert '"forced"' in app.machine.out(f"cat /var/lib/slot/{app.name}/history.jsonl")


def test_a_deploy_that_queues_begins_when_the_stream_has_ended(draining):
    app = draining
    stream, _ = hold(app, seconds=14)
    app.deploy("two")
    queued = app.deploy("three", "--queue 1m")
    assert queued["success"]
    assert dict(queued["phases_ms"])["waiting"] > 10_000
    assert '"whole": true' in stream.communicate(timeout=10)[0]


def test_with_a_third_slot_it_takes_that(draining):
    app = draining
    app.configure(f'hosts = ["{app.host}"]\nslots = ["blue", "green", "red"]\n{QUICK}')
    hold(app)
    app.deploy("two")
    third = app.deploy("three")
    assert (third["success"], third["slot"]) == (True, "red")
    assert app.slot("blue")["condition"] == "draining"


def test_a_rollback_during_a_drain_takes_the_slot_back_as_it_runs(draining):
    app = draining
    stream, _ = hold(app, seconds=15)
    with app.machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20", "--host", app.host) as load:
        app.deploy("two")
        before = app.slot("blue")
        assert before["condition"] == "draining"
        back = app.slotctl("rollback")
        answers_only(load, "one")
        result = load.stop()
    assert (back["slot"], [phase for phase, _ in back["phases_ms"] if phase in ("starting", "ready")]) == ("blue", []), back
    assert app.slot("blue")["boot_id"] == before["boot_id"]
    nothing_failed(result, reconnects=8)
    assert '"whole": true' in stream.communicate(timeout=30)[0]


def test_a_rollback_that_needs_the_slot_of_a_candidate_cuts_the_streams_of_that_after_ten_seconds(draining):
    app = draining
    before = app.status()["live"]
    app.deploy("two", "--wait=stopped")
    kept, _ = hold(app)
    app.deploy("three", "--weight 50")
    stream, release = hold(app)
    while release != "three":
        stream, release = hold(app)
    rolling = app.machine.spawn(f"cd {app.home} && exec slotctl --json rollback")
    held = app.wait_until(lambda status: status["state"] == "waiting")["deployment"]
    assert held["waits_for"] == "a slot to become idle (blue is draining)"
    # Whoever asks once more is told how that one ends.
    joined = app.slotctl("rollback")
    back = json.loads(rolling.communicate(timeout=60)[0])
    assert (back["success"], back["slot"], back["release"]) == (True, "blue", before), back
    assert joined["generation"] == back["generation"] == held["generation"] and joined["success"], joined
    assert dict(back["phases_ms"])["waiting"] >= 10_000, back
    assert '"whole": false' in stream.communicate(timeout=10)[0]
    # What was live is let go of as ever.
    assert app.slot("green")["condition"] == "draining" and kept.poll() is None
    told = app.machine.out(f"journalctl -o cat SLOT_APP={app.name} SLOT_CAUSE=drain-deadline")
    assert "blue" in told and "is cut" in told, told
    ended = app.machine.out(f"journalctl -o cat SLOT_APP={app.name} SLOT_CAUSE=switched SLOT_GENERATION={back['generation']}")
    assert ended.startswith(f"rolled back: release {before} serves in blue: asked for "), ended


def test_what_is_not_finished_by_the_drain_deadline_is_cut_and_said_to_be(draining):
    app = draining
    stream, _ = hold(app)
    ended = app.deploy("two", "--drain 2s --wait=stopped")
    assert ended["success"]
    assert app.slot("blue")["condition"] == "idle"
    assert '"whole": false' in stream.communicate(timeout=10)[0]
    told = app.machine.out(f"journalctl -o cat SLOT_APP={app.name} SLOT_CAUSE=drain-deadline")
    assert "is cut" in told, told


def test_whoever_waits_for_the_old_slot_sees_what_it_still_holds(draining):
    app = draining
    hold(app, seconds=6)
    hold(app, "ws", seconds=6)
    directory = app.release("two")
    screen = app.machine.out(f"cd {app.home} && script -qec 'slotctl deploy {directory} --wait=stopped' /dev/null")
    assert re.search(r"Waiting \[\d+s\]  connections 2, requests 0, streams 1, tunnels 1", screen), screen
    assert re.search(r"release \w+ serves from green", screen), screen
