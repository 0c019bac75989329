"""setup_command, as a unit of its own: what it makes is what is started, and what it does wrong is told and touches nothing."""

import contextlib
import json

import pytest
from slots import QUICK, App

SETUP = QUICK + 'setup_command = "./setup"\nsetup_timeout = "60s"\n'
HEALTH = 'soak = "0s"\nstop_timeout = "2s"\n'


@pytest.fixture(scope="module")
def app(machine):
    """An app whose setup is a script of the release, called `setup`."""
    app = App(machine, "web", QUICK)
    app.deploy("before-setup")
    app.configure(SETUP)
    return app


@contextlib.contextmanager
def configured(app, text):
    """The app has other lines in its file for a while."""
    app.configure(QUICK + text)
    try:
        yield
    finally:
        app.configure(SETUP)


def release(app, marker, setup):
    """A release with its own setup."""
    directory = app.release(marker)
    app.machine.write(f"{directory}/setup", f"#!/bin/sh\nset -e\n{setup}\n", mode="0755")
    return directory


def deploy(app, marker, setup, words="", *, check=True):
    return app.slotctl(f"deploy {release(app, marker, setup)} {words}", check=check)


def builds(status):
    return status.get("deployment", {}).get("phase") == "build"


def answer(machine, port=80, path=""):
    return machine.out(f"curl -sS -m 10 http://127.0.0.1:{port}/{path}")


def untouched(machine, app, before):
    """The app is where it was: nothing is under way, the same run serves, and nothing of another release is left."""
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["active"], status["live"]) == (before["active"], before["live"])
    assert app.slot(status["active"])["boot_id"] == next(
        slot["boot_id"] for slot in before["slots"] if slot["slot"] == before["active"]
    )
    assert machine.run("test -e /var/lib/slot/web/incoming", check=False).returncode == 1
    records = machine.out("cd /var/lib/slot/web/releases && ls -d *.json | sed s/.json//").split()
    directories = machine.out("cd /var/lib/slot/web/releases && ls -d ????????").split()
    assert sorted(records) == sorted(directories)
    assert machine.show("slot-setup@web", "ActiveState")["ActiveState"] in ("inactive", "failed")
    assert machine.out("ls -A /var/lib/private/slot-setup/web/releases") == ""


def test_a_node_app_gets_its_dependencies_by_npm_ci(fresh):
    app = App(fresh, "shop", HEALTH + 'setup_command = "npm ci --no-audit --no-fund"\n', kind="node", command="node server.js")
    for marker in ("one", "two"):
        directory = app.release(marker)
        # A lock file as npm writes it, and a dependency that needs no registry.
        fresh.run(f"cd {directory} && npm pack --silent ./greet && npm install --silent --package-lock-only --offline && rm -r greet")
        assert fresh.run(f"test -e {directory}/node_modules", check=False).returncode == 1
        outcome = app.slotctl(f"deploy {directory}")
        assert outcome["success"], outcome
        assert answer(fresh) == f"release {marker}"
    # npm's cache is in HOME, which the second build had too.
    assert fresh.run("test -d /var/lib/private/slot-setup/shop/home/.npm/_cacache", check=False).returncode == 0


def test_a_ruby_app_gets_its_gems_by_bundler(fresh):
    # Of the gems that Debian has installed, as nothing else is in reach here.
    lines = HEALTH + 'setup_command = "bundle install --local"\n'
    app = App(fresh, "gems", lines, kind="ruby", command="bundle exec ruby server.rb")
    for marker in ("one", "two"):
        directory = app.release(marker)
        fresh.run(f"cd {directory} && bundle lock --local")
        outcome = app.slotctl(f"deploy {directory}")
        assert outcome["success"], outcome
        assert answer(fresh) == f"release {marker}"


def test_a_virtual_environment_has_the_path_that_it_was_built_under(fresh):
    app = App(fresh, "py", HEALTH + 'setup_command = "./setup"\n', kind="venv", command="./venv/bin/gunicorn app:app")
    outcome = app.deploy("one")
    assert outcome["success"], outcome
    home = f"/var/lib/slot/py/releases/{outcome['release']}"
    assert answer(fresh) == f"release one from {home}/venv"
    assert fresh.out(f"head -n 1 {home}/venv/bin/gunicorn") == f"#!{home}/venv/bin/python3"
    # Bytecode is of a source that it knows by its time.
    stale = fresh.out(f"cd {home} && python3 -c 'import py_compile, sys, importlib.util as u; c = u.cache_from_source(\"app.py\"); "
                      "b = open(c, \"rb\").read(); import os; print(int.from_bytes(b[8:12], \"little\") == int(os.stat(\"app.py\").st_mtime))'")
    assert stale == "True"


