"""What is refused, before anything starts: with what is wrong, where, and what to do; and nothing is left of it."""

import json

import pytest
from apps import make
from slots import QUICK, App, answers_only, nothing_failed

WEB = 'name = "web"\ncommand = "./server"\n'


def traces(machine):
    """Everything that registering or deploying an app would leave."""
    return machine.out(
        "find /etc/slot /var/lib/slot /run/slot /etc/polkit-1/rules.d /run/systemd/generator -printf '%p %y %l %s\\n' | sort;"
        "systemctl list-unit-files --no-legend --plain | cut -d' ' -f1,2;"
        "systemctl is-active slotd.socket slotd.service slot-router.socket slot-router@1.service; true"
    )


def refused(machine, words, *, exit=6):
    """Runs slotctl, which is to refuse; returns what it says."""
    before = traces(machine)
    done = machine.run(f"cd /srv/bad && slotctl {words}", check=False)
    assert done.returncode == exit, (done.returncode, done.stdout, done.stderr)
    assert traces(machine) == before
    return done.stderr


@pytest.fixture(scope="module")
def project(machine):
    machine.run("mkdir -p /srv/bad")
    make(machine, "notify", "one", directory="/srv/bad/app")
    machine.write("/srv/bad/plain/server", "#!/bin/sh\n")
    machine.write("/srv/bad/nothing/server", "", "0755")
    machine.write("/srv/bad/void", "", "0755")
    machine.run("mkdir /srv/bad/hollow /srv/bad/hollow/inner && mkfifo /srv/bad/app.fifo")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WEB + 'comand = "x"\n', ["slot.toml:3: unknown key `comand`; did you mean `command`?"]),
        (WEB + "drain = 30\n", ["slot.toml:3: drain", "has no unit", 'drain = "120s"']),
        (WEB + 'soak = "soon"\n', ["slot.toml:3: soak", "60s"]),
        (WEB + "hosts = 80\n", ["slot.toml:3: hosts"]),
        (WEB + 'bind = "prot"\n', ["slot.toml:3: bind", "port", "unix", "fd"]),
        (WEB + "[ports]\nblue = 70000\n", ["slot.toml:4: ports.blue"]),
        (WEB + "[ports]\nblue = 3001\ngreen = 3001\n", ["slot.toml:5: ports.green", "3001"]),
        (WEB + 'slots = ["blue"]\n', ["slot.toml:3: slots"]),
        (WEB + "command = \n", ["slot.toml:3"]),
        ('name = "web"\n', ["slot.toml: command"]),
        ('name = "Web App"\ncommand = "./server"\n', ["slot.toml:1: name", "lower-case"]),
        (WEB + "[ports]\nblue = 3999\n", ["slot.toml: ports.blue", "python3", "port 3999", "free one is chosen"]),
    ],
    ids=lambda value: value.rpartition(WEB)[2].strip().replace("\n", " ") if isinstance(value, str) else "",
)
def test_a_file_that_is_wrong_is_refused_by_line_key_and_remedy(machine, project, text, says):
    machine.write("/srv/bad/slot.toml", text)
    machine.run("ss -ltn | grep -q 127.0.0.1:3999 || systemd-run -q python3 -m http.server --bind 127.0.0.1 3999")
    machine.wait_for("ss -ltn | grep -q 127.0.0.1:3999")
    for words in ("deploy ./app", "app add"):
        said = refused(machine, words)
        for part in says:
            assert part in said, said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dbus", "unit dbus.service"),
        ("nginx", "unit nginx.service"),
        ("getty", "unit getty@"),
        ("slotd", "a name of slot's own"),
        ("slot-router", "a name of slot's own"),
        ("games", "user"),
        ("adm", "group"),
    ],
)
def test_a_name_that_somebody_has_is_refused(machine, project, name, says):
    machine.write("/srv/bad/slot.toml", WEB.replace('"web"', f'"{name}"'))
    said = refused(machine, "deploy ./app")
    assert "slot.toml:" in said and " name: " in said and says in said and "; choose another" in said, said


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("./gone", "./gone does not exist"),
        ("./void", "./void is empty"),
        ("./hollow", "./hollow has no file in it"),
        ("./plain", "./plain/server is not executable"),
        ("./app.fifo", "./app.fifo is neither a file"),
        ("/srv/bad/slot.toml", "command runs ./server"),
    ],
)
def test_a_path_that_cannot_be_a_release_is_refused(machine, project, path, says):
    machine.write("/srv/bad/slot.toml", WEB)
    said = refused(machine, f"deploy {path}")
    assert says in said and "; " in said, said


