"""After the switch: the soak, its failures, and those who wait for it."""

import json

import pytest
from slots import App, answers_only, nothing_failed

SOAK = 'ready = "notify"\nhealth = "/healthz"\nstop_timeout = "2s"\nsoak = "{}"\n'


def make_app(machine, name, soak):
    return App(machine, name, f'hosts = ["{name}.test"]\n' + SOAK.format(soak))


def load_of(machine, app, *options):
    return machine.load("127.0.0.1:80", "--connections", "16", "--pause-ms", "20", "--host", f"{app.name}.test", *options)


def test_waiting_for_the_soak_returns_when_it_has_ended_and_for_the_stop_when_the_old_slot_is_gone(machine):
    app = make_app(machine, "waits", "2s")
    app.deploy("one")
    soaked = app.deploy("two", "--wait=soaked")
    assert (soaked["success"], soaked["cause"]) == (True, "soaked")
    assert app.status()["state"] == "idle"
    stopped = app.deploy("three", "--wait=stopped")
    assert stopped["success"]
    assert {slot["condition"] for slot in app.status()["slots"]} == {"active", "idle"}


def test_a_slotd_without_sockets_to_ask_with_takes_nothing_back_says_so_and_begins_nothing(machine):
    app = make_app(machine, "deaf", "12s")
    app.deploy("one")
    new = app.deploy("two", "--wait=switched")
    machine.run("systemctl stop slot-inet.socket")
    machine.wait_for("journalctl -b -o cat -u slotd | grep -q 'nothing can be asked for its health.*systemctl restart slot-inet.socket'")
    refused = app.deploy("three", check=False)
    assert not refused["success"] and "slot-inet.socket" in refused["text"], refused
    status = app.status()
    assert (status["live"], status["serving"]) == (new["release"], True), status
    machine.run("systemctl restart slot-inet.socket")
    app.deploy("three", "--wait=soaked")
    assert machine.show("slot-inet.service", "ActiveState")["ActiveState"] == "active"


