"""Hooks as units: whom they run as, what they are told, and that a deployment, a rollback and a kill treat them as they should."""

import pytest
from slots import QUICK, App, answers_only
from test_faults_killed import kill

# Each run of a hook is a line in the app's own data; `hold` in there makes it wait, `fail-NAME` makes that hook fail.
SCRIPT = """#!/bin/sh
echo "$SLOT_HOOK $SLOT_GENERATION $SLOT_CAUSE ${SLOT_NAME:--} $SLOT_RELEASE ${SLOT_PREVIOUS:--} $(id -un) $TOKEN ${SLOT_UPSTREAM:--}" \
    >>$STATE_DIRECTORY/ran
echo "hook $SLOT_HOOK of $SLOT_APP"
while [ -e "$STATE_DIRECTORY/hold-$SLOT_HOOK" ]; do sleep 0.05; done
if [ -e "$STATE_DIRECTORY/fail-$SLOT_HOOK" ]; then echo "no luck" >&2; exit 3; fi
"""
HOOKS = "\n[hooks]\n" + "".join(
    f'{hook} = "./hook"\n' for hook in ("before_deploy", "before_switch", "after_switch", "after_rollback")
)
DATA = "/var/lib/slot-app/web"


class Hooked(App):
    def release(self, marker, *, faults=""):
        directory = super().release(marker, faults=faults)
        self.machine.write(f"{directory}/hook", SCRIPT, mode="0755")
        return directory

    def ran(self):
        text = self.machine.run(f"cat {DATA}/ran", check=False).stdout
        return [line.split() for line in text.splitlines()]

    def settled(self):
        """Nothing is due any more."""
        self.wait_until(lambda status: status["state"] == "idle")
        self.machine.wait_for("! grep -q '\"due\"' /var/lib/slot/web/state.json")
        return self.ran()

    def flag(self, name, there=True):
        self.machine.run(f"{'touch' if there else 'rm -f'} {DATA}/{name}")


@pytest.fixture(scope="module")
def app(machine):
    machine.write("/etc/slot/web.env", "TOKEN=hunter2\n", mode="0600")
    app = Hooked(machine, "web", QUICK + 'bind = "unix"\nenv_file = "/etc/slot/web.env"\n' + HOOKS, kind="notify")
    app.deploy("one", "--wait=stopped")
    app.settled()
    return app


def test_each_runs_as_the_app_with_its_data_its_secrets_and_the_facts(machine, app, load):
    one, generation = app.status()["live"], app.status()["generation"]
    owner = machine.out(f"stat -Lc %U:%G {DATA}")
    machine.run(f"rm {DATA}/ran")
    two = app.deploy("two", "--wait=stopped")["release"]
    slot = app.active()
    app.settled()
    app.slotctl("rollback --wait=stopped")
    answers_only(load, "one")
    at = f"unix:/run/slot/web/{slot}/http.sock"
    number, back = str(generation + 1), str(generation + 2)
    who = ["slot-app-web", "hunter2"]
    ran = app.settled()
    assert ran == [
        ["before_deploy", number, "deploy", "-", two, one, *who, "-"],
        ["before_switch", number, "deploy", slot, two, one, *who, at],
        ["after_switch", number, "deploy", slot, two, one, *who, at],
        ["after_rollback", back, "rollback", app.active(), one, two, *who, at.replace(slot, app.active())],
    ]
    assert machine.out(f"stat -Lc %U:%G {DATA}") == owner
    lines = machine.out("journalctl -q -o cat SLOT_APP=web SLOT_NAME=hook SYSLOG_IDENTIFIER=slot-hook@web").splitlines()
    assert lines[-1] == "hook after_rollback of web"
    assert "hunter2" not in machine.out("systemctl cat slot-hook@web")


@pytest.mark.parametrize("hook", ["before_deploy", "before_switch"])
def test_one_that_fails_before_the_switch_ends_the_deployment(machine, app, load, hook):
    live, active = app.status()["live"], app.slot(app.active())
    app.flag(f"fail-{hook}")
    failed = app.deploy(f"failed-{hook}", check=False)
    app.flag(f"fail-{hook}", False)
    assert (failed["exit"], failed["cause"], failed["phase"]) == (1, "hook-failed", hook), failed
    assert "no luck" in failed["report"]["log"], failed
    assert failed["report"]["unit"] == "slot-hook@web.service"
    assert "exited with status 3" in failed["text"]
    assert "no luck" in machine.out(failed["report"]["journal"] + " -o cat")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert status["live"] == live
    assert app.slot(app.active())["boot_id"] == active["boot_id"]
    assert f"SLOT_CAUSE={failed['cause']}" in machine.out("journalctl -u slotd -o export SLOT_CAUSE=hook-failed")
    app.settled()


def test_one_that_fails_after_the_switch_only_warns(machine, app, load):
    app.flag("fail-after_switch")
    app.deploy("warned", "--wait=stopped")
    status = app.wait_until(lambda status: status["warnings"])
    assert "the hook after_switch" in status["warnings"][0] and "exited with status 3" in status["warnings"][0]
    answers_only(load, "warned")
    app.flag("fail-after_switch", False)
    app.deploy("quiet", "--wait=stopped")
    app.settled()
    assert app.status()["warnings"] == []


def test_slotd_killed_under_a_hook_runs_it_again_and_a_rollback_ends_it(machine, app, load):
    machine.run(f"rm -f {DATA}/ran")
    app.flag("hold-before_switch")
    release = app.release("held")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    machine.wait_for(f"grep -q before_switch {DATA}/ran")
    kill(machine)
    machine.wait_for(f"test $(grep -c before_switch {DATA}/ran) -ge 2")
    app.flag("hold-before_switch", False)
    assert '"cause":"switched"' in deploy.communicate(timeout=60)[0]
    answers_only(load, "held")
    app.settled()
    app.flag("hold-before_switch")
    release = app.release("ended")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    app.wait_until(lambda status: (status["deployment"] or {}).get("phase") == "before_switch" if "deployment" in status else False)
    app.slotctl("rollback --wait=stopped")
    assert '"cause":"preempted"' in deploy.communicate(timeout=60)[0]
    machine.wait_for("systemctl show -P ActiveState slot-hook@web | grep -Eqx 'inactive|failed'")
    app.flag("hold-before_switch", False)
    answers_only(load, "quiet")
    app.settled()
