"""Upgrades and downgrades of the package under load: nobody notices, whatever is going on."""

import contextlib
import json

import pytest
from slots import QUICK, App, answers_only
from streams_open import open_stream
from test_canary import at_step
from test_faults_killed import kill
from test_remote import held, push, with_remote
from versions import OURS, another, install, of_systemd, runs_as_installed

# Something that a test makes when what waits for it may go on.
GO = "/srv/go"
# The same, where streams are to go on.
BACK = "/srv/back"
# What holds something up until then.
WAIT = f"#!/bin/sh\nwhile ! test -e {GO}; do sleep 0.05; done\n"
# The second app, beside which all is done to the first.
SHOP = "shop.test"


@contextlib.contextmanager
def under_load(machine, connections, *options, address="127.0.0.1:80"):
    """About 20 requests a second for each connection. A router that is left says so on each connection, so that clients come again; that is all
    that they notice."""
    with machine.load(address, "--connections", str(connections), "--pause-ms", "40", *options) as load:
        yield load
        result = load.stop()
        print(f"{result['requests'] / result['seconds']:.0f} requests/s, the slowest {result['slowest_ms']} ms")
        assert (result["failed"], result["failures"]) == (0, {}), result


def whole(streams):
    """How many streams ended well, once they have ended."""
    ends = [json.loads(stream.communicate(timeout=60)[0].splitlines()[-1]) for stream in streams]
    assert all(end["whole"] for end in ends), ends
    return len(ends)


def apps_of(machine):
    """Two apps that serve release one."""
    web, shop = App(machine, "web", QUICK), App(machine, "shop", f'{QUICK}hosts = ["{SHOP}"]\nbind = "fd"\n')
    for app in (web, shop):
        app.deploy("zero")
        app.deploy("one", "--wait=stopped")
    return web, shop


def test_twenty_upgrades_and_downgrades_in_a_row_under_load_fail_refuse_and_cut_nothing(fresh):
    machine = fresh
    app, _ = apps_of(machine)
    machine.run("slotctl listener add 8081")
    machine.run("systemctl enable slotd-tcp.socket && systemctl restart slotd.service")
    versions = [another(machine, "0.2.0~test"), OURS]
    before = of_systemd(machine, "web", "shop")
    units = ("slot-router.socket", "slot-router-8081.socket", "slotd.socket", "slotd-tcp.socket", "slot-inet.socket")
    assert {*units, "web@green.service", "shop@green.service", "shop@green.socket"} <= set(before), before
    # 1,000 requests a second in all.
    with under_load(machine, 24) as requests, under_load(machine, 24, "--host", SHOP) as others, under_load(machine, 2, address="127.0.0.1:8081"):
        streams = [open_stream(machine, kind, until=GO)[0] for kind in ("sse", "sse", "ws", "ws")]
        streams += [open_stream(machine, kind, until=GO, host=SHOP)[0] for kind in ("sse", "ws")]
        for number in range(20):
            install(machine, versions[number % 2])
            runs_as_installed(machine, app)
            # A second's.
            answers_only(requests, "one", requests=500)
            answers_only(others, "one", requests=500)
        drained = [router for router in app.status()["routers"] if router["in_flight"]["streams"]]
        assert [(router["accepting"], router["in_flight"]["streams"], router["in_flight"]["tunnels"]) for router in drained] == [(False, 3, 3)]
        assert of_systemd(machine, "web", "shop") == before
        machine.write(GO, "")
        assert whole(streams) == 6
    app.wait_until(lambda status: len(status["routers"]) == 1)


@pytest.fixture(scope="module")
def other(machine):
    return another(machine, "0.2.0~test")


@pytest.fixture(scope="module")
def apps(machine):
    return apps_of(machine)


@pytest.fixture(scope="module")
def app(apps):
    return apps[0]


@pytest.fixture
def upgraded(machine, app, other):
    """Installs the version that is not installed, under load on both apps and with streams from before, on whatever is active."""
    machine.run(f"rm -f {GO}")
    # One of them holds a router up.
    patient = ("--timeout", "120")
    with under_load(machine, 20, *patient) as requests, under_load(machine, 20, *patient, "--host", SHOP) as others:
        streams = [open_stream(machine, kind, until=GO, host=host)[0] for kind in ("sse", "ws") for host in ("localhost", SHOP)]

        def upgrade():
            before = of_systemd(machine, "web", "shop")
            exchange(machine, app, other)
            assert of_systemd(machine, "web", "shop") == before
            answers_only(others, "one")

        upgrade.requests, upgrade.streams = requests, streams
        yield upgrade
        machine.write(GO, "")
        assert whole(streams) == 4
    app.wait_until(lambda status: status["state"] == "idle")
    app.wait_until(lambda status: {slot["condition"] for slot in status["slots"]} == {"active", "idle"})


