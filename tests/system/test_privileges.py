"""Least privilege: what systemd makes of the sandboxes, what slotd's user may ask of PID 1, and what of its files PID 1 believes."""

import itertools
import re

import pytest
from machine import HERE
from slots import QUICK, App

MANAGER = "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
MASKED = "/etc/systemd/system/slot-router@.service.d/10-loopback.conf"

# The most that `systemd-analyze security` may say: a figure that grows is a privilege that somebody has added.
# What slotd has left is /proc (whose process answers, and which one asks), and the users of those that ask.
FIGURES = {
    "slot-router@1.service": 1.2,
    "slotd.service": 0.8,
    "slot-inet.service": 1.0,
    "web@blue.service": 1.7,
    "slot-setup@web.service": 1.7,
    "slot-fetch@web.service": 1.7,
    "slot-stage@web.service": 1.0,
    "slot-hook@web.service": 1.7,
    "slot-notify@web.service": 1.3,
    "slot-watch@web.service": 0.7,
}
STRICT_ROUTER = 0.3


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + 'hosts = ["web.test"]\nkeep_warm = "10m"\nkeep_warm_frozen = true\n')
    app.deploy("one")
    yield app
    # systemd 257 ends what is frozen only after a minute and a half, when the machine is halted.
    machine.run("systemctl thaw 'web@*.service'")


@pytest.fixture(scope="module")
def bare(machine, app):
    """An app of which nothing is kept, so that a deployment begins with a start."""
    bare = App(machine, "bare", QUICK + 'hosts = ["bare.test"]\n')
    # Both slots have a release.
    for marker in ("one", "two"):
        bare.deploy(marker, "--wait=stopped")
    return bare


@pytest.fixture(autouse=True)
def registered(app):
    """Every test here has an app that serves."""


def ask(machine, call, user="slot"):
    return machine.run(f"runuser -u {user} -- busctl call {call}", check=False)


def exposure(machine, unit):
    table = machine.run(["systemd-analyze", "security", "--no-pager", unit], check=False).stdout
    return float(re.search(r"Overall exposure level for .*: ([0-9.]+)", table)[1]), table


@pytest.mark.parametrize(("unit", "most"), FIGURES.items())
def test_each_sandbox_exposes_no_more_than_its_figure(machine, unit, most):
    figure, table = exposure(machine, unit)
    assert figure <= most, table


def test_a_router_without_loopback_exposes_next_to_nothing(machine):
    machine.run(f"mkdir -p {MASKED.rsplit('/', 1)[0]} && ln -s /dev/null {MASKED} && systemctl daemon-reload")
    figure, table = exposure(machine, "slot-router@1.service")
    machine.run(f"rm {MASKED} && systemctl daemon-reload")
    assert figure <= STRICT_ROUTER, table


def test_an_app_can_be_tightened_as_its_page_says(machine):
    page = (HERE.parent.parent / "man/slot.toml.5").read_text().replace("\\-", "-")
    example = re.search(r"\[Service\]\nMemoryDenyWriteExecute=.*?(?=\n\.)", page, re.S)[0]
    before, _ = exposure(machine, "web@blue.service")
    machine.write("/etc/systemd/system/web@.service.d/tight.conf", example + "\n")
    machine.run("systemctl daemon-reload")
    figure, table = exposure(machine, "web@blue.service")
    machine.run("rm -r /etc/systemd/system/web@.service.d && systemctl daemon-reload")
    assert figure <= 1.0 < before, table


def test_slotd_is_its_own_user_without_capabilities(machine):
    pid = machine.show("slotd.service", "MainPID")["MainPID"]
    status = dict(line.split(":\t", 1) for line in machine.out(f"grep -E ':\t' /proc/{pid}/status").splitlines())
    assert set(status["Uid"].split()) == {machine.out("id -u slot")}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_slotd_has_no_network_and_what_has_one_for_it_is_reached_by_its_user_alone(machine):
    namespace = {
        unit: machine.out(f"readlink /proc/{machine.show(unit, 'MainPID')['MainPID']}/ns/net") for unit in ("slotd.service", "slot-inet.service")
    }
    own = machine.out("readlink /proc/self/ns/net")
    assert namespace["slotd.service"] != own and namespace["slot-inet.service"] == own
    connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/slot/inet.sock')"
    assert machine.run(["runuser", "-u", "slot", "--", "python3", "-c", connect], check=False).returncode == 0
    refused = machine.run(["runuser", "-u", "nobody", "--", "python3", "-c", connect], check=False)
    assert "PermissionError" in refused.stderr, refused.stderr


