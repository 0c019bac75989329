"""Where administrators look: what is set and what is wrong with it, reloads, completion, documentation."""

import json

import pytest
from machine import Failed
from slots import QUICK, App, answers_only

FILE = "/etc/slot/apps/web.toml"
HOSTS = 'hosts = ["localhost", "example.org"]\n'


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + HOSTS)
    app.deploy("one", "--wait=stopped")
    return app


def answers(machine, host, status):
    """Waits until requests for a host have this answer: the routers get their table a moment after slotd has it."""
    machine.wait_for(f"test \"$(curl -sS -m 10 -o /dev/null -w '%{{http_code}}' -H 'Host: {host}' http://127.0.0.1/)\" = {status}")


def change(machine, line):
    machine.run(f"sed -i '{line}' {FILE}")


def units(machine, app):
    """What a reload does not touch."""
    unit = machine.show(f"web@{app.active()}", "InvocationID", "MainPID")
    return unit, machine.show("slotd", "MainPID"), machine.show("slot-router.socket", "InvocationID")


def test_a_changed_file_is_taken_over_by_app_reload_and_by_a_reload_of_slotd_and_what_runs_is_not_touched(machine, app, load):
    before = units(machine, app)
    answers(machine, "other", 404)
    change(machine, 's/"example.org"/"example.org", "other"/')
    answers(machine, "other", 404)
    reloaded = machine.json("slotctl --json app reload web")
    assert reloaded == {"success": True, "reloaded": ["web"], "refused": {}}
    answers(machine, "other", 200)
    # systemd has read the file as well.
    change(machine, "s/^stop_timeout = .*/stop_timeout = \"3s\"/")
    machine.run("slotctl app reload")
    assert machine.show(f"web@{app.active()}", "TimeoutStopUSec", "NeedDaemonReload") == {"TimeoutStopUSec": "3s", "NeedDaemonReload": "no"}
    change(machine, 's/"other"/"third"/')
    machine.run("systemctl reload slotd")
    answers(machine, "third", 200)
    answers(machine, "other", 404)
    assert units(machine, app) == before
    answers_only(load, "one", requests=20)


def test_what_a_reload_leaves_to_systemd_is_said_by_status_and_journal_until_root_has_it_read(machine, app):
    machine.run("slotctl app reload web")
    kept = machine.out(f"cat {FILE}")
    assert app.status()["warnings"] == []
    change(machine, 's/^stop_timeout = .*/stop_timeout = "4s"/')
    machine.run("systemctl reload slotd")
    # slotd's user may not have units made anew.
    assert machine.show(f"web@{app.active()}", "TimeoutStopUSec") != {"TimeoutStopUSec": "4s"}
    (warning,) = app.status()["warnings"]
    assert "(web@.service)" in warning and "sudo slotctl app reload web" in warning, warning
    machine.run("journalctl --sync")
    told = machine.out("journalctl -x -u slotd -p warning SLOT_APP=web")
    assert warning in " ".join(told.split()) and "systemd does not go by the file of web as it is" in told, told
    machine.run("slotctl app reload web")
    assert app.status()["warnings"] == []
    assert machine.show(f"web@{app.active()}", "TimeoutStopUSec") == {"TimeoutStopUSec": "4s"}
    # What is in no unit: systemd only looks at the file's time.
    change(machine, 's/"third"/"fourth"/')
    machine.run("systemctl reload slotd")
    answers(machine, "fourth", 200)
    (warning,) = app.status()["warnings"]
    assert "is newer than what systemd has read" in warning and "sudo slotctl app reload web" in warning, warning
    machine.run("slotctl app reload web")
    assert app.status()["warnings"] == []
    machine.write(FILE, f"{kept}\n")
    machine.run("slotctl app reload web")