def test_the_build_is_a_step_that_status_names_and_a_release_that_is_there_is_not_built_again(machine, app):
    directory = release(app, "steps", "echo built >>$HOME/count; while ! test -e $HOME/go; do sleep 0.05; done; rm $HOME/go")
    deploying = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")
    status = app.wait_until(builds)
    assert (status["state"], status["deployment"]["waits_for"]) == ("preparing", "setup_command to end")
    assert answer(machine) == "release before-setup"
    home = "/var/lib/private/slot-setup/web/home"
    machine.run(f"touch {home}/go")
    outcome = json.loads(deploying.communicate(timeout=60)[0])
    assert outcome["success"], outcome
    assert answer(machine) == "release steps"
    again = app.slotctl(f"deploy {directory}")
    assert (again["success"], again["release"]) == (True, outcome["release"]), again
    assert machine.out(f"cat {home}/count") == "built"


def test_two_setups_of_the_same_bits_are_two_releases(machine, app):
    first = deploy(app, "twice", "echo one >made")
    with configured(app, 'setup_command = ["/bin/sh", "-c", "echo two >made"]\n'):
        second = app.slotctl(f"deploy {app.home}/twice")
    assert first["release"] != second["release"]
    made = [machine.out(f"cat /var/lib/slot/web/releases/{outcome['release']}/made") for outcome in (first, second)]
    assert made == ["one", "two"]


def test_a_setup_that_fails_is_told_with_its_last_lines_and_touches_nothing(machine, app):
    before = app.status()
    outcome = deploy(app, "broken", "echo first; for n in 1 2 3; do echo step $n >&2; done; exit 3", check=False)
    assert (outcome["exit"], outcome["success"]) == (1, False)
    assert (outcome["phase"], outcome["cause"]) == ("build", "build-failed"), outcome
    assert outcome["text"] == "setup_command `./setup` exited with status 3"
    report = outcome["report"]
    assert (report["unit"], report["exit"]) == ("slot-setup@web.service", "exited with status 3")
    assert [line for line in report["log"] if line.startswith("step")] == ["step 1", "step 2", "step 3"]
    # The rest is one line away, as it is printed.
    assert "step 2" in machine.out(report["journal"] + " -o cat").splitlines()
    screen = machine.run(f"cd {app.home} && slotctl deploy {app.home}/broken", check=False).stdout
    screen += machine.run(f"cd {app.home} && slotctl deploy {app.home}/broken 2>&1 >/dev/null", check=False).stdout
    for words in ("failed in phase build: build-failed", "| step 3", "journalctl ", "The active slot is untouched"):
        assert words in screen, screen
    untouched(machine, app, before)
    assert answer(machine).startswith("release ")


def test_a_setup_that_hangs_is_ended_at_its_limit(machine, app):
    before = app.status()
    with configured(app, 'setup_command = "./setup"\nsetup_timeout = "2s"\n'):
        # Children that are not waited for are the build's too.
        outcome = deploy(app, "hangs", "echo waiting; (trap '' TERM; sleep 4000) & sleep 5000", check=False)
    assert (outcome["phase"], outcome["cause"]) == ("build", "build-timeout"), outcome
    assert outcome["text"] == "setup_command `./setup` did not end within setup_timeout (2 s)"
    assert "waiting" in outcome["report"]["log"]
    untouched(machine, app, before)
    assert machine.run("pgrep -f 'sleep [45]000'", check=False).stdout == ""


def test_a_setup_that_makes_what_no_release_may_have_is_told_what(machine, app):
    before = app.status()
    # A builder that is not ours: what the unit hands back is not believed either.
    machine.write(
        "/etc/systemd/system/slot-setup@web.service.d/other.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /tests/bad_builder.py /run/slot/slotd/build/web.sock\n",
    )
    machine.run("systemctl daemon-reload")
    outcome = deploy(app, "lying", "true", check=False)
    machine.run("rm /etc/systemd/system/slot-setup@web.service.d/other.conf && systemctl daemon-reload")
    assert outcome["cause"] == "build-failed", outcome
    assert "leaves the release: paths must be relative, without `..`" in outcome["text"], outcome
    untouched(machine, app, before)