def test_no_unit_of_slot_runs_as_a_user_that_exists_unless_it_is_told_to(machine):
    units = machine.out("ls /usr/lib/systemd/system | grep -E '^slot-.*@\\.service$'").split()
    assert len(units) >= 7
    for unit in (*(unit.replace("@", "@web") for unit in units), "web@blue.service", "web@green.service"):
        shown = machine.show(unit, "DynamicUser", "User")
        assert shown["DynamicUser"] == "yes", unit
        assert shown["User"].startswith("slot-"), unit
    dynamic = range(61184, 65520)
    blue = machine.show(f"web@{App.active(_of(machine))}.service", "MainPID")["MainPID"]
    assert int(machine.out(f"stat -c %u /proc/{blue}")) in dynamic


def _of(machine):
    app = App.__new__(App)
    app.machine, app.name, app.home = machine, "web", "/srv/web"
    return app


# Where the package's are, as systemd 252 and later name it, and the generator's.
UNITS = ("/lib/systemd/system/", "/usr/lib/systemd/system/", "/run/systemd/generator/")

# Every unit name that a rule lets slotd's user start, at its edges.
PERMITTED = [
    *(f"web@{slot}.{kind}" for slot in ("blue", "green") for kind in ("service", "socket")),
    *(f"slot-router@{number}.service" for number in (1, 2, 99)),
    *(f"slot-{what}@{name}.service" for what in ("setup", "fetch", "stage", "hook", "notify") for name in ("web", "a", "a" + "-" * 21)),
]


@pytest.mark.parametrize("kind", ["StartTransientUnit", "StartAuxiliaryScope"])
def test_no_unit_can_be_made_up_under_any_name(machine, kind):
    payload = "1 ExecStart a\\(sasb\\) 1 /usr/bin/touch 2 /usr/bin/touch /run/made-up false 0"
    others = ["web@red.service", "made-up.service", "made-up.scope", "slot-setup@.service", "slotd.service", "web@.service"]
    for unit in PERMITTED + others:
        if kind == "StartTransientUnit":
            done = ask(machine, f"{MANAGER} StartTransientUnit ssa\\(sv\\)a\\(sa\\(sv\\)\\) {unit} replace {payload}")
        else:
            done = ask(machine, f"{MANAGER} StartAuxiliaryScope sahta\\(sv\\) {unit} 0 0 0")
        assert done.returncode != 0, unit
    assert machine.run("test -e /run/made-up", check=False).returncode != 0


def test_every_name_that_may_be_started_has_an_installed_unit(machine):
    for unit in PERMITTED:
        shown = machine.show(unit, "LoadState", "FragmentPath", "Transient")
        assert shown["LoadState"] in ("loaded", "masked"), unit
        assert shown["LoadState"] == "masked" or shown["FragmentPath"].startswith(UNITS), unit
        assert shown["Transient"] == "no"
    rule = machine.out("cat /etc/polkit-1/rules.d/60-slot-app-web.rules")
    named = set(re.findall(r'"(web@[a-z]+\.[a-z]+)"', rule))
    assert named == set(PERMITTED[:4])


