"""Each class of what is in flight has a deadline of its own, and who is cut is told so by a reset, not all at once."""

import json
import time

import pytest
from slots import QUICK, App, answers_only
from streams_open import open_stream


# Until it is there a stream goes on.
GO = "/srv/the-stream-may-end"


@pytest.fixture
def app(machine, request):
    name = f"classes{request.node.name.count('_')}"
    app = App(machine, name, f'hosts = ["{name}.test"]\n{QUICK}')
    app.host = f"{name}.test"
    return app


def hold(app, kind, seconds=120):
    return open_stream(app.machine, kind, seconds, app.host)[0]


def end_of(stream, timeout=60):
    return json.loads(stream.communicate(timeout=timeout)[0].splitlines()[-1])


def configure(app, more):
    app.configure(f'hosts = ["{app.host}"]\n{QUICK}{more}\n')


def test_streams_are_cut_at_their_deadline_while_websockets_go_on(app):
    configure(app, 'drain_streams = "1s"\ndrain_tunnels = "0s"')
    app.deploy("one")
    streams, ws = [hold(app, "sse") for _ in range(4)], hold(app, "ws", seconds=15)
    app.deploy("two")
    ended = [end_of(stream) for stream in streams]
    assert not any(end["whole"] for end in ended), ended
    held = app.slot("blue")
    assert (held["condition"], held["in_flight"]) == ("draining", {"requests": 0, "streams": 0, "tunnels": 1}), held
    assert end_of(ws)["whole"]
    app.wait_for_slot("blue", "idle")
    assert '"forced"' in app.machine.out(f"cat /var/lib/slot/{app.name}/history.jsonl")


def test_at_the_deadline_of_websockets_the_app_gets_sigterm_and_what_it_leaves_is_reset_at_different_moments(app):
    configure(app, 'drain_streams = "0s"\ndrain_tunnels = "2s"')
    app.deploy("one")
    sockets = [hold(app, "ws") for _ in range(6)]
    began = time.monotonic()
    app.deploy("two")
    listed = app.machine.json(f"cd {app.home} && slotctl --json status --connections")["slots"]["blue"]
    assert [one["class"] for one in listed] == ["tunnel"] * 6
    assert {(one["client"], one["route"]) for one in listed} == {("127.0.0.1", f"{app.host}/ws")}
    assert f"127.0.0.1  {app.host}/ws" in app.machine.out(f"cd {app.home} && slotctl status --connections")
    ended = []
    for socket in sockets:
        end = end_of(socket)
        ended.append((time.monotonic() - began, end["whole"], end["error"]))
    # Two seconds until SIGTERM, two that the app has then.
    assert all(not whole and "reset" in error.lower() and after > 3.9 for after, whole, error in ended), ended
    # Within five seconds, each at a moment of its own: that six fall into a fifth of one is less likely than one in a million.
    moments = [after for after, _, _ in ended]
    assert max(moments) - min(moments) > 0.2 and max(moments) < 15, moments
    app.wait_for_slot("blue", "idle")
    told = app.machine.out(f"journalctl -o cat SLOT_APP={app.name} SLOT_CAUSE=drain-deadline")
    assert "is cut" in told, told


def test_an_app_that_closes_its_websockets_at_sigterm_ends_them_cleanly(app):
    configure(app, 'drain_streams = "0s"\ndrain_tunnels = "2s"')
    app.deploy("one", faults="goodbye")
    sockets = [hold(app, "ws") for _ in range(6)]
    began = time.monotonic()
    app.deploy("two")
    ended = [end_of(socket) for socket in sockets]
    # A close frame, and then the end of the connection, not a reset: nobody was cut. It comes with SIGTERM, at the deadline of two seconds.
    assert [(end["whole"], end["goodbye"], end["error"]) for end in ended] == [(True, 1001, None)] * 6, ended
    assert time.monotonic() - began > 1.9
    app.wait_for_slot("blue", "idle")


def test_the_deadline_of_websockets_waits_for_requests_and_streams_that_have_time_left(app):
    # SIGTERM is for the whole app: it would cut what its own deadline does not.
    configure(app, 'drain_streams = "0s"\ndrain_tunnels = "1s"')
    app.deploy("one", faults="goodbye")
    stream, ws = open_stream(app.machine, "sse", host=app.host, until=GO)[0], hold(app, "ws")
    app.deploy("two")

    def is_overdue(status):
        (blue,) = (slot for slot in status["slots"] if slot["slot"] == "blue")
        return time.time() * 1000 > blue["drain_classes"]["tunnels_ms"] + 1000

    held = next(slot for slot in app.wait_until(is_overdue)["slots"] if slot["slot"] == "blue")
    assert (held["condition"], held["in_flight"]) == ("draining", {"requests": 0, "streams": 1, "tunnels": 1}), held
    app.machine.run(f"touch {GO}")
    assert end_of(stream)["whole"]
    # Nothing but the WebSocket is left, and its time is over.
    end = end_of(ws)
    assert (end["whole"], end["goodbye"]) == (True, 1001), end
    app.wait_for_slot("blue", "idle")


def test_a_rollback_after_a_deadline_takes_a_slot_back_that_serves_everything(app):
    configure(app, 'drain = "0s"\ndrain_streams = "1s"')
    app.deploy("one")
    stream, ws = hold(app, "sse"), hold(app, "ws", seconds=20)
    app.deploy("two")
    assert not end_of(stream)["whole"]
    assert app.slot("blue")["condition"] == "draining"
    assert app.slotctl("rollback")["slot"] == "blue"
    after, release = open_stream(app.machine, "sse", 5, app.host)
    assert release == "one"
    with app.machine.load("127.0.0.1:80", "--connections", "2", "--pause-ms", "20", "--host", app.host) as load:
        answers_only(load, "one", requests=50)
    assert end_of(after)["whole"] and end_of(ws)["whole"]


def test_requests_have_a_deadline_too(app):
    configure(app, 'drain = "0s"\ndrain_requests = "1s"')
    app.deploy("one")
    # A body that does not end.
    stuck = app.machine.spawn(
        f"exec python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", 80)); "
        f"s.sendall(b\"POST / HTTP/1.1\\r\\nHost: {app.host}\\r\\nContent-Length: 10\\r\\n\\r\\nx\"); print(\"sent\", flush=True); print(s.recv(100))'"
    )
    assert stuck.stdout.readline() == "sent\n"
    app.wait_until(lambda status: any(slot.get("in_flight", {}).get("requests") for slot in status["slots"]))
    with app.machine.load("127.0.0.1:80", "--connections", "2", "--pause-ms", "20", "--host", app.host) as load:
        app.deploy("two")
        app.wait_for_slot("blue", "idle")
        answers_only(load, "two", requests=20)
    stuck.communicate(timeout=30)