def test_a_file_that_is_wrong_is_refused_whole_with_its_line_and_everything_goes_on_by_the_old_settings(machine, app, load):
    before = units(machine, app)
    kept = machine.out(f"cat {FILE}")
    hosts = next(number for number, line in enumerate(kept.splitlines(), 1) if line.startswith("hosts"))
    change(machine, 's/^hosts = .*/hosts = ["Wrong"]/; s/^stop_timeout = .*/stop_timeout = "9s"/')
    wrong = f"{FILE}:{hosts}: hosts: "
    refused = machine.run("slotctl app reload web", check=False)
    assert refused.returncode == 6 and wrong in refused.stderr, refused
    # Nor is any other taken over: systemd would read this one too.
    refused = machine.run("slotctl --json app reload", check=False)
    assert refused.returncode == 6 and wrong in json.loads(refused.stdout)["error"], refused
    with pytest.raises(Failed):
        machine.run("systemctl reload slotd")
    machine.wait_for(f"journalctl -u slotd -o cat | grep -qF '{wrong}'")
    assert machine.out("systemctl is-active slotd") == "active"
    checked = machine.run(f"slotctl config check {FILE}", check=False)
    assert checked.returncode == 6 and f"{FILE}:{hosts}:10: hosts: " in checked.stdout, checked
    answers(machine, "localhost", 200)
    assert units(machine, app) == before
    # No unit stands in: a slot could be started.
    assert "RefuseManualStart=yes" not in machine.out(f"systemctl cat web@{app.idle()}")
    answers_only(load, "one", requests=20)
    machine.write(FILE, kept)
    machine.run("slotctl app reload web")


def test_a_slot_that_is_added_can_be_started_after_a_reload(machine, app, load):
    machine.run(f"sed -i '1i slots = [\"blue\", \"green\", \"red\"]' {FILE}")
    refused = machine.run("slotctl app reload web", check=False)
    assert refused.returncode == 6 and "ports.red: the slot has no port" in refused.stderr, refused
    change(machine, "s/^\\[ports\\]/[ports]\\nred = 20900/")
    machine.run("slotctl app reload web")
    assert '"web@red.service"' in machine.out("cat /etc/polkit-1/rules.d/60-slot-app-web.rules")
    # The slot is there with the next deployment, and a deployment can have it.
    app.deploy("two", "--wait=stopped")
    assert {slot["slot"] for slot in app.status()["slots"]} == {"blue", "green", "red"}
    change(machine, 's/^slots = .*/slots = ["blue", "red"]/; s/^green = /#&/')
    refused = machine.run("slotctl app reload web", check=False)
    assert refused.returncode != 0 and "slot green is active" in refused.stderr, refused
    # slotd may still stop what it runs.
    assert '"web@green.service"' in machine.out("cat /etc/polkit-1/rules.d/60-slot-app-web.rules")
    change(machine, 's/^slots = .*/slots = ["red", "green"]/; s/^#green/green/; /^blue = /d')
    machine.run("slotctl app reload web")
    app.deploy("three", "--wait=stopped")
    assert app.active() == "red"
    answers_only(load, "three", requests=20)


def test_an_app_that_cannot_be_taken_over_hides_nothing_of_the_others(machine, app, load):
    rule = "/etc/polkit-1/rules.d/60-slot-app-able.rules"
    App(machine, "able", QUICK + 'hosts = ["able.test"]\n')
    machine.run(f"mv {rule} /root/ && mkdir {rule}")
    change(machine, 's/^hosts = .*/hosts = ["localhost", "fourth"]/')
    said = machine.run("slotctl --json app reload", check=False)
    answer = json.loads(said.stdout)
    assert (said.returncode, answer["success"], answer["reloaded"], list(answer["refused"])) == (1, False, ["web"], ["able"]), said
    assert rule in answer["refused"]["able"] and "`slotctl app reload able` does it" in answer["refused"]["able"], said
    answers(machine, "fourth", 200)
    told = machine.run("slotctl app reload", check=False)
    assert told.returncode == 1 and rule in told.stderr and told.stdout == f"web goes by {FILE} as it is now.\n", told
    machine.run(f"rmdir {rule}")
    assert machine.json("slotctl --json app reload")["reloaded"] == ["able", "web"]
    assert '"able@blue.service"' in machine.out(f"cat {rule}")
    # Of slotd that is away every app is told, once for people.
    machine.run("systemctl stop slotd.socket slotd.service")
    away = machine.run("slotctl --json app reload", check=False)
    assert (away.returncode, list(json.loads(away.stdout)["refused"])) == (3, ["able", "web"]), away
    assert machine.run("slotctl app reload", check=False).stderr.count("slotd is not running") == 1
    machine.run("systemctl start slotd.socket slotd.service && slotctl app remove able --purge --now")
    answers_only(load, "three", requests=20)


