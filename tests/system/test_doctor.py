"""`slotctl doctor` names what is wrong with a machine, on what and what to do about it, and nothing else; what it says to do, mends it."""

import json
import re
import time
from contextlib import contextmanager

import pytest
from machine import Failed, Machine
from slots import QUICK, App

APP = "/etc/slot/apps/web.toml"
ROOT = "/var/lib/slot/web"
BAD = ("warning", "problem")
AS_SLOT = "setpriv --reuid=slot --regid=slot --init-groups"


@pytest.fixture(scope="module")
def machine():
    with Machine() as booted:
        booted.install()
        # A disk of its own for releases, which a test can fill.
        booted.run("mount -t tmpfs -o size=100m,mode=1770,gid=slot releases /var/lib/slot")
        yield booted


@pytest.fixture(scope="module")
def unused(machine):
    """What the doctor says of a machine on which nothing but the package is installed."""
    return doctor(machine)


@pytest.fixture(scope="module")
def app(machine, unused):
    machine.write("/etc/slot/web.env", "TOKEN=hunter2\n", mode="0600")
    app = App(machine, "web", QUICK + 'env_file = "/etc/slot/web.env"\n')
    app.deploy("one")
    app.deploy("two")
    machine.run("curl -sS -m 10 http://127.0.0.1/")
    app.wait_until(lambda status: status["state"] == "idle")
    machine.run("systemctl service-watchdogs no")
    return app