def test_who_is_not_of_the_unit_is_given_nothing(machine, app):
    stranger = machine.spawn("exec python3 /tests/steal.py /run/slot/slotd/build/web.sock", user="daemon")
    assert stranger.stdout.readline() == "looking\n"
    outcome = deploy(app, "coveted", "true")
    assert outcome["success"], outcome
    assert stranger.communicate(timeout=60)[0] == "0 bytes\n"
    told = machine.out("journalctl -o cat --no-pager -u slotd")
    assert "somebody else asked for what is the unit's, and was given nothing" in told


def test_a_program_that_is_not_there_is_named(machine, app):
    before = app.status()
    with configured(app, 'setup_command = "no-such-tool install"\n'):
        outcome = app.slotctl(f"deploy {app.release('toolless')}", check=False)
    assert outcome["cause"] == "build-failed", outcome
    assert any("cannot run no-such-tool; it is in no directory of PATH" in line for line in outcome["report"]["log"]), outcome
    untouched(machine, app, before)


def test_home_and_cache_last_from_one_build_to_the_next(machine, app):
    for number in ("1", "2"):
        setup = 'for at in "$HOME" "$XDG_CACHE_HOME"; do echo x >>"$at/seen"; wc -l <"$at/seen"; done >made; id -un >>made'
        outcome = deploy(app, f"cached-{number}", setup)
        made = machine.out(f"cat /var/lib/slot/web/releases/{outcome['release']}/made").split()
        assert made == [number, number, "slot-bld-web"]


def test_a_build_writes_and_reads_nothing_of_others(machine, app):
    other = App(machine, "other", QUICK + 'paths = ["/other"]\n')
    other.deploy("one")
    machine.write("/etc/slot/other.env", "SECRET=1\n", mode="0600")
    setup = """
    for path in /etc/slot/x /var/lib/slot/x /var/lib/slot/web/x /usr/x /run/slot/x /var/lib/x; do
        if (: >$path) 2>/dev/null; then echo "wrote $path"; fi
    done
    for path in /etc/slot/other.env /var/lib/slot/other /var/lib/private/slot-app /var/lib/slot-app/web/. /root /home/x \\
        /var/lib/slot/web/live /var/lib/slot/web/state.json; do
        if ls $path >/dev/null 2>&1 && (cat $path || ls $path/) >/dev/null 2>&1; then echo "read $path"; fi
    done
    for environ in /proc/[0-9]*/environ; do grep -qs SLOT_NAME=blue $environ && echo "saw $environ" || :; done
    mkdir setuid && cp /bin/true setuid/ && chmod u+s setuid/true 2>/dev/null && echo "made setuid" || :
    """
    outcome = deploy(app, "curious", "{ " + setup + "\n} >made 2>&1")
    assert outcome["success"], outcome
    assert machine.out(f"cat /var/lib/slot/web/releases/{outcome['release']}/made") == ""


def test_a_rollback_goes_ahead_of_a_build_which_then_ends(machine, app):
    deploy(app, "good-one", "true")
    deploy(app, "good-two", "true")
    directory = release(app, "endless", "trap '' TERM; while :; do sleep 1; done")
    deploying = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")
    app.wait_until(builds)
    back = app.slotctl("rollback")
    assert back["success"], back
    assert answer(machine) == "release good-one"
    outcome = json.loads(deploying.communicate(timeout=60)[0])
    assert (outcome["success"], outcome["cause"], outcome["phase"]) == (False, "preempted", "build"), outcome
    explained = app.machine.out(f"journalctl -q -x SLOT_APP={app.name} SLOT_CAUSE=preempted")
    assert f"Subject: A rollback overrode generation {outcome['generation']} of {app.name}" in explained, explained
    machine.wait_for("systemctl show -P ActiveState slot-setup@web | grep -Eqx 'inactive|failed'")
    machine.wait_for("! test -e /var/lib/slot/web/incoming")
    untouched(machine, app, app.status())


def test_slotd_killed_in_a_build_leaves_nothing_of_it(machine, app):
    before = app.status()
    directory = release(app, "orphan", "trap '' TERM; echo built; while :; do sleep 1; done")
    deploying = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")
    app.wait_until(builds)
    machine.wait_for("journalctl -o cat -u slot-setup@web | grep -qx built")
    # Who waits would deploy it again.
    machine.run("pkill -KILL -f '^slotctl --json deploy'")
    deploying.wait(30)
    slotd = machine.show("slotd", "MainPID")["MainPID"]
    machine.run(f"kill -9 {slotd}")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert status["last"]["cause"] == "interrupted", status
    machine.wait_for("systemctl show -P ActiveState slot-setup@web | grep -Eqx 'inactive|failed'")
    machine.wait_for("! ls -d /var/lib/slot/web/releases/*.removed")
    untouched(machine, app, before)
    # The next one is built as if nothing had been.
    outcome = deploy(app, "after-orphan", "true")
    assert outcome["success"], outcome


