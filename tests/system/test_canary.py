"""Plans: a release comes to its requests by steps, and the router's own counts say whether it goes on."""

import json
import time

import pytest
from machine import Machine
from slots import QUICK, App, answers_only, nothing_failed

PLAN = QUICK + '[canary]\nsteps = [{steps}]\n{more}\n'


def planned(machine, *steps, more="", faults=""):
    """An app that serves release one, and whose deploys go by these steps."""
    app = App(machine, "web", PLAN.format(steps=", ".join(f'"{step}"' for step in steps), more=more))
    app.deploy("one", faults=faults)
    return app


def begin(app, marker, *, faults=""):
    """A deploy that goes on while the test does other things."""
    directory = app.release(marker, faults=faults)
    return app.machine.spawn(f"cd {app.home} && exec slotctl --json deploy {directory}")


def ended(deploying, timeout=90):
    return json.loads(deploying.communicate(timeout=timeout)[0])


def at_step(app, number, timeout=60):
    """The plan, once it is there."""

    def there(status):
        plan = plan_of(status)
        return plan is not None and plan["step"] == number

    return plan_of(app.wait_until(there, timeout=timeout))


def plan_of(status):
    return (status.get("deployment") or {}).get("plan")


def weights(app):
    return {slot["slot"]: slot["weight"] for slot in app.status()["slots"] if slot["weight"]}


def load_of(machine, connections=16, pause=2):
    return machine.load("127.0.0.1:80", "--connections", str(connections), "--pause-ms", str(pause))


def history(machine):
    return [json.loads(line) for line in machine.out("cat /var/lib/slot/web/history.jsonl").splitlines()]


def test_a_good_release_comes_to_everything_by_its_steps_without_a_failed_request(fresh):
    app = planned(fresh, "5% 3s", "50% 3s", more='latency_ratio = { p95 = 3 }\nwarm_up = "1s"')
    with load_of(fresh) as load:
        deployed = app.deploy("two")
        assert (deployed["success"], deployed["cause"]) == (True, "switched"), deployed
        answers_only(load, "two")
        result = load.stop()
    nothing_failed(result, reconnects=16)
    weighed = [event["text"] for event in history(fresh) if event["event"] == "weighed"]
    assert ["has 5% of" in weighed[0], "has 50% of" in weighed[1]] == [True, True], weighed


def test_one_that_begins_to_fail_is_at_nothing_within_10_seconds_and_the_error_has_the_numbers(fresh):
    app = planned(fresh, "10% 2m")
    with load_of(fresh) as load:
        deploying = begin(app, "two", faults="errors-after=8")
        at_step(app, 1)
        began = None
        deadline = time.monotonic() + 60
        while began is None:
            assert time.monotonic() < deadline
            if load.snapshot()["failures"].get("status 500"):
                began = time.monotonic()
            time.sleep(0.02)
        app.wait_until(lambda status: all(slot["weight"] == 0 for slot in status["slots"] if slot["slot"] == "green"))
        assert time.monotonic() - began < 10
        outcome = ended(deploying)
        answers_only(load, "one")
        result = load.stop()
    assert (outcome["success"], outcome["cause"]) == (False, "error-rate"), outcome
    assert "requests of the candidate failed, more than 5%" in outcome["text"], outcome
    # The 500s were the release's own, and nothing else failed.
    assert set(result["failures"]) == {"status 500"}, result
    status = app.wait_for_slot("green", "idle")
    assert (status["state"], status["active"], status["last"]["cause"]) == ("idle", "blue", "error-rate")


def test_what_a_release_answers_while_it_warms_up_is_not_held_against_it(fresh):
    app = planned(fresh, "50% 2s", more='warm_up = "10s"')
    with load_of(fresh) as load:
        deploying = begin(app, "two", faults="errors-until=/srv/warm")
        at_step(app, 1)
        deadline = time.monotonic() + 30
        while load.snapshot()["failures"].get("status 500", 0) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        fresh.run("touch /srv/warm")
        outcome = ended(deploying)
        answers_only(load, "two")
        result = load.stop()
    assert (outcome["success"], outcome["cause"]) == (True, "switched"), outcome
    assert set(result["failures"]) == {"status 500"}, result


