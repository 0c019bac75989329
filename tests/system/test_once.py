"""Requests on a condition and requests that are repeated, on a machine: over a slotd that is killed, and with clients at the same moment."""

import json

import pytest
from slots import QUICK, App, answers_only
from test_faults_killed import kill

STATE = "/var/lib/slot/web/state.json"


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    return app


def begin(app, words):
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json {words}")


def ended(asked):
    return json.loads(asked.communicate(timeout=60)[0]), asked.returncode


def test_a_mismatch_changes_nothing(machine, app, load):
    before = machine.out(f"stat -c %i.%Y {STATE}; sha256sum {STATE}")
    generation, active = app.status()["generation"], app.active()
    release = app.release("never")
    for words in (
        f"deploy {release} --expected-generation {generation + 1}",
        f"deploy {release} --expected-active {app.idle()} --queue 1s",
        f"rollback --expected-generation {generation - 1}",
        f"drain {app.idle()} --now --expected-active 0badcafe",
    ):
        said = app.slotctl(words, check=False)
        assert (said["exit"], said["code"]) == (8, "unexpected"), said
        assert (said["found"]["generation"], said["found"]["active"]) == (generation, active), said
    assert machine.out(f"stat -c %i.%Y {STATE}; sha256sum {STATE}") == before


def test_of_many_who_expect_the_same_one_deploys(machine, app, load):
    generation = app.status()["generation"]
    marks = [f"race-{number}" for number in range(6)]
    words = [f"deploy {app.release(mark)} --expected-generation {generation}" for mark in marks]
    done = [ended(asked) for asked in [begin(app, line) for line in words]]
    assert sorted(status for _, status in done) == [0, 8, 8, 8, 8, 8], done
    winner = next(mark for mark, (_, status) in zip(marks, done) if status == 0)
    answers_only(load, winner)
    assert app.status()["generation"] == generation + 1


def test_a_deployment_that_is_repeated_while_slotd_is_killed_is_one(machine, app, load):
    generation = app.status()["generation"]
    release = app.release("repeated", faults="slow-start")
    words = f"deploy {release} --idempotency-key 8e03978e-40d5-43dd-bc93-6894a57f9324"
    first = begin(app, words)
    app.wait_until(lambda status: status["state"] == "starting")
    kill(machine)
    again = begin(app, words)
    kill(machine)
    done = [ended(asked) for asked in (first, again)]
    assert [(outcome["generation"], status) for outcome, status in done] == [(generation + 1, 0)] * 2, done
    answers_only(load, "repeated")
    # Others have come and gone, and slotd was restarted since.
    app.deploy("later", "--wait=stopped")
    machine.run("systemctl restart slotd")
    late = app.slotctl(words)
    assert (late["generation"], late["exit"], late["cause"]) == (generation + 1, 0, "switched"), late
    answers_only(load, "later")
    other = app.slotctl(f"deploy {app.release('other')} --idempotency-key 8e03978e-40d5-43dd-bc93-6894a57f9324", check=False)
    assert (other["exit"], other["code"]) == (1, "key-reused"), other