@pytest.mark.parametrize(("name", "fault", "cause"), [
    ("sick", "unhealthy-after=2", "probes-failed"),
    # Long after everybody has looked away.
    ("crash", "exit-after=20", "exited"),
    # It ends without a failure, and its unit starts it again, and again; the third time is once too often while there is a release to go back to.
    ("leaves", "end-after=2", "exited"),
    ("hangs", "hang-after=2", "exited"),
])
def test_a_release_that_fails_in_its_soak_is_rolled_back_and_marked_with_what_it_held_as_the_only_loss(machine, name, fault, cause):
    if name == "hangs":
        machine.write(f"/etc/systemd/system/{name}@.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n")
    app = make_app(machine, name, "40s")
    first = app.deploy("one", "--wait=switched")
    boot = app.slot("blue")["boot_id"]
    with load_of(machine, app) as load:
        failed = app.deploy("two", "--wait=soaked", faults=fault, check=False)
        assert (failed["success"], failed["cause"], failed["exit"]) == (False, cause, 1), failed
        answers_only(load, "one")
        result = load.stop()
    status = app.status()
    assert (status["live"], status["serving"]) == (first["release"], True)
    if name == "hangs":
        assert "watchdog" in failed["text"], failed
    back = status["rolled_back"]
    assert f"/healthz of {name}.test at the public listener" in back["reached"] and "200" in back["reached"], back
    standing = status["standing"]
    assert (standing["rollback_cause"], standing["rollback_at_ms"]) == (cause, back["at_ms"]), standing
    assert standing["active"]["boot_id"] == app.slot("blue")["boot_id"] == boot, standing
    for line in machine.out(f"journalctl -o json SLOT_APP={name} SLOT_CAUSE={cause}").splitlines():
        told = json.loads(line)
        assert (told["SLOT_ACTIVE"], told["SLOT_ACTIVE_RELEASE"]) == ("blue", first["release"]), told
        assert (told["SLOT_ROLLBACK_CAUSE"], told["SLOT_STATE"]) in {(cause, "rolling_back"), (cause, "idle")}, told
        assert told["SLOT_INITIATED_BY"].startswith("root"), told
        assert told["SLOT_ACTIVE_BOOT_ID"] == boot, told
    explained = machine.out(f"journalctl -q -x SLOT_APP={name} SLOT_CAUSE={cause}")
    assert f"Subject: Generation 2 of {name} was rolled back by itself: {cause}" in explained, explained
    story = [json.loads(line) for line in machine.out(f"journalctl -o json SLOT_APP={name} SLOT_GENERATION=2").splitlines()]
    for fields in (
        {"SLOT_CANDIDATE": "green", "SLOT_CANDIDATE_RELEASE": failed["release"]},
        {"SLOT_OLD": "blue", "SLOT_OLD_RELEASE": first["release"], "SLOT_OLD_BOOT_ID": boot},
        {"SLOT_ROLLBACK_AT_MS": str(back["at_ms"])},
    ):
        assert any(fields.items() <= told.items() for told in story), (fields, story)
    assert any(int(told["SLOT_SWITCHED_AT_MS"]) < back["at_ms"] for told in story if "SLOT_OLD" in told), story
    # What was in flight on a process that dies is lost with it; one that is only unhealthy loses nothing.
    ends = {"leaves": 3}.get(name, 1)
    assert result["failed"] <= (16 * ends if cause == "exited" else 0), result
    assert ("ended 3 times since the switch" in failed["text"]) == (name == "leaves"), failed
    assert set(result["failures"]) <= {"status 502"}, result
    assert "release two" in result["answers"]
    lines = machine.out(f"cat /var/lib/slot/{name}/history.jsonl")
    assert '"rolled-back"' in lines, lines
    nothing = app.slotctl("rollback")
    assert f"`slotctl deploy --release {failed['release']} --force`" in nothing["already"], nothing
    assert app.status()["live"] == first["release"]
    marked = app.slotctl(f"deploy --release {failed['release']}", check=False)
    assert marked["code"] == "refused" and "--force" in marked["error"], marked
    marked = app.deploy("two", faults=fault, check=False)
    assert (marked["cause"], marked["release"]) == ("marked", failed["release"]), marked
    assert app.active() == "blue"


def test_a_release_of_which_the_kernel_kills_a_process_for_its_memory_is_rolled_back_and_that_is_said(machine):
    app = make_app(machine, "hungry", "60s")
    first = app.deploy("one")
    app.deploy("two")
    # The machines have no memory controller. This is how systemd-oomd tells PID 1 what it did, which makes the same of it as of the kernel's own
    # word: extended attributes of the unit's control group.
    group = machine.show("hungry@green.service", "ControlGroup")["ControlGroup"]
    for name in ("user.oomd_ooms", "user.oomd_kills"):
        machine.run(["python3", "-c", f"import os; os.setxattr('/sys/fs/cgroup{group}', '{name}', b'1')"])
    machine.run("systemctl kill -s KILL hungry@green.service")
    status = app.wait_until(lambda status: status["active"] == "blue" and status["state"] == "idle")
    back = status["rolled_back"]
    assert (back["to_release"], back["cause"]) == (first["release"], "exited"), back
    assert "was killed because memory ran out" in back["text"], back


def test_an_administrators_restart_in_a_soak_is_no_failure_of_the_release_and_the_third_one_is(machine):
    app = make_app(machine, "again", "90s")
    first = app.deploy("one")
    with load_of(machine, app) as load:
        app.deploy("two")
        answers_only(load, "two")
        for _ in range(2):
            boot = app.slot("green")["boot_id"]
            machine.run("systemctl restart again@green.service")
            app.wait_until(lambda status: app.slot("green")["boot_id"] not in (None, boot) and status["serving"])
            status = app.status()
            assert (status["active"], status["state"], status.get("rolled_back")) == ("green", "switched", None), status
        answers_only(load, "two")
        # The slot may be stopped while that one still waits for its start.
        machine.run("systemctl restart again@green.service", check=False)
        status = app.wait_until(lambda status: status["active"] == "blue" and status["state"] == "idle")
        answers_only(load, "one")
        result = load.stop()
    assert (status["live"], status["rolled_back"]["cause"]) == (first["release"], "exited"), status
    assert "ended 3 times since the switch" in status["rolled_back"]["text"], status
    # What was in flight on a process that was told to end is its own to finish.
    assert result["failed"] <= 48 and set(result["failures"]) <= {"status 502"}, result


