"""A Debian machine with systemd as PID 1, in half a second, on a host where no systemd runs.

Each machine is a systemd-nspawn container with its own loopback over a shared, untouched root tree; what it writes
goes to a tmpfs (or, where a test reboots it, to a directory of its own). Must run as root.
"""

import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Where packaging/build, tests/older and tests/run put what they make, wherever Cargo's own output is (CARGO_TARGET_DIR).
TARGET = HERE.parent.parent / "target"
SUITE = os.environ.get("SLOT_TEST_SUITE", "bookworm")
ROOT = TARGET / "rootfs" / SUITE
PACKAGES = TARGET / "packages"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_numbers = itertools.count()


class Failed(AssertionError):
    """A command in a machine did not do what it was to do."""


def _end_with_parent():
    # PR_SET_PDEATHSIG: a machine never outlives the tests, however these end.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _control_groups():
    """Where the host has the unified hierarchy of control groups, mounted if it is not."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(path)
    path = TARGET / "cgroup"
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", path], check=True)
    return path


class Machine:
    """`with Machine() as m:` boots it and halts it. `kept=True`: what it writes survives reboot() and cut_power().
    `binds`: directories of the host that it has, each as nspawn takes it, `FROM:TO`."""

    def __init__(self, *, kept=False, root=ROOT, binds=()):
        self.name = f"slot-{os.getpid()}-{next(_numbers)}"
        self.root = root
        self.kept = kept
        self.binds = binds
        self.directory = TARGET / "machines" / self.name
        self.group = None
        self.nspawn = None
        self.init = None
        self.spawned = []

    def __enter__(self):
        self.directory.mkdir(parents=True)
        if self.kept:
            for part in ("upper", "work", "merged"):
                (self.directory / part).mkdir()
            layers = f"lowerdir={self.root},upperdir={self.directory}/upper,workdir={self.directory}/work"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, self.directory / "merged"], check=True)
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.halt()
        if self.group is not None:
            for group in sorted(self.group.rglob("*/"), reverse=True):
                group.rmdir()
            self.group.rmdir()
        if self.kept:
            subprocess.run(["umount", self.directory / "merged"], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def boot(self):
        """Starts it and returns when systemd has started everything."""
        # Without one of its own a machine would share its units' control groups with every other machine, and a unit that is
        # stopped in one would be killed in all.
        self.group = _control_groups() / self.name
        self.group.mkdir(exist_ok=True)

        def enter():
            _end_with_parent()
            (self.group / "cgroup.procs").write_text("0")

        tree = [self.directory / "merged"] if self.kept else [self.root, "--volatile=overlay"]
        self.log = (self.directory / "console").open("ab")
        self.nspawn = subprocess.Popen(
            [
                "systemd-nspawn", "--quiet", "-D", *tree, f"--machine={self.name}", "--private-network", "--boot",
                "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no", f"--bind-ro={HERE}:/tests",
                f"--bind-ro={PACKAGES}:/packages", *(f"--bind={bind}" for bind in self.binds),
            ],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=enter,
            env={"PATH": PATH, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )  # fmt: skip
        self._wait_until_up()

    def _wait_until_up(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.nspawn.poll() is not None:
                break
            self.init = self._find_init()
            if self.init is not None:
                state = self.run("systemctl is-system-running", check=False)
                if state.stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.02)
        console = (self.directory / "console").read_text(errors="replace")
        raise Failed(f"{self.name} did not come up:\n{console}")

    def _find_init(self):
        """The PID of the machine's PID 1, as the host sees it."""
        try:
            children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
            for child in children:
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        except OSError:
            pass
        return None

    def halt(self):
        """Shuts it down as an administrator would."""
        if self.nspawn is None:
            return
        if self.nspawn.poll() is None:
            self.nspawn.send_signal(signal.SIGTERM)
            if not self._has_halted(within=60):
                self.cut_power()
        self.log.close()
        self.nspawn = None

    def _has_halted(self, within):
        """Waits for the machine's end. systemd-shutdown stops every process before it ends them; nsenter stops itself with what it
        runs, is not of the machine, so nobody wakes it, and keeps its dead child, without whose end the machine has none."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for spawned in self.spawned:
                if spawned.poll() is None:
                    spawned.send_signal(signal.SIGCONT)
            try:
                self.nspawn.wait(0.2)
                return True
            except subprocess.TimeoutExpired:
                pass
        return False

    def cut_power(self):
        """Everything in it is gone at once. boot() starts it again, with what was written if it is kept."""
        os.kill(self.init, signal.SIGKILL)
        self._has_halted(within=30)
        self.nspawn = None

    def reboot(self):
        """Shuts down and boots again; only a kept machine has anything left then."""
        assert self.kept, "a machine that is not kept forgets everything"
        self.halt()
        self.boot()

    def _command(self, command, user):
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        if user:
            words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *words]
        enter = ["nsenter", "-t", str(self.init), "-a", "--wdns=/", "--"]
        return [*enter, "/usr/bin/env", "-i", f"PATH={PATH}", "LC_ALL=C.UTF-8", "HOME=/root", *words]

    def run(self, command, *, check=True, timeout=60, user=None, input=None):
        """Runs a shell line, or a list of words, to its end. Failing is an error unless `check=False`."""
        done = subprocess.run(
            self._command(command, user), input=input, text=True, errors="replace", capture_output=True,
            timeout=timeout, stdin=None if input is not None else subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise Failed(f"{command}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, command, **options):
        """What a command printed, without the last line's end."""
        return self.run(command, **options).stdout.rstrip("\n")

    def json(self, command, **options):
        """What a command printed, as JSON."""
        return json.loads(self.run(command, **options).stdout)

    def spawn(self, command, *, user=None):
        """Starts a command whose stdin and stdout are pipes."""
        spawned = subprocess.Popen(
            self._command(command, user), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=_end_with_parent,
        )  # fmt: skip
        self.spawned.append(spawned)
        return spawned

    def wait_for(self, command, *, timeout=30, user=None):
        """Repeats a command until it succeeds."""
        deadline = time.monotonic() + timeout
        while True:
            done = self.run(command, check=False, user=user)
            if done.returncode == 0:
                return done
            if time.monotonic() > deadline:
                raise Failed(f"not within {timeout} s: {command}\n{done.stdout}{done.stderr}")
            time.sleep(0.05)

    def write(self, path, text, mode="0644"):
        """Writes a file, with its directories."""
        self.run(["install", "-D", "-m", mode, "/dev/stdin", path], input=text)

    def show(self, unit, *properties):
        """Properties of a unit, as text."""
        lines = self.out(["systemctl", "show", unit, *(f"-p{name}" for name in properties)]).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def install(self):
        """Installs the package that packaging/build made."""
        self.run("dpkg -i /packages/*.deb", timeout=120)

    def journal(self, lines=200):
        """The end of the journal, for a report."""
        return self.run(f"journalctl --no-pager -o short-precise -n {lines}", check=False).stdout

    def load(self, address="127.0.0.1:80", *options):
        """Continuous load from within the machine; see load.py."""
        return Load(self, address, options)


class Load:
    """A running load.py. `with machine.load() as load: … load.mark("after"); …; result = load.stop()`"""

    def __init__(self, machine, address, options):
        words = ["python3", "/tests/load.py", address, *options]
        self.process = machine.spawn(words)
        self._ask("snapshot")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(30)

    def _ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise Failed(f"load.py ended: {self.process.wait(10)}")
        return json.loads(answer)

    def snapshot(self):
        """What was counted so far."""
        return self._ask("snapshot")

    def mark(self, name):
        """Requests that *begin* from now on are counted under this name as well."""
        return self._ask(f"mark {name}")

    def stop(self):
        """Lets what is in flight end, and returns what was counted."""
        result = self._ask("stop")
        self.process.wait(30)
        return result