@pytest.mark.parametrize("user", ["root", "slot", "slot-router"])
def test_a_user_with_rights_of_slots_own_is_refused(machine, project, user):
    machine.write("/srv/bad/slot.toml", WEB + f'user = "{user}"\n')
    for words in ("deploy ./app", "app add"):
        said = refused(machine, words)
        assert f"slot.toml:3: user: an app that runs as {user}" in said and "allow_privileged_user" in said, said


def test_a_file_of_another_app_than_is_asked_for_is_refused(machine, project):
    machine.write("/srv/bad/slot.toml", WEB)
    said = refused(machine, "--app nosuch deploy ./app")
    assert "slot.toml is of the app web, and --app names nosuch, which is not registered" in said, said
    assert "`sudo slotctl --app nosuch app add " in said, said


def test_a_program_that_is_empty_is_refused(machine, project):
    machine.write("/srv/bad/slot.toml", WEB)
    said = refused(machine, "deploy ./nothing")
    assert "./nothing/server is empty" in said, said


def test_without_root_or_the_group_nothing_may_be_registered(machine, project):
    machine.write("/srv/bad/slot.toml", WEB)
    before = traces(machine)
    done = machine.run("cd /srv/bad && slotctl app add", user="games", check=False)
    assert done.returncode == 4 and "sudo" in done.stderr, done
    assert traces(machine) == before


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one", "--wait=stopped")
    return app


def api(machine, words, *, user=None):
    """An answer of slotd's, with its status."""
    text = machine.out(f"curl -sS --unix-socket /run/slot/slotd.sock -w '\\n%{{http_code}}' {words}", user=user)
    body, _, status = text.rpartition("\n")
    return int(status), json.loads(body) if body.startswith("{") else body


def test_a_rollback_with_nothing_to_go_back_to_is_refused_and_changes_nothing(machine, app):
    app.wait_until(lambda status: status["state"] == "idle")
    look = "sha256sum /var/lib/slot/web/state.json; stat -c '%i %y' /var/lib/slot/web/state.json"
    before = machine.out(look)
    status, body = api(machine, "-X POST http://slotd/apps/web/rollback")
    assert (status, body["success"], body["code"]) == (400, False, "nothing-to-roll-back-to"), body
    done = app.slotctl("rollback", check=False)
    assert (done["exit"], done["code"]) == (1, "nothing-to-roll-back-to"), done
    assert "nothing to roll back to" in done["error"] and "deploy" in done["error"], done
    assert machine.out(look) == before


def test_a_second_deploy_is_told_who_holds_the_lock_and_the_first_goes_on(machine, app):
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        live = app.status()["live"]
        first = machine.spawn(f"exec python3 /tests/held_upload.py web {app.release('two')}")
        assert first.stdout.readline() == "begun\n"
        status, body = api(machine, "-X POST --data-binary @/dev/null http://slotd/apps/web/deploy")
        assert (status, body["code"]) == (409, "busy"), body
        second = app.deploy("three", check=False)
        assert (second["exit"], second["code"]) == (1, "busy"), second
        for error in (body["error"], second["error"]):
            assert "root (pid " in error and "preparing" in error, error
        assert api(machine, "-X POST http://slotd/apps/web/reload")[0] in (200, 409)
        answers_only(load, "one")
        assert first.communicate("go\n", timeout=60)[0] == "200\n"
        status = app.wait_until(lambda status: status["live"] != live)
        assert status["last"]["cause"] == "switched", status
        answers_only(load, "two")
        # In the phase of a candidate that starts, too.
        slow = machine.spawn(f"cd /srv/web && exec slotctl --json deploy {app.release('slow', faults='slow-start')}")
        app.wait_until(lambda status: status["state"] == "starting")
        busy = app.deploy("three", check=False)
        assert busy["exit"] == 1 and "starting" in busy["error"], busy
        assert json.loads(slow.communicate(timeout=60)[0])["success"]
        answers_only(load, "slow")
        result = load.stop()
    nothing_failed(result, reconnects=8)


