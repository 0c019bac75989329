"""After a reboot the active slot is there again, and whoever came early has waited, not been refused."""

import json

from machine import Machine
from slots import QUICK, App

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
