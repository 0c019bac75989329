"""The package, the units that it brings and those that are generated, on a real systemd."""

import json
import re

import pytest
from apps import place, register
from machine import HERE, Failed

NOTIFY = """
name = "web"
command = "./server --motto '100% $MOTTO'"
ready = "notify"
health = "/healthz"
stop_timeout = "2s"
env_file = "/etc/slot/web.env"

[env]
MOTTO = "from the settings"
LANG = "C.UTF-8"

[ports]
blue = 20001
green = { port = 20002, internal = 20003 }
"""


@pytest.fixture(scope="module", autouse=True)
def apps(machine):
    machine.write("/etc/slot/web.env", "# for every release\nMOTTO='from the file'\nPORT=1\n")
    register(machine, "web", NOTIFY)
    register(machine, "sock", 'name = "sock"\ncommand = "./server"\nbind = "unix"\nready = "notify"\n')
    register(machine, "inherit", 'name = "inherit"\ncommand = "./server"\nbind = "fd"\nready = "notify"\n')
    register(machine, "pages", 'name = "pages"\ncommand = "./start"\n[ports]\nblue = 20011\ngreen = 20012\n')
    # One worker: gunicorn loses the SIGTERM of one that is not up yet when another answers already, and waits for it.
    register(
        machine, "wsgi",
        'name = "wsgi"\ncommand = "gunicorn --bind 127.0.0.1:$PORT --workers 1 app:app"\nready = "notify"\n'
        "[ports]\nblue = 20021\ngreen = 20022\n",
    )  # fmt: skip


def environment(machine, url):
    return machine.json(f"curl -sS --fail {url}/env")


def start_as_slot(machine, unit, verb="StartUnit"):
    """As slotd does it: over the bus, as its user."""
    manager = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    return machine.run(f"busctl call {manager} {verb} ss {unit} replace", user="slot", check=False)


def test_the_package_enables_and_starts_nothing(machine):
    for unit in ("slot-router.socket", "slotd.socket", "slotd.service"):
        assert machine.run(f"systemctl is-enabled {unit}", check=False).stdout.strip() == "disabled"
        assert machine.run(f"systemctl is-active {unit}", check=False).stdout.strip() == "inactive"


def test_systemd_finds_nothing_wrong_with_any_unit(machine):
    installed = machine.out("ls -d /usr/lib/systemd/system/slot*.*[!d]").split()
    # Without the sockets that are masked, which are empty.
    made = machine.out("find /run/systemd/generator -maxdepth 1 -type f -size +0 -name '*@.*[!d]'").split()
    assert (len(installed), len(made)) == (14, 6)
    checked = machine.run(["systemd-analyze", "verify", "--man=no", *installed, *made], check=False)
    assert (checked.stderr, checked.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("unit", "most"),
    [
        ("slot-router@1.service", 1.5),
        ("slotd.service", 1.5),
        ("web@blue.service", 4.0),
        ("slot-setup@web.service", 4.0),
        ("slot-fetch@web.service", 4.0),
        ("slot-stage@web.service", 4.0),
        ("slot-hook@web.service", 4.0),
        ("slot-notify@web.service", 2.5),
        ("slot-watch@web.service", 2.5),
    ],
)
def test_each_sandbox_leaves_little_exposed(machine, unit, most):
    overall = machine.run(["systemd-analyze", "security", "--no-pager", unit], check=False).stdout
    exposure = float(re.search(r"Overall exposure level for .*: ([0-9.]+)", overall)[1])
    assert exposure <= most, overall


