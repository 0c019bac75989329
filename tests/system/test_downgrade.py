"""A downgrade to the last package whose slotd knows less of the state's format than this one (tests/older makes it), and back; an upgrade
from it."""

import json

import pytest
from machine import PACKAGES, Machine
from slots import QUICK, App, answers_only
from versions import OURS, install, of_systemd

OLDER = "/packages/older/slotctl_*.deb"
MISSING = "there is no older package: run tests/older"
STATE = "/var/lib/slot/web/state.json"


@pytest.fixture
def app(fresh):
    assert list(PACKAGES.glob("older/*.deb")), MISSING
    app = App(fresh, "web", QUICK)
    app.deploy("one")
    app.deploy("two", "--wait=stopped")
    return app


def load_of(machine):
    return machine.load("127.0.0.1:80", "--connections", "16", "--pause-ms", "10")


def fails_nothing(load):
    result = load.stop()
    assert (result["failed"], result["failures"]) == (0, {}), result


def units_of(machine, *apps):
    """As all upgrades leave them. The older package has no slot-inet.socket."""
    return of_systemd(machine, *apps, but=("slot-inet.socket",))


def facts(app):
    return {key: app.status()[key] for key in ("generation", "active", "live", "prev", "serving")}


def version_of(machine):
    state = json.loads(machine.out(f"cat {STATE}"))
    return state["version"], state["readable_from"]


def test_an_older_slotd_goes_on_from_a_state_in_which_nothing_is_new_to_it(fresh, app):
    machine = fresh
    before, units = facts(app), units_of(machine, "web")
    assert version_of(machine) == (1, 1)
    with load_of(machine) as load:
        install(machine, OLDER)
        assert facts(app) == before
        assert units_of(machine, "web") == units
        answers_only(load, "two")
        assert app.slotctl("rollback")["success"]
        answers_only(load, "one")
        assert app.deploy("three")["success"]
        answers_only(load, "three")
        after = facts(app)
        install(machine, OURS)
        assert facts(app) == after
        assert app.deploy("four")["success"]
        answers_only(load, "four")
        fails_nothing(load)


def test_an_older_slotd_leaves_alone_what_it_cannot_read_and_this_one_goes_on_with_it(fresh, app):
    machine = fresh
    candidate = app.deploy("three", "--weight 50")
    assert candidate["cause"] == "trial", candidate
    assert version_of(machine) == (2, 2)
    state, units = machine.out(f"sha256sum {STATE}"), units_of(machine, "web")
    with load_of(machine) as load:
        install(machine, OLDER)
        refused = machine.run("cd /srv/web && slotctl status", check=False)
        assert refused.returncode != 0
        assert "it needs a slotd that reads format 2, this one reads 1: install the newer package again" in refused.stderr, refused
        load.mark("older")
        machine.wait_for("curl -sS -m 10 http://127.0.0.1/ | grep -q three")
        machine.wait_for("curl -sS -m 10 http://127.0.0.1/ | grep -q two")
        assert (machine.out(f"sha256sum {STATE}"), units_of(machine, "web")) == (state, units)
        install(machine, OURS)
        weights = {slot["slot"]: slot["weight"] for slot in app.status()["slots"]}
        assert weights == {"blue": 50, "green": 50}
        assert units_of(machine, "web") == units
        assert app.slotctl("promote")["success"]
        answers_only(load, "three")
        fails_nothing(load)
    assert version_of(machine) == (1, 1)


def rule(machine, app):
    return machine.out(f"cat /etc/polkit-1/rules.d/60-slot-app-{app}.rules")


def test_what_an_older_slotctl_wrote_for_apps_is_renewed_and_what_cannot_be_is_named():
    assert list(PACKAGES.glob("older/*.deb")), MISSING
    with Machine() as machine:
        install(machine, OLDER)
        web = App(machine, "web", QUICK)
        shop = App(machine, "shop", QUICK + 'hosts = ["shop.test"]\n')
        web.deploy("one")
        shop.deploy("one")
        assert '"restart"' in rule(machine, "web")
        wrong = rule(machine, "shop")
        machine.run("echo 'nonsense = 1' >>/etc/slot/apps/shop.toml")
        before = units_of(machine, "web", "shop")
        with load_of(machine) as load:
            said = install(machine, OURS)
            answers_only(load, "one")
            fails_nothing(load)
        assert units_of(machine, "web", "shop") == before
        assert machine.out("dpkg-query -Wf '${db:Status-Status}' slotctl") == "installed"
        assert '"restart"' not in rule(machine, "web")
        kept = "60-slot-app-shop.rules stays as it is: /etc/slot/apps/shop.toml is wrong: "
        assert kept in said and said.count(" stays as it is: ") == 1, said
        assert rule(machine, "shop") == wrong
        machine.run("sed -i '/^nonsense/d' /etc/slot/apps/shop.toml && slotctl app reload shop")
        assert '"restart"' not in rule(machine, "shop")
        # It is managed again, which its file did not let slotd do when it was upgraded.
        assert machine.json("slotctl --json app list")["broken"] == {}
        doctor = machine.json("slotctl --json doctor")
        assert doctor["problems"] == 0, doctor