def exchange(machine, app, other):
    """Installs the version that is not installed."""
    install_other(machine, other)
    runs_as_installed(machine, app)


def install_other(machine, other, meanwhile=None):
    """`meanwhile` is done once the next slotd is there, before the routers are exchanged or while they are."""
    has = machine.out("dpkg-query -Wf '${Version}' slotctl")
    package = OURS if has == "0.2.0~test" else other
    if meanwhile is None:
        install(machine, package)
        return
    before = machine.show("slotd", "MainPID")["MainPID"]
    installing = machine.spawn(f"exec dpkg -i {package}")
    is_next = f"it=$(systemctl show slotd -P MainPID) && test $it != 0 && test $it != {before} && systemctl is-active slotd"
    machine.wait_for(is_next, timeout=120)
    meanwhile()
    said = installing.communicate(timeout=180)[0]
    assert installing.returncode == 0, said


def begin(app, directory, words=""):
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory} {words}")


def started(app, state="starting"):
    """Waits until an attempt waits for its candidate, whose process is there: what systemd tells of it changes no more. That attempt."""
    unit = f"{app.name}@{app.idle()}"
    is_there = lambda status: status["state"] == state and app.machine.show(unit, "MainPID")["MainPID"] != "0"  # noqa: E731
    return app.wait_until(is_there)["deployment"]


def ended(deploying):
    outcome = json.loads(deploying.communicate(timeout=120)[0])
    assert outcome["success"], outcome
    return outcome


@pytest.mark.parametrize("words", ["", "--idempotency-key {key} --expected-generation {generation} --expected-active {active}"])
def test_while_a_release_is_prepared_which_slotctl_deploys_again(machine, app, upgraded, words):
    app.configure(QUICK + 'setup_command = "./setup"\n')
    marker = "built-on-a-condition" if words else "built"
    directory = app.release(marker)
    machine.write(f"{directory}/setup", WAIT, mode="0755")
    before = app.status()
    deploying = begin(app, directory, words.format(key=marker, generation=before["generation"], active=before["active"]))
    generation = app.wait_until(lambda status: status.get("deployment", {}).get("phase") == "build")["deployment"]["generation"]
    upgraded()
    app.wait_until(lambda status: status.get("deployment", {}).get("generation") == generation + 1)
    machine.write(GO, "")
    assert ended(deploying)["generation"] == generation + 1
    answers_only(upgraded.requests, marker)
    app.configure(QUICK)


def test_while_a_deploy_waits_for_another_one(machine, app, upgraded):
    first = begin(app, app.release("ahead", faults=f"ready-once={GO}"))
    held = started(app)
    second = begin(app, app.release("queued"), "--queue 2m")
    asked = f"SLOT_AUDIT=asked SLOT_ROUTE=/apps/{{app}}/deploy SLOT_GENERATION={held['generation']}"
    machine.wait_for(f"journalctl --sync; journalctl -q -o cat -u slotd {asked} | grep -q .")
    upgraded()
    # It is asked for anew.
    machine.wait_for(f"journalctl --sync; test $(journalctl -q -o cat -u slotd {asked} | grep -c .) = 2")
    machine.write(GO, "")
    assert ended(first)["generation"] == held["generation"]
    assert ended(second)["generation"] == held["generation"] + 1
    answers_only(upgraded.requests, "queued")


@pytest.mark.parametrize("how", ["upgraded", "killed"])
def test_one_that_waits_is_deployed_once_though_the_one_ahead_of_it_was_begun_anew(machine, app, upgraded, how):
    app.configure(QUICK + 'setup_command = "./setup"\n')
    ahead, behind = app.release(f"ahead-{how}"), app.release(f"behind-{how}")
    machine.write(f"{ahead}/setup", WAIT, mode="0755")
    machine.write(f"{behind}/setup", "#!/bin/sh\n", mode="0755")
    first = begin(app, ahead)
    building = lambda status: status.get("deployment", {}).get("phase") == "build"  # noqa: E731
    generation = app.wait_until(building)["deployment"]["generation"]
    second = machine.spawn(f"cd {app.home} && exec sh -c 'slotctl --json deploy $0 --queue 5m & echo $!; wait $!' {behind}")
    slotctl = int(second.stdout.readline())
    asked = f"journalctl --sync; journalctl -q -o cat -u slotd SLOT_AUDIT=asked SLOT_PEER_PID={slotctl} | grep -c ."
    machine.wait_for(f"test $({asked}) = 1")
    # It learns of the restart when the other one has begun again.
    machine.run(f"kill -STOP {slotctl}")
    if how == "upgraded":
        upgraded()
    else:
        kill(machine)
    app.wait_until(lambda status: building(status) and status["deployment"]["generation"] == generation + 1)
    machine.run(f"kill -CONT {slotctl}")
    machine.wait_for(f"test $({asked}) = 2")
    machine.write(GO, "")
    assert ended(first)["generation"] == generation + 1
    assert ended(second)["generation"] == generation + 2
    answers_only(upgraded.requests, f"behind-{how}")
    app.configure(QUICK)
    assert app.status()["generation"] == generation + 2