def test_slotds_user_may_do_nothing_else_to_any_unit(machine, app):
    active, idle = f"web@{app.active()}.service", f"web@{app.idle()}.service"
    before = machine.show(active, "InvocationID", "MainPID")
    for call in (
        f"RestartUnit ss {active} replace",
        f"TryRestartUnit ss {active} replace",
        f"ReloadUnit ss {active} replace",
        f"ReloadOrRestartUnit ss {active} replace",
        f"EnqueueUnitJob sss {active} restart replace",
        f"KillUnit ssi {active} all 9",
        f"QueueSignalUnit ssii {active} main 9 0",
        f"CleanUnit sas {idle} 1 state",
        f"SetUnitProperties sba\\(sv\\) {active} true 1 MemoryMax t 1",
        f"SetUnitProperties sba\\(sv\\) {active} true 0",
        f"AttachProcessesToUnit ssau {active} / 1 1",
        f"BindMountUnit sssbb {active} /etc/shadow /srv true false",
        f"RefUnit s {active}",
        f"EnableUnitFiles asbb 1 {active} true false",
        f"DisableUnitFiles asb 1 {active} true",
        f"MaskUnitFiles asbb 1 {active} true true",
        "LinkUnitFiles asbb 1 /var/lib/slot/evil.service true true",
        f"PresetUnitFiles asbb 1 {active} true true",
        f"AddDependencyUnitFiles asssbb 1 {active} multi-user.target Wants true true",
        "SetDefaultTarget sb rescue.target true",
        "SetEnvironment as 1 LD_PRELOAD=/var/lib/slot/evil.so",
        "Reload",
        "Reexecute",
        "PowerOff",
        "ResetFailed",
        # Other units: those of the machine, of slot, of other apps, and of no app.
        *(
            f"{verb}Unit ss {unit} replace"
            for verb in ("Start", "Stop")
            for unit in (
                "slotd.service", "slotd.socket", "slotd-tcp.socket", "slot-router.socket", "slot.slice", "slot-router@0.service",
                "slot-router@100.service", "slot-watch@web.service", "slot-watch@web.timer", "slot-launch@web.service", "web@red.service",
                "web@.service", "other@blue.service", "xweb@blue.service", "web@blue.service.d", "dbus.service", "polkit.service",
                "systemd-journald.service", "rescue.target", "multi-user.target", "debug-shell.service", "console-getty.service",
            )
        ),
        "ResetFailedUnit s dbus.service",
        "FreezeUnit s dbus.service",
        "ThawUnit s dbus.service",
        "FreezeUnit s slot-router@1.service",
    ):  # fmt: skip
        done = ask(machine, f"{MANAGER} {call}")
        assert done.returncode != 0, call
    path = "/org/freedesktop/systemd1/unit/" + active.replace("@", "_40").replace(".", "_2e")
    unit = f"org.freedesktop.systemd1 {path} org.freedesktop.systemd1.Unit"
    for call in ("Restart s replace", "Kill si all 9", "SetProperties ba\\(sv\\) true 0", "Clean as 1 state"):
        assert ask(machine, f"{unit} {call}").returncode != 0, call
    assert machine.show(active, "InvocationID", "MainPID") == before
    assert machine.show("slotd.service", "ActiveState") == {"ActiveState": "active"}


def heed(machine):
    """polkit sees changed rules some time later; a new one has read them."""
    machine.run("systemctl reset-failed polkit; systemctl restart polkit")


def test_the_verbs_of_the_rule_are_those_that_slotd_uses_and_each_is_asked_for_by_that_name(machine, bare):
    rule = "/etc/polkit-1/rules.d/60-slot-app-bare.rules"
    text = machine.out(f"cat {rule}")
    verbs = re.search(r"var verbs = \[(.*)\]", text)[1]
    assert verbs == '"start", "stop", "reset-failed"'
    idle = f"bare@{bare.idle()}.service"
    machine.run(f"systemctl start {idle}")
    # In this order, so that each has something to do.
    calls = {
        f"StartUnit ss {idle} replace": "start",
        f"FreezeUnit s {idle}": "stop",
        f"ThawUnit s {idle}": "start",
        f"ResetFailedUnit s {idle}": "reset-failed",
        f"StopUnit ss {idle} replace": "stop",
    }
    for call, verb in calls.items():
        machine.write(rule, text.replace(f'"{verb}"', '"none"') + "\n")
        heed(machine)
        assert ask(machine, f"{MANAGER} {call}").returncode != 0, call
        machine.write(rule, text + "\n")
        heed(machine)
        assert ask(machine, f"{MANAGER} {call}").returncode == 0, call
    for user, call in itertools.product(("www-data", "nobody"), calls):
        assert ask(machine, f"{MANAGER} {call}", user).returncode != 0
    machine.wait_for(f"systemctl show -p ActiveState {idle} | grep -q inactive")