def test_members_of_the_group_reload_what_slotd_reads_and_others_nothing(machine, app):
    machine.run("useradd --groups slot ann; useradd bob")
    assert machine.json("slotctl --json app reload web", user="ann")["reloaded"] == ["web"]
    kept = machine.out(f"cat {FILE}")
    change(machine, 's/^stop_timeout = .*/stop_timeout = "7s"/')
    reloaded = machine.run("slotctl app reload web", user="ann")
    assert "web goes by" in reloaded.stdout and f"slotctl: warning: systemd goes by {FILE} as it was before" in reloaded.stderr, reloaded
    machine.write(FILE, f"{kept}\n")
    machine.run("slotctl app reload web")
    assert machine.run("slotctl app reload web", user="bob", check=False).returncode == 4
    assert machine.run("slotctl app reload nobody", check=False).returncode == 7


def test_what_is_set_is_shown_with_where_it_is_from(machine, app):
    machine.write("/etc/slot/machine.toml", '[limits]\nbody_bytes = "1M"\n')
    machine.run(f"sed -i '1i preview_token_sha256 = \"{'ab' * 32}\"' {FILE}")
    shown = machine.json("slotctl --json config show web")
    rows = {row["key"]: row for row in shown["settings"]}
    assert (rows["limits.body_bytes"]["value"], rows["limits.body_bytes"]["file"], rows["limits.body_bytes"]["line"]) == ("1M", "/etc/slot/machine.toml", 2)
    assert (rows["soak"]["value"], rows["soak"]["file"]) == ("0s", FILE)
    assert (rows["drain"]["value"], rows["drain"]["from"]) == ("120s", "default")
    assert rows["preview_token_sha256"]["secret"] and rows["preview_token_sha256"]["value"] is None
    assert "abab" not in machine.out("slotctl config show web")
    machine.run(f"sed -i 1d {FILE}; rm /etc/slot/machine.toml")


def test_the_schemas_are_in_the_package_for_editors(machine):
    for name, key in [("app", "command"), ("machine", "limits")]:
        schema = json.loads(machine.out(f"cat /usr/share/slot/{name}.schema.json"))
        assert key in schema["properties"], schema


def test_every_unit_says_where_it_is_documented(machine, app):
    machine.run("slotctl listener add 127.0.0.1:8090 --name documented")
    listed = machine.out("systemctl list-units --all --state=loaded --plain --no-legend 'slot*' 'web@*' | cut -d' ' -f1").split()
    assert {"slotd.service", "slotd.socket", "slot.slice", "slot-router.socket", "slot-router-documented.socket"} <= set(listed), listed
    for unit in listed:
        assert "man:slot" in machine.show(unit, "Documentation")["Documentation"], unit
    machine.run("slotctl listener remove documented")


def test_bash_completes_at_a_terminal_what_slotd_has(machine, app):
    active = app.active()
    for typed, wanted in [
        ("slotctl --app w", "--app web "),
        ("slotctl app rel", "app reload "),
        (f"slotctl --app web logs {active[:2]}", f"logs {active} "),
    ]:
        machine.run(["python3", "/tests/type_tab.py", typed, wanted], timeout=60)
