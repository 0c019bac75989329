"""Commits that slotd has fetched, over ssh with a deploy key, by a unit that has the key, which slotd never has."""

import contextlib
import json

import pytest
from apps import make
from slots import QUICK, App, answers_only, nothing_failed

KEYS = "/etc/slot/keys"
REMOTE = "git@127.0.0.1:shop.git"
GIT = "git -c user.name=Ada -c user.email=ada@example.org"
UNIT = "slot-fetch@web"
LINES = f'[git]\nremote = "{REMOTE}"\ndeploy_key = "{KEYS}/shop"\nknown_hosts = "{KEYS}/known_hosts"\n'


@pytest.fixture(scope="module")
def app(machine):
    return with_remote(machine)


def with_remote(machine):
    """An app whose remote is this machine's own sshd, and the repository in which its commits are made."""
    machine.run("useradd -m -d /srv/git -s /bin/bash git && mkdir /srv/shop && chown git: /srv/shop")
    owned(machine, "git init -q --bare --initial-branch=main /srv/git/shop.git && git init -q --initial-branch=main /srv/shop")
    # Holds a fetch for as long as a file is there.
    machine.write("/srv/git/hold", '#!/bin/sh\nwhile test -e /tmp/held; do sleep 0.05; done\nexec "$@"\n', mode="0755")
    owned(machine, "git config --global uploadpack.packObjectsHook /srv/git/hold")
    machine.run(f"install -d -m 0755 {KEYS} && ssh-keygen -q -t ed25519 -N '' -f {KEYS}/shop")
    machine.run(f"install -D -o git -m 0600 {KEYS}/shop.pub /srv/git/.ssh/authorized_keys && chown git: /srv/git/.ssh")
    machine.run("systemctl start ssh.service")
    machine.run(f"ssh-keyscan 127.0.0.1 >{KEYS}/known_hosts 2>/dev/null && test -s {KEYS}/known_hosts")
    return App(machine, text=QUICK + LINES)


def owned(machine, command):
    """As the user who has the repositories."""
    return machine.out(f"cd /srv/git && HOME=/srv/git && export HOME && {command}", user="git")


def push(machine, marker, more="true"):
    """A commit of the app that answers `release MARKER`, at the remote; its whole name."""
    made = make(machine, "notify", marker, directory=f"/srv/made/{marker}")
    machine.run(f"cp -r {made}/. /srv/shop/ && chown -R git: /srv/shop")
    # Contents of Git LFS are put at their server by who has them tracked.
    send = "GIT_LFS_SKIP_PUSH=1 git push -q --force /srv/git/shop.git HEAD"
    owned(machine, f"cd /srv/shop && {more} && git add --all && {GIT} commit -q -m {marker} && {send}")
    return owned(machine, "git -C /srv/shop rev-parse HEAD")


@contextlib.contextmanager
def held(app, words="deploy --remote"):
    """A deployment whose fetch gets no answer, from when it has begun to wait for it."""
    app.machine.run("touch /tmp/held")
    deploying = app.machine.spawn(f"cd {app.home} && exec slotctl --json {words}")
    try:
        app.wait_until(lambda status: " is " in status.get("deployment", {}).get("waits_for", ""))
        yield deploying
    finally:
        app.machine.run("rm -f /tmp/held")
        deploying.wait(60)


def untouched(app, before):
    """The app is where it was, and nothing of the fetch runs or is left."""
    machine = app.machine
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["active"], status["live"]) == (before["active"], before["live"])
    machine.wait_for(f"systemctl show -P ActiveState {UNIT} | grep -Eqx 'inactive|failed'")
    assert machine.run("pgrep -u slot-get-web", check=False).stdout == ""
    assert machine.run("test -e /var/lib/slot/web/incoming", check=False).returncode == 1
    assert machine.out("find /var/lib/slot/web/repo.git -name 'tmp_*'") == ""
    assert machine.out("ls -A /run/slot/slotd/fetch") == ""


def refused(app, *words, deploy="deploy --remote"):
    """A deployment that fails in its fetch, says so in these words, and touches nothing."""
    before = app.status()
    outcome = app.slotctl(deploy, check=False)
    assert (outcome["exit"], outcome["success"]) == (1, False), outcome
    assert (outcome["phase"], outcome["cause"]) == ("fetch", "unprepared"), outcome
    for word in (REMOTE, *words):
        assert word in outcome["text"], outcome
    report = outcome["report"]
    assert report["unit"] == f"{UNIT}.service"
    # The rest is one line away, as it is printed.
    assert "Started slot-fetch@web.service" in app.machine.out(report["journal"] + " -o cat"), report
    untouched(app, before)
    return outcome


