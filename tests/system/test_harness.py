"""The tools of the other tests: that they count what is there, and see what is wrong."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from apps import place, register
from machine import HERE

ROOT = HERE.parent.parent


def test_what_the_scripts_make_is_found_wherever_cargos_own_output_is(tmp_path):
    where = [sys.executable, "-c", "import machine; print(machine.PACKAGES, machine.ROOT.parent)"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(tmp_path), "PYTHONPATH": str(HERE)}
    said = subprocess.run(where, env=environment, check=True, capture_output=True, text=True).stdout
    assert said.split() == [f"{ROOT}/target/packages", f"{ROOT}/target/rootfs"]


@pytest.mark.parametrize("owner", ["root", "nobody"])
def test_a_package_is_of_its_commits_time_whosever_checkout_it_is_made_of(tmp_path, owner):
    shutil.copytree(ROOT / "packaging", tmp_path / "packaging")
    # As far as the build of the binaries, and no further.
    for program, line in (("packaging/need", "true"), ("bin/cargo", "echo of $SOURCE_DATE_EPOCH; exit 7")):
        path = tmp_path / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
    }  # fmt: skip
    commit = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm one --date '@1700000000 +0000'"
    subprocess.run(commit, shell=True, cwd=tmp_path, env=environment | {"GIT_COMMITTER_DATE": "@1700000000 +0000"}, check=True)
    subprocess.run(["chown", "-R", owner, str(tmp_path)], check=True)
    built = subprocess.run([tmp_path / "packaging/build"], env=environment, capture_output=True, text=True)
    assert (built.returncode, built.stdout) == (7, "of 1700000000\n"), built


@pytest.fixture(scope="module")
def app(machine):
    register(machine, "web", 'name = "web"\ncommand = "./server"\nready = "notify"\n[ports]\nblue = 20001\ngreen = 20002\n')
    place(machine, "web", "blue", "notify", "one")
    machine.run("systemctl start web@blue")


def test_load_counts_every_answer_and_the_release_that_gave_it(machine, app):
    with machine.load("127.0.0.1:20001", "--connections", "8", "--post", "1000") as load:
        machine.wait_for("test $(curl -sS http://127.0.0.1:20001/ | wc -l) = 1")
        before = load.mark("after")
        while (after := load.snapshot()["marks"]["after"])["requests"] < 100:
            pass
        result = load.stop()
    assert (result["failed"], result["reconnects"]) == (0, 8)
    assert result["answers"] == {"release one": result["requests"]}
    assert before["requests"] + after["requests"] <= result["requests"]
    assert 0 < result["median_ms"] <= result["slowest_ms"]


def test_load_counts_what_is_refused_cut_or_wrong(machine, app):
    machine.run("systemctl start web@blue")
    with machine.load("127.0.0.1:20001", "--connections", "8") as load:
        while load.snapshot()["requests"] < 50:
            pass
        machine.run("systemctl stop web@blue")
        while "refused" not in load.snapshot()["failures"]:
            pass
        result = load.stop()
    assert result["failed"] >= 8, result
    with machine.load("127.0.0.1:20099", "--connections", "1") as load:
        while load.snapshot()["failures"].get("refused", 0) == 0:
            pass
    machine.run("systemctl start web@blue")
    with machine.load("127.0.0.1:20001", "--connections", "1", "--path", "/healthz") as load:
        while load.snapshot()["failures"].get("wrong body", 0) == 0:
            pass
    with machine.load("127.0.0.1:20001", "--connections", "1", "--path", "/nothing") as load:
        while load.snapshot()["failures"].get("status 404", 0) == 0:
            pass


@pytest.mark.parametrize("kind", ["sse", "ws"])
def test_a_stream_is_whole_if_it_ended_by_itself_and_cut_if_not(machine, app, kind):
    machine.run("systemctl start web@blue")
    whole = machine.out(f"python3 /tests/streams.py {kind} 127.0.0.1:20001 --seconds 1").splitlines()
    assert json.loads(whole[0])["open"] == "one"
    assert json.loads(whole[1])["whole"] is True, whole
    cut = machine.spawn(f"exec python3 /tests/streams.py {kind} 127.0.0.1:20001 --seconds 60")
    assert json.loads(cut.stdout.readline())["open"] == "one"
    machine.run("systemctl kill -s KILL web@blue")
    assert json.loads(cut.stdout.readline())["whole"] is False
    cut.wait(10)
    machine.wait_for("curl -sS --fail http://127.0.0.1:20001/")
