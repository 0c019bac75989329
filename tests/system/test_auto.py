"""Automatic deployments on real units: a file that is dropped, a branch that moves; holds, failures and reboots."""

import json

import pytest
from apps import make
from machine import Machine
from slots import QUICK, App, answers_only
from test_faults_killed import kill

REMOTE = "/srv/git/shop.git"
WORK = "/srv/git/work"


class Auto(App):
    def live(self, marker, *, timeout=60):
        """Waits until what answers `release MARKER` serves, and nothing is under way."""
        self.machine.wait_for(f"curl -sS http://127.0.0.1/ -H 'Host: {self.name}.test' | grep -qx 'release {marker}'", timeout=timeout)
        return self.wait_until(lambda status: status["state"] == "idle")

    def said(self, words, *, timeout=60):
        """Waits until the watcher has said something."""
        self.machine.wait_for(f"journalctl -b -q -o cat -u slot-watch@{self.name} | grep -qF -- '{words}'", timeout=timeout)


def dropping(machine):
    machine.run("useradd --system ci && install -d -o ci /srv/drop /srv/drop/new")
    return Auto(
        machine,
        "web",
        QUICK + 'bind = "unix"\nhosts = ["web.test"]\n[auto]\nwatch = "path"\npath = "/srv/drop"\nevery = "5s"\nuser = "ci"\n',
        kind="notify",
    )


@pytest.fixture(scope="module")
def dropped(machine):
    return dropping(machine)


def drop(app, marker, *, faults="", rename=True):
    """What CI does: an archive, written elsewhere and renamed, or copied into place."""
    directory = make(app.machine, "notify", marker, faults=faults, directory=f"/srv/made/{marker}")
    if rename:
        app.machine.run(f"tar cf /srv/drop/new/{marker}.tar -C {directory} . && mv /srv/drop/new/{marker}.tar /srv/drop/")
    else:
        app.machine.run(
            f"tar cf /srv/made/{marker}.tar -C {directory} . && cd /srv/drop && head -c 3000 /srv/made/{marker}.tar >{marker}.tar && "
            f"sleep 1 && cat /srv/made/{marker}.tar >{marker}.tar"
        )