def test_one_that_only_gets_slow_is_caught_by_its_ratio_to_the_live_one(fresh):
    more = "latency_ratio = { p99 = 2 }"
    app = planned(fresh, "50% 2m", more=more, faults="slow=40")
    with load_of(fresh, connections=48) as load:
        outcome = app.deploy("two", faults="slow=200", check=False)
        answers_only(load, "one")
        result = load.stop()
    assert (outcome["success"], outcome["cause"]) == (False, "latency-ratio"), outcome
    assert "p99 of the candidate is" in outcome["text"] and "of the live slot" in outcome["text"], outcome
    nothing_failed(result, reconnects=48)


def test_a_quiet_site_is_held_and_not_promoted_until_it_is_probed(fresh):
    app = planned(fresh, "10% 2s")
    deploying = begin(app, "two")
    at_step(app, 1)
    for _ in range(3):
        fresh.run("curl -sS -m 10 http://127.0.0.1/")
    holds = 'grep -q \'"event":"holds"\' /var/lib/slot/web/history.jsonl'
    fresh.wait_for(holds)
    plan = at_step(app, 1)
    assert (plan["verdict"], plan["weight"]) == ("hold", 10), plan
    assert "100 requests of the candidate" in plan["text"], plan
    assert "verdict: hold" in fresh.out("slotctl --app web status")
    app.slotctl("abort")
    assert ended(deploying)["cause"] == "aborted"
    app.wait_for_slot("green", "idle")
    # With paths to request there is an end to it, good or bad, and it is held until they have been requested often enough.
    app = planned(fresh, "10% 2s", more='probes = ["/"]\nmin_requests = 200')
    deploying = begin(app, "three")
    at_step(app, 1)
    fresh.run("curl -sS -m 10 http://127.0.0.1/")
    seen = [0]
    while len(seen) < 4:
        status = app.wait_until(lambda status: plan_of(status) is None or seen[-1] < plan_of(status)["candidate"]["requests"])
        plan = plan_of(status)
        seen.append(plan["candidate"]["requests"])
        assert (plan["verdict"], plan["weight"], seen[-1] < 200) == ("hold", 10, True), plan
    assert ended(deploying)["cause"] == "switched"
    app.wait_until(lambda status: {slot["condition"] for slot in status["slots"]} == {"active", "idle"})
    assert app.deploy("four", faults="errors-after=0", check=False)["cause"] == "error-rate"
    assert fresh.out("curl -sS -m 10 http://127.0.0.1/") == "release three"


def test_a_plan_is_paused_and_resumed_and_a_weight_by_hand_pauses_it_too(fresh):
    app = planned(fresh, "10% 2s", "30% 1m", more="auto_promote = false")
    refused = app.slotctl("pause", check=False)
    assert (refused["exit"], refused["code"]) == (1, "refused") and "no plan" in refused["error"]
    with load_of(fresh) as load:
        deploying = begin(app, "two")
        at_step(app, 1)
        paused = app.slotctl("pause")
        assert "stands still at step 1 of 2" in paused["text"], paused
        plan = app.status()["deployment"]["plan"]
        assert plan["paused"] and "until_ms" not in plan, plan
        # What it had to wait for is long over.
        app.wait_until(lambda status: status["deployment"]["plan"]["candidate"]["requests"] > 200)
        assert weights(app) == {"blue": 90, "green": 10}
        app.slotctl("resume")
        at_step(app, 2)
        app.slotctl("weight green 40")
        plan = app.status()["deployment"]["plan"]
        assert (plan["paused"], weights(app)) == (True, {"blue": 60, "green": 40}), plan
        app.slotctl("resume")
        assert weights(app) == {"blue": 70, "green": 30}
        app.slotctl("promote")
        assert ended(deploying)["cause"] == "switched"
        nothing_failed(load.stop(), reconnects=16)


