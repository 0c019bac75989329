"""Apps as administrators add, change, break and remove them, by hand too, while they run."""

import pytest
from apps import make
from machine import Failed
from slots import QUICK, App, answers_only, nothing_failed

FILE = "/etc/slot/apps/web.toml"


@pytest.fixture
def app(fresh):
    app = App(fresh, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    return app


def serves(machine, marker):
    return machine.out("curl -sS -m 10 http://127.0.0.1/") == f"release {marker}"


def said(machine, words, *, exit):
    """Runs slotctl in the app's directory for people; returns all that it says."""
    done = machine.run(f"cd /srv/web && slotctl {words}", check=False, timeout=120)
    assert done.returncode == exit, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def by_hand(machine, line, path=FILE):
    """Changes the registered file as an editor would, and has systemd read it."""
    machine.run(f"sed -i '{line}' {path} && systemctl daemon-reload", check=True)


def test_a_change_of_user_is_refused_whole_while_a_slot_runs_and_takes_an_outage(app, fresh):
    machine = fresh
    machine.run("useradd --system deploy")
    app.deploy("two", "--wait=stopped")
    active = app.active()
    data = "stat -Lc '%u' /var/lib/slot-app/web/."
    owner, before = machine.out(data), machine.out(f"cat {FILE}")
    with machine.load("127.0.0.1:80", "--connections", "4", "--pause-ms", "20") as load:
        machine.write("/srv/web/slot.toml", f'name = "web"\ncommand = "./server"\nuser = "deploy"\n{QUICK}')
        refusal = said(machine, "app add", exit=6)
        for part in ("slot.toml: user:", f"web@{active}.service runs as slot-app-web", "as deploy", "systemctl stop 'web@*.service'"):
            assert part in refusal, refusal
        assert machine.out(f"cat {FILE}") == before
        # The registered file itself, by hand: slotd refuses before it takes the upload.
        by_hand(machine, '1i user = "deploy"')
        refusal = said(machine, f"deploy {app.release('three')}", exit=1)
        for part in (f"web@{active}.service runs as slot-app-web", "as deploy", "/etc/slot/apps/web.toml", "outage"):
            assert part in refusal, refusal
        # A rollback has its release already and starts it, which comes to the same.
        back = app.slotctl("rollback", check=False)
        assert not back["success"] and f"web@{active}.service runs as slot-app-web" in back["text"], back
        assert machine.out(data) == owner
        assert "deployment" not in app.status()
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=4)
    # The way out that it names.
    machine.run("systemctl stop 'web@*.service'")
    app.wait_until(lambda status: not status["serving"])
    app.slotctl("app add")
    app.deploy("three", "--wait=stopped")
    assert serves(machine, "three")
    pid = machine.show(f"web@{app.active()}", "MainPID")["MainPID"]
    assert machine.out(f"ps -o user:20= -p {pid}").strip() == "deploy"


def test_after_a_first_deploy_that_failed_the_corrected_file_is_taken_over(fresh):
    machine = fresh
    make(machine, "notify", "one", directory="/srv/web/build")
    machine.write("/srv/web/slot.toml", f'name = "web"\ncommand = "./server --bad $MISSING"\n{QUICK}')
    assert "MISSING" in said(machine, "deploy ./build", exit=1)
    machine.write("/srv/web/slot.toml", f'name = "web"\ncommand = "./server"\n{QUICK}')
    said(machine, "deploy ./build --wait=stopped", exit=0)
    assert serves(machine, "one")
    # From now on the registered file counts until somebody says otherwise, and is told what to say.
    machine.run("sed -i 's/soak = .*/soak = \"1s\"/' /srv/web/slot.toml; touch /srv/web/build/new")
    note = said(machine, "deploy ./build", exit=0)
    for part in ('soak = "1s" (there "0s")', "`sudo slotctl app add /srv/web/slot.toml` takes it over"):
        assert part in note, note
    assert 'soak = "0s"' in machine.out(f"cat {FILE}")