def test_a_branch_is_deployed_over_ssh_while_requests_go_on(machine, app):
    first = push(machine, "one")
    sent = app.slotctl("deploy --remote")
    assert sent["success"] and sent["release"] == first[:8], sent
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        answers_only(load, "one")
        second = push(machine, "two")
        # In no repository there is nothing else that could be meant.
        sent = app.slotctl("deploy --version v2")
        assert sent["success"] and sent["release"] == second[:8], sent
        answers_only(load, "two")
        listed = {release["id"]: release for release in app.slotctl("releases")["releases"]}
        assert listed[second[:8]]["source"] == {"kind": "git", "commit": second, "ref": "main"}, listed
        assert listed[second[:8]]["label"] == "v2", listed
        assert app.slotctl(f"deploy {first}")["release"] == first[:8]
        answers_only(load, "one")
        nothing_failed(load.stop(), reconnects=8)
    assert machine.out("find /var/lib/slot/web/releases -name .git") == ""
    told = machine.out(f"journalctl -o cat --no-pager -u {UNIT}")
    assert f"main is {first} at {REMOTE}" in told, told


def test_the_key_is_nowhere_that_others_read(machine, app):
    push(machine, "keyed")
    # The second line of the file: the key itself.
    secret = machine.out(f"sed -n 2p {KEYS}/shop")
    with held(app) as deploying:
        assert machine.run(f"test -e /run/credentials/{UNIT}.service/deploy-key", check=False).returncode == 0
        for user in ("slot", "daemon"):
            assert machine.run(f"cat /run/credentials/{UNIT}.service/deploy-key {KEYS}/shop", user=user, check=False).stdout == ""
        running = machine.out("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'")
        assert "ssh" in running and secret not in running
        places = "/etc /run /var /tmp /srv"
        assert machine.run(f"grep -rlsF -- '{secret}' {places}", user="daemon", check=False).stdout == ""
        assert machine.run(f"grep -rlsF -- '{secret}' {places}", user="slot", check=False).stdout == ""
        status = app.status()
        assert status["deployment"]["phase"] == "fetch", status
        machine.run("rm /tmp/held")
        outcome = json.loads(deploying.communicate(timeout=60)[0])
    assert outcome["success"], outcome
    assert secret not in machine.out("journalctl --no-pager -o cat")
    assert machine.out(f"systemctl show -P User {UNIT}") == "slot-get-web"


def test_a_rollback_goes_ahead_of_a_fetch(machine, app):
    push(machine, "late")
    before = app.status()
    with held(app) as deploying:
        back = app.slotctl("rollback")
        assert back["success"] and back["release"] == before["prev"], back
        outcome = json.loads(deploying.communicate(timeout=60)[0])
        assert outcome["cause"] == "preempted", outcome
        untouched(app, app.status())


def test_a_fetch_that_is_killed_is_told_and_the_next_one_does_well(machine, app):
    killed = push(machine, "killed")
    before = app.status()
    with held(app) as deploying:
        machine.run(f"systemctl kill -s KILL {UNIT}")
        outcome = json.loads(deploying.communicate(timeout=60)[0])
    assert f"the fetch from {REMOTE} failed: was killed by SIGKILL" in outcome["text"], outcome
    untouched(app, before)
    assert app.slotctl("deploy")["release"] == killed[:8]


def test_slotd_killed_during_a_fetch_ends_it(machine, app):
    push(machine, "orphan")
    before = app.status()
    machine.run("touch /tmp/held")
    deploying = machine.spawn(f"cd {app.home} && exec slotctl --json deploy")
    app.wait_until(lambda status: " is " in status.get("deployment", {}).get("waits_for", ""))
    # Who waits would deploy it again.
    machine.run("pkill -KILL -f '^slotctl --json deploy'")
    deploying.wait(30)
    machine.run("systemctl kill -s KILL slotd.service")
    machine.run("rm /tmp/held")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["live"], status["last"]["cause"]) == (before["live"], "interrupted"), status
    machine.wait_for(f"systemctl show -P ActiveState {UNIT} | grep -Eqx 'inactive|failed'")
    assert app.slotctl("deploy")["success"]