def test_nothing_that_slotds_user_can_write_is_read_by_pid_1(machine, app):
    # As root: every path that units, generator, polkit, bus, sysusers and tmpfiles go by. As slot: whether it, or a directory above it, could be
    # replaced. What is mounted is looked at too: PID 1's child follows the path.
    collected = machine.json(["python3", "/tests/believed.py", "collect"])
    assert len(collected) > 40, collected
    assert any(path.endswith("systemd/system/slotd.service") for path in collected), collected
    for expected in ("/etc/slot/apps/web.toml", "/etc/slot/api-tokens", "/usr/lib/tmpfiles.d/slot.conf", "/var/lib/slot/web"):
        assert expected in collected, collected
    replaceable = machine.json("runuser -u slot -- python3 /tests/believed.py replaceable", input="\n".join(collected))
    assert replaceable == []
    # The test sees what can be: slotd's own.
    own = machine.json("runuser -u slot -- python3 /tests/believed.py replaceable", input="/run/slot/slotd/table.json\n/var/lib/slot/web/state.json")
    assert own == ["/run/slot/slotd/table.json", "/var/lib/slot/web/state.json"]


def test_the_rules_go_before_the_units(machine):
    files = machine.out("cat /var/lib/dpkg/info/slotctl.list").splitlines()
    # dpkg removes what it lists from the end.
    rule = files.index("/usr/share/polkit-1/rules.d/60-slot.rules")
    templates = [at for at, path in enumerate(files) if re.search(r"/slot-[a-z]+@\.service$", path)]
    assert len(templates) >= 7
    assert all(at < rule for at in templates), files
    # And an app's before either: prerm has done with it before dpkg begins.
    prerm = machine.out("cat /var/lib/dpkg/info/slotctl.prerm")
    assert prerm.index("60-slot-app-") < prerm.index("systemctl stop")


# Where rules and units are: those of apps, and the package's.
WHERE_RULES_ARE = ("/etc/polkit-1/rules.d", "/usr/share/polkit-1/rules.d")
WHERE_UNITS_ARE = ("/run/systemd/generator", "/usr/lib/systemd/system")


def removed(machine, command):
    """The rules and the units of slot that went while a command ran, each list with the places in the order of all."""
    looking = machine.spawn(["python3", "/tests/removed.py", *WHERE_RULES_ARE, *WHERE_UNITS_ARE])
    assert looking.stdout.readline() == "looking\n"
    machine.run(command, timeout=120)
    gone = list(enumerate(looking.communicate(timeout=30)[0].splitlines()))
    rules = {name: at for at, name in gone if name.startswith("60-slot")}
    # The first time counts: systemd makes those of apps anew whenever it reads units.
    units = {name: at for at, name in reversed(gone) if re.match(r"(web|shop)@|slot-[a-z]+@\.service$", name)}
    return rules, units


def test_a_rule_has_gone_when_the_first_of_its_units_goes(fresh):
    for name in ("web", "shop"):
        App(fresh, name, f'{QUICK}hosts = ["{name}.test"]\n').deploy("one")
    rules, units = removed(fresh, "slotctl app remove web --now")
    assert set(rules) == {"60-slot-app-web.rules"}, rules
    assert "web@.service" in units and rules["60-slot-app-web.rules"] < min(units.values()), units
    rules, units = removed(fresh, "dpkg -r slotctl")
    assert set(rules) == {"60-slot-app-shop.rules", "60-slot.rules"}, rules
    assert {"shop@.service", "slot-router@.service", "slot-setup@.service"} <= set(units), units
    assert max(rules.values()) < min(units.values()), (rules, units)


def deploy_fails(app, marker):
    failed = app.deploy(marker, check=False)
    assert failed["exit"] == 1, failed
    return str(failed)


