"""Notices as a unit sends them: signed, at least once whatever is killed, in nobody's way, and with a secret that nobody sees."""

import hashlib
import hmac
import json

import pytest
from slots import QUICK, App, answers_only
from test_faults_killed import kill

SECRET = "hunter2-of-the-receiver"
PORT = 7800
# Answers with what `answer` says, and writes down what came: a line of JSON each.
RECEIVER = """
import http.server, json, ssl, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = open("/srv/receiver/answer").read().strip()
        while answer == "hang":
            time.sleep(0.05)
            answer = open("/srv/receiver/answer").read().strip()
        with open("/srv/receiver/came", "a") as came:
            json.dump({"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body, "path": self.path, "answer": answer}, came)
            came.write("\\n")
        self.send_response(int(answer))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


class Told(App):
    def answers(self, answer):
        self.machine.write("/srv/receiver/answer.new", answer)
        self.machine.run("mv /srv/receiver/answer.new /srv/receiver/answer")

    def came(self):
        text = self.machine.run("cat /srv/receiver/came", check=False).stdout
        return [json.loads(line) for line in text.splitlines()]

    def taken(self):
        """What was taken, each once, in order."""
        seen = {}
        for came in self.came():
            if came["answer"].startswith("2"):
                seen.setdefault(came["headers"]["slot-event-id"], json.loads(came["body"]))
        return list(seen.values())

    def settled(self):
        """Nothing is to be sent any more."""
        self.wait_until(lambda status: status["state"] == "idle" and status["warnings"] == [], timeout=60)
        self.machine.wait_for(
            "! grep -q '\"untold\"' /var/lib/slot/web/state.json && test -z \"$(find /var/lib/slot/web/notices -type f)\"", timeout=60
        )


@pytest.fixture(scope="module")
def app(machine):
    machine.run("mkdir -p /srv/receiver /etc/slot/keys")
    machine.write("/srv/receiver/receiver.py", RECEIVER)
    machine.write("/srv/receiver/answer", "204")
    machine.write("/etc/slot/keys/notices", SECRET + "\n", mode="0600")
    machine.run(f"systemd-run --unit=receiver python3 /srv/receiver/receiver.py {PORT}")
    machine.wait_for(f"ss -Hltn 'sport = :{PORT}' | grep -q .")
    app = Told(
        machine,
        "web",
        f"""{QUICK}bind = "unix"
