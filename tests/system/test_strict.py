"""Strictness as others see it: another parser behind the router, and clients that are slow on purpose before it."""

import json
import re

import pytest
from slots import QUICK, App, nothing_failed

CONNECTIONS = 1000

# The four modes of slowhttptest(1): heads that never end, bodies that hardly move, overlapping ranges, answers that are hardly read.
MODES = {
    "heads": "-H -i 1",
    "bodies": "-B -i 1 -s 100000",
    "ranges": "-R -a 1 -b 3000",
    "readers": "-X -w 1 -y 10 -n 1 -z 1 -k 1",
}


def test_h11_reads_exactly_what_was_asked_and_nothing_that_was_refused(machine):
    read = machine.json("python3 /tests/strict_reader.py", timeout=120)
    assert read["asked"] > 10 and read["refused"] > 10
    assert read["wrong"] == []


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    return app


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_slow_clients_stop_no_other(machine, app, mode):
    command = f"slowhttptest {MODES[mode]} -c {CONNECTIONS} -r {CONNECTIONS} -l 15 -p 3 -u http://127.0.0.1/ 2>&1"
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "10") as load:
        slow = machine.spawn(command)
        report, _ = slow.communicate(timeout=120)
        during = load.snapshot()
        # Those who come now are served as ever.
        load.mark("after")
        while load.snapshot()["marks"]["after"]["requests"] < 50:
            pass
        result = load.stop()
    report = re.sub(r"\x1b\[[\d;]*m", "", report)
    available = re.findall(r"service available: *(\w+)", report)
    assert available and set(available) == {"YES"}, report
    connected = max(int(count) for count in re.findall(r"connected: *(\d+)", report))
    # One for ranges has its answer, and ends, before anybody looks.
    assert connected > 0.9 * CONNECTIONS or mode == "ranges", report
    assert during["requests"] > 100
    nothing_failed(result, reconnects=8)
    # And nothing is left of them.
    machine.wait_for("test $(ss -tnH state established '( sport = :80 )' | wc -l) -le 8", timeout=60)


def test_the_journal_says_which_limit_was_met(machine, app):
    machine.run('curl -s -o /dev/null http://127.0.0.1/$(printf %09000d 0)')
    lines = machine.out("journalctl -u slot-router@1 -o json").splitlines()
    told = [line for line in map(json.loads, lines) if line.get("LIMIT") == "target_bytes"]
    assert told and told[0]["CLIENT"] == "127.0.0.1", lines[-5:]
    # As people look at it, too.
    plain = machine.out("journalctl -o cat -u slot-router@1")
    assert "127.0.0.1: the request target is too long (limit target_bytes)" in plain, plain