def test_a_machine_without_the_apps_rule_says_so_and_what_to_do(machine, bare):
    rule = "/etc/polkit-1/rules.d/60-slot-app-bare.rules"
    before = machine.out(f"cat {rule}")
    machine.run(f"rm {rule}")
    heed(machine)
    said = deploy_fails(bare, "ruleless")
    remedy = "slotctl app reload bare"
    assert "no polkit rule lets this user do it" in said and f"`{remedy}`" in said and rule in said, said
    machine.run(remedy)
    heed(machine)
    assert machine.out(f"cat {rule}") == before
    bare.deploy("ruled", "--wait=stopped")


def test_a_machine_without_the_packages_rule_says_so_and_what_to_do(machine, app):
    rule = "/usr/share/polkit-1/rules.d/60-slot.rules"
    # A router, which the first connection starts.
    machine.run("curl -sS -m 10 -o /dev/null http://127.0.0.1/")
    machine.run(f"mv {rule} /run/kept.rules")
    heed(machine)
    refused = machine.run("slotctl router upgrade", check=False)
    machine.run(f"mv /run/kept.rules {rule}")
    heed(machine)
    said = refused.stderr
    assert refused.returncode != 0 and "no polkit rule lets this user do it; reinstall the package" in said and rule in said, said


def test_a_machine_without_polkit_says_so_and_what_to_do(machine, bare):
    service = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service"
    machine.run(f"mv {service} /run/kept.service && systemctl mask --runtime --now polkit && systemctl reload dbus")
    said = deploy_fails(bare, "unasked")
    machine.run(f"mv /run/kept.service {service} && systemctl unmask --runtime polkit && systemctl reload dbus")
    assert "polkit is not installed" in said, said
    assert "apt install polkitd" in said
    bare.deploy("asked", "--wait=stopped")


def test_a_machine_without_the_buss_policy_says_so_and_what_to_do(machine, app):
    policy = "/usr/share/dbus-1/system.d/slot.conf"
    machine.run(f"mv {policy} /run/kept.conf && systemctl reload dbus")
    app.deploy("unfrozen")
    status = app.wait_until(lambda status: any("cannot be frozen" in warning for warning in status["warnings"]))
    machine.run(f"mv /run/kept.conf {policy} && systemctl reload dbus")
    said = str(status["warnings"])
    assert "the bus does not let this user ask for it; reinstall the package" in said, said
    assert policy in said
    app.wait_until(lambda status: not any("cannot be frozen" in warning for warning in status["warnings"]))


def test_whoever_is_not_let_in_reaches_no_control_socket_and_no_state(machine):
    # As the user of a router, with its groups, and as one who is nobody.
    router = "systemd-run --quiet --wait --pipe -p DynamicUser=yes -p Group=slot-router-control -p SupplementaryGroups=slot-upstream"
    for command in (
        "curl -sS --fail --unix-socket /run/slot/slotd.sock http://slot/apps",
        "curl -sS --fail --unix-socket /run/slot/slotd.sock -X POST http://slot/apps/web/rollback",
        "cat /var/lib/slot/web/state.json",
        "ls /var/lib/slot/web/releases",
    ):
        assert machine.run(f"{router} {command}", check=False).returncode != 0, command
        assert machine.run(f"runuser -u nobody -- {command}", check=False).returncode != 0, command
    # A router runs from its first request on.
    machine.run("curl -sS -H 'Host: web.test' http://127.0.0.1/")
    control = "curl -sS --unix-socket /run/slot/router/1/control.sock http://slot/"
    assert machine.run(f"runuser -u nobody -- {control}", check=False).returncode != 0
    assert machine.run(control, check=False).returncode == 0, "the test asks where there is something"


def test_a_routers_control_socket_is_for_one_group_and_no_other_of_slots(machine):
    machine.run("curl -sS -H 'Host: web.test' http://127.0.0.1/")
    path = "/run/slot/router/1/control.sock"
    assert machine.out(f"stat -c '%F %G %a' {path}") == "socket slot-router-control 660"

    def asks(group):
        who = f"setpriv --reuid=nobody --regid=nogroup --groups={group}"
        return machine.run(f"{who} curl -sS --fail --unix-socket {path} http://slot/stats", check=False)

    assert asks("slot-router-control").returncode == 0
    for group in ("slot-observers", "slot-upstream", "slot"):
        refused = asks(group)
        # CURLE_COULDNT_CONNECT
        assert refused.returncode == 7, (group, refused)