def test_a_deployment_in_a_soak_ends_it_as_superseded_and_the_old_slot_drains_at_once(machine):
    app = make_app(machine, "next", "90s")
    app.deploy("one")
    second = app.deploy("two")
    assert app.status()["soak_until_ms"]
    with load_of(machine, app) as load:
        third = app.deploy("three")
        answers_only(load, "three")
        assert load.stop()["failed"] == 0
    lines = [json.loads(line) for line in machine.out("journalctl -o json SLOT_APP=next SLOT_CAUSE=superseded").splitlines()]
    (told,) = [line for line in lines if line.get("SLOT_GENERATION") == str(second["generation"])]
    assert told["SLOT_ACTIVE_RELEASE"] == second["release"], told
    assert int(told["__REALTIME_TIMESTAMP"]) // 1000 < third["at_ms"], (told, third)


def test_a_second_rollback_leaves_the_state_as_it_is(machine):
    app = make_app(machine, "nervous", "0s")
    first = app.deploy("one")
    second = app.deploy("two")
    assert app.slotctl("rollback --wait=stopped")["release"] == first["release"]
    state = "/var/lib/slot/nervous/state.json"
    before = machine.out(f"stat -c %i.%Y {state}; sha256sum {state}")
    again = app.slotctl("rollback")
    assert again["success"] and f"`slotctl deploy --release {second['release']}`" in again["already"], again
    assert machine.out(f"stat -c %i.%Y {state}; sha256sum {state}") == before
    assert app.slotctl(f"rollback --to {second['release']}")["release"] == second["release"]


def test_a_rollback_during_a_soak_goes_to_the_slot_that_is_kept_warm_for_it(machine):
    app = make_app(machine, "early", "60s")
    app.deploy("one")
    with load_of(machine, app) as load:
        app.deploy("two")
        answers_only(load, "two")
        assert app.slot("blue")["condition"] == "warm"
        back = app.slotctl("rollback")
        assert (back["success"], back["slot"]) == (True, "blue")
        assert "starting" not in dict(back["phases_ms"])
        answers_only(load, "one")
        result = load.stop()
    nothing_failed(result, reconnects=16)


def test_a_release_that_keeps_ending_after_its_soak_is_told_and_left_for_the_one_before(machine):
    app = App(machine, "later", 'hosts = ["later.test"]\nafter_soak = "rollback"\n' + SOAK.format("0s"))
    first = app.deploy("one")
    second = app.deploy("two")
    for _ in range(3):
        up = app.wait_until(
            lambda status: status["active"] == "blue" or app.slot("green").get("detail") == "up" and status["serving"]
        )
        if up["active"] == "green":
            boot = app.slot("green")["boot_id"]
            machine.run("systemctl kill -s KILL later@green.service")
            app.wait_until(lambda _: app.slot("green")["boot_id"] != boot)
    status = app.wait_until(lambda status: status["active"] == "blue" and status["state"] == "idle")
    assert (status["live"], status["serving"]) == (first["release"], True)
    back = status["rolled_back"]
    assert (back["from_release"], back["cause"]) == (second["release"], "exited"), back
    assert "at the public listener" in back["reached"], back
    told = machine.out("journalctl -o cat SLOT_APP=later SLOT_CAUSE=exited")
    assert told.count("the live release fails, after its soak") == 1, told
    assert f"release {first['release']} takes its place (after_soak)" in told, told


