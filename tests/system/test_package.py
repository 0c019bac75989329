"""Installing, upgrading, removing and purging the package."""

import pytest
from apps import place, register
from machine import Machine
from slots import QUICK, App
from versions import OURS, another, install

NEEDRESTART = "/etc/needrestart/conf.d/slot.conf"
# What `everything` drops and fetches.
DROP, GIT = "/srv/drop", "/srv/git"
# What other packages write whenever anything is installed or run: their own caches, databases and logs.
OTHERS = ("/proc", "/sys", "/dev", "/run", "/tmp", "/packages", "/tests", "/var/lib/dpkg", "/var/lib/rpm", "/var/cache", "/var/log", "/var/tmp", "/srv", "/var/lib/systemd")
# systemd's own, for all dynamic users (systemd.exec(5)).
OF_SYSTEMD = {"/var/lib/private"}


@pytest.fixture
def bare():
    """A machine without slot."""
    with Machine() as machine:
        yield machine


def things(machine):
    """Every file there is, every user and group, and every unit that systemd knows of or has at work."""
    prune = " -o ".join(f"-path {path}" for path in OTHERS)
    files = machine.out(f"find / -xdev \\( {prune} \\) -prune -o -print").splitlines()
    caches = machine.out("find /var/cache /run -xdev -path /run/systemd -prune -o -iname '*slot*' -print").splitlines()
    names = machine.out("cut -d: -f1,3 /etc/passwd /etc/group; getent group slot || true").splitlines()
    units = machine.out("systemctl list-unit-files --plain --no-legend | cut -d' ' -f1,2; systemctl list-units --all --plain --no-legend | cut -d' ' -f1")
    # Sessions and scopes of the machine come and go.
    units = {line for line in units.splitlines() if not line.endswith((".scope", ".mount", ".device"))}
    return {"files": {*files, *caches}, "names": set(names), "units": units}


def test_an_upgrade_touches_neither_apps_nor_sockets_and_a_removal_leaves_nothing_behind(fresh):
    machine = fresh
    register(machine, "web", 'name = "web"\ncommand = "./server"\nready = "notify"\n[ports]\nblue = 20001\ngreen = 20002\n')
    place(machine, "web", "blue", "notify", "one")
    machine.write("/etc/polkit-1/rules.d/60-slot-app-web.rules", "// a rule\n")
    machine.run("systemctl start web@blue slot-router.socket slotd.socket")
    before = machine.show("web@blue", "MainPID", "InvocationID")
    socket = machine.show("slot-router.socket", "InvocationID")
    machine.install()
    assert machine.show("web@blue", "MainPID", "InvocationID") == before
    assert machine.show("slot-router.socket", "InvocationID") == socket
    machine.run("dpkg -r slotctl")
    assert machine.run("curl -sS http://127.0.0.1:20001/", check=False).returncode != 0
    assert machine.out("systemctl list-units --all --plain --no-legend 'slot*' 'web*' | grep -v not-found || true") == ""
    assert machine.out("ls /etc/polkit-1/rules.d") == "60-slot-app-web.rules.removed"
    assert machine.out("cat /etc/slot/apps/web.toml | head -n 1") == 'name = "web"'
    machine.install()
    assert machine.out("ls /etc/polkit-1/rules.d") == "60-slot-app-web.rules"
    machine.run("systemctl start web@blue")
    machine.run("dpkg -P slotctl")
    assert machine.out("ls -d /etc/slot /var/lib/slot /var/lib/slot-router /var/lib/private/slot-router /etc/polkit-1/rules.d/* 2>/dev/null || true") == ""


def test_the_package_has_all_that_belongs_to_it(fresh):
    pages = {
        *(f"man1/{page}.1" for page in ("slotctl", "slotctl-deploy", "slotctl-rollback", "slotctl-status", "slotctl-doctor", "slotctl-app-reload")),
        *("man5/slot.toml.5", "man5/slot-machine.toml.5", "man5/slot@.service.5", "man7/slot.7", "man8/slotd.8", "man8/slot-router.8"),
    }
    expected = {
        *("/usr/bin/slotctl", "/usr/lib/slot/slotd", "/usr/lib/slot/slot-router"),
        *("/usr/lib/sysusers.d/slot.conf", "/usr/lib/tmpfiles.d/slot.conf", "/usr/lib/systemd/system-preset/80-slot.preset"),
        *("/usr/share/polkit-1/rules.d/60-slot.rules", "/usr/share/dbus-1/system.d/slot.conf", "/usr/lib/systemd/catalog/slot.catalog"),
        *("/usr/share/slot/app.schema.json", "/usr/share/slot/machine.schema.json", "/etc/needrestart/conf.d/slot.conf"),
        *("/usr/share/doc/slotctl/copyright", "/usr/share/doc/slotctl/changelog.gz", "/usr/share/bash-completion/completions/slotctl"),
        *("/usr/share/zsh/vendor-completions/_slotctl", "/usr/share/fish/vendor_completions.d/slotctl.fish"),
        *(f"/usr/share/man/{page}.gz" for page in pages),
    }
    listed = set(fresh.out("dpkg -L slotctl").splitlines())
    assert expected <= listed, expected - listed
    assert fresh.out("dpkg --verify slotctl") == ""


