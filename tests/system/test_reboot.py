"""After a reboot the active slot is there again, and whoever came early has waited, not been refused."""

import json

from machine import Machine
from slots import QUICK, App
from streams_open import open_stream

# Connects as soon as anything listens on port 80, and reports what the first requests got.
EARLY = """
import json, socket, time, http.client
while True:
    try:
        socket.create_connection(("127.0.0.1", 80), 1).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.005)
answers = []
for _ in range(20):
    began = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", 80, timeout=30)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        answers.append([answer.status, answer.read().decode().strip(), round(time.monotonic() - began, 3)])
    except OSError as error:
        answers.append([0, repr(error), round(time.monotonic() - began, 3)])
print(json.dumps(answers))
"""

UNIT = """
[Unit]
DefaultDependencies=no
After=local-fs.target
[Service]
Type=exec
ExecStart=/usr/bin/python3 /srv/early.py
StandardOutput=file:/srv/early.out
[Install]
WantedBy=sysinit.target
"""


def test_a_reboot_brings_the_active_slot_back_and_early_requests_are_held():
    with Machine(kept=True) as machine:
        machine.install()
        app = App(machine, "web", QUICK + 'start_timeout = "20s"\n')
        app.deploy("one")
        app.deploy("two", "--wait=stopped")
        active = app.active()
        # Slow to come up, so that there is something to wait for.
        machine.write(f"/var/lib/slot/web/{active}/faults", "slow-start\n")
        machine.write("/srv/early.py", EARLY)
        machine.write("/etc/systemd/system/early.service", UNIT)
        machine.run("systemctl daemon-reload && systemctl enable early.service")
        machine.reboot()
        machine.wait_for("test -s /srv/early.out", timeout=60)
        answers = json.loads(machine.out("cat /srv/early.out"))
        assert [(status, text) for status, text, _ in answers] == [(200, "release two")] * 20, answers
        assert answers[0][2] > 1, "nothing was held"
        status = app.wait_until(lambda status: status["serving"])
        assert (status["active"], status["warnings"]) == (active, [])
        other = app.idle()
        assert machine.show(f"web@{other}", "ActiveState") == {"ActiveState": "inactive"}
        # It goes on from there, after a power cut too.
        machine.cut_power()
        machine.boot()
        app.wait_until(lambda status: status["serving"], timeout=60)
        assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release two"
        assert app.deploy("three")["success"]
        assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release three"
        assert app.slotctl("rollback")["success"]
        assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release two"


def test_of_two_routers_before_a_reboot_one_is_left_after_it_and_nothing_of_the_other():
    with Machine(kept=True) as machine:
        machine.install()
        app = App(machine, "web", QUICK)
        app.deploy("one")
        app.deploy("two", "--wait=stopped")
        before = app.status()
        for end in (machine.reboot, machine.cut_power):
            assert machine.out("curl -sS -m 30 http://127.0.0.1/") == "release two"
            (old,) = [router["instance"] for router in app.wait_until(lambda status: status["routers"])["routers"]]
            open_stream(machine, "sse", seconds=600)
            new = app.slotctl("router upgrade")
            assert new == {"accepting": 2, "draining": [int(old)], "exit": 0}, new
            assert machine.show(f"slot-router@{old}", "NFileDescriptorStore") == {"NFileDescriptorStore": "6"}
            end()
            if machine.nspawn is None:
                machine.boot()
            assert machine.out("curl -sS -m 30 http://127.0.0.1/") == "release two"
            status = app.wait_until(lambda status: status["serving"] and status["routers"])
            routers = [(router["instance"], router["accepting"]) for router in status["routers"]]
            assert routers == [("1", True)], status
            # What was drained is not drained on, nor is anything held for it.
            router = status["routers"][0]
            assert router["in_flight"] == {"requests": 0, "streams": 0, "tunnels": 0} and "drain_until_ms" not in router, router
            assert machine.out("systemctl list-units --all --plain --no-legend 'slot-router@*' | cut -d' ' -f1") == "slot-router@1.service"
            assert machine.show("slot-router@1", "NFileDescriptorStore") == {"NFileDescriptorStore": "0"}
            assert machine.out("ls /run/slot/router") == "1"
            # The deployer and the router mean the same table, and the app is where it was.
            assert router["revision"] == json.loads(machine.out("cat /run/slot/table.json"))["revision"]
            for key in ("generation", "active", "live", "prev"):
                assert status[key] == before[key], (key, status)