def test_a_file_that_is_broken_by_hand_is_told_everywhere_and_what_runs_goes_on(app, fresh):
    machine = fresh
    wrong = f"{FILE}:2: unknown key `comand`; did you mean `command`?"
    by_hand(machine, "s/^command/comand/")
    for words, exit in (("status", 0), ("app list", 0), (f"deploy {app.release('two')}", 1)):
        told = said(machine, words, exit=exit)
        assert wrong in told and "systemctl daemon-reload" in told, told
    assert serves(machine, "one")
    # A crash meanwhile: it is not taken for somebody's stop, and the slot is back by itself once the file is right.
    active = app.active()
    for signal in ("KILL", "TERM"):
        by_hand(machine, "s/^command/comand/")
        machine.run(f"kill -{signal} {machine.show(f'web@{active}', 'MainPID')['MainPID']}")
        status = app.wait_until(lambda status: not status["serving"])
        detail = next(slot["detail"] for slot in status["slots"] if slot["slot"] == active)
        assert detail != "stopped-by-hand", status
        by_hand(machine, "s/^comand/command/")
        app.wait_until(lambda status: status["serving"])
        assert serves(machine, "one")
    app.deploy("two")
    assert serves(machine, "two")


def test_a_file_that_is_broken_while_slotd_starts_is_managed_again_once_it_is_right(app, fresh):
    machine = fresh
    by_hand(machine, "s/^command/comand/")
    machine.run("systemctl restart slotd")
    listed = machine.json("slotctl --json app list")
    assert "unknown key `comand`" in listed["broken"]["web"], listed
    assert serves(machine, "one")
    by_hand(machine, "s/^comand/command/")
    machine.wait_for("slotctl --json app list | grep -q '\"broken\":{}'")
    assert app.status()["serving"]


@pytest.mark.parametrize("restarted", [False, True], ids=["", "with slotd restarted"])
def test_an_app_whose_file_was_deleted_is_added_again_or_removed_whole(app, fresh, restarted):
    machine = fresh
    machine.run(f"rm {FILE} && systemctl daemon-reload")
    if restarted:
        machine.run("systemctl restart slotd")
    assert serves(machine, "one")
    with machine.load("127.0.0.1:80", "--connections", "4", "--pause-ms", "20") as load:
        app.slotctl("app add")
        app.deploy("two", "--wait=stopped")
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=4)
    machine.run(f"rm {FILE} && systemctl daemon-reload")
    if restarted:
        machine.run("systemctl restart slotd")
    app.slotctl("app remove web --purge --now")
    assert machine.out("curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/") == "404"
    assert machine.out("systemctl list-units --all --plain --no-legend 'web@*' | grep -v not-found || true") == ""
    left = "ls -d /etc/slot/apps/* /etc/polkit-1/rules.d/*web* /var/lib/slot/web /var/lib/slot-app/web /var/lib/private/slot-app/web"
    assert machine.out(f"{left} 2>/dev/null || true") == ""
    assert "there is no app web" in said(machine, "app remove web", exit=7)


def test_units_that_are_not_slots_are_neither_taken_nor_stopped(fresh):
    machine = fresh
    machine.write("/etc/systemd/system/web@.service", "[Service]\nExecStart=sleep infinity\n")
    machine.run("systemctl daemon-reload && systemctl start web@blue")
    machine.write("/srv/web/slot.toml", f'name = "web"\ncommand = "./server"\n{QUICK}')
    assert "web is taken" in said(machine, "app add", exit=6)
    assert "there is no app web" in said(machine, "app remove web", exit=7)
    assert machine.out("systemctl is-active web@blue") == "active"


def test_a_removed_app_stays_removed_when_slotd_starts_again(app, fresh):
    machine = fresh
    app.slotctl("app remove web --now")
    machine.run("systemctl restart slotd")
    assert machine.json("slotctl --json app list") == {"apps": [], "broken": {}}
    assert machine.run("slotctl --app web status", check=False).returncode == 7
    assert machine.out("curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/") == "404"
    # Its releases and data are still there, and it can come back.
    app.slotctl("app add")
    app.deploy("two")
    assert serves(machine, "two")


def test_secrets_are_in_a_file_that_only_root_reads_and_nowhere_else(app, fresh):
    machine = fresh
    machine.write("/etc/slot/web.env", "TOKEN=hunter2\n", mode="0600")
    app.configure(QUICK + 'env_file = "/etc/slot/web.env"\n')
    app.deploy("two", "--wait=stopped")
    facts = machine.json("curl -sS http://127.0.0.1/env")
    assert facts["env"]["TOKEN"] == "hunter2"
    unit = f"web@{app.active()}"
    seen = machine.out(f"systemctl show {unit}; systemctl cat {unit}; cat /proc/{facts['pid']}/cmdline | tr '\\0' ' '")
    assert "web.env" in seen and "hunter2" not in seen
    assert "hunter2" not in machine.out("journalctl --no-pager")
    machine.run("rm /etc/slot/web.env")
    failed = app.deploy("three", check=False)
    assert not failed["success"] and "`env_file`" in failed["text"], failed
    assert serves(machine, "two")