def test_while_a_release_is_uploaded_which_slotctl_sends_again(machine, app, upgraded):
    directory = app.release("sent")
    machine.run(f"head -c 150M /dev/urandom >{directory}/large")
    # slotctl stops, with most of it unsent, as soon as slotd has begun to write it down.
    begun = "until set -- /var/lib/slot/web/incoming/* && test -e $1; do :; done"
    deploying = machine.spawn(f"cd {app.home} && exec sh -c 'slotctl --json deploy $0 & {begun}; kill -STOP $!; echo $!; wait' {directory}")
    slotctl = int(deploying.stdout.readline())
    deployment = app.status()["deployment"]
    assert deployment["phase"] == "preparing", deployment
    upgraded()
    machine.run(f"kill -CONT {slotctl}")
    assert ended(deploying)["generation"] == deployment["generation"] + 1
    answers_only(upgraded.requests, "sent")
    machine.run(f"rm {directory}/large")


def test_while_a_commit_is_fetched_which_slotctl_has_fetched_again(fresh):
    app = with_remote(fresh)
    push(fresh, "one")
    assert app.slotctl("deploy --remote --wait=stopped")["success"]
    push(fresh, "fetched")
    other = another(fresh, "0.2.0~test")
    with under_load(fresh, 20) as requests:
        with held(app) as deploying:
            generation = app.status()["deployment"]["generation"]
            before = of_systemd(fresh, "web")
            exchange(fresh, app, other)
            assert of_systemd(fresh, "web") == before
            app.wait_until(lambda status: status.get("deployment", {}).get("generation") == generation + 1)
            answers_only(requests, "one")
            fresh.run("rm /tmp/held")
            assert ended(deploying)["generation"] == generation + 1
        answers_only(requests, "fetched")


@pytest.mark.parametrize("hook", ["before_switch", "after_switch"])
def test_while_a_hook_runs_which_is_run_again(machine, app, upgraded, hook):
    app.configure(f'{QUICK}[hooks]\n{hook} = "./hook"\n')
    directory = app.release(hook)
    machine.write(f"{directory}/hook", WAIT, mode="0755")
    deploying = begin(app, directory)
    runs = "systemctl is-active -q slot-hook@web"
    machine.wait_for(runs)
    if hook == "after_switch":
        ended(deploying)
        app.wait_for_slot(app.idle(), "draining")
    generation, run = app.status()["generation"], machine.show("slot-hook@web", "InvocationID")
    upgraded()
    machine.wait_for(runs)
    assert machine.show("slot-hook@web", "InvocationID") != run
    machine.write(GO, "")
    if hook == "before_switch":
        assert ended(deploying)["generation"] == generation
    machine.wait_for("! grep -q '\"due\"' /var/lib/slot/web/state.json")
    answers_only(upgraded.requests, hook)
    app.configure(QUICK)


def test_while_a_plan_is_in_a_step_which_counts_anew(machine, app, upgraded):
    app.configure(f'{QUICK}[canary]\nsteps = ["50% 20s"]\n')
    deploying = begin(app, app.release("stepped"))
    at_step(app, 1)
    generation = app.status()["generation"]
    upgraded()
    at_step(app, 1)
    outcome = ended(deploying)
    assert (outcome["generation"], outcome["cause"]) == (generation, "switched"), outcome
    answers_only(upgraded.requests, "stepped")
    app.configure(QUICK)


@pytest.mark.parametrize(("marker", "fault", "state"), [("slow", "ready-once", "starting"), ("healing", "healthy-once", "ready")])
def test_while_a_candidate_starts_or_is_asked_for_its_health(machine, app, upgraded, marker, fault, state):
    deploying = begin(app, app.release(marker, faults=f"{fault}={GO}"))
    started(app, state)
    upgraded()
    assert app.status()["state"] == state
    machine.write(GO, "")
    ended(deploying)
    answers_only(upgraded.requests, marker)