def everything(machine):
    """Apps with whatever makes something on a machine: a build, a hook, a unix socket, a static user and a dynamic one, a remote, automatic
    deployments; and a listener. Returns the first."""
    machine.run(f"mkdir -p {DROP} && useradd --system --no-create-home runs && chown -R root /srv")
    made = 'setup_command = "/bin/sh -c \'echo made >made\'"\nbind = "unix"\nshared_dirs = ["uploads"]\n[hooks]\nafter_switch = "/bin/true"\n'
    web = App(machine, "web", QUICK + made + f'[auto]\nwatch = "path"\npath = "{DROP}"\n')
    shop = App(machine, "shop", QUICK + f'hosts = ["shop.test"]\nuser = "runs"\n[git]\nremote = "file://{GIT}"\n')
    cold = App(machine, "cold", QUICK + 'hosts = ["cold.test"]\nkeep_warm = "10m"\nkeep_warm_frozen = true\n')
    for app, wait in ((web, "stopped"), (shop, "stopped"), (cold, "switched")):
        app.deploy("one")
        app.deploy("two", f"--wait={wait}")
    machine.wait_for("systemctl show -P FreezerState cold@blue | grep -qx frozen")
    commit = "git -c user.name=a -c user.email=a@b commit -qm one"
    machine.run(f"git init -q -b main {GIT} && cp -r {shop.release('three')}/. {GIT} && cd {GIT} && git add -A && {commit}")
    machine.run("git config --system safe.directory '*'")
    shop.slotctl("deploy --remote --wait=stopped")
    machine.run("slotctl listener add 8081")
    return web


def test_a_removal_stops_everything_and_keeps_the_apps_data_and_a_purge_leaves_what_was_there_before(bare):
    machine = bare
    # The bus starts it when it is asked for.
    machine.run("systemctl start polkit")
    before = things(machine)
    machine.install()
    web = everything(machine)
    machine.run("echo kept >$(readlink -f /var/lib/slot-app/web)/shared/uploads/mine")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release two"
    told = machine.run("dpkg -r slotctl", timeout=120)
    assert "rror" not in told.stdout + told.stderr, told
    assert machine.run("curl -sS -m 10 http://127.0.0.1/", check=False).returncode == 7, "somebody still listens"
    assert machine.out("systemctl list-units --all --plain --no-legend 'slot*' 'web*' 'shop*' 'cold*' | grep -v not-found || true") == ""
    assert machine.out("pgrep -fa '[/](usr|var)/lib/slot' || true") == ""
    assert machine.out("cat /var/lib/private/slot-app/web/shared/uploads/mine") == "kept"
    assert machine.out("ls /etc/slot/apps; cat /var/lib/slot/web/live/marker") == "cold.toml\nshop.toml\nweb.toml\ntwo"
    # It is there again with the package, and then gone for good.
    machine.install()
    assert web.status()["live"]
    # Where a work tree for staging was, which its user has removed.
    machine.run("install -d /var/lib/slot-staging/web")
    machine.run("dpkg -P slotctl", timeout=120)
    nothing_is_left(machine, before)


def nothing_is_left(machine, before):
    """All is as it was, but for what the test itself made for `everything`."""
    machine.run("userdel runs")
    after = things(machine)
    for kind in before:
        assert after[kind] - before[kind] - OF_SYSTEMD == set(), kind
        assert before[kind] - after[kind] == set(), kind


def enabled(machine):
    units = "slot-router.socket slot-router-8081.socket slotd.socket slotd-tcp.socket slotd.service"
    return machine.out(f"systemctl is-enabled {units} 2>/dev/null || true").split()