def test_without_auto_promote_the_deploy_returns_when_every_step_has_passed(fresh):
    app = planned(fresh, "20% 2s", more="auto_promote = false")
    with load_of(fresh) as load:
        deployed = app.deploy("two")
        assert (deployed["cause"], deployed["weight"]) == ("trial", 20), deployed
        assert app.status()["deployment"]["plan"]["finished"]
        assert app.slotctl("promote")["cause"] == "switched"
        nothing_failed(load.stop(), reconnects=16)


def test_the_apps_own_check_is_told_where_the_release_is_and_can_end_it(fresh):
    app = planned(fresh, "10% 1s", more='check = "./smoke"\nquiet = "advance"')
    smoke = '#!/bin/sh\ncurl -sSf "http://$SLOT_UPSTREAM/" && test "$SLOT_HOOK" = check && echo smoked $SLOT_NAME{}\n'
    for marker, end, cause in [("bad", "; echo it burns; exit 3", "hook-failed"), ("good", "", "switched")]:
        directory = app.release(marker)
        fresh.write(f"{directory}/smoke", smoke.format(end), mode="0755")
        outcome = app.slotctl(f"deploy {directory}", check=False)
        assert outcome["cause"] == cause, outcome
        if cause == "hook-failed":
            assert "check `./smoke` exited with status 3" in outcome["text"], outcome
            assert "it burns" in json.dumps(outcome["report"]), outcome
            assert (app.active(), weights(app)) == ("blue", {"blue": 100})
            app.wait_for_slot("green", "idle")


def test_slotd_that_is_killed_at_every_step_goes_on_with_the_plan(fresh):
    app = planned(fresh, "5% 2s", "20% 2s", "50% 2s")
    with load_of(fresh) as load:
        deploying = begin(app, "two")
        for number in (1, 2, 3):
            at_step(app, number)
            fresh.run("systemctl kill -s KILL slotd.service")
            fresh.wait_for("slotctl --app web status")
        app.wait_until(lambda status: status["state"] == "idle", timeout=60)
        assert ended(deploying)["cause"] == "switched"
        assert weights(app) == {"green": 100}
        nothing_failed(load.stop(), reconnects=16)
    taken_up = fresh.out("journalctl -b -o cat -u slotd | grep -c 'the deployment of generation 2 goes on'")
    assert int(taken_up) == 3
    weighed = [event["text"] for event in history(fresh) if event["event"] == "weighed"]
    assert ["has 5% of" in weighed[0], "has 20% of" in weighed[1], "has 50% of" in weighed[2]] == [True] * 3, weighed


def test_a_reboot_in_a_plan_leaves_the_active_slot_with_everything_and_says_so():
    with Machine(kept=True) as machine:
        machine.install()
        app = planned(machine, "30% 5m")
        deploying = begin(app, "two")
        at_step(app, 1)
        machine.reboot()
        deploying.wait(30)
        machine.wait_for("slotctl --app web status")
        status = app.wait_until(lambda status: status["state"] == "idle" and status["serving"])
        assert (status["active"], weights(app)) == ("blue", {"blue": 100})
        assert (status["last"]["cause"], "restarted" in status["last"]["text"]) == ("rebooted", True), status["last"]
        assert machine.out("curl -sS -m 20 http://127.0.0.1/") == "release one"


@pytest.mark.parametrize("counted", [True, False])
def test_errors_after_the_switch_bring_the_old_release_back_unless_they_are_not_counted(fresh, counted):
    lines = QUICK.replace('"0s"', '"12s"') + ("" if counted else 'soak_error_rate = "off"\n')
    app = App(fresh, "web", lines)
    app.deploy("one")
    with load_of(fresh) as load:
        deployed = app.deploy("two", "--wait=soaked", faults="errors-after=3", check=False)
        result = load.stop()
    assert set(result["failures"]) == {"status 500"}, result
    if not counted:
        assert (deployed["cause"], app.active()) == ("soaked", "green"), deployed
        return
    assert (deployed["success"], deployed["cause"]) == (False, "error-rate"), deployed
    back = app.status()["rolled_back"]
    assert (back["to_slot"], back["cause"]) == ("blue", "error-rate"), back
    assert "requests of the candidate failed, more than 10%" in back["text"], back
    assert fresh.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
