"""Releases under systemd: an archive through a pipe, the list, one gone back to by name, and archives that would do harm."""

import json

import pytest
from slots import QUICK, App, answers_only, nothing_failed

# Where there is no xz(1).
XZ = "python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.compress(sys.stdin.buffer.read()))'"


@pytest.fixture(scope="module")
def app(machine):
    machine.run("useradd -m -G slot deployer")
    app = App(machine, text=QUICK + "keep = 2\n")
    app.deploy("one")
    return app


def piped(machine, archive, words="-"):
    """`… | slotctl deploy -` as a member of the group, where no slot.toml is."""
    done = machine.run(f"cd / && {archive} | slotctl --json deploy {words}", user="deployer", check=False)
    return {**json.loads(done.stdout), "exit": done.returncode, "said": done.stderr}


def listed(app):
    return app.slotctl("releases")["releases"]


def test_an_archive_through_a_pipe_is_the_release_that_its_directory_is(machine, app):
    assert machine.out("cd / && slotctl deploy - </dev/null 2>&1; true", user="deployer").startswith("slotctl: standard input is no tar")
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        folder = app.release("two")
        sent = piped(machine, f"tar -C {folder} -cz .", "- --version v2")
        assert sent["success"], sent
        answers_only(load, "two")
        newest = listed(app)[0]
        assert (newest["id"], newest["label"], newest["live"]) == (sent["release"], "v2", True)
        assert newest["source"] == {"kind": "archive", "path": "-"}, newest
        assert app.deploy("two")["release"] == sent["release"]
        assert len(listed(app)) == 2
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=8)


def test_a_release_is_gone_back_to_by_its_label_and_deployed_again_by_its_id(machine, app):
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "20") as load:
        three = app.deploy("three", "--version v3")["release"]
        four = app.deploy("four", "--version v4")["release"]
        back = app.slotctl("rollback --to v2")
        assert (back["kind"], back["success"]) == ("rollback", True), back
        answers_only(load, "two")
        again = app.slotctl("rollback --to v2")
        assert (again["success"], again["generation"]) == (True, back["generation"]) and "is live already" in again["already"], again
        assert app.slotctl(f"deploy --release {three}")["release"] == three
        answers_only(load, "three")
        flags = {release["id"]: (release["live"], release["prev"]) for release in listed(app)}
        assert flags[three] == (True, False) and flags[back["release"]] == (False, True), flags
        assert four in flags
        result = load.stop()
    nothing_failed(result, reconnects=8)


def test_releases_beyond_keep_are_removed_and_what_a_crash_left_is_too(machine, app):
    app.wait_until(lambda status: status["state"] == "idle" and status["live"])
    for number in range(4):
        app.deploy(f"more-{number}")
    machine.wait_for("test $(ls -d /var/lib/slot/web/releases/*/ | wc -l) -le 4")
    used = {release["id"] for release in listed(app) if release["live"] or release["prev"] or release["slots"]}
    assert len(used) == 2 and len(listed(app)) == 4, listed(app)
    there = machine.out("ls /var/lib/slot/web/releases")
    machine.run("install -d -o slot /var/lib/slot/web/releases/00000000 && systemctl restart slotd")
    app.status()
    assert machine.out("ls /var/lib/slot/web/releases") == there


def test_an_archive_that_would_do_harm_is_refused_whole(machine, app):
    before, live = machine.out("ls /var/lib/slot/web/releases"), app.status()["live"]
    machine.run(
        "mkdir -p /srv/harm/su /srv/harm/dev /srv/harm/out && cp /bin/true /srv/harm/su/ && chmod 4755 /srv/harm/su/true;"
        "mknod /srv/harm/dev/null c 1 3; ln -s /etc/passwd /srv/harm/out/link; touch /srv/harm/out/file; chmod -R a+rX /srv/harm"
    )
    for archive, says in [
        ("tar -C /srv/harm/su -cz .", "setuid"),
        (f"tar -C /srv/harm/dev -c . | {XZ}", "neither a file"),
        ("tar -C /srv/harm/out -c . | gzip", "symlink that leaves"),
        ("tar -cPz /srv/harm/out/file", "relative, without"),
        ("tar -C /srv/harm/out -cP ../out/file", "relative, without"),
    ]:
        refused = piped(machine, archive)
        assert (refused["exit"], refused.get("cause")) == (1, "unprepared"), refused
        assert says in refused["text"], refused
        assert machine.out("ls /var/lib/slot/web/releases") == before
    # Cut on its way, the sender knows; and slotd does.
    torn = piped(machine, f"tar -C {app.release('torn')} -cz . | head -c 700")
    assert torn["exit"] == 6 and "is it whole?" in torn["error"], torn
    app.wait_until(lambda status: status["state"] == "idle")
    assert (app.status()["live"], machine.out("ls /var/lib/slot/web/releases")) == (live, before)
