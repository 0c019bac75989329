"""The router is exchanged for a new instance of itself, and nobody notices."""

import json
import os
import random
import re
import time

import pytest
from machine import Failed
from slots import QUICK, App, answers_only, unbroken
from streams_open import open_stream

MACHINE = "/etc/slot/machine.toml"
DROP_IN = "/etc/systemd/system/slot-router@.service.d/99-test.conf"


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    # The first connection starts the router.
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
    return app


@pytest.fixture
def load(machine, app):
    with unbroken(machine, connections=16, pause_ms=10) as load:
        yield load


def routers(app):
    return app.status()["routers"]


def accepting(app):
    return [int(router["instance"]) for router in routers(app) if router["accepting"]]


def upgrade(app, words=""):
    return app.slotctl(f"router upgrade {words}")


def alone(app, *, timeout=30):
    """Waits until one instance is left, which accepts; returns its number."""

    def is_alone(status):
        return [router["accepting"] for router in status["routers"]] == [True]

    return int(app.wait_until(is_alone, timeout=timeout)["routers"][0]["instance"])


def units(machine):
    return machine.out("systemctl list-units --plain --no-legend --state=active 'slot-router@*' | cut -d' ' -f1").split()


def blocking_listeners(machine, instance):
    """How many of an instance's listening sockets block (the flags of proc(5), fdinfo): PID 1 can change that under it."""
    pid = machine.show(f"slot-router@{instance}", "MainPID")["MainPID"]
    (inode,) = re.findall(r"ino:(\d+)", machine.out("ss -Hlnte 'sport = :80'"))
    its = f"$(find /proc/{pid}/fd -lname 'socket:\\[{inode}\\]' -printf '/proc/{pid}/fdinfo/%f ')"
    flags = re.findall(r"^flags:\s+(\d+)$", machine.out(f"cat {its}"), re.MULTILINE)
    assert flags
    return sum(not int(octal, 8) & os.O_NONBLOCK for octal in flags)


def left_by_all_but_one(machine, unit):
    """Waits until the load has gone from an instance that drains, which a kill would cut; returns its process."""
    process = machine.show(unit, "MainPID")["MainPID"]
    machine.wait_for(f"test $(ss -Htnp state established 'sport = :80' | grep -c pid={process},) = 1")
    return process


def test_an_instance_whose_directory_pid_1_is_making_keeps_nobody_from_anything(machine, app, load):
    # As a start leaves it for a moment: root's, until it is given to the instance's user.
    making = "/run/slot/router/98"
    mode = machine.show("slot-router@98", "RuntimeDirectoryMode")["RuntimeDirectoryMode"]
    machine.run(["install", "-d", "-m", mode, making])
    upgraded = upgrade(app)
    assert upgraded["draining"] and accepting(app) == [upgraded["accepting"]], upgraded
    machine.run(f"rmdir {making}")
    alone(app)


def test_fifty_upgrades_under_load_with_streams_from_before_the_first(machine, app, load):
    first = accepting(app)
    streams = [open_stream(machine, kind, seconds=60)[0] for kind in ("sse", "sse", "ws", "ws")]
    before = first
    for _ in range(50):
        upgraded = upgrade(app)
        assert upgraded["draining"] == before, upgraded
        before = [upgraded["accepting"]]
        answers_only(load, "one", requests=20)
    held = next(router for router in routers(app) if [int(router["instance"])] == first)
    assert not held["accepting"]
    assert held["in_flight"] == {"requests": 0, "streams": 2, "tunnels": 2}, held
    ended = [json.loads(stream.communicate(timeout=90)[0].splitlines()[-1]) for stream in streams]
    assert [end["whole"] for end in ended] == [True] * 4, ended
    assert [alone(app)] == before
    machine.wait_for("test $(systemctl list-units --plain --no-legend --state=active 'slot-router@*' | wc -l) = 1")
    # It ended because it was done, not because of anything else.
    assert machine.show(f"slot-router@{first[0]}", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}


