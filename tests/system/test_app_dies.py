"""The app's process dies under load: what had reached it is answered 502, everything else waits for the next process or goes to the
other slot."""

import pytest
from slots import QUICK, App, answers_only


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    return app


def kill(machine, app):
    unit = f"web@{app.active()}"
    before = machine.show(unit, "MainPID")["MainPID"]
    machine.run(f"kill -KILL {before}")
    machine.wait_for(f"test $(systemctl show {unit} -P MainPID) -ne {before} && systemctl is-active {unit}")


def lost(result, *, connections):
    """Only what was on its way when the process died: at most one request per connection, and each was told so."""
    assert set(result["failures"]) <= {"status 502"} and result["failed"] <= connections, result


def test_requests_wait_for_the_process_that_comes_after(machine, app):
    for _ in range(3):
        with machine.load("127.0.0.1:80", "--connections", "32", "--pause-ms", "5") as load:
            answers_only(load, "one")
            kill(machine, app)
            app.wait_until(lambda status: status["serving"])
            answers_only(load, "one")
            lost(load.stop(), connections=32)


def test_a_request_waits_where_the_directory_of_a_socket_is_not_yet_the_apps(machine):
    app = App(machine, "sock", QUICK + 'bind = "unix"\nhosts = ["sock.test"]\n')
    app.deploy("one")
    # A router that has no connection to it yet.
    machine.run("systemctl kill -s KILL 'slot-router@*.service'")
    directory = f"/run/slot/sock/{app.active()}"
    owner = machine.out(f"stat -c %u:%g {directory}")
    # As a start leaves it for a moment: root's, until it is given to the app's user.
    machine.run(f"chown 0:0 {directory}")
    asked = machine.spawn("exec curl -sS -m 10 -H 'Host: sock.test' http://127.0.0.1/")
    app.wait_until(lambda status: any(router["held"] for router in status["routers"]))
    machine.run(f"chown {owner} {directory}")
    assert asked.communicate(timeout=30)[0] == "release one\n"


def test_requests_go_to_the_other_slot_while_that_is_warm(machine, app):
    app.configure(QUICK.replace('soak = "0s"', 'soak = "5m"'))
    app.deploy("two")
    old = app.idle()
    assert app.slot(old)["condition"] == "warm"
    with machine.load("127.0.0.1:80", "--connections", "32", "--pause-ms", "5") as load:
        answers_only(load, "two")
        machine.run(f"systemctl kill --signal=KILL web@{app.active()}")
        app.wait_until(lambda status: status["active"] == old and status["serving"])
        answers_only(load, "one")
        lost(load.stop(), connections=32)


def test_a_restart_of_the_unit_loses_nothing(machine, app):
    app.configure(QUICK)
    # It stops cleanly, and takes a second to come back.
    app.deploy("slow", faults="slow-start=1")
    with machine.load("127.0.0.1:80", "--connections", "32", "--pause-ms", "5") as load:
        answers_only(load, "slow")
        for _ in range(3):
            unit = f"web@{app.active()}"
            before = machine.show(unit, "MainPID")["MainPID"]
            restart = machine.spawn(f"exec systemctl restart {unit}")
            # They wait at the router, and are not refused.
            app.wait_until(lambda status: sum(router["held"] for router in status["routers"]) > 0)
            assert restart.wait(60) == 0
            assert machine.show(unit, "MainPID")["MainPID"] != before
            app.wait_until(lambda status: status["serving"])
            answers_only(load, "slow")
        result = load.stop()
    assert (result["failed"], result["failures"]) == (0, {}), result
    assert 1000 < result["slowest_ms"] < 10_000, result