def test_an_old_slot_that_is_kept_is_frozen_and_thawed_and_probed_before_it_serves_again(machine):
    keep = 'hosts = ["cold.test"]\nkeep_warm = "10m"\nkeep_warm_frozen = true\n'
    app = App(machine, "cold", keep + SOAK.format("0s"))

    def frozen(slot):
        app.wait_until(lambda _: "=frozen" in machine.out(f"systemctl show -p FreezerState cold@{slot}.service"))

    first = app.deploy("one")
    boot = app.slot("blue")["boot_id"]
    with load_of(machine, app) as load:
        app.deploy("two")
        frozen("blue")
        blue = app.slot("blue")
        assert (blue["condition"], blue["weight"], blue["boot_id"]) == ("warm", 0, boot), blue
        assert blue["detail"].startswith("frozen until "), blue
        assert app.status()["warnings"] == []
        # It stays so when slotd is another.
        machine.run("systemctl restart slotd.service")
        frozen("blue")
        back = app.slotctl("rollback")
        assert (back["success"], back["slot"], back["release"]) == (True, "blue", first["release"]), back
        phases = dict(back["phases_ms"])
        assert "ready" in phases and "starting" not in phases, back
        assert app.slot("blue")["boot_id"] == boot
        answers_only(load, "one")
        # A deployment that needs the slot takes it, frozen as it is.
        app.wait_for_slot("green", "idle")
        app.deploy("three")
        frozen("blue")
        app.deploy("four")
        answers_only(load, "four")
        frozen("green")
        result = load.stop()
    assert app.slot("blue")["boot_id"] != boot
    nothing_failed(result, reconnects=16)
    app.slotctl("app remove cold --now")
    assert machine.out("systemctl list-units --plain --no-legend 'cold@*'") == ""


def test_a_deploy_goes_on_when_the_slotctl_that_began_it_is_killed(machine):
    app = make_app(machine, "lost", "0s")
    app.deploy("one")
    directory = app.release("two", faults="slow-start")
    watching = machine.spawn(f"cd {app.home} && exec slotctl deploy {directory}")
    app.wait_until(lambda status: status["state"] == "starting")
    watching.kill()
    watching.wait(10)
    machine.run("pkill -9 -f '^slotctl deploy '", check=False)
    status = app.wait_until(lambda status: status["active"] == "green" and status["state"] == "idle")
    assert status["last"]["cause"] == "switched"
    assert machine.out("curl -sS -H 'Host: lost.test' http://127.0.0.1/") == "release two"


def test_a_second_deploy_before_the_switch_of_the_first_is_refused_and_the_first_is_unharmed(machine):
    app = make_app(machine, "busy", "0s")
    app.deploy("one")
    directory = app.release("two", faults="slow-start")
    first = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")
    app.wait_until(lambda status: status["state"] == "starting")
    second = app.deploy("three", check=False)
    assert (second["code"], second["exit"]) == ("busy", 1), second
    assert "begun by root" in second["error"] and "phase starting" in second["error"]
    assert '"success":true' in first.communicate(timeout=30)[0]


def test_two_apps_are_deployed_at_once_and_each_keeps_its_hosts_and_paths(machine):
    shop = App(machine, "shop", 'hosts = ["both.test"]\n' + SOAK.format("0s"))
    docs = App(machine, "docs", 'hosts = ["both.test"]\npaths = ["/docs"]\n' + SOAK.format("0s"), kind="notify")
    shop.deploy("shop1")
    docs.deploy("docs1")
    slow = [app.release(marker, faults="ready-once=/srv/both") for app, marker in ((shop, "shop2"), (docs, "docs2"))]
    both = [
        machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}") for app, directory in zip((shop, docs), slow)
    ]
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20", "--host", "both.test") as load:
        for app in (shop, docs):
            app.wait_until(lambda status: status["state"] == "starting")
        # Neither waited for the other.
        machine.write("/srv/both", "")
        for deploying in both:
            assert '"success":true' in deploying.communicate(timeout=30)[0]
        answers_only(load, "shop2")
        result = load.stop()
    nothing_failed(result, reconnects=8)
    answer = "curl -sS -D - -o /dev/null -H 'Host: both.test' http://127.0.0.1"
    assert "X-Release: docs2" in machine.out(f"{answer}/docs")
    assert "X-Release: shop2" in machine.out(f"{answer}/other")