[[notices]]
url = "http://127.0.0.1:{PORT}/web"
events = ["began", "ended", "rolled-back", "down", "up"]
secret_file = "/etc/slot/keys/notices"
""",
        kind="notify",
    )
    app.deploy("one", "--wait=stopped")
    app.settled()
    return app


def test_each_is_signed_and_the_secret_is_nowhere_but_in_its_file(machine, app, load):
    app.deploy("two", "--wait=stopped")
    app.settled()
    events = [(body["event"], body["generation"]) for body in app.taken()]
    assert events == [("began", 1), ("ended", 1), ("began", 2), ("ended", 2)]
    for came in app.came():
        digest = hmac.new(SECRET.encode(), came["body"].encode(), hashlib.sha256).hexdigest()
        assert came["headers"]["slot-signature"] == f"sha256={digest}"
        body = json.loads(came["body"])
        assert (body["app"], body["host"]) == ("web", machine.out("hostname"))
    assert SECRET not in machine.out("systemctl cat slot-notify@web")
    assert machine.run(f"journalctl -b -o export --no-pager | grep -ac {SECRET}", check=False).stdout.strip() == "0"
    assert machine.run(f"grep -rsl {SECRET} /var/lib/slot /run/slot /run/systemd/generator /etc/slot", check=False).stdout.split() == [
        "/etc/slot/keys/notices"
    ]


def test_one_that_hangs_holds_up_nothing_and_is_seen_in_status(machine, app, load):
    taken = len(app.taken())
    app.answers("hang")
    app.deploy("hung", "--wait=stopped")
    machine.wait_for("systemctl show -P MainPID slot-notify@web | grep -qvx 0")
    pid = machine.out("systemctl show -P MainPID slot-notify@web")
    assert SECRET not in machine.run(f"cat /proc/{pid}/cmdline /proc/{pid}/environ | tr '\\0' '\\n'", check=False).stdout
    app.deploy("hung-too", "--wait=stopped")
    answers_only(load, "hung-too")
    app.answers("500")
    status = app.wait_until(lambda status: any("answered 500" in warning for warning in status["warnings"]), timeout=60)
    assert any(f"notices wait for http://127.0.0.1:{PORT}, the oldest for" in warning for warning in status["warnings"]), status["warnings"]
    app.answers("204")
    app.settled()
    assert [body["event"] for body in app.taken()[taken:]] == ["began", "ended", "began", "ended"]


def test_what_is_killed_at_any_moment_is_sent_and_has_one_id(machine, app, load):
    taken = len(app.taken())
    generation = app.status()["generation"]
    app.answers("500")
    release = app.release("killed")
    deploy = machine.spawn(f"cd {app.home} && exec slotctl --json deploy {release}")
    machine.wait_for(f"grep -q '\"generation\": {generation + 1}' /var/lib/slot/web/state.json")
    kill(machine)
    machine.run("systemctl kill -s KILL slot-notify@web", check=False)
    deploy.communicate(timeout=60)
    app.wait_until(lambda status: "deployment" not in status or status["deployment"] is None)
    machine.run("systemctl kill -s KILL slotd")
    app.answers("204")
    app.deploy("after", "--wait=stopped")
    app.settled()
    events = [(body["event"], body["generation"]) for body in app.taken()[taken:]]
    assert events == [(event, generation + number) for number in (1, 2) for event in ("began", "ended")]


def test_a_dead_app_is_told_of(machine, app):
    taken = len(app.taken())
    active = app.active()
    machine.run(f"systemctl kill -s KILL web@{active}")
    app.wait_until(lambda _: any(body["event"] == "up" for body in app.taken()[taken:]), timeout=60)
    app.settled()
    assert [body["event"] for body in app.taken()[taken:]] == ["down", "up"]


def test_a_secret_that_is_gone_concerns_its_own_receiver_alone(machine, app):
    machine.write("/etc/slot/keys/other", "another secret\n", mode="0600")
    told = Told(
        machine,
        "bare",
        f"""{QUICK}bind = "unix"
hosts = ["bare.test"]
[[notices]]
url = "http://127.0.0.1:{PORT}/signed"
secret_file = "/etc/slot/keys/other"
[[notices]]
url = "http://127.0.0.1:{PORT}/plain"
""",
        kind="notify",
    )
    machine.run("rm /etc/slot/keys/other")
    told.deploy("one")

    def came(path):
        return [came for came in told.came() if came["path"] == path]

    told.wait_until(lambda status: came("/plain") and any("there is no secret to sign with" in text for text in status["warnings"]), timeout=60)
    assert not came("/signed")
    machine.write("/etc/slot/keys/other", "another secret\n", mode="0600")
    machine.run("systemctl stop slot-notify@bare")
    told.wait_until(lambda _: came("/signed"), timeout=120)
    machine.run("cd / && slotctl app remove bare --force || slotctl app remove bare", check=False)


def test_a_certificate_is_checked_against_those_of_the_machine(machine, app):
    machine.run(
        "cd /srv/receiver && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem"
    )
    machine.run(f"systemd-run --unit=receiver-tls python3 /srv/receiver/receiver.py {PORT + 1} /srv/receiver/cert.pem /srv/receiver/key.pem")
    machine.wait_for(f"ss -Hltn 'sport = :{PORT + 1}' | grep -q .")
    taken = len(app.taken())
    secure = App(
        machine, "secure", f'{QUICK}bind = "unix"\nhosts = ["secure.test"]\n[[notices]]\nurl = "https://127.0.0.1:{PORT + 1}/"\n', kind="notify"
    )
    secure.deploy("one")
    status = secure.wait_until(lambda status: status["warnings"], timeout=60)
    assert "certificate" in status["warnings"][0], status["warnings"]
    assert len(app.taken()) == taken
    machine.run("cp /srv/receiver/cert.pem /usr/local/share/ca-certificates/receiver.crt && mkdir -p /etc/ssl/certs")
    machine.run("cat /srv/receiver/cert.pem >>/etc/ssl/certs/ca-certificates.crt")
    secure.wait_until(lambda status: status["warnings"] == [], timeout=60)
    assert [(body["app"], body["event"]) for body in app.taken()[taken:]] == [("secure", "ended")]
