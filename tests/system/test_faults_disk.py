"""State that cannot be read, and disks that take nothing more: what serves goes on, and it is said what to do."""

import json
import re

import pytest
from machine import Machine
from slots import QUICK, App, answers_only

STATE = "/var/lib/slot/web/state.json"
# In large pieces first, then to the last byte; dd ends with an error, as it should.
FILL = "for size in 64k 1; do dd if=/dev/zero of={0}/filler bs=$size oflag=append conv=notrunc 2>/dev/null; done; true"


@pytest.fixture(scope="module")
def machine():
    with Machine() as booted:
        booted.install()
        # Small disks of their own for states and for the table.
        booted.run("mount -t tmpfs -o size=2m,mode=1770,gid=slot releases /var/lib/slot")
        booted.run("mount -t tmpfs -o size=256k,mode=755,uid=slot,gid=slot table /run/slot/slotd")
        yield booted


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + 'keep = 1\n')
    app.deploy("one")
    return app


@pytest.mark.parametrize(
    "damage",
    [
        "truncate -s 300 {0}",
        "truncate -s 0 {0}",
        "head -c 700 /dev/urandom >{0}",
        "rm {0}",
        """sed -i 's/"active": "/&x/' {0}""",
    ],
    ids=["cut", "empty", "garbage", "gone", "no-such-slot"],
)
def test_a_state_that_cannot_be_read_is_kept_aside_and_the_active_slot_is_found(machine, app, load, damage):
    app.wait_until(lambda status: status["state"] == "idle")
    active, live = app.slot(app.active()), app.status()["live"]
    marker = machine.out("curl -sS http://127.0.0.1/").split()[1]
    machine.run("rm -f /var/lib/slot/web/*.corrupt*; systemctl stop slotd.service")
    machine.run(damage.format(STATE))
    damaged = machine.run(f"sha256sum <{STATE}", check=False).stdout
    machine.run("systemctl start slotd.service")
    status = app.wait_until(lambda status: status["serving"])
    assert (status["active"], status["live"]) == (active["slot"], live)
    assert app.slot(active["slot"])["boot_id"] == active["boot_id"], "it runs on"
    assert len(status["warnings"]) == 1 and "the active slot was found by" in status["warnings"][0], status
    if damage.startswith("rm"):
        assert "state.json is missing" in status["warnings"][0]
    else:
        aside = f"{STATE}.corrupt-1"
        assert aside in status["warnings"][0], status
        assert machine.run(f"sha256sum <{aside}").stdout == damaged
    assert status["warnings"][0] in machine.out("journalctl -o cat SLOT_APP=web -p err -n 5 -u slotd")
    explained = machine.out("journalctl -q -x SLOT_APP=web -p err -n 5 -u slotd")
    assert f"Subject: The state of web {'is gone' if damage.startswith('rm') else 'could not be read'}" in explained, explained
    answers_only(load, marker)
    after = "two" if marker == "one" else "one"
    assert app.deploy(after)["success"]
    answers_only(load, after)
    assert app.slotctl("rollback")["success"]
    answers_only(load, marker)
    machine.run("systemctl restart slotd.service")
    assert app.status()["warnings"] == []


def full(machine, directory="/var/lib/slot"):
    machine.run(FILL.format(directory))


def free(machine, directory="/var/lib/slot"):
    machine.run(f"rm -f {directory}/filler")


def works_again(app, load, marker):
    app.wait_until(lambda status: status["state"] == "idle")
    assert app.deploy(marker)["success"]
    answers_only(load, marker)


def marker_of(machine):
    return machine.out("curl -sS -m 10 http://127.0.0.1/").split()[1]


