"""What is found before a deployment begins: refused, with what to do, and nothing has changed."""

import json

import pytest
from slots import QUICK, App


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    app.deploy("two", "--wait=stopped")
    return app


def refused(app, marker="three", words=""):
    """What a deployment is refused with; nothing was begun."""
    before = app.status()
    outcome = app.deploy(marker, words, check=False)
    assert outcome["code"] == "refused" and outcome["exit"] == 1, outcome
    after = app.status()
    assert (after["generation"], after["active"]) == (before["generation"], before["active"])
    assert app.machine.out("curl -sS http://127.0.0.1/") == "release two"
    return outcome["error"]


def test_a_unit_whose_files_systemd_has_not_read_again(machine, app):
    # What nothing refers to is read anew each time it is asked for; something has to keep the unit.
    machine.run(f"systemd-run --quiet --unit=keeper -p PartOf=web@{app.idle()}.service sleep infinity")
    # A directory that it has not seen yet systemd does not look into.
    machine.write("/etc/systemd/system/web@.service.d/one.conf", "[Service]\nNice=4\n")
    machine.run("systemctl daemon-reload")
    machine.write("/etc/systemd/system/web@.service.d/more.conf", "[Service]\nNice=5\n")
    error = refused(app)
    assert f"the files of web@{app.idle()}.service are newer" in error and "systemctl daemon-reload" in error, error
    machine.run("systemctl daemon-reload")
    app.deploy("two", "--wait=stopped")
    machine.run("systemctl stop keeper; rm -r /etc/systemd/system/web@.service.d && systemctl daemon-reload")


def test_a_port_that_somebody_else_has(machine, app):
    port = machine.json("slotctl --json --app web status")["slots"]
    port = next(slot["upstream"] for slot in port if slot["slot"] == app.idle()).rsplit(":", 1)[1]
    stranger = machine.spawn(f"exec python3 -m http.server --bind 127.0.0.1 {port}")
    machine.wait_for(f"curl -so /dev/null http://127.0.0.1:{port}/")
    error = refused(app)
    assert f"listens on 127.0.0.1:{port} already" in error and "[ports]" in error, error
    machine.run("pkill -f '[h]ttp.server'")
    stranger.wait(10)


def test_a_program_in_a_home_directory_is_refused_and_with_its_owner_as_user_it_runs(machine, app):
    machine.run("useradd --create-home --home-dir /home/nora nora && install -d -o nora /home/nora/bin")
    machine.run("cp /usr/bin/env /home/nora/bin/run && chown nora /home/nora/bin/run && ln -s /home/nora/bin/run /usr/local/bin/run")
    app.configure(QUICK, command="run ./server")
    error = refused(app)
    assert "/home/nora/bin/run" in error and "does not see home directories" in error and "user =" in error, error
    hers = App(machine, "hers", QUICK + 'user = "nora"\nhosts = ["hers.test"]\n', command="run ./server")
    hers.deploy("hers")
    assert machine.out("curl -sS -H 'Host: hers.test' http://127.0.0.1/") == "release hers"
    app.configure(QUICK)


def test_a_program_that_is_nowhere_and_one_that_only_root_may_execute(machine, app):
    app.configure(QUICK, command="no-such-program ./server")
    error = refused(app)
    assert "runs no-such-program, which is nowhere in /usr/local/sbin:" in error, error
    machine.run("install -m 0700 /usr/bin/env /usr/local/bin/root-only")
    app.configure(QUICK, command="root-only ./server")
    error = refused(app)
    assert "slot-app-web, as whom it runs, may not execute /usr/local/bin/root-only" in error, error
    app.configure(QUICK)


def test_a_release_without_the_program_of_the_command_ends_its_deployment_before_anything_is_started(machine, app):
    app.configure(QUICK, command="./elsewhere/server")
    machine.run(f"mkdir -p {app.home}/other && cp {app.release('three')}/* {app.home}/other/")
    sent = f"tar -C {app.home}/other -c . | curl -sS --unix-socket /run/slot/slotd.sock --data-binary @- http://slot/apps/web/deploy"
    begun = machine.json(sent)
    outcome = machine.json(
        f"curl -sS --unix-socket /run/slot/slotd.sock 'http://slot/apps/web/outcome?generation={begun['generation']}'"
    )
    assert (outcome["success"], outcome["cause"]) == (False, "unprepared"), outcome
    assert "the release has no elsewhere/server" in outcome["text"], outcome
    app.configure(QUICK)


def test_a_release_that_the_disk_has_no_room_for(machine, app):
    error = machine.json(
        "curl -sS --unix-socket /run/slot/slotd.sock -X POST 'http://slot/apps/web/deploy?size=1000000000000000'"
    )["error"]
    assert "the release takes" in error and "--skip-check disk" in error and "/var/lib/slot/web" in error, error


def test_a_deployment_that_may_queue_waits_for_the_one_that_holds_the_lock(machine, app):
    slow = app.release("slow", faults="slow-start")
    first = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {slow}")
    app.wait_until(lambda status: status["state"] == "starting")
    second = app.deploy("after", "--queue 1m")
    assert second["success"] and second["generation"] > json.loads(first.communicate(timeout=30)[0])["generation"]
    assert machine.out("curl -sS http://127.0.0.1/") == "release after"


def test_a_second_copy_that_has_no_room_in_memory(machine, app):
    app.deploy("two", "--wait=stopped")
    # What slotd is told of this machine's memory: next to nothing is left.
    machine.write("/root/meminfo", "MemTotal: 1000000 kB\nMemFree: 8 kB\nMemAvailable: 8 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
    machine.write("/etc/systemd/system/slotd.service.d/memory.conf", "[Service]\nBindReadOnlyPaths=/root/meminfo:/proc/meminfo\n")
    machine.run("systemctl daemon-reload && systemctl restart slotd.service")
    try:
        error = refused(app)
        assert "in pre-flight" in error and "of memory, a second copy beside it would need as much, and 8.0 KiB is available" in error, error
        assert app.deploy("two", "--skip-check memory --wait=stopped")["success"]
    finally:
        machine.run("rm -r /etc/systemd/system/slotd.service.d && systemctl daemon-reload && systemctl restart slotd.service")
    app.deploy("two", "--wait=stopped")
