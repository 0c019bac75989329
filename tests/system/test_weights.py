"""Shares of new requests, under load: a candidate at a weight is raised, promoted, aborted; slotd is killed meanwhile; everything is stopped."""

import json
import time

import pytest
from slots import QUICK, App, answers_only, nothing_failed

THREE = QUICK + 'slots = ["blue", "green", "canary"]\n'


@pytest.fixture
def app(fresh):
    app = App(fresh, "web", THREE)
    app.deploy("one", "--version v1")
    return app


def weights(app):
    return {slot["slot"]: slot["weight"] for slot in app.status()["slots"] if slot["weight"]}


def share(load, name, marker, requests=3000):
    """What a release answers of the requests that begin from now on, per cent."""
    load.mark(name)
    deadline = time.monotonic() + 60
    while True:
        answers = load.snapshot()["marks"][name]["answers"]
        count = sum(answers.values())
        if count >= requests:
            return 100 * answers.get(f"release {marker}", 0) / count
        assert time.monotonic() < deadline, answers
        time.sleep(0.05)


def load_of(machine):
    return machine.load("127.0.0.1:80", "--connections", "16", "--pause-ms", "2")


def test_a_candidate_goes_from_0_to_10_to_50_to_100_with_its_share_of_the_requests_and_no_failure(fresh, app):
    with load_of(fresh) as load:
        deployed = app.deploy("two", "--weight 0 --version v2")
        assert (deployed["success"], deployed["cause"], deployed["phase"]) == (True, "trial", "shifting")
        assert share(load, "at 0", "two", 1000) == 0
        for weight in (10, 50):
            weighed = app.slotctl(f"weight web:v2 {weight}")
            assert (weighed["everywhere"], weighed["weights"]["green"]) == (True, weight), weighed
            assert abs(share(load, f"at {weight}", "two") - weight) <= 1
        busy = app.deploy("three", check=False)
        assert (busy["exit"], busy["code"]) == (1, "busy")
        assert "green at 50%" in busy["error"] and "slotctl abort" in busy["error"]
        promoted = app.slotctl("weight green 100")
        assert (promoted["cause"], promoted["generation"]) == ("switched", deployed["generation"])
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=16)
    app.wait_for_slot("blue", "idle")


def test_two_slots_are_swapped_at_once_under_load_and_again_is_nothing(fresh, app):
    app.deploy("two", "--weight 0")
    with load_of(fresh) as load:
        answers_only(load, "one")
        swapped = app.slotctl("route web --from blue --to green")
        assert (swapped["cause"], weights(app)) == ("switched", {"green": 100}), swapped
        assert share(load, "swapped", "two", 1000) == 100
        before = app.status()
        app.slotctl("route web --from blue --to green")
        after = app.status()
        assert (after["generation"], after["standing"]["active"]) == (before["generation"], before["standing"]["active"]), after
        nothing_failed(load.stop(), reconnects=16)


def test_an_abort_under_load_costs_no_request_and_the_candidate_is_stopped_when_it_has_drained(fresh, app):
    with load_of(fresh) as load:
        app.deploy("two", "--weight 40")
        assert share(load, "at 40", "two") > 30
        aborted = app.slotctl("abort")
        assert aborted["weights"] == {"blue": 100, "canary": 0, "green": 0}
        answers_only(load, "one")
        app.wait_for_slot("green", "idle")
        assert fresh.show("web@green", "ActiveState") == {"ActiveState": "inactive"}
        result = load.stop()
    nothing_failed(result, reconnects=16)
    last = app.status()["last"]
    assert (last["success"], last["cause"]) == (False, "aborted")
    lines = fresh.out("cat /var/lib/slot/web/history.jsonl").splitlines()
    events = [json.loads(line) for line in lines]
    assert any(event["event"] == "ended" and event["cause"] == "aborted" for event in events), events


def test_slotd_that_is_killed_finds_a_candidate_at_its_weight_and_one_whose_unit_is_gone_has_none(fresh, app):
    with load_of(fresh) as load:
        app.deploy("two", "--weight 20")
        boot = app.slot("green")["boot_id"]
        for _ in range(3):
            fresh.run("systemctl kill -s KILL slotd.service")
            fresh.wait_for("slotctl --app web status")
            status = app.wait_until(lambda status: status["state"] == "shifting")
            assert (status["active"], app.slot("green")["boot_id"]) == ("blue", boot)
            assert weights(app) == {"blue": 80, "green": 20}
        assert abs(share(load, "after", "two") - 20) <= 1
        nothing_failed(load.stop(), reconnects=16)
    fresh.run("systemctl stop slotd.socket slotd.service && systemctl stop web@green")
    fresh.run("systemctl start slotd.socket slotd.service")
    fresh.wait_for("slotctl --app web status")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["active"], weights(app)) == ("blue", {"blue": 100})
    assert not status["last"]["success"]


def test_a_candidate_that_is_ill_or_ends_at_its_weight_has_nothing_and_its_deployment_failed(fresh, app):
    app.deploy("two", "--weight 30", faults="unhealthy-after=2")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["last"]["cause"], weights(app)) == ("probes-failed", {"blue": 100})
    app.wait_for_slot("green", "idle")
    app.deploy("three", "--weight 30")
    fresh.run("systemctl kill -s KILL web@green")
    status = app.wait_until(lambda status: status["state"] == "idle")
    assert (status["last"]["cause"], weights(app)) == ("exited", {"blue": 100})
    assert fresh.out("curl -sS -m 10 http://127.0.0.1/") == "release one"


