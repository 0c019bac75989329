"""Commits under systemd: deployed out of a repository that slotd may not look into, by a user who is not root."""

import json
import time

import pytest
from apps import make
from slots import QUICK, App, answers_only, nothing_failed

HOME = "/home/deployer"
REPOSITORY = f"{HOME}/shop"
GIT = "git -c user.name=Ada -c user.email=ada@example.org -c protocol.file.allow=always"


@pytest.fixture(scope="module")
def app(machine):
    machine.run(f"useradd -m -G slot deployer && chmod 0700 {HOME}")
    app = App(machine, text=QUICK + "keep = 1\n")
    owned(machine, f"git init -q --initial-branch=main {REPOSITORY}")
    # The file of the app that is registered; slot's own, so that it may differ from what is committed.
    machine.run(f"install -o deployer -m 0644 {app.home}/slot.toml {REPOSITORY}/slot.toml")
    return app


def owned(machine, command):
    """As the user who has the repository."""
    return machine.out(f"cd {HOME} && HOME={HOME} && export HOME && {command}", user="deployer")


def commit(machine, marker):
    """A commit of the app that answers `release MARKER`; its whole name."""
    made = make(machine, "notify", marker, directory=f"/srv/made/{marker}")
    machine.run(f"cp -r {made}/. {REPOSITORY}/ && chown -R deployer: {REPOSITORY}")
    owned(machine, f"cd {REPOSITORY} && git add --all && {GIT} commit -q -m {marker}")
    return owned(machine, f"git -C {REPOSITORY} rev-parse HEAD")


def deploy(machine, words=""):
    """`slotctl deploy` in the repository, as its user."""
    done = machine.run(
        f"cd {REPOSITORY} && HOME={HOME} slotctl --json deploy {words}", user="deployer", check=False
    )
    return {**json.loads(done.stdout), "exit": done.returncode, "said": done.stderr}


def test_a_member_of_the_group_deploys_commits_out_of_a_home_that_only_he_may_enter(machine, app):
    assert machine.run(f"ls {REPOSITORY}", user="slot", check=False).returncode != 0
    first = commit(machine, "one")
    sent = deploy(machine)
    assert sent["success"] and sent["release"] == first[:8], sent
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        answers_only(load, "one")
        second = commit(machine, "two")
        sent = deploy(machine, "main --version v2")
        assert sent["success"] and sent["release"] == second[:8], sent
        answers_only(load, "two")
        listed = {release["id"]: release for release in app.slotctl("releases")["releases"]}
        assert listed[second[:8]]["source"] == {"kind": "git", "commit": second, "ref": "main"}, listed
        assert listed[second[:8]]["live"] and listed[second[:8]]["label"] == "v2", listed
        assert deploy(machine, first[:7])["release"] == first[:8]
        answers_only(load, "one")
        back = app.slotctl("rollback")
        assert back["success"] and back["release"] == second[:8], back
        answers_only(load, "two")
        nothing_failed(load.stop(), reconnects=8)
    # Nothing of a repository is in a release, and slotd's own is nobody else's.
    releases = "/var/lib/slot/web/releases"
    assert machine.out(f"find {releases} -name .git") == ""
    assert machine.out("stat -c '%U %a' /var/lib/slot/web/repo.git") == "slot 700"


def test_root_deploys_somebody_elses_repository_through_sudos_own_word(machine, app):
    three = commit(machine, "three")
    uid = machine.out("id -u deployer")
    refused = machine.run(f"cd {REPOSITORY} && slotctl deploy", check=False)
    assert refused.returncode != 0 and "dubious ownership" in refused.stderr, refused.stderr
    done = machine.json(f"cd {REPOSITORY} && SUDO_UID={uid} slotctl --json deploy")
    assert done["success"] and done["release"] == three[:8], done


def test_a_submodule_and_what_slotds_sandbox_lets_git_do(machine, app):
    owned(machine, f"git init -q --initial-branch=main {HOME}/lib && cd {HOME}/lib && echo pinned >lib && git add lib")
    owned(machine, f"cd {HOME}/lib && {GIT} commit -q -m lib")
    owned(machine, f"cd {REPOSITORY} && {GIT} submodule --quiet add {HOME}/lib vendor/lib")
    four = commit(machine, "four")
    sent = deploy(machine)
    assert sent["success"] and sent["release"] == four[:8], sent
    assert machine.out("cat /var/lib/slot/web/live/vendor/lib/lib") == "pinned"
    # Enough of them that slotd packs its repository anew.
    for number in range(12):
        commit(machine, f"five{number}")
        assert deploy(machine, "--wait stopped")["success"]
    deadline = time.monotonic() + 30
    while len(machine.out("ls /var/lib/slot/web/repo.git/refs/slot").split()) > 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(machine.out("ls /var/lib/slot/web/repo.git/objects/pack/*.pack").split()) < 12
    assert "repo.git" not in machine.out("journalctl -q -u slotd -p warning --no-pager")


def test_slotd_killed_during_a_checkout_leaves_nothing_that_the_next_one_trips_over(machine, app):
    machine.run(f"head -c 60000000 /dev/urandom >{REPOSITORY}/large && chown deployer: {REPOSITORY}/large")
    six = commit(machine, "six")
    repository = "/var/lib/slot/web/repo.git"
    upload = machine.spawn(f"cd {REPOSITORY} && HOME={HOME} slotctl --json deploy", user="deployer")
    machine.wait_for(f"find {repository}/incoming -name 'tmp_pack_*' -size +1M | grep -q .")
    machine.run("systemctl kill -s KILL slotd.service")
    upload.wait(60)
    machine.wait_for("slotctl status")
    assert machine.out(f"find {repository} -name 'tmp_*'") == ""
    sent = deploy(machine)
    assert sent["success"] and sent["release"] == six[:8], sent


def test_without_git_a_commit_is_refused_with_what_to_install(machine, app):
    git = machine.out("command -v git")
    commit(machine, "seven")
    machine.run(f"mv {git} {git}.away")
    try:
        sent = deploy(machine)
    finally:
        machine.run(f"mv {git}.away {git}")
    assert sent["exit"] != 0 and "apt install git" in sent["error"], sent
