"""slotd's API: who may look and who may act, tokens over TCP, and the journal's lines about who changed what."""

import json

import pytest
from slots import QUICK, App
from test_notices import RECEIVER

SOCKET = "/run/slot/slotd.sock"
TCP = "127.0.0.1:7568"
FILE = "/etc/slot/api-tokens"


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK)
    app.deploy("one")
    # None is in another's group: each has what its own gives.
    for user, group in (("deployer", "slot"), ("watcher", "slot-observers"), ("stranger", "users")):
        machine.run(f"useradd --create-home --groups {group} {user}")
    return app


@pytest.fixture(autouse=True)
def registered(app):
    """Every test here has an app that serves."""


def curl(machine, words, *, user="root"):
    """The status, the head's fields and the body of a request, made by a user's curl(1)."""
    done = machine.run(f"runuser -u {user} -- curl -sS -i {words}", check=False)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    if head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\n\n")
    lines = head.splitlines()
    assert lines, done.stderr
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), fields, body


def here(machine, user, path, words=""):
    return curl(machine, f"--unix-socket {SOCKET} {words} http://slot{path}", user=user)[0]


def audited(machine, *matches):
    machine.run("journalctl --sync")
    lines = machine.out(["journalctl", "-u", "slotd", "-o", "json", *matches]).splitlines()
    return [json.loads(line) for line in lines]


def test_observers_look_members_act_and_others_learn_that_slotd_is_there(machine):
    for path in ("/apps", "/apps/web/status", "/apps/web/releases", "/router", "/health/deployment"):
        statuses = [here(machine, user, path) for user in ("root", "deployer", "watcher", "stranger")]
        assert statuses == [200, 200, 200, 403], path
    assert [here(machine, user, "/") for user in ("watcher", "stranger")] == [200, 200]
    acting = [here(machine, user, "/apps/web/reload", "-X POST") for user in ("root", "deployer", "watcher", "stranger")]
    assert acting == [200, 200, 403, 403]
    said = curl(machine, f"--unix-socket {SOCKET} -X POST http://slot/apps/web/abort", user="watcher")[2]
    # By his number: whoever knows his name need not be asked for a refusal.
    assert f"uid {machine.out('id -u watcher')} (pid " in said and "may look, and not act" in said, said
    for route in ("/listener/add", "/listener/remove"):
        statuses = [here(machine, user, f"{route}?name=Web", "-X POST") for user in ("root", "deployer", "watcher", "stranger")]
        assert statuses == [400, 403, 403, 403], route
    shown = machine.run("runuser -u watcher -- slotctl --json --app web status")
    assert json.loads(shown.stdout)["app"] == "web"
    refused = machine.run("runuser -u watcher -- slotctl --app web rollback", check=False)
    assert refused.returncode == 4, refused


def test_who_changed_what_is_in_the_journal_with_its_user_its_unit_and_its_generation(machine, app):
    release = app.release("audited")
    job = "systemd-run --quiet --wait --pipe --unit=ci-job --uid=deployer"
    machine.run(f"{job} slotctl --json --app web deploy {release}", timeout=120)
    generation = app.status()["generation"]
    (asked,) = audited(machine, "SLOT_AUDIT=asked", "SLOT_PEER_UNIT=ci-job.service")
    (done,) = audited(machine, "SLOT_AUDIT=done", "SLOT_PEER_UNIT=ci-job.service")
    for line in (asked, done):
        assert line["SLOT_USER"] == "deployer"
        assert line["SLOT_UID"] == machine.out("id -u deployer")
        assert (line["SLOT_METHOD"], line["SLOT_ROUTE"], line["SLOT_APP"]) == ("POST", "/apps/{app}/deploy", "web")
        assert int(line["SLOT_PEER_PID"]) > 1
    assert (asked["SLOT_GENERATION"], done["SLOT_GENERATION"]) == (str(generation - 1), str(generation))
    assert done["SLOT_STATUS"] == "200"
    # One id has all of them, and nothing else; it is explained.
    id = asked["MESSAGE_ID"]
    assert audited(machine, f"MESSAGE_ID={id}", "SLOT_PEER_UNIT=ci-job.service") == [asked, done]
    assert all("SLOT_AUDIT" in line for line in audited(machine, f"MESSAGE_ID={id}"))
    explained = machine.out(f"journalctl -x -o short MESSAGE_ID={id} SLOT_AUDIT=done SLOT_PEER_UNIT=ci-job.service")
    assert "asks slotd for POST /apps/{app}/deploy: done" in explained and f"MESSAGE_ID={id} SLOT_AUDIT=done" in explained, explained
    # Where it was begun, it goes on: the story of that generation is one question away.
    story = machine.out(f"journalctl -o cat SLOT_APP=web SLOT_GENERATION={generation}")
    assert "deployer" in story
    app.slotctl("abort", check=False)
    assert audited(machine, "SLOT_AUDIT=refused", "SLOT_ROUTE=/apps/{app}/abort")[0]["SLOT_STATUS"] == "422"
    # Who looks is not written down.
    app.status()
    assert not audited(machine, "SLOT_AUDIT=asked", "SLOT_METHOD=GET")