def test_what_was_enabled_is_so_again_with_the_package_and_serves(fresh):
    machine = fresh
    machine.run(f"mkdir -p {DROP}")
    # In its soak, in which a run that ended would be a verdict.
    lines = QUICK.replace('"0s"', '"1h"') + f'after_soak = "rollback"\n[auto]\nwatch = "path"\npath = "{DROP}"\n'
    app = App(machine, "web", lines)
    app.deploy("one", "--wait=switched")
    app.deploy("two", "--wait=switched")
    machine.run("slotctl listener add 8081")
    machine.run("systemctl enable slotd-tcp.socket && systemctl restart slotd.service")
    before = app.status()
    for was in (["enabled"] * 5, ["enabled", "enabled", "enabled", "disabled", "enabled"]):
        assert enabled(machine) == was
        machine.run("dpkg -r slotctl", timeout=120)
        assert "enabled" not in enabled(machine)
        said = machine.run("dpkg -i /packages/*.deb", timeout=120)
        assert "slotctl: " not in said.stdout + said.stderr, said
        assert enabled(machine) == was
        for port in (80, 8081):
            assert machine.out(f"curl -sS -m 20 http://127.0.0.1:{port}/") == "release two", port
        tcp = machine.run("curl -sS -m 10 http://127.0.0.1:7568/", check=False).returncode
        assert tcp == (0 if was[3] == "enabled" else 7)
        assert machine.out("systemctl is-active slot-watch@web.timer slot-watch@web.path").split() == ["active"] * 2
        after = app.wait_until(lambda status: status["serving"])
        assert [after[key] for key in ("generation", "active", "live", "prev", "state")] == [
            before[key] for key in ("generation", "active", "live", "prev", "state")
        ], after
        assert machine.out("ls /etc/slot") == "apps"
        doctor = machine.json("slotctl --json doctor")
        assert doctor["problems"] == 0, doctor
        # What is disabled is not enabled by that.
        machine.run("systemctl disable --now slotd-tcp.socket", check=False)


def test_a_purge_leaves_a_user_who_was_called_slot_before(bare):
    bare.run("useradd --create-home --comment 'Sara Lot' slot")
    bare.install()
    bare.run("dpkg -P slotctl")
    assert bare.out("getent passwd slot | cut -d: -f5,6") == "Sara Lot:/home/slot"
    assert bare.out("id -gn slot") == "slot"
    assert bare.run("getent group slot-upstream slot-router-control", check=False).stdout == ""


def test_an_installation_enables_what_presets_enable_and_an_upgrade_nothing(bare):
    machine = bare
    enabled = "systemctl is-enabled slot-router.socket slotd.socket slotd.service || true"
    machine.install()
    assert machine.out(enabled).split() == ["disabled"] * 3
    assert machine.out("systemctl is-active slot-router.socket slotd.socket slotd.service || true").split() == ["inactive"] * 3
    machine.run("dpkg -P slotctl")
    machine.write("/etc/systemd/system-preset/10-own.preset", "enable slotd.*\n")
    machine.install()
    assert machine.out(enabled).split() == ["disabled", "enabled", "enabled"]
    machine.run("systemctl disable slotd.socket slotd.service")
    machine.install()
    assert machine.out(enabled).split() == ["disabled"] * 3


def test_a_changed_configuration_file_is_kept_and_those_of_apps_are_never_touched(fresh):
    machine = fresh
    same = another(machine, "0.2.0~same")
    other = another(machine, "0.2.0~other", "echo '# new' >>etc/needrestart/conf.d/slot.conf")
    App(machine, "web", QUICK)
    machine.write("/etc/slot/machine.toml", "[router]\ndrain = \"1h\"\n")
    machine.run(f"echo '# mine' >>{NEEDRESTART}")
    ours = "sha256sum /etc/slot/machine.toml /etc/slot/apps/web.toml"
    before = machine.out(ours)
    install(machine, same)
    assert machine.out(f"tail -n 1 {NEEDRESTART}") == "# mine"
    install(machine, other, "--force-confold")
    assert machine.out(f"tail -n 1 {NEEDRESTART}; tail -n 1 {NEEDRESTART}.dpkg-dist") == "# mine\n# new"
    install(machine, OURS, "--force-confnew")
    assert machine.out(f"grep -c mine {NEEDRESTART} || true") == "0"
    assert machine.out(ours) == before


def test_needrestart_leaves_alone_what_it_would_cut(fresh):
    App(fresh, "web", QUICK)
    # As needrestart itself reads the file and goes by it: a pattern with 0 is a unit that it does not restart.
    ask = """
        do "/etc/needrestart/conf.d/slot.conf"; die $@ if $@;
        for my $unit (@ARGV) {
            my @known = grep { $unit =~ /$_/ } keys %{$nrconf{override_rc}};
            print $unit, "\n" if @known and not grep { $nrconf{override_rc}{$_} } @known;
        }
    """
    units = ["slot-router@3.service", "web@blue.service", "slot-setup@web.service", "slotd.service", "nginx.service"]
    assert fresh.out(["perl", "-e", ask, *units]).split() == units[:3]


def test_what_is_written_survives_a_reboot_and_a_power_cut():
    with Machine(kept=True) as machine:
        machine.install()
        boot = machine.out("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic")
        machine.write("/srv/kept", "yes\n")
        machine.reboot()
        assert machine.out("cat /srv/kept") == "yes"
        assert machine.out("stat -c '%U %a' /run/slot /run/slot/slotd") == "root 755\nslot 755"
        machine.cut_power()
        machine.boot()
        assert machine.out("cat /srv/kept") == "yes"
        assert boot
