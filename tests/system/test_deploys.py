"""Deployments of real apps under continuous load from many keep-alive connections: not one request fails."""

import pytest
from slots import App, answers_only, nothing_failed

GUNICORN = "gunicorn --worker-tmp-dir /tmp --workers 2 --threads 16 --keep-alive 60 app:app"
TIMES = 'soak = "0s"\nstop_timeout = "5s"\nhealth_timeout = "3s"\nstart_timeout = "10s"\n'
# Name, sample app, command, settings, what a release lacks that is to fail.
APPS = [
    ("pages", "nginx", "./start", 'bind = "port"\nready = "health"\n', "./start", None),
    ("wsgi", "gunicorn", GUNICORN.replace("gunicorn", "gunicorn --bind 127.0.0.1:$PORT", 1), 'ready = "notify"\n', "app.py", None),
    ("wsgisock", "gunicorn", GUNICORN.replace("gunicorn", "gunicorn --bind unix:$SOCKET", 1), 'bind = "unix"\nready = "health"\n', "app.py", None),
    ("port", "notify", "./server", 'ready = "notify"\nhealth = "/healthz"\n', None, "unhealthy"),
    ("sock", "notify", "./server", 'bind = "unix"\nready = "notify"\nhealth = "/healthz"\n', None, "exit"),
    ("inherit", "notify", "./server", 'bind = "fd"\nready = "notify"\nhealth = "/healthz"\n', None, "exit-after=0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "command", "settings", "lacks", "fault"), APPS, ids=[row[0] for row in APPS])
def test_deploys_a_rollback_and_a_failed_deploy_cost_no_request(machine, name, kind, command, settings, lacks, fault):
    app = App(machine, name, f'hosts = ["{name}.test"]\n{settings}{TIMES}', kind=kind, command=command)
    app.deploy("one")
    with machine.load("127.0.0.1:80", "--connections", "48", "--pause-ms", "20", "--host", f"{name}.test") as load:
        answers_only(load, "one")
        second = app.deploy("two")
        answers_only(load, "two")
        assert (second["cause"], second["success"]) == ("switched", True)
        assert app.slotctl("rollback")["success"]
        answers_only(load, "one")
        bad = app.release("bad", faults=fault or "")
        if lacks:
            machine.run(f"printf '#!/bin/sh\\nexit 3\\n' >{bad}/{lacks}")
        failed = app.slotctl(f"deploy {bad}", check=False)
        assert (failed["success"], failed["exit"]) == (False, 1), failed
        assert failed["phase"] in ("starting", "ready")
        assert failed["report"]["log"], failed
        answers_only(load, "one")
        assert app.deploy("three")["success"]
        answers_only(load, "three")
        result = load.stop()
    nothing_failed(result, reconnects=48)
    assert set(result["answers"]) == {"release one", "release two", "release three"}


def test_bodies_that_are_sent_during_deploys_arrive_whole(machine):
    app = App(machine, "bodies", 'hosts = ["bodies.test"]\nready = "notify"\nhealth = "/healthz"\nsoak = "0s"\n')
    app.deploy("one")
    options = ("--connections", "16", "--pause-ms", "20", "--post", "100000", "--host", "bodies.test")
    with machine.load("127.0.0.1:80", *options) as load:
        for marker in ("two", "three"):
            app.deploy(marker)
            answers_only(load, marker, requests=50)
        result = load.stop()
    nothing_failed(result, reconnects=16)