def test_a_unit_cannot_say_that_it_is_another(machine):
    # What is delegated may have cgroups of any name below it.
    script = (
        'set -e; own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); mkdir $own/slotd.service; '
        'echo $$ >$own/slotd.service/cgroup.procs; slotctl --app web abort || true'
    )
    machine.write("/root/pretend", script)
    machine.run("systemd-run --quiet --wait --pipe --unit=pretender -p Delegate=yes sh /root/pretend")
    assert [line["SLOT_AUDIT"] for line in audited(machine, "SLOT_PEER_UNIT=pretender.service")] == ["asked", "refused"]
    assert not audited(machine, "SLOT_PEER_UNIT=slotd.service")


def test_an_app_that_slotd_was_not_told_of_is_not_taken_up_by_who_looks(machine, app):
    text = machine.out("cat /etc/slot/apps/web.toml").replace('"web"', '"shop"')
    machine.write("/etc/slot/apps/shop.toml", f"{text}\n")
    status, _, body = curl(machine, f"--unix-socket {SOCKET} http://slot/apps/shop/status", user="watcher")
    said = json.loads(body)
    assert (status, said["code"]) == (404, "not-taken-up"), said
    assert "slotctl app reload shop" in said["error"]
    assert "not read yet" in machine.json("slotctl --json app list")["broken"]["shop"]
    assert machine.run("ls -d /var/lib/slot/shop", check=False).returncode != 0
    machine.run("rm /etc/slot/apps/shop.toml")
    assert here(machine, "watcher", "/apps/shop/status") == 404


def test_a_request_whose_sender_goes_is_told_too(machine):
    # An upload that stalls.
    machine.run(f"(echo begun; sleep 3) | timeout 1 curl -sS --unix-socket {SOCKET} -T - -X POST http://slot/apps/web/large", check=False)
    machine.wait_for("journalctl --sync; journalctl -u slotd -o cat SLOT_AUDIT=broken-off + SLOT_AUDIT=bad-request | grep -q large")


@pytest.fixture(scope="module")
def tokens(machine, app):
    """A token of each scope, and slotd listening for them; before that it takes none."""
    assert TCP not in machine.out("ss -ltn")
    assert machine.run("systemctl is-enabled slotd-tcp.socket", check=False).stdout.strip() == "disabled"
    machine.run("systemctl enable slotd-tcp.socket && systemctl restart slotd.service")
    assert TCP in machine.out("ss -ltn")
    status, _, body = curl(machine, f"-H 'Authorization: Bearer x' http://{TCP}/apps")
    assert (status, json.loads(body)["code"]) == (503, "no-tokens"), body
    made = {scope: machine.json(f"slotctl --json token new --name ci-{scope} --scope {scope}") for scope in ("read", "act")}
    machine.write(FILE, "".join(f"{one['line']}\n" for one in made.values()), mode="0600")
    machine.run("systemctl restart slotd.service")
    for scope, one in made.items():
        machine.write(f"/root/{scope}", f"Authorization: Bearer {one['token']}\n", mode="0600")
    return {scope: one["token"] for scope, one in made.items()}


def over_tcp(machine, scope, path, words=""):
    field = f"-H @/root/{scope}" if scope else ""
    return curl(machine, f"{field} {words} http://{TCP}{path}")


def test_over_tcp_a_token_says_who_looks_and_who_acts(machine, tokens):
    assert over_tcp(machine, "read", "/apps/web/status")[0] == 200
    status, fields, _ = over_tcp(machine, "read", "/apps/web/reload", "-X POST")
    assert (status, fields["www-authenticate"]) == (403, 'bearer realm="slot", error="insufficient_scope", scope="act"')
    assert over_tcp(machine, "act", "/apps/web/reload", "-X POST")[0] == 200
    for path in ("/", "/apps", "/no/such/route"):
        status, fields, _ = over_tcp(machine, None, path)
        assert (status, fields["www-authenticate"]) == (401, 'bearer realm="slot"'), path
    status, fields, _ = curl(machine, f"-H 'Authorization: Bearer slot_guess' http://{TCP}/apps")
    assert (status, fields["www-authenticate"]) == (401, 'bearer realm="slot", error="invalid_token"')