def test_an_env_file_that_is_not_roots_alone_is_refused(app, fresh):
    machine = fresh
    machine.run("useradd --system deploy && install -d -o deploy /srv/secrets")
    machine.write("/srv/secrets/web.env", "A=1\n")
    machine.write("/etc/slot/open.env", "A=1\n", mode="0666")
    machine.run("ln -s /srv/secrets/web.env /etc/slot/link.env")
    for path, why in [
        ("/srv/secrets/web.env", "/srv/secrets belongs to user"),
        ("/etc/slot/link.env", "/srv/secrets belongs to user"),
        ("/etc/slot/open.env", "others than root may write to /etc/slot/open.env"),
        ("/var/lib/slot/web/web.env", "slot.toml:3: env_file"),
        ("/etc/slot/none.env", "there is no file /etc/slot/none.env"),
    ]:
        machine.write("/srv/web/slot.toml", f'name = "web"\ncommand = "./server"\nenv_file = "{path}"\n{QUICK}')
        refusal = said(machine, "app add", exit=6)
        assert "env_file" in refusal and why in refusal, refusal
    # What was right when it was added and is not any more costs the start, and root reads nothing.
    by_hand(machine, '1i env_file = "/etc/slot/open.env"')
    assert "others than root may write" in said(machine, f"deploy {app.release('two')}", exit=1)
    with pytest.raises(Failed):
        machine.run(f"systemctl start web@{app.idle()}")
    assert serves(machine, "one")


def test_a_slot_that_began_with_a_socket_leaves_none_when_bind_has_changed(fresh):
    machine = fresh
    app = App(machine, "web", QUICK + 'bind = "fd"\n')
    app.deploy("one", "--wait=stopped")
    old = app.active()
    assert machine.out(f"systemctl is-active web@{old}.socket") == "active"
    with machine.load("127.0.0.1:80", "--connections", "4", "--pause-ms", "20") as load:
        app.configure(QUICK)
        answers_only(load, "one")
        app.deploy("two", "--wait=stopped")
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=4)
    for unit in ("socket", "service"):
        assert machine.show(f"web@{old}.{unit}", "ActiveState") == {"ActiveState": "inactive"}


def test_routes_that_another_app_has_are_refused_before_anything_is_registered(app, fresh):
    machine = fresh
    machine.write("/srv/shop/slot.toml", f'name = "shop"\ncommand = "./server"\n{QUICK}')
    refused = machine.run("cd /srv/shop && slotctl app add", check=False)
    assert refused.returncode == 6, refused
    for part in ("web", "shop", "change `hosts`, `paths` or `listener`"):
        assert part in refused.stderr, refused.stderr
    assert machine.run("ls /etc/slot/apps/shop.toml", check=False).returncode != 0
    assert serves(machine, "one")


def test_a_deploy_starts_the_public_socket_when_it_does_not_listen(app, fresh):
    machine = fresh
    machine.run("systemctl disable --now slot-router.socket && systemctl stop 'slot-router@*'")
    told = said(machine, f"deploy {app.release('two')}", exit=0)
    assert "slot-router.socket does not listen; starting it" in told, told
    assert machine.out("systemctl is-enabled slot-router.socket") == "enabled"
    assert serves(machine, "two")


def test_a_purge_of_the_package_leaves_nothing_of_an_app(app, fresh):
    machine = fresh
    machine.run("dpkg -P slotctl", timeout=120)
    left = "find / -xdev ( -path /proc -o -path /sys -o -path /srv ) -prune -o -name '*slot*' -print"
    found = machine.out(left.replace("(", "\\(").replace(")", "\\)")).splitlines()
    meant = ("/packages", "/tests", "/usr/share/nodejs", "/run/systemd", "/var/lib/dpkg", "/var/log", "/var/lib/systemd")
    assert [path for path in found if not path.startswith(meant)] == []
