"""The tools of the other tests: that they count what is there, and see what is wrong."""

import json

import pytest
from apps import place, register


@pytest.fixture(scope="module", autouse=True)
def app(machine):
    register(machine, "web", 'name = "web"\ncommand = "./server"\nready = "notify"\n[ports]\nblue = 20001\ngreen = 20002\n')
    place(machine, "web", "blue", "notify", "one")
    machine.run("systemctl start web@blue")


def test_load_counts_every_answer_and_the_release_that_gave_it(machine):
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


def test_load_counts_what_is_refused_cut_or_wrong(machine):
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
def test_a_stream_is_whole_if_it_ended_by_itself_and_cut_if_not(machine, kind):
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
