"""Files that Git LFS keeps, under systemd: by Debian's git-lfs on the user's side, and without it on slotd's."""

import pytest
from apps import make
from slots import QUICK, App

HOME = "/home/deployer"
ORIGIN, REPOSITORY = f"{HOME}/origin", f"{HOME}/shop"
GIT = "git -c user.name=Ada -c user.email=ada@example.org"
LARGE = "/var/lib/slot/web/repo.git/large"


@pytest.fixture(scope="module")
def app(machine):
    machine.run(f"useradd -m -G slot deployer && chmod 0700 {HOME}")
    app = App(machine, text=QUICK)
    made = make(machine, "notify", "one", directory="/srv/made/one")
    owned(machine, "git lfs install --skip-repo")
    owned(machine, f"git init -q --bare --initial-branch=main {ORIGIN}")
    owned(machine, f"git clone -q file://{ORIGIN} {REPOSITORY}")
    machine.run(f"cp -r {made}/. {REPOSITORY}/ && cp {app.home}/slot.toml {REPOSITORY}/ && chown -R deployer: {REPOSITORY}")
    owned(machine, f"cd {REPOSITORY} && git lfs track '*.bin' && head -c 40000000 /dev/urandom >model.bin")
    commit(machine, "one")
    return app


def owned(machine, command):
    """As the user who has the repository."""
    return machine.out(f"cd {HOME} && HOME={HOME} && export HOME && {command}", user="deployer")


def commit(machine, message):
    """A commit of all that is in the work tree, pushed; its whole name."""
    owned(machine, f"cd {REPOSITORY} && git add --all && {GIT} commit -q -m {message} && git push -q origin HEAD:main")
    return owned(machine, f"git -C {REPOSITORY} rev-parse HEAD")


def deploy(machine, repository, words=""):
    """`slotctl deploy` in a repository, as its user; what it said, whether it went well or not."""
    done = machine.run(f"cd {repository} && HOME={HOME} slotctl deploy {words}", user="deployer", check=False)
    return done.returncode, done.stdout + done.stderr


def sha256(machine, path):
    return machine.out(f"sha256sum {path}").split()[0]


def test_what_git_lfs_tracks_is_in_the_release_and_is_sent_once(machine, app):
    blob = owned(machine, f"git -C {REPOSITORY} cat-file blob HEAD:model.bin")
    assert blob.startswith("version https://git-lfs.github.com/spec/v1"), blob
    code, said = deploy(machine, REPOSITORY)
    assert code == 0 and "model.bin" in said, said
    live = "/var/lib/slot/web/live/model.bin"
    assert sha256(machine, live) == sha256(machine, f"{REPOSITORY}/model.bin")
    pid = machine.out(f"systemctl show -P MainPID web@{app.active()}.service")
    assert sha256(machine, f"/proc/{pid}/root{live}") == sha256(machine, live), "as the app sees it"
    assert machine.out(f"stat -c '%U %a' {LARGE}") == "slot 700"
    assert machine.out("systemctl show -P NRestarts slotd.service") == "0"
    owned(machine, f"cd {REPOSITORY} && echo changed >other")
    commit(machine, "two")
    code, said = deploy(machine, REPOSITORY)
    assert code == 0 and "upload" not in said, said
    assert sha256(machine, live) == sha256(machine, f"{REPOSITORY}/model.bin")


def test_a_clone_that_has_the_pointers_alone_is_deployed_when_the_contents_can_be_had(machine, app):
    owned(machine, f"cd {REPOSITORY} && head -c 3000000 /dev/urandom >second.bin")
    three = commit(machine, "three")
    clone = f"{HOME}/clone"
    owned(machine, f"GIT_LFS_SKIP_SMUDGE=1 git clone -q file://{ORIGIN} {clone}")
    assert "git-lfs" in owned(machine, f"cat {clone}/second.bin")
    # Neither is what slotd has had fetched.
    owned(machine, f"mv {ORIGIN} {ORIGIN}.away")
    code, said = deploy(machine, clone)
    assert code != 0 and "second.bin" in said and "git lfs fetch origin" in said, said
    assert app.status()["live"] != three[:8]
    owned(machine, f"mv {ORIGIN}.away {ORIGIN}")
    code, said = deploy(machine, clone)
    assert code == 0 and "fetch" in said, said
    live = "/var/lib/slot/web/live"
    assert sha256(machine, f"{live}/second.bin") == sha256(machine, f"{REPOSITORY}/second.bin")
    assert sha256(machine, f"{live}/model.bin") == sha256(machine, f"{REPOSITORY}/model.bin")
    assert "git-lfs" in owned(machine, f"cat {clone}/second.bin"), "his work tree is as it was"


def test_of_a_content_that_comes_while_slotd_is_killed_nothing_is_left_and_it_is_sent_again(machine, app):
    owned(machine, f"cd {REPOSITORY} && head -c 120000000 /dev/urandom >third.bin")
    four = commit(machine, "four")
    before = machine.out(f"find {LARGE} -type f | sort").splitlines()
    upload = machine.spawn(f"cd {REPOSITORY} && HOME={HOME} slotctl --json deploy", user="deployer")
    incoming = "/var/lib/slot/web/repo.git/incoming"
    machine.wait_for(f"find {incoming} -name content -size +1M | grep -q .")
    machine.run("systemctl kill -s KILL slotd.service")
    said, _ = upload.communicate(timeout=60)
    assert upload.returncode == 0, said
    machine.wait_for(f"test ! -e {incoming} || test -z \"$(ls {incoming})\"")
    after = machine.out(f"find {LARGE} -type f | sort").splitlines()
    assert set(before) < set(after) and len(after) == len(before) + 1, (before, after)
    assert app.status()["live"] == four[:8]
    assert sha256(machine, "/var/lib/slot/web/live/third.bin") == sha256(machine, f"{REPOSITORY}/third.bin")
