"""A deployment's whole story is in the journal, by the fields of its app."""

import json
import re

import pytest
from slots import QUICK, App


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    # With the first request there is a router.
    machine.run("curl -sS -m 10 http://127.0.0.1/")
    app.deploy("two", faults="exit", check=False)
    app.deploy("three")
    return app


def lines(machine, matches):
    return [json.loads(line) for line in machine.out(f"journalctl -o json {matches}").splitlines()]


def test_the_journal_tells_the_story_from_slotd_router_and_app_under_one_name(machine, app):
    story = lines(machine, "SLOT_APP=web")
    units = {line.get("_SYSTEMD_UNIT") for line in story}
    assert {"slotd.service", "web@blue.service", "web@green.service"} <= units, units
    assert any(line["MESSAGE"] == "release one starts" and line["SLOT_NAME"] == "blue" for line in story)
    phases = [line["SLOT_PHASE"] for line in lines(machine, "SLOT_APP=web SLOT_GENERATION=1") if "SLOT_PHASE" in line]
    assert phases[:4] == ["preparing", "starting", "ready", "shifting"], phases
    causes = {line["SLOT_GENERATION"]: line["SLOT_CAUSE"] for line in story if "SLOT_CAUSE" in line}
    assert causes == {"1": "switched", "2": "start-failed", "3": "switched"}
    failed = lines(machine, "SLOT_APP=web SLOT_CAUSE=start-failed")[0]
    assert (failed["PRIORITY"], failed["SLOT_PHASE"]) == ("4", "starting"), failed
    router = [line for line in story if line.get("_SYSTEMD_UNIT") == "slot-router@1.service"]
    switches = [(line["SLOT_NAME"], line["SLOT_GENERATION"]) for line in router]
    assert switches == [("blue", "1"), ("green", "3")], router


def test_the_logs_of_an_app_are_that_story_and_one_slots_are_its_own(machine, app):
    told = machine.out("slotctl --app web logs -n 1000")
    for part in ("deploy 1 of web was begun by root", "release one starts", "Started web@blue.service", "did not start"):
        assert part in told, told
    blue = machine.out("slotctl --app web logs blue -n 1000")
    assert "release one starts" in blue and "release three starts" not in blue, blue


def test_the_logs_go_on_as_lines_are_written(machine, app):
    following = machine.spawn("exec slotctl --app web logs -f -n 1")
    following.stdout.readline()
    app.deploy("four")
    for line in following.stdout:
        if "release four starts" in line:
            break
    following.terminate()
    following.wait(10)


def test_an_app_runs_as_a_user_of_its_own_unless_its_file_names_another(machine, app):
    active = app.active()
    pid = machine.show(f"web@{active}", "MainPID")["MainPID"]
    assert machine.out(f"stat -c %U /proc/{pid}") == "slot-app-web"
    slotd = machine.show("slotd", "MainPID")["MainPID"]
    assert machine.out(f"stat -c %U /proc/{slotd}") == "slot"
    router = machine.show("slot-router@1", "MainPID")["MainPID"]
    assert machine.out(f"stat -c %U /proc/{router}") == "slot-router"
    other = App(machine, "other", 'hosts = ["other.test"]\nuser = "www-data"\n' + QUICK)
    other.deploy("one")
    pid = machine.show("other@blue", "MainPID")["MainPID"]
    assert machine.out(f"stat -c %U /proc/{pid}") == "www-data"


@pytest.mark.parametrize("user", ["root", "slot"])
def test_an_app_is_run_neither_as_root_nor_as_slotds_user_without_being_asked_twice(machine, user):
    machine.write("/srv/high/slot.toml", f'name = "high"\ncommand = "./server"\nuser = "{user}"\n')
    done = machine.run("cd /srv/high && slotctl app add", check=False)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "user" in done.stderr


def test_what_slot_says_in_the_journal_is_explained_with_what_to_do(machine, app):
    explained = machine.out("journalctl --no-pager -x -q SLOT_APP=web SLOT_CAUSE=start-failed")
    for part in (
        "Subject: The release of generation 2 of web did not start",
        "Defined-By: slot",
        "Documentation: man:slot.toml(5)",
        "What served before serves on; no request went to the new release.",
        "`systemctl status web@green`",
    ):
        assert part in explained, explained
    kinds = {line["MESSAGE_ID"]: line for line in lines(machine, "-u slotd SLOT_APP=web") if "MESSAGE_ID" in line}
    known = machine.out("journalctl --list-catalog")
    assert len(kinds) >= 3 and all(kind in known for kind in kinds), kinds
    for kind, line in kinds.items():
        told = machine.out(f"journalctl --no-pager -x -q -n 1 -u slotd SLOT_APP=web MESSAGE_ID={kind}")
        # A field that a line has not is left as it is.
        assert "Subject: " in told and not re.search(r"\bSLOT_[A-Z_]+\b(?!=)", told), (line, told)


def test_a_router_that_was_exchanged_is_explained_too(machine, app):
    machine.run("slotctl router upgrade")
    assert "Subject: The router was exchanged for a new instance" in machine.out("journalctl --no-pager -x -q -u slotd")