def test_what_is_dropped_is_deployed_by_a_unit_of_the_named_user(machine, dropped):
    drop(dropped, "one")
    dropped.live("one")
    shown = machine.show("slot-watch@web.service", "Result", "User", "Group", "SupplementaryGroups")
    assert shown == {"Result": "success", "User": "ci", "Group": "slot", "SupplementaryGroups": ""}
    assert machine.show("slot-watch@web.timer", "ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "generated"}
    assert machine.show("slot-watch@web.path", "ActiveState")["ActiveState"] == "active"
    assert machine.out("journalctl -b -q -o cat SLOT_APP=web SLOT_NAME=watch | grep -c 'deploys /srv/drop/one.tar'") == "1"
    drop(dropped, "two", rename=False)
    dropped.live("two")


def test_what_failed_is_not_tried_again_over_restarts_until_it_changes(machine, dropped):
    drop(dropped, "broken", faults="exit")
    dropped.said("broken.tar is not deployed again")
    generation = dropped.status()["generation"]
    kill(machine)
    machine.run("systemctl restart slot-watch@web.timer slot-watch@web.path && systemctl start slot-watch@web.service")
    status = dropped.status()
    assert (status["generation"], status["last"]["success"]) == (generation, False)
    drop(dropped, "mended")
    dropped.live("mended")


def test_a_hold_stops_it_and_nobody_else(machine, dropped):
    dropped.slotctl("hold --reason 'a freeze'")
    generation = dropped.status()["generation"]
    drop(dropped, "held")
    dropped.said("is not deployed: automatic deployments are on hold by root")
    asked = machine.run(
        "curl -sS --unix-socket /run/slot/slotd.sock -X POST -d '' 'http://slotd/apps/web/deploy?auto=true&origin=archive'", check=False
    )
    assert json.loads(asked.stdout)["code"] == "held", asked.stdout
    assert dropped.status()["generation"] == generation
    assert dropped.status()["hold"]["reason"] == "a freeze"
    machine.run("systemctl restart slotd && systemctl start slot-watch@web.service")
    assert dropped.status()["generation"] == generation
    assert dropped.deploy("by-hand")["success"]
    dropped.live("by-hand")
    dropped.slotctl("unhold")
    dropped.live("held")


def by_a_person(app, marker):
    """What is dropped while the watch is held, and deployed by a person."""
    app.slotctl("hold")
    drop(app, marker)
    outcome = app.slotctl(f"deploy /srv/made/{marker} --wait=stopped")
    assert outcome["success"], outcome
    return outcome["release"]


def test_what_a_person_has_deployed_is_not_started_anew(machine, dropped):
    release = by_a_person(dropped, "same")
    before = dropped.status()
    dropped.slotctl("unhold")
    dropped.said("/srv/drop/same.tar: already-live")
    status = dropped.wait_until(lambda status: status["state"] == "idle")
    assert (status["generation"], status["live"]) == (before["generation"] + 1, release)
    assert (status["last"]["success"], status["last"]["cause"], status["last"]["release"]) == (True, "already-live", release)
    assert dropped.slot(before["active"])["boot_id"] == before["standing"]["active"]["boot_id"]
    machine.run("systemctl start slot-watch@web.service")
    assert dropped.status()["generation"] == status["generation"]


def test_what_a_person_has_deployed_and_gone_back_from_does_not_come_back(machine, dropped):
    release = by_a_person(dropped, "gone-back")
    back = dropped.slotctl("rollback --wait=stopped")
    dropped.slotctl("unhold")
    dropped.said("/srv/drop/gone-back.tar: left")
    status = dropped.wait_until(lambda status: status["state"] == "idle")
    assert (status["generation"], status["live"]) == (back["generation"] + 1, back["release"])
    assert (status["last"]["cause"], status["last"]["release"]) == ("left", release)
    dropped.said("gone-back.tar was live, and release")
    assert machine.show("slot-watch@web.service", "Result")["Result"] == "success"
    machine.run("systemctl start slot-watch@web.service")
    assert dropped.status()["generation"] == status["generation"]
    drop(dropped, "next")
    dropped.live("next")


def test_a_watch_begins_and_ends_with_a_reload_whoever_had_systemd_read_the_file_before(machine, dropped):
    file = "/etc/slot/apps/web.toml"
    kept = machine.out(f"cat {file}") + "\n"

    def watched(state):
        return machine.run(f"systemctl list-units --plain --no-legend --state={state} 'slot-watch@web.timer' 'slot-watch@web.path'").stdout.count("slot-watch@web.")

    assert watched("active") == 2
    machine.write(file, kept.partition("[auto]")[0])
    machine.run("systemctl daemon-reload && slotctl app reload web")
    assert watched("active") == 0
    machine.write(file, kept)
    machine.run("systemctl daemon-reload")
    assert watched("active") == 0, "systemd starts none by that"
    machine.run("slotctl app reload web")
    assert watched("active") == 2
    # One that goes on as its file says is left alone.
    before = machine.show("slot-watch@web.timer", "InvocationID")
    machine.run("slotctl app reload web")
    assert machine.show("slot-watch@web.timer", "InvocationID") == before


def test_a_machine_that_was_rebooted_watches_and_remembers():
    with Machine(kept=True) as machine:
        machine.install()
        app = dropping(machine)
        drop(app, "one")
        app.live("one")
        drop(app, "broken", faults="exit")
        app.said("broken.tar is not deployed again")
        app.slotctl("hold")
        generation = app.status()["generation"]
        machine.reboot()
        machine.wait_for("systemctl is-active slot-watch@web.timer slot-watch@web.path")
        app.live("one")
        machine.run("systemctl start slot-watch@web.service")
        app.slotctl("unhold")
        machine.run("systemctl start slot-watch@web.service")
        assert app.status()["generation"] == generation
        drop(app, "mended")
        app.live("mended")


def test_a_branch_that_moves_is_deployed_and_removal_leaves_no_watcher(machine, dropped):
    machine.run(f"mkdir -p {WORK} && git init -q --bare -b main {REMOTE} && git -C {WORK} init -q -b main")
    machine.run("git config --system safe.directory '*'")

    def push(marker, faults=""):
        make(machine, "notify", marker, faults=faults, directory=f"/srv/made/git-{marker}")
        machine.run(
            f"cp -a /srv/made/git-{marker}/. {WORK}/ && cd {WORK} && git add -A && git -c user.name=a -c user.email=a@b commit -qm {marker} && "
            f"git push -q {REMOTE} main && chmod -R a+rX {REMOTE}"
        )
        return machine.out(f"git -C {WORK} rev-parse HEAD")

    one = push("git-one")
    app = Auto(
        machine,
        "shop",
        QUICK + f'bind = "unix"\nhosts = ["shop.test"]\n[git]\nremote = "file://{REMOTE}"\nbranch = "main"\n'
        '[auto]\nwatch = "git"\nevery = "5s"\n',
        kind="notify",
    )
    status = app.live("git-one")
    assert status["live"] == one[:8]
    two = push("git-two")
    assert app.live("git-two")["live"] == two[:8]
    assert machine.show("slot-watch@shop.service", "User")["User"] == "slot-wch-shop"
    bad = push("git-bad", faults="exit")
    app.said(f"commit {bad[:8]} is not deployed again")
    generation = app.status()["generation"]
    machine.run("systemctl start slot-watch@shop.service")
    assert app.status()["generation"] == generation
    app.slotctl("app remove shop --purge --now")
    loaded = machine.out("systemctl list-units --all --plain --no-legend 'slot-watch@shop.*'")
    assert "active" not in loaded.split(), loaded
    assert machine.run("ls /var/lib/private/slot-watch/shop", check=False).returncode != 0