def test_over_tcp_a_release_is_deployed_and_the_journal_has_the_tokens_name(machine, app, tokens):
    release = app.release("remote")
    machine.run(f"tar -C {release} -cf /root/release.tar .")
    status, _, body = over_tcp(machine, "act", "/apps/web/deploy?name=release.tar", "-X POST -T /root/release.tar")
    assert status == 200, body
    generation = json.loads(body)["generation"]
    machine.wait_for(f"curl -sS -H @/root/read 'http://{TCP}/apps/web/outcome?generation={generation}' | grep -q '\"cause\":\"switched\"'")
    (line,) = audited(machine, "SLOT_AUDIT=done", "SLOT_TOKEN=ci-act", "SLOT_ROUTE=/apps/{app}/deploy")
    assert (line["SLOT_GENERATION"], line["SLOT_PEER_ADDRESS"], line["SLOT_QUERY"]) == (str(generation), "127.0.0.1", "name=release.tar")
    assert "SLOT_UID" not in line
    assert app.status()["last"]["initiated_by"] == "token ci-act (127.0.0.1)"


def test_no_token_is_in_an_argument_an_environment_a_state_file_or_the_journal(machine, tokens):
    machine.run("journalctl --sync")
    journal = machine.out("journalctl -o export | tr -cd '\\11\\12\\40-\\176'")
    processes = machine.out("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'")
    kept = machine.out("cat /var/lib/slot/web/*.json* /run/slot/slotd/* 2>/dev/null || true")
    for token in tokens.values():
        secret = token.removeprefix("slot_")
        assert len(secret) == 64
        for text in (journal, processes, kept):
            assert secret not in text
    assert machine.out(f"stat -c '%U %a' {FILE}") == "root 600"


def test_no_secret_is_in_an_argument_or_in_anothers_environment_at_any_moment(machine, app, tokens):
    own, receivers = "hunter2-of-the-app", "hunter2-of-the-receiver"
    machine.write("/etc/slot/web.env", f"TOKEN={own}\n", mode="0600")
    machine.write("/etc/slot/receiver", f"{receivers}\n", mode="0600")
    machine.write("/srv/receiver/receiver.py", RECEIVER)
    # What sends the first notice is there until it has its answer, and so is seen.
    machine.write("/srv/receiver/answer", "hang")
    machine.write("/srv/receiver/answer.new", "204")
    machine.run("systemd-run --unit=receiver python3 /srv/receiver/receiver.py 7801")
    machine.wait_for("ss -Hltn 'sport = :7801' | grep -q .")
    notice = '[[notices]]\nurl = "http://127.0.0.1:7801/"\nsecret_file = "/etc/slot/receiver"\n'
    looking = machine.spawn(["python3", "/tests/arguments.py"])
    assert looking.stdout.readline() == "looking\n"
    made = [machine.json("slotctl --json token new --name more --scope act")["token"] for _ in range(20)]
    app.configure(f'{QUICK}env_file = "/etc/slot/web.env"\n{notice}')
    app.deploy("secretive", "--wait=stopped")
    machine.run("tar -C /srv/web/secretive -cf /root/release.tar .")
    assert over_tcp(machine, "act", "/apps/web/deploy?label=again", "-X POST -T /root/release.tar")[0] == 200
    app.wait_until(lambda status: status["state"] == "idle")
    machine.run("mv /srv/receiver/answer.new /srv/receiver/answer")
    machine.wait_for("grep -q ended /srv/receiver/came")
    seen = json.loads(looking.communicate(timeout=30)[0])
    # The test sees what it is about.
    for words in ("slotctl --json token new", "slotctl --json deploy", "slotctl notify", "curl -sS -i"):
        assert any(words in line for line in seen["cmdline"]), words
    for secret in (own, receivers, *(token.removeprefix("slot_") for token in (*tokens.values(), *made))):
        assert not [line for line in seen["cmdline"] if secret in line]
        # What is in the file of the app's environment is the app's.
        assert secret == own or not [line for line in seen["environ"] if secret in line]
    having = [line for line in seen["environ"] if own in line]
    assert having and all("SLOT_APP=web" in line for line in having), having
    app.configure(QUICK)
    app.deploy("open")