def test_who_is_not_of_the_unit_is_given_nothing(machine, app):
    push(machine, "coveted")
    stranger = machine.spawn("exec python3 /tests/steal.py /run/slot/slotd/fetch/web.sock", user="daemon")
    assert stranger.stdout.readline() == "looking\n"
    assert app.slotctl("deploy")["success"]
    assert stranger.communicate(timeout=60)[0] == "0 bytes\n"


def test_a_fetch_that_takes_too_long_is_ended_at_its_limit(machine, app):
    push(machine, "slow")
    app.configure(QUICK + LINES + 'fetch_timeout = "2s"\n')
    machine.run("touch /tmp/held")
    try:
        refused(app, "did not end within fetch_timeout (2 s)")
    finally:
        machine.run("rm /tmp/held")
        app.configure(QUICK + LINES)


def test_what_the_remote_has_not_is_named(machine, app):
    refused(app, "did you mean main?", deploy="deploy --remote mian")
    refused(app, "no branch and no tag there has commit 0123456789", "force-push", deploy=f"deploy --remote {'0123456789' * 4}")


def test_a_commit_in_the_past_of_a_branch_is_had_from_a_server_that_speaks_the_old_protocol(machine, app):
    # sshd passes no GIT_PROTOCOL on unless it is told to.
    past = push(machine, "past")
    push(machine, "present")
    assert app.slotctl("deploy")["success"]
    machine.run(f"systemctl clean --what=cache {UNIT}")
    for _ in ("from nothing", "with a mirror"):
        sent = app.slotctl(f"deploy {past}")
        assert sent["success"] and sent["release"] == past[:8], sent
        past = owned(machine, f"git -C /srv/shop rev-parse {past}~1")


def test_a_key_that_the_host_does_not_know_a_host_that_is_not_known_and_none_that_answers(machine, app):
    push(machine, "unreached")
    machine.run(f"cp {KEYS}/shop /root/shop && rm {KEYS}/shop && ssh-keygen -q -t ed25519 -N '' -f {KEYS}/shop </dev/null")
    refused(app, "Permission denied", "deploy keys of the repository")
    machine.run(f"install -m 0600 /root/shop {KEYS}/shop && cp {KEYS}/known_hosts /root/known_hosts")
    machine.run(f"sed -i 's/^127.0.0.1/example.org/' {KEYS}/known_hosts")
    refused(app, "Host key verification failed", "`ssh-keyscan 127.0.0.1` prints it")
    machine.run(f"cp /root/known_hosts {KEYS}/known_hosts && systemctl stop ssh.service")
    refused(app, "Connection refused")
    machine.run("systemctl start ssh.service")
    assert app.slotctl("deploy")["success"]


def test_a_key_that_others_may_read_or_replace_or_that_is_not_there_is_refused(machine, app):
    before = app.status()
    machine.run(f"chmod 0644 {KEYS}/shop")
    for words in ("deploy --remote", "app add"):
        said = app.slotctl(words, check=False)
        assert said["exit"] != 0 and "others than its owner may read" in said["error"], said
    machine.run(f"chmod 0600 {KEYS}/shop && mv {KEYS}/shop {KEYS}/away")
    for words in ("deploy --remote", "app add"):
        said = app.slotctl(words, check=False)
        assert said["exit"] != 0 and f"there is no file {KEYS}/shop" in said["error"], said
    machine.run(f"mv {KEYS}/away {KEYS}/shop && chmod 0777 {KEYS}")
    said = app.slotctl("app add", check=False)
    assert said["exit"] != 0 and "others than root may write to /etc/slot/keys" in said["error"], said
    machine.run(f"chmod 0755 {KEYS}")
    app.slotctl("app add")
    untouched(app, before)


@pytest.fixture
def large(machine, app):
    """A server of Git LFS beside the remote, whose token is had over ssh alone; the directory of what it has."""
    machine.run("install -d -o git /srv/lfs")
    owned(machine, "git lfs install --skip-repo")
    token = "b2f1c7d0e6"
    told = json.dumps({"href": "http://127.0.0.1:8790/shop", "header": {"Authorization": f"Bearer {token}"}})
    machine.write("/usr/local/bin/git-lfs-authenticate", f"#!/bin/sh\necho '{told}'\n", mode="0755")
    server = f"systemd-run --unit lfs-server -p User=git -p BindReadOnlyPaths=/tests python3 /tests/lfs_server.py /srv/lfs 8790 {token}"
    machine.run(server)
    machine.wait_for("curl -sS http://127.0.0.1:8790/contents/none")
    yield "/srv/lfs"
    machine.run("systemctl stop lfs-server.service && rm /usr/local/bin/git-lfs-authenticate && rm -rf /srv/shop/*.bin /srv/shop/art")