def test_a_slot_runs_its_release_as_a_user_of_its_own(machine):
    place(machine, "web", "blue", "notify", "one")
    machine.run("systemctl start web@blue")
    assert machine.out("curl -sS http://127.0.0.1:20001/") == "release one"
    shown = machine.show("web@blue", "SourcePath", "MainPID", "UnitFileState", "NeedDaemonReload", "StatusText", "Slice")
    pid = shown.pop("MainPID")
    assert shown == {
        "SourcePath": "/etc/slot/apps/web.toml",
        "UnitFileState": "generated",
        "NeedDaemonReload": "no",
        "StatusText": "serving release one",
        "Slice": "slot.slice",
    }
    assert machine.out(f"ps -o user:20= -p {pid}").strip() == "slot-app-web"
    facts = environment(machine, "http://127.0.0.1:20001")
    assert facts["pid"] == int(pid), "the launcher has become the app"
    assert facts["cwd"] == "/var/lib/slot/web/releases/0123abcd"
    assert facts["argv"] == ["/var/lib/slot/web/releases/0123abcd/server", "--motto", "100% from the file"]
    told = {name: value for name, value in facts["env"].items() if name.startswith("SLOT_") or name.endswith("PORT")}
    assert told == {
        "SLOT_MACHINE": "1",
        "SLOT_APP": "web",
        "SLOT_NAME": "blue",
        "SLOT_RELEASE": "0123abcd",
        "PORT": "20001",
        "INTERNAL_PORT": "20001",
    }
    assert facts["env"]["STATE_DIRECTORY"] == "/var/lib/slot-app/web"
    lines = machine.out("journalctl -o json SLOT_APP=web SLOT_NAME=blue _COMM=server").splitlines()
    assert any(json.loads(line)["MESSAGE"] == "release one starts" for line in lines)


def test_both_slots_run_at_once_and_each_has_its_ports(machine):
    place(machine, "web", "blue", "notify", "one")
    place(machine, "web", "green", "notify", "two", release="4567cdef")
    machine.run("systemctl start web@blue web@green")
    assert machine.out("curl -sS http://127.0.0.1:20001/ http://127.0.0.1:20002/") == "release one\nrelease two"
    facts = environment(machine, "http://127.0.0.1:20002")
    assert (facts["env"]["PORT"], facts["env"]["INTERNAL_PORT"]) == ("20002", "20003")
    machine.run("systemctl stop web@green")
    assert machine.out("curl -sS http://127.0.0.1:20001/") == "release one"


def test_an_app_sees_no_other_apps_releases_and_can_write_only_its_own_data(machine):
    place(machine, "web", "blue", "notify", "one")
    machine.run("systemctl start web@blue")
    pid = machine.show("web@blue", "MainPID")["MainPID"]
    inside = f"nsenter -t {pid} -m -S $(id -u slot-app-web) -G $(id -g slot-app-web) --"
    assert machine.out(f"{inside} ls /var/lib/slot") == "web"
    for path in ("/var/lib/slot/web/x", "/etc/x", "/run/slot/x", "/usr/x"):
        assert machine.run(f"{inside} touch {path}", check=False).returncode != 0, path
    machine.run(f"{inside} touch /var/lib/slot-app/web/x")
    assert machine.out("stat -Lc %A /var/lib/private/slot-app/web").startswith("drwxr-x---")


def test_a_unix_socket_is_for_the_routers_group(machine):
    place(machine, "sock", "blue", "notify", "one")
    machine.run("systemctl start sock@blue")
    path = "/run/slot/sock/blue/http.sock"
    assert machine.out(f"stat -c '%G %A' {path}") == "slot-upstream srwxrwx---"
    assert machine.out(f"curl -sS --unix-socket {path} http://x/") == "release one"
    as_router = f"systemd-run --wait --pipe -q -p DynamicUser=yes -p SupplementaryGroups=slot-upstream -p PrivateNetwork=yes -p PrivateUsers=yes curl -sS --unix-socket {path} http://x/"
    assert machine.out(as_router) == "release one"
    assert machine.run(f"curl -sS --unix-socket {path} http://x/", user="www-data", check=False).returncode != 0
    machine.run("systemctl stop sock@blue")
    assert machine.run("test -e /run/slot/sock/blue", check=False).returncode != 0
    assert machine.out("stat -c '%U %a' /run/slot") == "root 755"