def test_a_disk_that_is_full_before_a_deployment_refuses_it(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    release = app.release("too-much")
    # More than what is set aside for the end of a deployment.
    machine.run(f"head -c 400000 /dev/urandom >{release}/ballast")
    full(machine)
    failed = app.slotctl(f"deploy {release}", check=False)
    assert (failed["exit"], failed["code"]) == (1, "refused"), failed
    assert re.search(r"nothing was done, in pre-flight: the release takes 40\d\.\d KiB", failed["error"]), failed
    assert "df -h" in failed["error"], failed
    # Unlooked at, the first finds no room for its upload; the second, now that nothing is set aside any more, is not begun.
    for _ in range(2):
        failed = app.slotctl(f"deploy --skip-check disk {release}", check=False)
        said = failed.get("text") or failed["error"]
        assert failed["exit"] == 1 and "the file system is full" in said and "df -h" in said, failed
        answers_only(load, marker)
    assert app.status()["state"] == "idle"
    free(machine)
    works_again(app, load, "enough")


def test_an_upload_that_does_not_fit_ends_its_deployment(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker, there = marker_of(machine), machine.out("ls /var/lib/slot/web/releases")
    release = app.release("huge")
    machine.run(f"head -c 4000000 /dev/urandom >{release}/ballast")
    failed = app.slotctl(f"deploy --skip-check disk {release}", check=False)
    assert (failed["exit"], failed["cause"]) == (1, "unprepared"), failed
    assert "the file system is full" in failed["text"] and "df -h" in failed["text"], failed
    assert machine.out("ls /var/lib/slot/web/releases") == there
    answers_only(load, marker)
    works_again(app, load, "small")


def committed(machine, release, make):
    """Makes a release a repository with all of it committed, and what a command makes besides."""
    machine.run(
        f"cd {release} && git init -q && {make} && git add --all"
        " && git -c user.name=Ada -c user.email=ada@example.org commit -q -m all"
    )


def test_a_commit_that_does_not_fit_is_refused_before_it_is_begun(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    release = app.release("heavy")
    committed(machine, release, "head -c 3000000 /dev/urandom >'heavy load'")
    refused = machine.run(f"cd {release} && slotctl --app web --json deploy HEAD", check=False)
    assert refused.returncode == 1 and "nothing was done, in pre-flight: the release takes 2.9 MiB" in refused.stdout, refused
    assert app.status()["state"] == "idle"
    answers_only(load, marker)


def test_what_git_lfs_keeps_and_does_not_fit_is_refused_before_or_while_it_comes_and_leaves_nothing(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    release = app.release("large")
    committed(machine, release, "git lfs track model.bin && head -c 3000000 /dev/urandom >model.bin")
    deploy = f"cd {release} && slotctl --app web --json deploy HEAD"
    before = machine.run(deploy, check=False)
    assert before.returncode == 1 and "takes 5.7 MiB" in before.stdout and "--skip-check disk" in before.stdout, before
    during = machine.run(f"{deploy} --skip-check disk", check=False)
    assert during.returncode == 1 and "the file system is full" in during.stdout and "model.bin" in during.stdout, during
    repository = "/var/lib/slot/web/repo.git"
    assert machine.out(f"find {repository}/incoming {repository}/large -type f 2>/dev/null; true") == ""
    assert app.status()["state"] == "idle"
    answers_only(load, marker)
    works_again(app, load, "light")


def test_an_archive_that_is_small_until_it_is_unpacked_ends_its_deployment(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker, there = marker_of(machine), machine.out("ls /var/lib/slot/web/releases")
    release = app.release("bomb")
    machine.run(f"truncate -s 50M {release}/zeros && tar -C {release} -czf {app.home}/bomb.tar.gz .")
    failed = app.slotctl("deploy bomb.tar.gz", check=False)
    assert (failed["exit"], failed["cause"]) == (1, "unprepared"), failed
    assert "the file system is full" in failed["text"], failed
    assert machine.out("ls /var/lib/slot/web/releases") == there
    answers_only(load, marker)
    works_again(app, load, "defused")


def test_a_disk_that_gets_full_while_a_candidate_starts_lets_the_deployment_end(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    release = app.release("late", faults="slow-start")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    app.wait_until(lambda status: status["state"] == "starting")
    full(machine)
    outcome = json.loads(deploy.communicate(timeout=60)[0])
    assert outcome["success"], outcome
    answers_only(load, "late")
    free(machine)
    works_again(app, load, "later")


def test_a_disk_that_gets_full_to_the_last_byte_holds_the_deployment_and_says_so(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    release = app.release("held", faults="slow-start")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    app.wait_until(lambda status: status["state"] == "starting")
    # Without what was set aside for this.
    machine.run("rm /var/lib/slot/web/.reserve")
    full(machine)
    machine.wait_for("journalctl -o cat SLOT_APP=web -u slotd -n 5 | grep -q 'the file system is full'")
    status = app.status()
    assert any("the file system is full" in warning for warning in status["warnings"]), status
    answers_only(load, marker)
    free(machine)
    outcome = json.loads(deploy.communicate(timeout=60)[0])
    assert outcome["success"], outcome
    answers_only(load, "held")
    assert app.status()["warnings"] == []
    works_again(app, load, "after")


def test_a_full_run_directory_keeps_the_old_table_until_there_is_room(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    full(machine, "/run/slot/slotd")
    release = app.release("unpublished")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    app.wait_until(lambda status: status["state"] == "shifting")
    machine.wait_for("journalctl -o cat SLOT_APP=web -u slotd -n 5 | grep -q 'the file system is full'")
    status = app.status()
    assert any("the file system is full" in warning for warning in status["warnings"]), status
    answers_only(load, marker)
    free(machine, "/run/slot/slotd")
    outcome = json.loads(deploy.communicate(timeout=60)[0])
    assert outcome["success"], outcome
    answers_only(load, "unpublished")
    assert app.status()["warnings"] == []
    works_again(app, load, "published")


def test_a_switch_that_cannot_be_published_is_taken_back_and_says_why(machine, app, load):
    app.wait_until(lambda status: status["state"] == "idle")
    marker = marker_of(machine)
    full(machine, "/run/slot/slotd")
    outcome = app.deploy("nowhere", check=False)
    assert (outcome["success"], outcome["cause"]) == (False, "unrouted"), outcome
    assert "/run/slot/slotd/table.json" in outcome["text"] and "No space left" in outcome["text"], outcome
    answers_only(load, marker)
    free(machine, "/run/slot/slotd")
    app.wait_until(lambda status: all(slot["condition"] in ("active", "idle") for slot in status["slots"]))
    answers_only(load, marker)
    works_again(app, load, "somewhere")