def keep(machine, large, path, size):
    """A new file of Git LFS in the work tree that is pushed from; its content is only at the server. Gives its SHA-256."""
    make_it = f"git lfs track '*.bin' >/dev/null && mkdir -p art && head -c {size} /dev/urandom >'{path}' && git add --all"
    owned(machine, f"cd /srv/shop && {make_it} && find .git/lfs/objects -type f -exec cp {{}} {large}/ ';'")
    return owned(machine, f"sha256sum '/srv/shop/{path}'").split()[0]


def test_what_git_lfs_keeps_is_fetched_with_the_key_and_given_to_slotd_alone(machine, app, large):
    wanted = keep(machine, large, "model.bin", 40_000_000)
    first = push(machine, "large")
    blob = owned(machine, f"git -C /srv/shop cat-file blob {first}:model.bin")
    assert blob.startswith("version https://git-lfs.github.com/spec/v1"), blob
    sent = app.slotctl("deploy --remote")
    assert sent["success"] and sent["release"] == first[:8], sent
    live = "/var/lib/slot/web/live/model.bin"
    assert machine.out(f"sha256sum {live}").split()[0] == wanted
    pid = machine.out(f"systemctl show -P MainPID web@{app.active()}.service")
    assert machine.out(f"sha256sum /proc/{pid}/root{live}").split()[0] == wanted, "as the app sees it"
    told = machine.out(f"journalctl -o cat --no-pager -u {UNIT}")
    assert "of Git LFS to be fetched, the first for \"model.bin\"" in told, told
    mirror = "/var/cache/private/slot-fetch/web/mirror.git"
    assert machine.run(f"test -d {mirror} && ! test -e {mirror}/lfs", check=False).returncode == 0
    # What slotd has is not fetched again.
    other = keep(machine, large, "art/other (2), new.bin", 100_000)
    push(machine, "larger")
    machine.run(f"rm -f {large}/{wanted}")
    assert app.slotctl("deploy --remote")["success"]
    assert machine.out("sha256sum '/var/lib/slot/web/live/art/other (2), new.bin'").split()[0] == other
    assert machine.out(f"sha256sum {live}").split()[0] == wanted


def test_what_git_lfs_does_not_get_ends_the_deployment_with_the_file(machine, app, large):
    lost = keep(machine, large, "lost.bin", 1000)
    push(machine, "lost")
    machine.run(f"rm {large}/{lost}")
    refused(app, '"lost.bin" (1000 B)', "there is no such content", f"`git lfs push --all {REMOTE}`")
    machine.run("mv /usr/bin/git-lfs /root/git-lfs")
    try:
        refused(app, '"lost.bin" (1000 B)', "apt install git-lfs")
    finally:
        machine.run("mv /root/git-lfs /usr/bin/git-lfs")
    machine.run("mv /usr/local/bin/git-lfs-authenticate /root/")
    try:
        refused(app, '"lost.bin" (1000 B)', "has no server of Git LFS", ".lfsconfig lfs.url")
    finally:
        machine.run("mv /root/git-lfs-authenticate /usr/local/bin/")
    push(machine, "found", more="rm lost.bin")
    assert app.slotctl("deploy --remote")["success"]


def test_a_disk_that_is_full_is_named(machine, app):
    machine.run("mkdir -p /var/cache/private/slot-fetch && mount -t tmpfs -o size=1M tmpfs /var/cache/private/slot-fetch")
    push(machine, "vast", more="head -c 5000000 /dev/urandom >vast")
    try:
        refused(app, "No space left on device", "df -h")
    finally:
        machine.run("umount /var/cache/private/slot-fetch")
    push(machine, "slim", more="rm vast")
    assert app.slotctl("deploy")["success"]


def test_an_app_that_is_purged_leaves_no_mirror(machine, app):
    assert machine.run("test -d /var/cache/private/slot-fetch/web/mirror.git", check=False).returncode == 0
    machine.run("slotctl app remove web --purge --now")
    assert machine.run("ls -d /var/cache/slot-fetch/web /var/cache/private/slot-fetch/web", check=False).stdout == ""
