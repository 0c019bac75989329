"""Staging under systemd: made after each promotion as the user whose it is, kept while there is work in it, and nobody waits for it."""

import contextlib
import json
import subprocess

import pytest
from apps import make
from machine import TARGET, Machine
from slots import QUICK, App, answers_only

HOME = "/home/alice"
REPOSITORY = f"{HOME}/shop"
PLACE = "/var/lib/slot-staging/web"
TREE = f"{PLACE}/staging"
GIT = "git -c user.name=Alice -c user.email=alice@example.org"
STAGED = '[staging]\nuser = "alice"\n'
TEXT = QUICK + 'keep = 1\nsetup_command = "./setup"\n' + STAGED
# While this file is there, staging takes its time.
HELD = "/run/hold-staging"
HOLD = f"[Service]\nExecStartPre=/bin/sh -c 'while test -e {HELD}; do sleep 0.05; done'\n"


def prepare(machine, text=TEXT):
    """An app with staging, and alice with a repository of it."""
    machine.run(f"useradd -m -G slot -s /bin/bash alice && chmod 0700 {HOME}")
    app = App(machine, "web", text)
    machine.write("/etc/systemd/system/slot-stage@web.service.d/hold.conf", HOLD)
    machine.run("systemctl daemon-reload")
    alice(machine, f"git init -q --initial-branch=main {REPOSITORY}")
    machine.write(f"{REPOSITORY}/.gitignore", "node_modules\n")
    machine.write(f"{REPOSITORY}/setup", "#!/bin/sh\nmkdir node_modules && echo installed >node_modules/dep && echo made >made\n", mode="0755")
    return app


@pytest.fixture(scope="module")
def app(machine):
    return prepare(machine)


def alice(machine, command):
    """A shell's line as alice; what it printed."""
    return machine.out(f"export HOME={HOME} && cd {HOME} && {command}", user="alice", timeout=300)


def commit(machine, marker):
    """A commit of the app that answers `release MARKER`; its whole name."""
    made = make(machine, "notify", marker, directory=f"/srv/made/{marker}")
    machine.run(f"cp -r {made}/. {REPOSITORY}/ && cp /srv/web/slot.toml {REPOSITORY}/ && chown -R alice: {REPOSITORY}")
    alice(machine, f"cd {REPOSITORY} && git add --all && {GIT} commit -q -m {marker}")
    return alice(machine, f"git -C {REPOSITORY} rev-parse HEAD")


def deploy(machine, at=REPOSITORY, words="", timeout=120):
    """`slotctl deploy` as alice, from a directory of hers."""
    done = machine.run(f"cd {at} && HOME={HOME} slotctl --json deploy {words}", user="alice", check=False, timeout=timeout)
    outcome = json.loads(done.stdout)
    assert outcome["success"], (outcome, done.stderr)
    return outcome


def is_of(app, commit, timeout=30):
    """Waits until staging is of a commit."""
    status = app.wait_until(lambda status: status["staging"].get("release") == commit[:8], timeout=timeout)
    assert "kept" not in status["staging"], status["staging"]


@contextlib.contextmanager
def held(machine):
    """Staging that is begun meanwhile is made only after."""
    machine.run(f"touch {HELD}")
    try:
        yield
    finally:
        machine.run(f"rm -f {HELD}")