def test_an_app_reaches_no_other_apps_socket(machine):
    # Each with the group that all of them have.
    register(machine, "near", 'name = "near"\ncommand = "./server"\nbind = "unix"\nready = "notify"\n')
    for app, slot in (("near", "blue"), ("sock", "blue"), ("sock", "green"), ("inherit", "blue")):
        place(machine, app, slot, "notify", "one")
        machine.run(f"systemctl start {app}@{slot}")
    pid = machine.show("near@blue", "MainPID")["MainPID"]
    inside = f"nsenter -t {pid} -m -S $(id -u slot-app-near) -G $(getent group slot-upstream | cut -d: -f3) --"
    ask = f"{inside} curl -sS --unix-socket /run/slot/{{}}/http.sock http://x/"
    assert machine.out(ask.format("near/blue")) == "release one"
    assert machine.out(f"{inside} ls /run/slot") == "near"
    for other in ("sock/blue", "sock/green", "inherit/blue"):
        assert machine.out(f"curl -sS --unix-socket /run/slot/{other}/http.sock http://x/") == "release one"
        assert machine.run(ask.format(other), check=False).returncode != 0, other
    machine.run("systemctl stop inherit@blue.socket && systemctl stop near@blue sock@blue sock@green inherit@blue.service")


def test_an_inherited_socket_keeps_the_queue_while_the_app_restarts(machine):
    place(machine, "inherit", "green", "notify", "one")
    machine.run("systemctl start inherit@green")
    path = "/run/slot/inherit/green/http.sock"
    assert machine.out(f"stat -c '%U %G %a' {path}") == "root slot-upstream 660"
    facts = machine.json(f"curl -sS --fail --unix-socket {path} http://x/env")
    assert facts["env"]["LISTEN_PID"] == str(facts["pid"])
    assert facts["env"]["LISTEN_FDNAMES"] == "http"
    machine.run(f"kill -9 {facts['pid']}")
    assert machine.out(f"curl -sS --unix-socket {path} http://x/") == "release one"
    machine.run("systemctl stop inherit@green.socket && systemctl stop inherit@green.service")
    assert machine.show("inherit@green", "ActiveState") == {"ActiveState": "inactive"}


@pytest.mark.parametrize(("app", "kind", "port"), [("pages", "nginx", 20011), ("wsgi", "gunicorn", 20021)])
def test_apps_that_know_nothing_of_slot_run_in_the_sandbox(machine, app, kind, port):
    place(machine, app, "blue", kind, "one")
    machine.run(f"systemctl start {app}@blue")
    machine.wait_for(f"curl -sS --fail http://127.0.0.1:{port}/")
    assert machine.out(f"curl -sS http://127.0.0.1:{port}/") == "release one"
    machine.run(f"systemctl stop {app}@blue")
    assert machine.show(f"{app}@blue", "Result", "ActiveState") == {"Result": "success", "ActiveState": "inactive"}


def test_an_app_that_ignores_sigterm_is_killed_after_its_stop_timeout(machine):
    place(machine, "web", "green", "notify", "stubborn", release="89abcdef", faults="ignore-sigterm")
    machine.run("systemctl start web@green")
    machine.run("systemctl stop web@green")
    assert machine.show("web@green", "Result") == {"Result": "timeout"}
    machine.run("systemctl reset-failed web@green")


def test_a_slot_without_a_release_does_not_start(machine):
    machine.run("rm -f /var/lib/slot/pages/green")
    assert machine.run("systemctl start pages@green", check=False).returncode != 0
    machine.run("ln -sfnT releases/gone /var/lib/slot/pages/green")
    assert machine.run("systemctl start pages@green", check=False).returncode != 0


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ("rm releases/bad0bad0/server", "203", "the release has no such file"),
        ("chmod -x releases/bad0bad0/server", "203", "make it executable"),
        ("sed -i '1s/python3/python9/' releases/bad0bad0/server", "203", "not the interpreter"),
        ("echo 'MOTTO' > /etc/slot/web.env", "78", "/etc/slot/web.env:1: there is no ="),
    ],
)
def test_a_launch_that_cannot_be_says_why(machine, change, status, says):
    place(machine, "web", "green", "notify", "bad", release="bad0bad0")
    before = machine.out("cat /etc/slot/web.env")
    machine.run(f"cd /var/lib/slot/web && {change}")
    assert machine.run("systemctl start web@green", check=False).returncode != 0
    machine.run("systemctl stop web@green && journalctl --sync")
    lines = machine.out("journalctl -o cat -n 20 -u web@green SYSLOG_IDENTIFIER=web@green")
    assert says in lines, lines
    assert f"status={status}/" in machine.out("journalctl -o cat -n 20 -u web@green _PID=1")
    machine.write("/etc/slot/web.env", before + "\n")
    machine.run("systemctl reset-failed web@green; rm -r /var/lib/slot/web/releases/bad0bad0")


