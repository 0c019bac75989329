"""An app of a machine under slotd: registered and deployed as its owner does it, with slotctl."""

import contextlib
import json
import time

from apps import make
from machine import Failed

# Short soaks and drains, so that a test waits for neither; what needs others says so.
QUICK = 'ready = "notify"\nhealth = "/healthz"\nsoak = "0s"\nstop_timeout = "2s"\n'


class App:
    """`kind` is the sample app whose copies, each with a marker, are its releases."""

    def __init__(self, machine, name="web", text=QUICK, *, kind="notify", command="./server"):
        self.machine, self.name, self.kind = machine, name, kind
        self.home = f"/srv/{name}"
        self.configure(text, command)

    def configure(self, text, command="./server"):
        """Writes its slot.toml and takes it over."""
        self.machine.write(f"{self.home}/slot.toml", f'name = "{self.name}"\ncommand = "{command}"\n{text}')
        return self.slotctl("app add")

    def slotctl(self, words, *, check=True, timeout=120):
        """`slotctl WORDS --json` in the app's directory: what it printed, with its exit status as `exit`."""
        done = self.machine.run(f"cd {self.home} && slotctl --json {words}", check=False, timeout=timeout)
        if check and done.returncode != 0:
            raise Failed(f"slotctl {words}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return {**json.loads(done.stdout), "exit": done.returncode}

    def release(self, marker, *, faults=""):
        """A directory to deploy."""
        return make(self.machine, self.kind, marker, faults=faults, directory=f"{self.home}/{marker}")

    def deploy(self, marker, words="", *, faults="", check=True):
        """Deploys the release that answers `release MARKER`."""
        return self.slotctl(f"deploy {self.release(marker, faults=faults)} {words}", check=check)

    def status(self):
        return self.slotctl("status")

    def slot(self, name):
        return next(slot for slot in self.status()["slots"] if slot["slot"] == name)

    def active(self):
        return self.status()["active"]

    def idle(self):
        """The other one of two slots."""
        return "green" if self.active() == "blue" else "blue"

    def wait_until(self, condition, *, timeout=30):
        """Asks for the status until the condition holds for it; returns that status."""
        deadline = time.monotonic() + timeout
        while not condition(status := self.status()):
            if time.monotonic() > deadline:
                raise Failed(f"not within {timeout} s; the status is {json.dumps(status, indent=1)}")
            time.sleep(0.02)
        return status

    def wait_for_slot(self, name, *conditions, timeout=30):
        """Until a slot is in one of the conditions."""

        def there(status):
            return any(slot["slot"] == name and slot["condition"] in conditions for slot in status["slots"])

        return self.wait_until(there, timeout=timeout)


def answers_only(load, marker, *, requests=100, timeout=30):
    """Every request that begins from now on is answered by this release; returns when that many were."""
    name = f"only-{marker}-{time.monotonic_ns()}"
    load.mark(name)
    deadline = time.monotonic() + timeout
    while (seen := load.snapshot()["marks"][name])["requests"] < requests:
        if time.monotonic() > deadline:
            raise Failed(f"too few requests: {seen}")
        time.sleep(0.02)
    assert (seen["failed"], seen["answers"]) == (0, {f"release {marker}": seen["requests"]}), seen


@contextlib.contextmanager
def unbroken(machine, *, connections, pause_ms):
    """Load on what release one serves, of which none fails. A router that is left says so on each connection, so that clients come again; that
    is all that they notice."""
    with machine.load("127.0.0.1:80", "--connections", str(connections), "--pause-ms", str(pause_ms)) as load:
        answers_only(load, "one", requests=connections)
        yield load
        result = load.stop()
        assert (result["failed"], result["failures"]) == (0, {}), result
        assert result["answers"] == {"release one": result["requests"]}


def nothing_failed(result, *, reconnects):
    """No request failed, none was refused, and no connection was closed under its client."""
    assert (result["failed"], result["failures"], result["reconnects"]) == (0, {}, reconnects), result