def test_staging_is_its_users_own_and_has_all_that_the_release_has(machine, app):
    one = commit(machine, "one")
    deploy(machine)
    is_of(app, one)
    assert app.status()["staging"] == {"path": TREE, "release": one[:8]}
    assert alice(machine, f"git -C {TREE} rev-parse HEAD") == one
    assert alice(machine, f"git -C {TREE} branch --show-current") == "machine"
    assert alice(machine, f"git -C {TREE} status --porcelain") == "?? made"
    assert alice(machine, f"cat {TREE}/node_modules/dep {TREE}/marker") == "installed\none"
    assert machine.out(f"find {PLACE} ! -user alice") == ""
    assert machine.out(f"stat -c '%U:%G %a' {PLACE} {TREE} {TREE}/setup {TREE}/marker").splitlines() == [
        "alice:alice 750", "alice:alice 755", "alice:alice 755", "alice:alice 644",
    ]  # fmt: skip
    # Found from the app's directory too; and slotd neither reads it, nor can the app.
    assert machine.out("readlink /var/lib/slot/web/staging") == TREE
    assert machine.run(f"ls {TREE}", user="slot", check=False).returncode != 0
    assert machine.out("stat -c '%U %a' /var/lib/slot/web/repo.git") == "slot 700"
    assert f"staging is of release {one[:8]}" in machine.out("journalctl -q -o cat -u slot-stage@web").splitlines()
    assert f"staging: {TREE} is of release {one[:8]}" in machine.out("slotctl --app web status")
    assert machine.run("systemctl is-failed slot-stage@web", check=False).returncode != 0


def test_work_in_it_keeps_it_and_committed_and_deployed_from_there_it_is_the_next_release(machine, app):
    alice(machine, f"echo mine >{TREE}/marker")
    deploy_two = commit(machine, "two")
    deploy(machine)
    status = app.wait_until(lambda status: status["staging"].get("kept") and "coming" not in status["staging"])
    assert 'staging stays as it is: it has work that is not committed ("marker")' in status["staging"]["kept"]
    assert status["live"] == deploy_two[:8]
    assert alice(machine, f"cat {TREE}/marker") == "mine"
    assert "work that is not committed" in machine.out("slotctl --app web status")
    assert "work that is not committed" in machine.out("journalctl -q -o cat -u slot-stage@web")
    assert "work that is not committed" in machine.out("journalctl -q -o cat -u slotd SLOT_APP=web")
    alice(machine, f"cd {TREE} && {GIT} commit -q -a -m mine")
    mine = alice(machine, f"git -C {TREE} rev-parse HEAD")
    assert deploy(machine, at=TREE)["release"] == mine[:8]
    assert machine.out("curl -sS http://127.0.0.1:80/") == "release mine"
    is_of(app, mine)
    assert alice(machine, f"git -C {TREE} log --format=%s") == "mine\none"


def test_a_deployment_waits_for_no_staging_and_the_last_one_is_what_staging_is_of(machine, app):
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        with held(machine):
            commit(machine, "three")
            deploy(machine)
            machine.wait_for("systemctl show -P ActiveState slot-stage@web | grep -qx activating")
            four = commit(machine, "four")
            deploy(machine)
            answers_only(load, "four")
            assert machine.show("slot-stage@web", "ActiveState") == {"ActiveState": "activating"}
        is_of(app, four)
        result = load.stop()
        assert result["failed"] == 0, result
    assert alice(machine, f"git -C {TREE} rev-parse HEAD") == four


def test_slotd_killed_while_staging_is_made_has_it_made_when_it_is_back(machine, app):
    with held(machine):
        five = commit(machine, "five")
        deploy(machine)
        machine.wait_for("systemctl show -P ActiveState slot-stage@web | grep -qx activating")
        machine.run("systemctl kill -s KILL slotd.service")
    machine.wait_for("slotctl status")
    is_of(app, five)
    assert alice(machine, f"git -C {TREE} rev-parse HEAD") == five
    assert machine.run(f"test -e {TREE}.new", check=False).returncode != 0


def test_a_rollback_is_a_promotion_and_a_directory_leaves_staging_as_it_is(machine, app):
    before = app.status()
    app.slotctl("rollback")
    is_of(app, before["prev"])
    directory = app.release("plain")
    machine.run(f"cp {REPOSITORY}/setup {directory}/setup")
    app.slotctl(f"deploy {directory}")
    status = app.wait_until(lambda status: "is of no commit" in status["staging"].get("kept", ""))
    assert status["staging"]["release"] == before["prev"]