def test_heads_and_bodies_are_bounded(machine, tokens):
    machine.write("/root/large", f"X: {'x' * 20_000}\n")
    assert curl(machine, f"-H @/root/large http://{TCP}/apps")[0] == 431
    machine.run("truncate -s 1M /root/body")
    assert over_tcp(machine, "act", "/apps/web/reload", "-X POST -T /root/body -H 'Expect:'")[0] == 413
    machine.run("truncate -s 5G /root/sparse")
    assert over_tcp(machine, "act", "/apps/web/deploy", "-X POST -T /root/sparse")[0] == 413


def test_the_health_of_a_deployment_is_a_status(machine, app, tokens):
    status, _, body = over_tcp(machine, "read", "/apps/web/health/deployment")
    health = json.loads(body)
    assert (status, health["healthy"], health["app"]) == (200, True, "web"), health
    assert health["standing"]["active"]["slot"] == app.active()
    unit = f"web@{app.active()}.service"
    machine.run(f"systemctl stop {unit}")
    machine.wait_for(f"curl -sS -o /dev/null -w '%{{http_code}}' -H @/root/read http://{TCP}/health/deployment | grep -q 503")
    machine.run(f"systemctl start {unit}")
    machine.wait_for(f"curl -sS -o /dev/null -w '%{{http_code}}' -H @/root/read http://{TCP}/health/deployment | grep -q 200")


def test_tokens_may_be_an_encrypted_credential(machine, tokens):
    machine.run(f"systemd-creds --with-key=host --name=api-tokens encrypt {FILE} /etc/slot/api-tokens.cred && mv {FILE} /root/api-tokens")
    machine.write("/etc/systemd/system/slotd.service.d/tokens.conf", f"[Service]\nLoadCredentialEncrypted=api-tokens:{FILE}.cred\n")
    machine.run("systemctl daemon-reload && systemctl restart slotd.service")
    assert [over_tcp(machine, scope, "/apps")[0] for scope in ("read", "act", None)] == [200, 200, 401]
    machine.run(f"mv /root/api-tokens {FILE} && rm -r /etc/systemd/system/slotd.service.d && systemctl daemon-reload && systemctl restart slotd.service")


def test_a_file_of_tokens_that_is_wrong_lets_nobody_in_and_says_which_line(machine, tokens):
    machine.run(f"cp {FILE} /root/kept && echo 'ci:act:{'0' * 63}' >>{FILE} && systemctl restart slotd.service")
    assert over_tcp(machine, "act", "/apps")[0] == 503
    assert here(machine, "root", "/apps") == 200
    machine.wait_for("journalctl --sync; journalctl -u slotd -o cat | grep -q 'line 3: its digest is not 64 hexadecimal digits'")
    machine.run(f"install -m 0600 /root/kept {FILE} && systemctl restart slotd.service")
    assert over_tcp(machine, "act", "/apps")[0] == 200


def test_too_many_wrong_tokens_are_turned_away_and_lock_out_nobody_who_has_a_right_one(machine, tokens):
    # What others here have guessed does not count.
    machine.run("systemctl restart slotd.service")
    guess = f"-H 'Authorization: Bearer slot_guess' http://{TCP}/apps"
    assert [curl(machine, guess)[0] for _ in range(10)] == [401] * 10
    for refused in (curl(machine, guess), over_tcp(machine, None, "/apps")):
        status, fields, body = refused
        assert (status, json.loads(body)["code"]) == (429, "too-many-failures")
        assert 1 <= int(fields["retry-after"]) <= 61
        assert fields["connection"] == "close"
    assert over_tcp(machine, "act", "/apps")[0] == 200
    assert here(machine, "root", "/apps") == 200, "whoever is known otherwise is not held up"
    lines = machine.out("journalctl --sync; journalctl -u slotd -o cat SLOT_PEER_ADDRESS=127.0.0.1 | grep -c 'wrong token' || true")
    assert int(lines) <= 4, "guessing does not fill the journal"
    machine.run("systemctl restart slotd.service")


def test_whoever_disables_it_is_reached_over_tcp_no_more(machine, tokens):
    machine.run("systemctl disable --now slotd-tcp.socket && systemctl restart slotd.service")
    assert TCP not in machine.out("ss -ltn")
    assert here(machine, "root", "/apps") == 200