def test_three_versions_have_a_share_each_and_no_more_than_there_is(fresh, app):
    app.deploy("two", "--version v2 --wait=stopped")
    # What is started by hand is what the slot's symlink names.
    fresh.run("ln -sfnT $(readlink /var/lib/slot/web/blue) /var/lib/slot/web/canary")
    deployed = app.deploy("five", "--weight 10 --version five")
    active, hand = "green", "canary"
    fresh.run(f"systemctl start web@{hand}")
    app.wait_until(lambda status: app.slot(hand).get("health") == "healthy")
    app.slotctl("weight web:v1 20")
    expected = {active: 70, deployed["slot"]: 10, hand: 20}
    assert weights(app) == expected
    with load_of(fresh) as load:
        assert abs(share(load, "third", "one") - 20) <= 1
        assert abs(share(load, "candidate", "five") - 10) <= 1
        nothing_failed(load.stop(), reconnects=16)
    refused = app.slotctl("weight five 81", check=False)
    assert (refused["exit"], refused["code"]) == (1, "refused")
    assert f"{active}, which has 70%" in refused["error"]
    asked = "curl -sS -o /dev/null -w '%{http_code}' -X POST --unix-socket /run/slot/slotd.sock"
    assert fresh.out(f"{asked} 'http://slot/apps/web/weight?slot={deployed['slot']}&weight=81'") == "422"
    assert weights(app) == expected
    listed = {slot["slot"]: slot for slot in app.slotctl("ps")["slots"]}
    assert {name: listed[name]["weight"] for name in expected} == expected
    assert all(listed[name]["restarts"] == 0 and listed[name]["boot_id"] for name in expected)
    app.slotctl(f"stop {hand}")
    app.wait_for_slot(hand, "idle")
    assert weights(app) == {active: 90, deployed["slot"]: 10}


def test_a_stop_of_everything_is_503_at_once_and_no_request_reaches_it(fresh, app):
    refused = app.slotctl("stop web:blue", check=False)
    assert (refused["exit"], refused["code"]) == (1, "refused")
    assert "--force" in refused["error"]
    stopped = app.slotctl("stop web:blue --force")
    assert stopped["weights"] == {"blue": 0, "canary": 0, "green": 0} and stopped["everywhere"]
    for _ in range(5):
        answer = fresh.out("curl -sS -o /dev/null -m 30 -w '%{http_code} %{time_total}' http://127.0.0.1/").split()
        assert answer[0] == "503" and float(answer[1]) < 1, answer
    app.wait_for_slot("blue", "idle")
    # It stays so: nothing starts it again by itself.
    fresh.run("systemctl restart slotd.service")
    fresh.wait_for("slotctl --app web status")
    status = app.status()
    assert (status["active"], status["serving"], weights(app)) == (None, False, {})
    app.deploy("two")
    assert fresh.out("curl -sS -m 10 http://127.0.0.1/") == "release two"


def test_the_old_slot_keeps_a_share_after_a_switch_until_its_time_is_over_or_somebody_takes_it(fresh, app):
    app.configure(QUICK + 'migrate = "90:10 1h"\n')
    with load_of(fresh) as load:
        deployed = app.deploy("two")
        assert deployed["cause"] == "switched"
        assert weights(app) == {"green": 90, "blue": 10}
        assert abs(share(load, "beside", "one") - 10) <= 1
        app.slotctl("weight web:blue 0")
        answers_only(load, "two")
        app.wait_for_slot("blue", "idle")
        app.configure(QUICK + 'migrate = "99:1 1s"\n')
        app.deploy("three")
        app.wait_until(lambda status: weights(app) == {"blue": 100})
        answers_only(load, "three")
        app.wait_for_slot("green", "idle")
        result = load.stop()
    nothing_failed(result, reconnects=16)


# Asks as each of a hundred browsers, and prints what each was answered: `release one`, …
BROWSERS = "for i in $(seq 100); do curl -sS -m 10 -b /tmp/jar$i -c /tmp/jar$i http://127.0.0.1/; done"


def test_a_browser_that_saw_the_new_version_keeps_it_while_its_share_grows(fresh, app):
    app.configure(QUICK + 'sticky = "cookie"\n')
    app.deploy("two", "--weight 10")
    before = fresh.out(BROWSERS).splitlines()
    for weight in (10, 50, 90):
        app.slotctl(f"weight web:green {weight}")
        now = fresh.out(BROWSERS).splitlines()
        assert (len(now), set(now)) == (100, {"release one", "release two"})
        assert not [i for i in range(100) if (before[i], now[i]) == ("release two", "release one")]
        # Cookies are minted evenly, so it is as close as a hundred can be, but for what several threads of the router round.
        assert abs(now.count("release two") - weight) <= 5
        before = now
    app.slotctl("promote")
    assert set(fresh.out(BROWSERS).splitlines()) == {"release two"}


def test_a_candidate_without_weight_is_previewed_by_its_host_and_any_other_name_is_404(fresh, app):
    app.configure(QUICK + 'preview = "example.org"\n')
    deployed = app.deploy("two", "--weight 0 --version v2")
    hosts = app.status()["previews"]
    assert hosts == ["green.web.example.org", "blue.web.example.org"]
    names = ("green", "v2", deployed["release"], "blue", "v3")

    def ask(name):
        said = fresh.out(f"curl -sS -m 10 -w ' %{{http_code}}' -H 'Host: {name}.web.example.org' http://127.0.0.1/")
        return " ".join(said.split())

    # The routers are told once it has passed its gates, which no deployment waits for.
    fresh.wait_for("curl -sSf -m 10 -H 'Host: green.web.example.org' http://127.0.0.1/")
    answers = [ask(name) for name in names]
    assert answers[:4] == ["release two 200"] * 3 + ["release one 200"], answers
    assert answers[4].endswith(" 404"), answers
    assert fresh.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