def test_who_is_not_of_the_unit_is_given_nothing_and_the_unit_has_no_group_of_slots(machine, app):
    stranger = machine.spawn("exec python3 /tests/steal.py /run/slot/slotd/stage/web.sock", user="daemon")
    assert stranger.stdout.readline() == "looking\n"
    six = commit(machine, "six")
    deploy(machine)
    is_of(app, six)
    assert stranger.communicate(timeout=60)[0] == "0 bytes\n"
    shown = machine.show("slot-stage@web", "User", "SupplementaryGroups", "IOSchedulingClass", "PrivateNetwork")
    assert shown == {"User": "alice", "SupplementaryGroups": "", "IOSchedulingClass": "3", "PrivateNetwork": "yes"}


def test_another_user_who_is_not_of_the_group_has_it_from_then_on(machine, app):
    live = app.status()["live"]
    machine.run("useradd -m bob")
    app.configure(TEXT.replace("alice", "bob"))
    app.wait_until(lambda status: status["staging"].get("release") == live)
    assert machine.out(f"find {PLACE} ! -user bob") == ""
    seven = commit(machine, "seven")
    deploy(machine)
    is_of(app, seven)
    assert machine.out(f"git -C {TREE} rev-parse HEAD", user="bob") == seven
    app.configure(TEXT)
    is_of(app, seven)


def test_a_removed_app_leaves_the_work_of_its_user(machine, app):
    alice(machine, f"echo idea >{TREE}/idea")
    said = machine.out(f"cd {app.home} && slotctl app remove web --now --purge")
    assert f"its staging stays in {PLACE}" in said
    assert alice(machine, f"cat {TREE}/idea") == "idea"


@pytest.fixture
def cloning():
    """A machine whose releases and staging are on one file system that can share blocks."""
    image = TARGET / "staging.img"
    at = TARGET / "staging.mount"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(8 << 30)
    at.mkdir(exist_ok=True)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    try:
        for name in ("slot", "slot-staging", "slot-setup"):
            (at / name).mkdir()
        binds = [f"{at}/slot:/var/lib/slot", f"{at}/slot-staging:/var/lib/slot-staging"]
        with Machine(binds=binds) as machine:
            machine.install()
            yield machine, at
    finally:
        subprocess.run(["umount", at], check=True)
        image.unlink()


def is_shared(path):
    """Whether all of a file's blocks are another's too, as the file system says (filefrag(8))."""
    said = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout
    extents = [line for line in said.splitlines() if line.strip()[:1].isdigit()]
    return bool(extents) and all("shared" in line for line in extents)


def used(machine):
    """KiB of the file system that staging is on."""
    machine.run("sync")
    return int(machine.out("df --output=used /var/lib/slot-staging | tail -n 1"))


def test_where_the_file_system_can_staging_is_a_clone_even_of_two_gigabytes(cloning):
    machine, at = cloning
    app = prepare(machine, QUICK + STAGED)
    machine.run(f"truncate -s 2G {REPOSITORY}/large && head -c 64M /dev/urandom >{REPOSITORY}/real")
    with held(machine):
        one = commit(machine, "one")
        deploy(machine, timeout=600)
        machine.wait_for("systemctl show -P ActiveState slot-stage@web | grep -qx activating")
        before = used(machine)
    is_of(app, one, timeout=300)
    # The commit's objects, packed (64 MiB and a little), and what the file system itself notes.
    assert used(machine) - before < 96 << 10
    assert machine.out(f"stat -c %s {TREE}/large {TREE}/real").split() == [str(2 << 30), str(64 << 20)]
    for path in ("large", "real"):
        assert is_shared(at / "slot-staging/web/staging" / path), path
        machine.run(f"cmp {TREE}/{path} /var/lib/slot/web/releases/{one[:8]}/{path}", timeout=120)