def test_a_build_as_the_apps_own_user_which_was_another_before(machine, app):
    machine.run("useradd --system --no-create-home builder")
    setup = "id -un >made; echo x >>$HOME/seen; wc -l <$HOME/seen >>made"
    lines = QUICK + 'paths = ["/own"]\nsetup_command = "./setup"\n'
    own = App(machine, "own", lines)
    made = []
    for number, user in (("1", ""), ("2", 'user = "builder"\n'), ("3", 'user = "builder"\n')):
        if number == "2":
            machine.run("systemctl stop 'own@*.service'")
            own.configure(user + lines)
        outcome = deploy(own, f"made-{number}", setup)
        made.append(machine.out(f"cat /var/lib/slot/own/releases/{outcome['release']}/made").split())
    assert made == [["slot-bld-own", "1"], ["builder", "2"], ["builder", "3"]]
    own.slotctl("app remove own --now --purge")
    left = machine.run("ls -d /var/lib/slot-setup/own /var/lib/private/slot-setup/own /var/cache/slot-setup/own "
                       "/var/cache/private/slot-setup/own /var/lib/slot/own", check=False)  # fmt: skip
    assert left.stdout == ""


def test_a_unit_that_is_older_than_the_file_is_not_started(machine, app):
    before = app.status()
    text = machine.out("cat /etc/slot/apps/web.toml")
    machine.write("/etc/slot/apps/web.toml", text.replace('"./setup"', '"./other"') + "\n")
    machine.run("curl -sS -m 10 --unix-socket /run/slot/slotd.sock -X POST http://slotd/apps/web/reload")
    outcome = app.slotctl(f"deploy {release(app, 'older', 'true')}", check=False)
    machine.write("/etc/slot/apps/web.toml", text + "\n")
    app.configure(SETUP)
    assert not outcome["success"], outcome
    untouched(machine, app, before)


def test_what_is_shared_stays_from_release_to_release(fresh):
    app = App(fresh, "web", QUICK + 'shared_dirs = ["uploads", "var/files"]\n')
    directory = app.release("one")
    fresh.run(f"mkdir -p {directory}/uploads && echo first >{directory}/uploads/seed")
    one = app.slotctl(f"deploy {directory}")
    home = f"/var/lib/slot/web/releases/{one['release']}"
    data = "/var/lib/private/slot-app/web/shared"
    assert fresh.out(f"readlink {home}/uploads") == "/var/lib/slot-app/web/shared/uploads"
    assert fresh.out(f"cat {data}/uploads/seed {home}/.slot-seed/uploads/seed") == "first\nfirst"
    assert fresh.out(f"stat -c %U {data}/var/files") == "slot-app-web"
    fresh.run(f"echo later >{data}/uploads/written")
    directory = app.release("two")
    fresh.run(f"mkdir -p {directory}/uploads && echo second >{directory}/uploads/seed")
    app.slotctl(f"deploy {directory}")
    assert answer(fresh) == "release two"
    pid = fresh.show(f"web@{app.active()}", "MainPID")["MainPID"]
    inside = f"nsenter -t {pid} -m -- /bin/cat /proc/{pid}/cwd/uploads/seed /proc/{pid}/cwd/uploads/written"
    assert fresh.out(inside) == "first\nlater"


def test_a_build_has_limits_a_network_and_no_root(machine, app):
    shown = machine.out("systemctl show slot-setup@web.service -p MemoryMax,TasksMax,CPUWeight,IOWeight,PrivateNetwork,User,NoNewPrivileges")
    about = dict(line.split("=", 1) for line in shown.splitlines())
    assert int(about["MemoryMax"]) < 1 << 50 and int(about["TasksMax"]) < 1 << 20, about
    assert (about["PrivateNetwork"], about["NoNewPrivileges"]) == ("no", "yes"), about
    assert (about["CPUWeight"], about["IOWeight"]) == ("20", "20"), about
    deploy(app, "limited", "id -u >uid; curl -sS -m 10 http://127.0.0.1/ >reached")
    live = "/var/lib/slot/web/live"
    assert machine.out(f"cat {live}/uid") != "0"
    assert machine.out(f"cat {live}/reached").startswith("release ")
