"""Streams that were opened before a deploy end by themselves, on the slot that they began on."""

import json
import time

from slots import QUICK, App, answers_only, nothing_failed
from streams_open import open_stream

def test_a_minutes_stream_and_a_websocket_outlive_a_deploy_whole_and_their_slot_stops_then(machine):
    app = App(machine, "web", QUICK + 'drain = "0s"\n')
    app.deploy("one")
    sse, from_sse = open_stream(machine, "sse")
    ws, from_ws = open_stream(machine, "ws")
    assert (from_sse, from_ws) == ("one", "one")
    with machine.load("127.0.0.1:80", "--connections", "8", "--pause-ms", "50") as load:
        app.deploy("two")
        answers_only(load, "two", requests=20)
        held = app.slot("blue")
        assert (held["condition"], held.get("drain_until_ms")) == ("draining", None), held
        assert held["in_flight"] == {"requests": 0, "streams": 1, "tunnels": 1}
        ended = [json.loads(stream.stdout.readline()) for stream in (sse, ws)]
        after = time.monotonic()
        app.wait_for_slot("blue", "idle")
        lasted = time.monotonic() - after
        result = load.stop()
    assert [end["whole"] for end in ended] == [True, True], ended
    assert [end["release"] for end in ended] == ["one", "one"]
    assert lasted < 3
    assert machine.show("web@blue", "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    nothing_failed(result, reconnects=8)
    assert "forced" not in machine.out("cat /var/lib/slot/web/history.jsonl")