def test_what_is_no_archive_or_breaks_off_ends_the_deployment_and_leaves_nothing(machine, app):
    app.wait_until(lambda status: status["state"] == "idle")
    live, there = app.status()["live"], machine.out("ls /var/lib/slot/web/releases")
    status, body = api(machine, "-X POST --data-binary 'no archive' http://slotd/apps/web/deploy")
    assert status == 200, body
    broken = machine.spawn(f"exec python3 /tests/held_upload.py web {app.release('two')}")
    assert broken.stdout.readline() == "begun\n"
    broken.communicate("break\n", timeout=60)
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["last"]["cause"], status["last"]["success"]) == ("unprepared", False)
    assert "not a whole tar archive" in status["last"]["text"], status
    assert (status["live"], machine.out("ls /var/lib/slot/web/releases")) == (live, there)
    assert machine.run("test -e /var/lib/slot/web/incoming", check=False).returncode != 0


def test_only_root_and_the_group_may_use_slotd(machine, app):
    for user in ("games", "www-data"):
        uid = machine.out(f"id -u {user}")
        for words in ("-X POST http://slotd/apps/web/deploy", "-X POST http://slotd/rollback", "http://slotd/status"):
            status, body = api(machine, words, user=user)
            assert (status, body["code"]) == (403, "forbidden"), body
            assert f"uid {uid} " in body["error"] and "group slot" in body["error"], body
        assert api(machine, "http://slotd/", user=user) == (200, {"status": "ok"})
        done = machine.run("cd /srv/web && slotctl rollback", user=user, check=False)
        assert done.returncode == 4 and "sudo" in done.stderr, done
    machine.run("useradd -m -G slot deployer")
    assert api(machine, "http://slotd/status", user="deployer")[0] == 200
    # Whoever gets into the router has its user and its groups, and may not deploy with them.
    pid = machine.show("slot-router@1.service", "MainPID")["MainPID"]
    inside = f"nsenter -t {pid} -m -n -S $(stat -c %u /proc/{pid}) -G $(stat -c %g /proc/{pid})"
    asked = machine.out(
        f"{inside} curl -sS -o /dev/null -w '%{{http_code}}' --unix-socket /run/slot/slotd.sock -X POST http://slotd/rollback"
    )
    assert asked == "403"


def test_requests_that_make_no_sense_are_answered_with_what_would(machine, app):
    for words, wanted, says in [
        ("-X POST http://slotd/apps/gone/deploy", 404, "slotctl app list"),
        ("-X POST http://slotd/apps/..%2F..%2Fetc/deploy", 404, ""),
        ("-X POST 'http://slotd/apps/web/deploy?drain=soon'", 400, "30s"),
        ("-X POST 'http://slotd/apps/web/deploy?speed=9'", 400, ""),
        ("-X POST 'http://slotd/apps/web/promote?slot=Blue'", 404, "blue ("),
        ("-X POST 'http://slotd/apps/web/promote?slot=a%20b'", 400, "no name of a slot"),
        ("-X POST 'http://slotd/apps/web/weight?slot=blue&weight=101'", 422, "from 0 to 100"),
        ("-X POST 'http://slotd/apps/web/deploy?weight=ten'", 422, "from 0 to 100"),
        ("-X POST 'http://slotd/apps/web/promote?slot=gone'", 404, ""),
        ("-X DELETE http://slotd/apps/web/deploy", 400, "slotd(8)"),
        ("http://slotd/everything", 404, "slotd(8)"),
    ]:
        status, body = api(machine, words)
        assert (status, body["success"]) == (wanted, False), (words, body)
        assert body["code"] and says in body["error"], (words, body)