def test_an_instance_that_does_not_come_up_changes_nothing(machine, app, load):
    before = alone(app)
    machine.write(DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo not today; exit 3'\n")
    machine.run("systemctl daemon-reload")
    try:
        refused = app.slotctl("router upgrade", check=False)
    finally:
        machine.run(f"rm {DROP_IN} && systemctl daemon-reload")
    assert (refused["success"], refused["exit"]) == (False, 1), refused
    for part in ("did not come up", "status 3", f"slot-router@{before} goes on as before", "journalctl"):
        assert part in refused["error"], refused
    journal = refused["error"].split("`")[1]
    machine.wait_for(f"{journal} -o cat | grep -q 'not today'")
    # Else a thread that is woken for a connection which another one takes first would hang in accept(2).
    assert blocking_listeners(machine, before) == 0
    assert units(machine) == [f"slot-router@{before}.service"]
    assert alone(app) == before
    assert upgrade(app)["draining"] == [before]


def test_an_instance_that_runs_and_never_is_ready_changes_nothing(machine, app, load):
    before = alone(app)
    # It hangs, as one would that waits for something that never comes.
    machine.write(DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n")
    machine.run("systemctl daemon-reload")
    asked = machine.spawn(f"cd {app.home} && exec slotctl --json router upgrade")
    try:
        machine.wait_for("systemctl list-units --plain --no-legend --state=activating 'slot-router@*' | grep -q slot-router@")
        # While it hangs, who accepts goes on.
        assert accepting(app) == [before]
        answers_only(load, "one", requests=50)
        refused = json.loads(asked.communicate(timeout=60)[0])
    finally:
        machine.run(f"rm {DROP_IN} && systemctl daemon-reload")
    assert asked.returncode == 1 and not refused["success"], refused
    for part in ("did not come up", "it did not send READY=1", f"slot-router@{before} goes on as before"):
        assert part in refused["error"], refused
    assert units(machine) == [f"slot-router@{before}.service"]
    assert alone(app) == before
    answers_only(load, "one", requests=50)
    assert upgrade(app)["draining"] == [before]


def test_a_limit_ends_the_drain(machine, app):
    old = alone(app)
    stream, _ = open_stream(machine, "sse", seconds=60)
    upgrade(app, "--drain 2s")
    held = next(router for router in routers(app) if int(router["instance"]) == old)
    assert held["in_flight"]["streams"] == 1 and held["drain_until_ms"] > time.time() * 1000
    assert alone(app) != old
    assert not json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]
    assert machine.show(f"slot-router@{old}", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}


def test_the_machines_file_says_how_long_an_instance_drains_and_a_word_of_the_command_is_more(machine, app):
    old = alone(app)
    machine.write(MACHINE, '[router]\ndrain = "1h"\n')
    stream, _ = open_stream(machine, "sse", seconds=6)
    upgrade(app)
    held = next(router for router in routers(app) if int(router["instance"]) == old)
    assert 3500 < held["drain_until_ms"] / 1000 - time.time() <= 3600, held
    assert "; cut in 59m" in machine.out("slotctl status")
    assert json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]
    old = alone(app)
    stream, _ = open_stream(machine, "sse", seconds=6)
    upgrade(app, "--drain 0")
    held = next(router for router in routers(app) if int(router["instance"]) == old)
    assert "drain_until_ms" not in held, held
    assert json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]
    # The package's upgrade too.
    old = alone(app)
    machine.write(MACHINE, '[router]\ndrain = "1s"\n')
    stream, _ = open_stream(machine, "sse", seconds=60)
    machine.install()
    assert alone(app) != old
    assert not json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]
    machine.run(f"rm {MACHINE}")


def test_wrong_settings_are_refused_by_an_upgrade_and_stop_no_router_that_has_to_start(machine, app):
    before = alone(app)
    machine.write(MACHINE, "[limits]\nconnections_per_address = 100000\n")
    before = upgrade(app)["accepting"]
    machine.write(MACHINE, "[limits]\nconnections_per_addres = 1\n")
    refused = app.slotctl("router upgrade", check=False)
    says = f"{MACHINE}:2: unknown key `limits.connections_per_addres`; did you mean `connections_per_address`?"
    assert (refused["success"], refused["exit"]) == (False, 1) and says in refused["error"], refused
    assert alone(app) == before and units(machine) == [f"slot-router@{before}.service"]
    machine.run(f"systemctl kill --signal=KILL slot-router@{before}")
    machine.wait_for(f"systemctl show slot-router@{before} -P NRestarts | grep -qx 1")
    machine.wait_for(f"systemctl is-active slot-router@{before}")
    alone(app)
    (router,) = routers(app)
    assert says in router["problem"] and "the last settings that were right hold" in router["problem"], router
    assert says in machine.out("slotctl status")
    assert says in machine.out(f"journalctl -o cat -p err -u slot-router@{before}")
    machine.run(f"rm {MACHINE}")
    upgrade(app)
    alone(app)
    assert "problem" not in routers(app)[0]