def test_while_a_candidate_has_a_share(machine, app, upgraded):
    ended(begin(app, app.release("shared"), "--weight 50"))
    upgraded()
    weights = {slot["slot"]: slot["weight"] for slot in app.status()["slots"]}
    assert set(weights.values()) == {50}, weights
    assert app.slotctl("promote")["success"]
    answers_only(upgraded.requests, "shared")


def test_in_a_switch_that_the_router_has_not_taken_yet(machine, app, upgraded, other):
    machine.run(f"rm -f {BACK}")
    # A router that stands still for a test is not started anew for that.
    drop_in = "/run/systemd/system/slot-router@.service.d/still.conf"
    machine.write(drop_in, "[Service]\nWatchdogSec=0\n")
    machine.run("systemctl daemon-reload && slotctl router upgrade")
    before, left = of_systemd(machine, "shop"), app.slot(app.active())["release"]
    (router,) = [router["instance"] for router in app.status()["routers"] if router["accepting"]]
    process = machine.show(f"slot-router@{router}", "MainPID")["MainPID"]
    deploying = begin(app, app.release("switching", faults=f"ready-once={BACK}"))
    app.wait_until(lambda status: status["state"] == "starting")
    machine.run(f"kill -STOP {process}")
    machine.write(BACK, "")
    generation = app.wait_until(lambda status: status["state"] == "shifting")["generation"]
    install_other(machine, other, meanwhile=lambda: machine.run(f"kill -CONT {process}"))
    outcome = json.loads(deploying.communicate(timeout=120)[0])
    assert outcome["generation"] == generation, outcome
    # A switch that takes longer than 30 seconds is taken back: that is for how fast the machine is to say.
    marker = "switching" if outcome["success"] else machine.out(f"cat /var/lib/slot/web/releases/{left}/marker")
    app.wait_until(lambda status: status["state"] == "idle")
    runs_as_installed(machine, app)
    assert of_systemd(machine, "shop") == before
    answers_only(upgraded.requests, marker)
    machine.run(f"rm {drop_in} && systemctl daemon-reload && slotctl router upgrade")


def test_while_the_old_slot_keeps_a_share_after_a_switch(machine, app, upgraded):
    app.configure(f'{QUICK}migrate = "90:10 1h"\n')
    old = app.active()
    ended(begin(app, app.release("migrating")))
    weights = {slot["slot"]: slot["weight"] for slot in app.status()["slots"]}
    assert weights == {app.active(): 90, old: 10}
    upgraded()
    assert {slot["slot"]: slot["weight"] for slot in app.status()["slots"]} == weights
    app.slotctl(f"weight web:{old} 0")
    answers_only(upgraded.requests, "migrating")
    app.configure(QUICK)


@pytest.fixture
def back(machine, app):
    """A release that a rollback goes to, and starts: it is ready once there is something."""
    machine.write(BACK, "")
    release = app.deploy("back", faults=f"ready-once={BACK}")["release"]
    app.deploy("front", "--wait=stopped")
    machine.run(f"rm {BACK}")
    return release


# Before there are streams, which would keep the slot that it is to start in.
def test_in_a_rollback_whose_release_starts_anew(machine, app, back, upgraded):
    rolling = machine.spawn(f"cd {app.home} && exec slotctl --json rollback")
    generation = started(app)["generation"]
    upgraded()
    assert app.status()["state"] == "starting"
    machine.write(BACK, "")
    outcome = ended(rolling)
    assert (outcome["generation"], outcome["release"]) == (generation, back), outcome
    answers_only(upgraded.requests, "back")


def test_in_a_soak_after_which_one_may_still_go_back_at_once(machine, app, upgraded):
    app.configure(QUICK.replace('"0s"', '"60s"'))
    before = app.slot(app.active())["release"]
    ended(begin(app, app.release("soaking")))
    upgraded()
    assert app.status()["state"] == "switched"
    back = app.slotctl("rollback")
    assert (back["success"], back["release"]) == (True, before), back
    assert "starting" not in dict(back["phases_ms"]), back
    # Which ends this soak too.
    app.configure(QUICK)
    app.deploy("past")


def test_while_an_old_slot_drains(machine, app, upgraded):
    active = app.active()
    app.deploy("after", "--drain 0")
    app.wait_until(lambda status: any(slot["condition"] == "draining" for slot in status["slots"]))
    upgraded()
    assert app.slot(active)["condition"] == "draining"
    answers_only(upgraded.requests, "after")