def test_slotd_may_start_and_stop_exactly_the_units_of_the_rules(machine):
    place(machine, "web", "blue", "notify", "one")
    machine.run("systemctl stop web@blue")
    denied = start_as_slot(machine, "web@blue.service")
    assert denied.returncode != 0, "there is no rule yet"
    rule = HERE.parent / "generator/web.units/60-slot-app-web.rules"
    machine.write("/etc/polkit-1/rules.d/60-slot-app-web.rules", rule.read_text())
    manager = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    machine.wait_for(f"busctl call {manager} StartUnit ss web@blue.service replace", user="slot")
    machine.wait_for("systemctl is-active web@blue")
    done = start_as_slot(machine, "web@blue.service", "StopUnit")
    assert done.returncode == 0, done.stderr
    reset = machine.run(f"busctl call {manager} ResetFailedUnit s web@blue.service", user="slot", check=False)
    assert reset.returncode == 0 or "not loaded" in reset.stderr, reset.stderr
    others = "web@red sock@blue slot-launch@web slot-setup@-x slot-fetch@ slotd slot-router@100".split()
    for unit in (*(f"{other}.service" for other in others), "rescue.target"):
        assert start_as_slot(machine, unit).returncode != 0, unit
    for call in (
        "RestartUnit ss web@blue.service replace",
        "KillUnit ssi web@blue.service all 9",
        "ReloadUnit ss web@blue.service replace",
        "StopUnit ss slot-router.socket replace",
        "SetUnitProperties sba\\(sv\\) web@blue.service true 0",
        "EnableUnitFiles asbb 1 web@blue.service true false",
        "Reload",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) web@blue.service replace 0 0",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) web@red.service replace 0 0",
        # The templates of the package stand for these, which are in its rule.
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) slot-setup@web.service replace 0 0",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) slot-fetch@web.service replace 0 0",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) slot-stage@web.service replace 0 0",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) slot-hook@web.service replace 0 0",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) slot-notify@web.service replace 0 0",
        # Masked, but one of the rule's.
        "StartUnit ss web@blue.socket replace",
        "StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) web@blue.socket replace 0 0",
    ):
        assert machine.run(f"busctl call {manager} {call}", user="slot", check=False).returncode != 0, call
    assert start_as_slot(machine, "slot-router@3.service", "StopUnit").returncode == 0
    nobody = machine.run(f"busctl call {manager} StartUnit ss web@blue.service replace", user="www-data", check=False)
    assert nobody.returncode != 0


def test_a_file_that_is_broken_later_frees_no_name_and_stops_nothing(machine):
    register(machine, "later", 'name = "later"\ncommand = "./server"\nready = "notify"\n[ports]\nblue = 20031\ngreen = 20032\n')
    place(machine, "later", "blue", "notify", "one")
    machine.run("systemctl start later@blue")
    machine.write("/etc/slot/apps/later.toml", 'name = "later"\ncomand = "./server"\n')
    machine.run("systemctl daemon-reload")
    assert machine.out("curl -sS http://127.0.0.1:20031/") == "release one"
    shown = machine.show("later@green.service", "LoadState", "Description")
    assert shown["LoadState"] == "loaded"
    assert "whose file is wrong (/etc/slot/apps/later.toml)" in shown["Description"]
    assert machine.show("later@green.socket", "LoadState") == {"LoadState": "masked"}
    assert "unknown key `comand`" in machine.out("systemctl cat later@.service")
    machine.wait_for("journalctl -b -o cat | grep -q 'slot-generator failed with exit status 1'")
    with pytest.raises(Failed):
        machine.run("systemctl start later@green")
    machine.run("systemctl stop later@blue; rm /etc/slot/apps/later.toml; systemctl daemon-reload")