def test_settings_with_a_listener_that_there_is_not_change_nothing(machine, app, load):
    before = alone(app)
    machine.write(MACHINE, '[router]\ntrusted_peers = ["10.0.0.0/8"]\nproxy_protocol = ["htpp"]\n')
    refused = app.slotctl("router upgrade", check=False)
    machine.run(f"rm {MACHINE}")
    says = f'{MACHINE}:3: router.proxy_protocol: the router has no listener "htpp"; write the FileDescriptorName= of one of its sockets: ["http"]'
    assert (refused["success"], refused["exit"]) == (False, 1) and says in refused["error"], refused
    assert f"slot-router@{before} goes on as before" in refused["error"], refused
    assert alone(app) == before
    assert "problem" not in routers(app)[0]


def test_another_limit_is_also_for_those_that_drain_already(machine, app):
    first = alone(app)
    stream, _ = open_stream(machine, "sse", seconds=60)
    second = upgrade(app)["accepting"]
    assert sorted(upgrade(app, "--drain 2s")["draining"]) == sorted([first, second])
    assert alone(app) not in (first, second)
    assert not json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]


def test_an_instance_that_is_killed_while_it_drains_comes_back_draining(machine, app, load):
    old = alone(app)
    stream, _ = open_stream(machine, "sse", seconds=6)
    new = upgrade(app)["accepting"]
    unit = f"slot-router@{old}.service"
    process = left_by_all_but_one(machine, unit)
    machine.run(f"kill -KILL {process}")
    machine.wait_for(f"systemctl show {unit} -P NRestarts | grep -qx 1")
    assert accepting(app) == [new]
    assert json.loads(stream.communicate(timeout=30)[0].splitlines()[-1])["whole"]
    assert alone(app) == new
    log = machine.out(f"journalctl -o cat -u {unit} -n 20")
    after = log.split("Scheduled restart job")[1]
    assert "\ndraining, as the process before" in after and "\naccepting" not in after, log


def test_an_instance_that_fails_to_come_back_to_its_streams_is_not_stopped(machine, app, load):
    old = alone(app)
    stream, _ = open_stream(machine, "sse", seconds=20)
    new = upgrade(app)["accepting"]
    unit = f"slot-router@{old}.service"
    left_by_all_but_one(machine, unit)
    machine.write(DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 3'\n")
    machine.run("systemctl daemon-reload")
    try:
        machine.run(f"systemctl kill --signal=KILL {unit}")
        # One that begins looks at every instance; and for longer than it lets pass between two looks.
        machine.run("systemctl restart slotd.service")
        machine.wait_for(f"test $(systemctl show {unit} -P NRestarts) -ge 40", timeout=60)
        assert accepting(app) == [new]
    finally:
        machine.run(f"rm {DROP_IN} && systemctl daemon-reload")
    end = json.loads(stream.communicate(timeout=60)[0].splitlines()[-1])
    assert end["whole"], end
    assert alone(app) == new


def test_slotd_killed_at_any_point_of_an_upgrade_leaves_one_that_accepts(machine, app, load):
    chance = random.Random(20)
    for _ in range(12):
        asked = machine.spawn(f"cd {app.home} && exec slotctl --json router upgrade")
        time.sleep(chance.uniform(0, 0.25))
        machine.run("systemctl kill --signal=KILL slotd.service")
        asked.communicate(timeout=60)
        machine.wait_for("systemctl is-active slotd.service")
        answers_only(load, "one", requests=20)
    alone(app)


def test_where_everything_that_runs_drains_one_is_started(machine, app, load):
    new, stream = alone(app), open_stream(machine, "ws", seconds=20)[0]
    accepts = upgrade(app)["accepting"]
    machine.run(f"systemctl stop slot-router@{accepts}")
    app.wait_until(lambda status: any(router["accepting"] for router in status["routers"]))
    answers_only(load, "one", requests=20)
    assert new not in accepting(app)
    assert json.loads(stream.communicate(timeout=60)[0].splitlines()[-1])["whole"]


def test_an_upgrade_of_the_package_upgrades_the_router(machine, app, load):
    before = alone(app)
    machine.install()
    after = alone(app)
    assert after != before
    answers_only(load, "one", requests=20)


def test_without_a_router_there_is_nothing_to_upgrade(fresh):
    fresh.run("systemctl start slotd.socket slotd.service slot-router.socket")
    assert fresh.json("slotctl --json router upgrade") == {"accepting": None, "draining": []}
    fresh.run("systemctl stop slotd.socket slotd.service")
    # What cannot be done is no reason for the package not to be installed.
    fresh.install()
    with pytest.raises(Failed):
        fresh.run("slotctl router upgrade")