def doctor(machine, words="", **options):
    """What it says, with its exit status as `exit`."""
    done = machine.run(f"slotctl doctor --json {words}", check=False, timeout=120, **options)
    if done.returncode not in (0, 1):
        raise Failed(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return {**json.loads(done.stdout), "exit": done.returncode}


def faults(said):
    return [finding for finding in said["findings"] if finding["level"] in BAD]


def is_well(machine, *, timeout=30):
    """Until nothing is wrong: what was restarted takes a moment."""
    deadline = time.monotonic() + timeout
    while faults(said := doctor(machine)):
        if time.monotonic() > deadline:
            raise Failed(f"not within {timeout} s: {json.dumps(faults(said), indent=1)}")
    assert (said["success"], said["exit"], said["problems"], said["warnings"], said["unseen"]) == (True, 0, 0, 0, 0), said
    return said


def names(said, *expected):
    """It finds these (check, object), each with a remedy, and nothing besides. Returns the first."""
    found = faults(said)
    assert {(it["check"], it["object"]) for it in found} == set(expected), json.dumps(found, indent=1)
    for it in found:
        assert it["text"] and it["remedy"] and (it["why"] or it["check"] == "app-warning"), it
    is_bad = any(it["level"] == "problem" for it in found)
    assert (said["exit"], said["success"]) == ((1, False) if is_bad else (0, True)), said
    return next(it for it in found if (it["check"], it["object"]) == expected[0])


def commands(finding):
    return re.findall(r"`([^`]+)`", finding["remedy"])


def test_a_machine_on_which_nothing_is_registered_has_no_warning(unused):
    assert faults(unused) == [] and unused["exit"] == 0 and unused["unseen"] == 0, unused


def test_a_machine_with_a_deployed_app_has_no_warning_and_says_what_was_looked_at(machine, app):
    said = is_well(machine)
    checks = {it["check"] for it in said["findings"]}
    for check in ("systemd", "polkit", "unit", "slotd", "socket", "router", "permission", "app-file", "state", "table", "port", "disk", "clock"):
        assert check in checks, said
    text = machine.out("slotctl doctor")
    assert "No problem, and no warning." in text and "\x1b" not in text, text


A_TOKEN = "install -m 0600 /dev/null /etc/slot/api-tokens && slotctl token new --name ci --scope read | sed -n 's/^line *//p' >/etc/slot/api-tokens"
MOVED_TO = "/run/systemd/system/slotd-tcp.socket.d/moved.conf"
MOVED = "mkdir -p $(dirname {0}) && printf '[Socket]\\nListenStream=\\nListenStream".format(MOVED_TO)

# A name; what breaks it; what is found, first what the remedy is taken of; then what mends it: "remedy" runs the commands that the finding
# names, "fix" is `slotctl doctor --fix`, and anything else is a command.
BROKEN = [
    (
        "app-files-rule-is-gone",
        "rm /etc/polkit-1/rules.d/60-slot-app-web.rules",
        [("polkit-app-rule", "/etc/polkit-1/rules.d/60-slot-app-web.rules")],
        "remedy",
    ),
    (
        "the-packages-rule-is-gone",
        "mv /usr/share/polkit-1/rules.d/60-slot.rules /root/",
        [("polkit-rule", "/usr/share/polkit-1/rules.d/60-slot.rules")],
        "mv /root/60-slot.rules /usr/share/polkit-1/rules.d/",
    ),
    ("polkit-is-masked", "systemctl mask polkit.service", [("polkit-daemon", "polkit.service")], "remedy"),
    (
        "the-bus-policy-is-gone",
        "mv /usr/share/dbus-1/system.d/slot.conf /root/",
        [("bus-policy", "/usr/share/dbus-1/system.d/slot.conf")],
        "mv /root/slot.conf /usr/share/dbus-1/system.d/",
    ),
    (
        "a-unit-is-newer-than-what-systemd-has-read",
        # systemd looks for new drop-ins when it reads units only, and for changes of those that it knows at any time.
        "mkdir -p /run/systemd/system/slotd.service.d && echo '[Service]' >/run/systemd/system/slotd.service.d/nice.conf && "
        "systemctl daemon-reload && echo Nice=1 >>/run/systemd/system/slotd.service.d/nice.conf",
        [("unit-stale", "slotd.service")],
        "fix",
    ),
    ("a-unit-is-masked", "systemctl mask slot-setup@web.service", [("unit-masked", "slot-setup@web.service")], "remedy"),
    (
        "a-unit-has-failed",
        "systemctl start slot-setup@web.service; timeout 30 sh -c 'until systemctl is-failed -q slot-setup@web.service; do sleep 0.05; done'",
        [("unit-failed", "slot-setup@web.service")],
        "fix",
    ),
    (
        "a-unit-is-limited",
        "mkdir -p /run/systemd/system/web@.service.d && printf '[Unit]\\nStartLimitIntervalSec=10\\n' >/run/systemd/system/web@.service.d/limit.conf"
        " && systemctl daemon-reload",
        [("unit-start-limit", "web@blue.service"), ("unit-start-limit", "web@green.service")],
        "rm -r /run/systemd/system/web@.service.d && systemctl daemon-reload",
    ),
    (
        "nothing-would-be-there-after-a-reboot",
        "systemctl disable slotd.service slotd.socket",
        [("unit-disabled", "slotd.service"), ("unit-disabled", "slotd.socket")],
        "systemctl enable slotd.service slotd.socket",
    ),
    (
        "slotds-program-was-replaced",
        "cp /usr/lib/slot/slotd /usr/lib/slot/slotd.next && mv /usr/lib/slot/slotd.next /usr/lib/slot/slotd",
        [("unit-replaced", "slotd.service")],
        "remedy",
    ),
    ("slotd-is-stopped", "systemctl stop slotd.service", [("slotd-down", "slotd.service")], "remedy"),
    ("slotds-socket-is-removed", "rm /run/slot/slotd.sock", [("socket-gone", "slotd.socket")], "remedy"),
    (
        "the-public-socket-is-stopped-and-the-router-goes-on",
        "systemctl stop --job-mode=ignore-dependencies slot-router.socket",
        [("socket-stranded", "slot-router.socket")],
        "remedy",
    ),
    ("the-public-socket-is-stopped", "systemctl stop slot-router.socket", [("socket-down", "slot-router.socket")], "remedy"),
    (
        "the-app-file-was-changed",
        f"cp -p {APP} /root/ && sed -i 's/^stop_timeout.*/stop_timeout = \"3s\"/' {APP}",
        [("app-units", APP)],
        "fix",
    ),
    ("the-app-file-is-wrong", f"cp -p {APP} /root/ && sed -i '1i nonsense = 1' {APP}", [("app-file", APP)], f"cp -p /root/web.toml {APP}"),
    (
        "the-machines-file-is-wrong",
        "printf '[limits]\\nnonsense = 1\\n' >/etc/slot/machine.toml",
        [("machine-file", "/etc/slot/machine.toml")],
        "rm /etc/slot/machine.toml",
    ),
    (
        "a-directory-is-anybodys",
        "chmod 0777 /run/slot",
        [("place-rights", "/run/slot")],
        "fix",
    ),
    ("the-table-cannot-be-found", "rm /run/slot/table.json", [("place-missing", "/run/slot/table.json")], "fix"),
    ("a-secret-can-be-read", "chmod 0644 /etc/slot/web.env", [("secret-open", "/etc/slot/web.env")], "remedy"),
    ("the-state-is-somebody-elses", f"chown root {ROOT}/state.json", [("state-foreign", f"{ROOT}/state.json")], "remedy"),
    # slotd, which runs, has it in memory: of nothing it is found out anew, and nothing is kept aside.
    ("the-state-is-damaged", f"echo garbage >{ROOT}/state.json", [("state-corrupt", f"{ROOT}/state.json")], "remedy"),
    ("the-state-is-gone", f"rm {ROOT}/state.json", [("state-missing", f"{ROOT}/state.json")], "remedy"),
    ("a-group-is-gone", "groupdel slot-upstream", [("user-missing", "slot-upstream")], "remedy"),
    ("the-group-of-observers-is-gone", "groupdel slot-observers", [("user-missing", "slot-observers")], "remedy"),
    (
        "slotd-listens-over-tcp-for-nobody",
        "systemctl enable slotd-tcp.socket && systemctl restart slotd.service",
        [("tcp-tokens-none", "slotd-tcp.socket")],
        "systemctl disable --now slotd-tcp.socket && systemctl restart slotd.service",
    ),
    (
        "slotd-was-not-restarted-for-its-socket",
        f"{A_TOKEN} && systemctl enable slotd-tcp.socket",
        [("tcp-down", "slotd-tcp.socket")],
        "remedy",
    ),
    (
        "slotd-has-not-read-a-token",
        f"systemctl enable slotd-tcp.socket && systemctl restart slotd.service && {A_TOKEN}",
        [("tcp-tokens-stale", "/etc/slot/api-tokens")],
        "remedy",
    ),
    (
        "the-file-of-tokens-is-wrong",
        f"{A_TOKEN} && echo nonsense >>/etc/slot/api-tokens && systemctl enable slotd-tcp.socket && systemctl restart slotd.service",
        [("tcp-tokens-wrong", "/etc/slot/api-tokens")],
        "sed -i '$d' /etc/slot/api-tokens && systemctl restart slotd.service",
    ),
    (
        "slotd-listens-for-the-world",
        f"{A_TOKEN} && systemctl enable slotd-tcp.socket && {MOVED}=0.0.0.0:7568\\n' >{MOVED_TO} && systemctl daemon-reload && systemctl restart slotd.service",
        [("tcp-open", "slotd-tcp.socket")],
        f"rm {MOVED_TO} && systemctl daemon-reload && systemctl stop slotd-tcp.socket && systemctl restart slotd.service",
    ),
    (
        "slotds-port-is-somebody-elses",
        f"{A_TOKEN} && systemctl enable slotd-tcp.socket && {MOVED}=127.0.0.1:80\\n' >{MOVED_TO} && systemctl daemon-reload && systemctl restart slotd.service",
        [("tcp-failed", "slotd-tcp.socket")],
        f"rm {MOVED_TO} && systemctl daemon-reload && systemctl reset-failed slotd-tcp.socket && systemctl restart slotd.service",
    ),
    ("a-symlink-names-another-release", f"ln -sfn $(readlink {ROOT}/prev) {ROOT}/live", [("state-foreign", f"{ROOT}/live"), ("link-differs", f"{ROOT}/live")], "remedy"),
    (
        "a-release-is-half-made",
        f"{AS_SLOT} mkdir {ROOT}/releases/deadbeef",
        [("release-unrecorded", f"{ROOT}/releases/deadbeef")],
        "remedy",
    ),
    ("an-app-is-gone-and-its-releases-are-not", "mkdir -p /var/lib/slot/old/releases", [("app-orphan", "/var/lib/slot/old")], "rm -r /var/lib/slot/old"),
    ("a-crash-has-left-a-file", f"{AS_SLOT} touch -d '1 hour ago' {ROOT}/state.json.new", [("leftover", f"{ROOT}/state.json.new")], "fix"),
    ("the-disk-is-nearly-full", "fallocate -l 50M /var/lib/slot/filler", [("disk-short", "/var/lib/slot")], "rm /var/lib/slot/filler"),
    ("the-disk-is-full", "fallocate -l 95M /var/lib/slot/filler", [("disk-full", "/var/lib/slot")], "rm /var/lib/slot/filler"),
    ("the-clock-went-back", f"touch -d '1 day' {ROOT}/history.jsonl", [("clock-behind", "clock")], f"touch {ROOT}/history.jsonl"),
]


@pytest.mark.parametrize("breaks, expected, mends", [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_is_broken_is_named_and_what_is_said_to_do_mends_it(machine, app, breaks, expected, mends):
    is_well(machine)
    # With a router that runs.
    machine.run("curl -sS -m 10 http://127.0.0.1/")
    machine.run(breaks, check=False)
    try:
        finding = names(doctor(machine), *expected)
        if mends == "remedy":
            for command in commands(finding):
                machine.run(command)
        elif mends == "fix":
            fixed = doctor(machine, "--fix")
            assert [it["command"] for it in fixed["fixed"]] == [finding["fix"]] and faults(fixed) == [], fixed
        else:
            machine.run(mends)
        is_well(machine)
    finally:
        # What is left of that, mended or not.
        machine.run("rm -rf /run/systemd/system/slotd.service.d /run/systemd/system/web@.service.d")
        machine.run("rm -rf /run/systemd/system/slotd-tcp.socket.d /etc/slot/api-tokens")
        machine.run(f"test ! -e /root/web.toml || mv /root/web.toml {APP}; systemctl daemon-reload")
        if machine.run("systemctl is-enabled slotd-tcp.socket", check=False).returncode == 0:
            machine.run("systemctl disable --now slotd-tcp.socket && systemctl reset-failed && systemctl restart slotd.service")


@contextmanager
def listening(machine, port):
    """Somebody else's server on a port."""
    machine.run(f"systemd-run --quiet --unit=other python3 -m http.server --bind 127.0.0.1 {port}")
    try:
        machine.wait_for(f"curl -sS http://127.0.0.1:{port}/")
        yield
    finally:
        machine.run("systemctl stop other.service")


def test_a_port_that_somebody_else_has_is_named_with_who_has_it(machine, app):
    is_well(machine)
    port = re.search(rf"{app.idle()} = (\d+)", machine.out(f"cat {APP}"))[1]
    with listening(machine, port):
        finding = names(doctor(machine), ("port-taken", f"port {port}"))
        assert re.search(r"python3 \(pid \d+, other.service\)", finding["text"]), finding
    is_well(machine)


def test_the_public_port_that_somebody_else_has_is_named_with_who_has_it(machine, app):
    is_well(machine)
    machine.run("systemctl stop slot-router.socket")
    with listening(machine, 80):
        finding = names(doctor(machine), ("socket-taken", "slot-router.socket"))
        assert re.search(r"python3 \(pid \d+, other.service\)", finding["text"]), finding
    machine.run("systemctl start slot-router.socket")
    is_well(machine)


def test_a_state_that_cannot_be_read_is_named_before_and_after_slotd_has_kept_it_aside(machine, app):
    is_well(machine)
    active = app.active()
    machine.run(f"systemctl stop slotd.service && echo garbage >{ROOT}/state.json")
    finding = names(doctor(machine), ("state-corrupt", f"{ROOT}/state.json"), ("slotd-down", "slotd.service"))
    assert machine.out(f"cat {ROOT}/state.json") == "garbage", "it is only looked at"
    machine.run("systemctl start slotd.service")
    app.wait_until(lambda status: status["serving"])
    assert app.active() == active, finding
    finding = names(doctor(machine), ("state-aside", f"{ROOT}/state.json.corrupt-1"))
    assert commands(finding)[-1] == f"rm {ROOT}/state.json.corrupt-1"
    machine.run(commands(finding)[-1])
    is_well(machine)


def test_a_table_that_says_something_else_than_the_states_is_named(machine, app):
    is_well(machine)
    machine.run("systemctl stop slotd.service")
    swap = (
        "import json; path = '/run/slot/slotd/table.json'; table = json.load(open(path))\n"
        "for slot in table['apps'][0]['slots']: slot['weight'] = 100 - slot['weight']\n"
        "json.dump(table, open(path, 'w'))"
    )
    machine.run(["python3", "-c", swap])
    names(doctor(machine), ("table-differs", "/run/slot/table.json"), ("slotd-down", "slotd.service"))
    machine.run("systemctl start slotd.service")
    is_well(machine)
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release two"


def test_a_router_that_hangs_is_named(machine, app):
    is_well(machine)
    machine.run("curl -sS -m 10 http://127.0.0.1/")
    router = machine.out("systemctl list-units --plain --no-legend --state=active 'slot-router@*.service' | cut -d' ' -f1")
    machine.run(f"systemctl kill -s STOP {router}")
    try:
        names(doctor(machine), ("router-silent", router))
    finally:
        machine.run(f"systemctl kill -s CONT {router}")
    is_well(machine)


def test_an_active_slot_that_was_stopped_by_hand_is_named(machine, app):
    is_well(machine)
    unit = f"web@{app.active()}.service"
    machine.run(f"systemctl stop {unit}")
    app.wait_until(lambda status: not status["serving"])
    finding = names(doctor(machine), ("app-stopped", unit))
    machine.run(commands(finding)[0])
    app.wait_until(lambda status: status["serving"])
    is_well(machine)


def test_without_root_it_says_what_it_could_not_look_at_and_finds_nothing_that_is_not_so(machine, app):
    is_well(machine)
    said = doctor(machine, user="www-data")
    assert faults(said) == [] and said["unseen"] > 0 and said["exit"] == 0, said
    unseen = {it["check"] for it in said["findings"] if it["level"] == "unseen"}
    assert {"slotd", "router", "state", "polkit-app-rule"} <= unseen, said
    text = machine.run("slotctl doctor", user="www-data").stdout
    assert "`sudo slotctl doctor` sees more" in text, text
    refused = machine.run("slotctl doctor --fix", user="www-data", check=False)
    assert refused.returncode == 4 and "takes root" in refused.stderr, refused
