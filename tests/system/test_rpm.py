"""The rpm, in a Debian machine that has rpm: its scripts are what that shows, so its dependencies, which Debian's database has, are left out."""

import pytest
from machine import Machine
from slots import QUICK, App, answers_only
from streams_open import open_stream
from test_privileges import removed
from versions import is_of, of_systemd, runs_as_installed

RPM = "rpm --dbpath /var/lib/rpm"
OURS = "/packages/slotctl-*.rpm"
NEEDRESTART = "/etc/needrestart/conf.d/slot.conf"
RULE = "/etc/polkit-1/rules.d/60-slot-app-web.rules"
GO = "/srv/go"


@pytest.fixture
def machine():
    with Machine() as machine:
        machine.run("mkdir -p /var/lib/rpm && rpm --dbpath /var/lib/rpm --initdb")
        yield machine


def another(machine, version):
    """The package made again with the spec that made it, of a tree with other binaries."""
    tree = f"/srv/{version}"
    machine.run(f"cp -a /packages/tree {tree} && for it in bin/slotctl lib/slot/slotd lib/slot/slot-router; do echo {version} >>{tree}/usr/$it; done")
    machine.run(f"sed 's/^Version: .*/Version: {version}/; s/^%global _binary_payload.*/%global _binary_payload w1.gzdio/' /packages/rpm/slotctl.spec >{tree}.spec")
    # The licences are those of the repository, which is not here.
    machine.run("mkdir /srv/source && touch /srv/source/LICENSE-MIT /srv/source/LICENSE-APACHE")
    made = "--define '_topdir /srv/rpm' --define '_rpmdir /srv' --define '_build_name_fmt %%{NAME}-%%{VERSION}.rpm'"
    machine.run(f"rpmbuild --quiet -bb {made} --define 'tree {tree}' --define 'source /srv/source' {tree}.spec", timeout=180)
    return f"/srv/slotctl-{version}.rpm"


def test_it_is_installed_upgraded_under_load_and_removed_as_the_debian_package_is(machine):
    said = machine.run(f"{RPM} -i --nodeps {OURS}", timeout=120)
    assert all(line.startswith(("Creating ", "rpm: ")) for line in (said.stdout + said.stderr).splitlines()), said
    assert machine.out("systemctl is-enabled slot-router.socket slotd.socket slotd.service || true").split() == ["disabled"] * 3
    assert machine.out("stat -c '%U %G %a' /var/lib/slot /run/slot/slotd") == "root slot 1770\nslot slot 755"
    app = App(machine, "web", QUICK)
    app.deploy("one")
    other = another(machine, "0.2.0")
    machine.run(f"echo '# mine' >>{NEEDRESTART}")
    before = of_systemd(machine, "web")
    # As an older version wrote it.
    rule = machine.out(f"cat {RULE}")
    machine.run(f"sed -i 's/\"stop\", /&\"restart\", /' {RULE} && grep -q restart {RULE}")
    with machine.load("127.0.0.1:80", "--connections", "16", "--pause-ms", "10") as load:
        streams = [open_stream(machine, kind, until=GO)[0] for kind in ("sse", "ws")]
        for words in (f"-U {other}", f"-U --oldpackage {OURS}"):
            machine.run(f"{RPM} --nodeps {words}", timeout=120)
            runs_as_installed(machine, app)
            answers_only(load, "one", requests=200)
        assert of_systemd(machine, "web") == before
        assert machine.out(f"cat {RULE}") == rule
        machine.write(GO, "")
        assert all('"whole": true' in stream.communicate(timeout=60)[0] for stream in streams)
        result = load.stop()
    assert (result["failed"], result["failures"]) == (0, {}), result
    assert machine.out(f"tail -n 1 {NEEDRESTART}") == "# mine"
    assert machine.run(f"{RPM} -V --nodeps slotctl", check=False).stdout.split() == ["S.5....T.", "c", NEEDRESTART]
    machine.run("slotctl listener add 8081")
    enabled = "systemctl is-enabled slot-router.socket slot-router-8081.socket slotd.socket slotd-tcp.socket slotd.service 2>/dev/null || true"
    assert machine.out(enabled).split() == ["enabled", "enabled", "enabled", "disabled", "enabled"]
    rules, units = removed(machine, f"{RPM} -e slotctl")
    assert set(rules) == {"60-slot-app-web.rules", "60-slot.rules"}, rules
    assert {"web@.service", "slot-router@.service", "slot-setup@.service"} <= set(units), units
    # Each before the units that it is about; listeners go while the package's own rule is there, and systemd makes apps' units anew then.
    for rule, prefix in (("60-slot-app-web.rules", "web@"), ("60-slot.rules", "slot-")):
        assert rules[rule] < min(at for unit, at in units.items() if unit.startswith(prefix)), (rules, units)
    assert machine.run("curl -sS http://127.0.0.1/", check=False).returncode == 7, "somebody still listens"
    assert machine.out("systemctl list-units --all --plain --no-legend 'slot*' 'web*' | grep -v not-found || true") == ""
    assert machine.out("find / -xdev -name 'slot*' -path '/usr/*' ! -path '/usr/lib/python3*'") == ""
    assert machine.out("ls /etc/polkit-1/rules.d /etc/slot/apps; cat /var/lib/slot/web/live/marker") == (
        "/etc/polkit-1/rules.d:\n60-slot-app-web.rules.removed\n\n/etc/slot/apps:\nweb.toml\none"
    )
    # What was kept is taken up again, and what was enabled is: a preset says nothing to that.
    machine.write("/etc/systemd/system-preset/10-own.preset", "enable slotd-tcp.socket\n")
    machine.run(f"{RPM} -i --nodeps {OURS}", timeout=120)
    assert machine.out(enabled).split() == ["enabled", "enabled", "enabled", "disabled", "enabled"]
    for port in (80, 8081):
        assert machine.out(f"curl -sS -m 20 http://127.0.0.1:{port}/") == "release one", port
    assert machine.out("ls /etc/polkit-1/rules.d") == "60-slot-app-web.rules"
    assert app.status()["live"]
    assert is_of(machine, machine.show("slotd", "MainPID")["MainPID"], "/usr/lib/slot/slotd")


def test_it_has_the_files_of_the_debian_package_and_its_licences(machine):
    listed = machine.out(f"{RPM} -qp --queryformat '[%{{FILEMODES:perms}} %{{FILENAMES}}\\n]' {OURS}").splitlines()
    of_rpm = {line.split()[1] for line in listed if line[0] != "d"}
    of_deb = set(machine.out("dpkg-deb --fsys-tarfile /packages/slotctl_*.deb | tar t | grep -v '/$' | sed 's/^.//'").splitlines())
    assert of_deb - of_rpm == {
        "/usr/share/doc/slotctl/changelog.gz", "/usr/share/lintian/overrides/slotctl", "/usr/share/zsh/vendor-completions/_slotctl",
    }  # fmt: skip
    assert of_rpm - of_deb == {
        "/usr/share/licenses/slotctl/LICENSE-APACHE", "/usr/share/licenses/slotctl/LICENSE-MIT", "/usr/share/zsh/site-functions/_slotctl",
    }  # fmt: skip


def test_what_its_scripts_call_is_there_when_they_run(machine):
    listed = machine.out(f"{RPM} -qp --queryformat '[%{{REQUIRENAME}} %{{REQUIREFLAGS:deptype}}\\n]' {OURS}").splitlines()
    kinds = {kind for line in listed if line.startswith("systemd ") for kind in line.split()[1].split(",")}
    assert kinds >= {"post", "preun", "postun", "posttrans"}, listed
