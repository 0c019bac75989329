"""What the README says to type on a server, typed on a server."""

import re
import time
from pathlib import Path

import pytest
from apps import make
from machine import ROOT, Machine
from test_package import everything, nothing_is_left, things
from versions import another, install

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
# The marks of the blocks that are typed here.
TYPED = {"server", "ssh", "8080", "package", "rpm", "erase", "start", "weights", "canary"}
# What the text says to type, in an order in which that works; the last one ends it.
IN_PASSING = [
    "sudo slotctl listener add 127.0.0.1:8081 --name internal",
    "slotctl status",
    "sudo slotctl status --connections",
    "slotctl status --json",
    "slotctl releases",
    "slotctl hold --reason 'the audit'",
    "slotctl unhold",
    "sudo slotctl router upgrade",
    "systemctl cat web@blue",
    "systemctl status slot.slice",
    "systemctl edit web@",
    "systemctl edit slot-setup@<app>",
    "journalctl -u slot-setup@<app>",
    "journalctl -u slot-watch@web",
    "journalctl -x",
    "journalctl --list-catalog | grep slot",
    "systemctl start web@green",
    "sudo slotctl promote green",
    "slotctl route web --from blue --to green",
    "slotctl stop web:green",
    "slotctl init --format json",
    "sudo slotctl app remove web",
]
# What is not typed here, and what shows it instead. Commands of other programs (git, openssl, ssh-keygen, …) are theirs.
ELSEWHERE = {
    "cargo run --release -- demo": "tests/demo.rs::the_demo_serves_every_request_and_cuts_no_stream",
    "tests/run": "tests/run",
    "packaging/build": "tests/run",
    "scp target/packages/slotctl_*.deb server:": "tests/system/test_readme.py::server",
    "slotctl start &": "tests/slot_machine.rs::slotctl_in_a_project_of_slot_machine_asks_its_daemon",
    "slotctl deploy [COMMIT]": "tests/slot_machine.rs::slotctl_in_a_project_of_slot_machine_asks_its_daemon",
    "slotctl deploy v1.2": "tests/cli_git.rs::a_commit_is_named_by_its_hash_its_beginning_a_branch_or_a_tag_and_may_have_a_label",
    "slotctl deploy --remote": "tests/system/test_remote.py::test_a_branch_is_deployed_over_ssh_while_requests_go_on",
    "slotctl deploy REF": "tests/cli_remote.rs::a_branch_a_tag_and_a_whole_hash_are_names_of_a_remote_and_branch_is_the_default",
    "deploy --drain 10m": "tests/system/test_upgrades.py::test_while_an_old_slot_drains",
    "deploy --version v1.2": "tests/system/test_releases.py::test_a_release_is_gone_back_to_by_its_label_and_deployed_again_by_its_id",
    "deploy --release 1a2b3c4d": "tests/system/test_releases.py::test_a_release_is_gone_back_to_by_its_label_and_deployed_again_by_its_id",
    "deploy --queue": "tests/system/test_drain.py::test_a_deploy_that_queues_begins_when_the_stream_has_ended",
    "rollback --to 1a2b3c4d": "tests/system/test_releases.py::test_a_release_is_gone_back_to_by_its_label_and_deployed_again_by_its_id",
    "rollback --to": "tests/system/test_releases.py::test_a_release_is_gone_back_to_by_its_label_and_deployed_again_by_its_id",
    "sudo slotctl drain --now blue": "tests/system/test_drain.py::test_a_deploy_that_finds_no_idle_slot_is_refused_after_ten_seconds_with_who_holds_it_and_the_ways_out",
    "sudo systemctl stop 'web@*.service'": "tests/system/test_apps.py::test_a_change_of_user_is_refused_whole_while_a_slot_runs_and_takes_an_outage",
    "systemctl stop": "tests/system/test_by_hand.py::test_the_active_slot_that_is_stopped_by_hand_stays_stopped_and_its_requests_are_held_then_refused",
    "sudo systemctl restart slot-router.socket": "tests/system/test_told.py::test_a_restart_of_the_sockets_is_one_of_what_they_are_for",
    "curl -H 'Slot-Preview: TOKEN v2' https://example.org/": "tests/router_previews.rs::a_field_with_the_token_reaches_a_run_and_the_app_never_sees_it",
    "slotctl --socket /path/to/.slot/slotd.sock status": "tests/system/test_readme.py::test_it_runs_without_systemd_as_the_readme_says",
    **dict.fromkeys(
        ["man slotctl", "man slot.toml", "man slot-machine.toml", "man slotd", "man slot-router", "man 7 slot"],
        "tests/man_pages.rs::every_page_renders_without_a_warning",
    ),
}


def blocks(name):
    """The code blocks that are marked with a name: ```sh NAME"""
    found = re.findall(rf"^```sh {name}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"no block of {README} is marked `sh {name}`"
    return found


def commands(block):
    """Its lines, without what is said of them."""
    lines = (re.sub(r"\s+#.*", "", line) for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("cd ")]


# A machine that has nothing of what the package depends on; tests/run makes it.
BARE = ROOT.with_name(f"{ROOT.name}-bare")
# Who types there: one who is not root, and may become that.
PERSON = "ann"


def put_there(machine, home):
    """The package, and a project with an app."""
    machine.run(f"cp /packages/slotctl_*.deb {home}/")
    make(machine, "notify", "one", directory=f"{home}/web/build")


@pytest.fixture
def bare():
    """A server with nothing of slot, nor of what it needs; a person's home has the package and a project."""
    with Machine(root=BARE) as machine:
        for package in ("dbus", "polkitd", "nginx", "git"):
            shown = machine.run(f"dpkg-query -Wf '${{db:Status-Status}}' {package}", check=False).stdout
            assert shown != "installed", package
        machine.run(f"apt-get update && useradd --create-home {PERSON}")
        machine.write(f"/etc/sudoers.d/{PERSON}", f"{PERSON} ALL=(ALL:ALL) NOPASSWD: ALL\n", mode="0440")
        put_there(machine, f"/home/{PERSON}")
        machine.run(f"chown -R {PERSON}: /home/{PERSON}")
        yield machine


@pytest.fixture
def server():
    """A machine without slot, with its package in /root and a project in /root/web; other programs that the README speaks of are there."""
    with Machine() as machine:
        machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', mode="0755")
        put_there(machine, "/root")
        yield machine


def typed(machine, lines, *, person=None):
    """Runs a block in /root, or as a person at home; what would go on for ever is ended after a second."""
    lines = re.sub(r"^(sudo )?(.*logs -f)$", r"\1timeout 1 \2 || [ $? = 124 ]", lines, flags=re.MULTILINE)
    words = ["runuser", "-l", person, "-c", f"set -e\n{lines}"] if person else f"set -e; cd /root\n{lines}"
    # apt asks whether to install what else is needed, too.
    return machine.run(words, timeout=180, input="y\n" * 9)


def serves(machine, address="http://127.0.0.1/"):
    return machine.run(f"curl -sS -m 10 {address}").stdout.startswith("release ")


def test_every_command_for_a_server_works_in_the_order_of_the_readme(bare):
    for number, lines in enumerate(blocks("server")):
        typed(bare, lines, person=PERSON)
        assert serves(bare), lines
        # Each block deploys something new.
        bare.run(f"echo '# {number}' >>/home/{PERSON}/web/build/server")
    doctor = bare.json("slotctl --json doctor")
    assert doctor["problems"] == 0, doctor
    upgrade, again, remove = blocks("package")
    for lines in (upgrade, again, remove):
        typed(bare, lines, person=PERSON)
        assert lines == remove or serves(bare), lines
    assert bare.run("ls -d /etc/slot /var/lib/slot", check=False).stdout == ""


def test_a_share_is_given_on_a_bare_server_and_another_port_is_taken_first(bare):
    typed(bare, "sudo apt install ./slotctl_*.deb\ncd web\nslotctl init", person=PERSON)
    (lines,) = blocks("8080")
    typed(bare, lines, person=PERSON)
    assert serves(bare, "http://127.0.0.1:8080/")
    (lines,) = blocks("weights")
    deploy, weight, promote, abort, ps = commands(lines)
    bare.run(f"echo '# more' >>/home/{PERSON}/web/build/server")
    for line in (deploy, ps, weight, abort):
        typed(bare, f"cd web\n{line}", person=PERSON)
        assert serves(bare, "http://127.0.0.1:8080/"), line
    until(bare, is_in("green", "idle"))
    for line in (deploy, promote):
        typed(bare, f"cd web\n{line}", person=PERSON)
        assert serves(bare, "http://127.0.0.1:8080/"), line


def test_each_command_of_the_readme_is_typed_here_or_by_the_test_that_is_named_for_it():
    text = README.read_text()
    typed, said = set(IN_PASSING), set()
    for mark, block in re.findall(r"^```sh ?(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (typed if mark in TYPED else said).update(commands(block))
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)))
    begins = r"(sudo|slotctl|systemctl|journalctl|man|curl|cargo|packaging/\w+|tests/\w+) |(deploy|rollback) -"
    said.update(span for span in spans if re.match(begins, span))
    # With sudo or without: who has to be root is said in the text.
    bare = [command.removeprefix("sudo ") for command in typed]
    rest = {command for command in said if not any(it.startswith(command.removeprefix("sudo ")) for it in bare)}
    assert rest == set(ELSEWHERE)
    assert [command for command in IN_PASSING if command not in " ".join(text.split())] == []
    for shown in ELSEWHERE.values():
        path, _, name = shown.partition("::")
        assert re.search(rf"^(async )?(def|fn) {name}\(" if name else "^#!", (REPOSITORY / path).read_text(), re.MULTILINE), shown


def deployed(server, lines=""):
    """The package, and the project's first release; `lines` come before what `slotctl init` writes."""
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init")
    toml = server.out("cat /root/web/slot.toml")
    server.write("/root/web/slot.toml", f"{lines}{toml}\n")
    server.run("cd /root/web && slotctl deploy ./build/server --wait=switched")


def deploy_another(server):
    server.run("cd /root/web && echo '# more' >>build/server && slotctl deploy ./build/server --wait=stopped")


def until(server, found):
    """Waits until the status of the app is so."""
    deadline = time.monotonic() + 30
    while not found(status := server.json("slotctl --json --app web status")):
        assert time.monotonic() < deadline, status


def is_in(slot, condition):
    return lambda status: any((it["slot"], it["condition"]) == (slot, condition) for it in status["slots"])


def test_what_is_said_in_passing_works_too(server):
    deployed(server, 'soak = "0s"\n')
    for command in IN_PASSING:
        line = command.replace("<app>", "web")
        if unit := re.fullmatch(r"systemctl edit (.*)", line):
            # As an editor would leave it; systemctl wants a terminal for one.
            name = unit[1] if unit[1].startswith("web") else f"{unit[1]}.service"
            server.write(f"/etc/systemd/system/{name.removesuffix('.service')}.service.d/override.conf", "[Service]\nNice=5\n")
            server.run("systemctl daemon-reload")
            assert server.show("web@blue" if name == "web@" else name, "Nice")["Nice"] == "5", name
            continue
        if "green" in line and "promote" not in line:
            # Blue serves, and green has had a release.
            deploy_another(server)
            while server.json("cd /root/web && slotctl --json status")["active"] != "blue":
                deploy_another(server)
            if not line.startswith("systemctl"):
                server.run("systemctl start web@green")
                until(server, is_in("green", "standby"))
        # A project of its own has the other kind of file.
        place = "other" if "init" in line else "web"
        typed(server, f"mkdir -p {place} && cd {place}\n{line}")
        if line == "systemctl start web@green":
            until(server, is_in("green", "standby"))
        assert line == IN_PASSING[-1] or serves(server), line
    assert server.run("curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/").stdout == "404"


def test_an_archive_is_deployed_through_ssh_as_the_readme_says(server):
    deployed(server)
    server.write("/usr/local/bin/ssh", '#!/bin/sh\n# In place of another machine.\nshift && cd / && exec "$@"\n', mode="0755")
    (lines,) = blocks("ssh")
    typed(server, f"cd web/build\n{lines}")
    assert serves(server)
    assert "v1.2" in server.out("cd /root/web && slotctl releases")


def test_a_release_is_given_a_share_as_the_readme_says(server):
    deployed(server)
    (lines,) = blocks("weights")
    deploy, weight, promote, abort, ps = commands(lines)
    server.run("echo '# more' >>/root/web/build/server")
    for line in (deploy, ps, weight, abort, deploy, promote):
        typed(server, f"cd web\n{line}")
        assert serves(server), line
        if line == abort:
            until(server, is_in("green", "idle"))
    until(server, is_in("green", "active"))


def test_a_plan_is_followed_and_left_as_the_readme_says(server):
    plan = next(block for block in re.findall(r"^```toml\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL) if block.startswith("[canary]"))
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init && mkdir bin && printf '#!/bin/sh\n' >bin/smoke && chmod +x bin/smoke")
    toml = re.sub(r"^command = .*", 'command = "./build/server"', server.out("cat /root/web/slot.toml"), flags=re.MULTILINE)
    server.write("/root/web/slot.toml", f"{toml}\n{plan}")
    commit = "echo '# more' >>build/server && git add -A && git -c user.name=a -c user.email=a@b commit -qm more"
    server.run(f"cd /root/web && git init -q && {commit} && slotctl deploy")
    (lines,) = blocks("canary")
    follow, status, pause, resume, promote, abort, at_once = commands(lines)
    for ways, ends in (((status, pause, resume, promote), 0), ((abort,), 1)):
        server.run(f"cd /root/web && {commit}")
        following = server.spawn(f"cd /root/web && {follow}")
        until(server, lambda status: status.get("deployment", {}).get("phase") == "shifting")
        for line in ways:
            typed(server, f"cd web\n{line}")
            assert serves(server), line
        following.communicate(timeout=60)
        assert following.returncode == ends, ways
    typed(server, f"cd web\n{at_once}")
    assert serves(server)


def test_the_package_is_upgraded_removed_and_purged_as_the_readme_says(server):
    install(server, another(server, "0.0.9"))
    server.run("cd /root/web && slotctl init && slotctl deploy ./build")
    upgrade, again, remove = blocks("package")
    for lines in (upgrade, again):
        before = server.show("slotd", "MainPID")
        typed(server, lines)
        assert server.show("slotd", "MainPID") != before, "nothing was installed"
        assert serves(server)
    typed(server, remove)
    assert server.run("ls -d /etc/slot /var/lib/slot", check=False).stdout == ""


def test_the_rpm_is_installed_removed_and_erased_as_the_readme_says(server):
    # Of Debian's packages rpm knows nothing.
    server.write("/usr/local/bin/rpm", '#!/bin/sh\nexec /usr/bin/rpm --dbpath /var/lib/rpm --nodeps "$@"\n', mode="0755")
    server.run("mkdir -p /var/lib/rpm && /usr/bin/rpm --dbpath /var/lib/rpm --initdb && cp /packages/slotctl-*.rpm /root/ && systemctl start polkit")
    # What another package has where there is rpm, and is not in this rpm's database.
    server.run("mkdir -p /usr/share/licenses /usr/share/fish/vendor_completions.d && touch /usr/share/fish/vendor_completions.d/other.fish")
    before = things(server)
    (lines,) = blocks("rpm")
    upgrade, again, remove = lines.splitlines()
    typed(server, upgrade)
    app = everything(server)
    slotd = server.show("slotd", "MainPID")
    typed(server, again)
    assert server.show("slotd", "MainPID") != slotd, "nothing was installed"
    assert app.status()["serving"]
    typed(server, remove)
    for lines in blocks("erase"):
        typed(server, lines)
    nothing_is_left(server, before)


def test_slot_listens_where_the_readme_says_when_something_else_has_port_80(server):
    server.run("dpkg -i /packages/*.deb && systemctl start nginx && cd /root/web && slotctl init")
    for lines in blocks("8080"):
        typed(server, lines)
    assert serves(server, "http://127.0.0.1:8080/")
    nginx = re.search(r"^```nginx\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)[1]
    server.write("/etc/nginx/conf.d/slot.conf", nginx.replace("listen 80;", "listen 81;"))
    server.run("nginx -t && systemctl reload nginx")
    server.wait_for("curl -sS -m 10 http://127.0.0.1:81/ | grep -q ^release")


def test_it_runs_without_systemd_as_the_readme_says(server):
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init")
    for lines in blocks("start"):
        started = server.spawn(f"cd /root\n{lines}")
        server.wait_for("curl -sS -m 10 http://127.0.0.1:8080/ | grep -q ^release")
        server.run("echo '# more' >>/root/web/build/server")
        for further in re.search(r"Further commands find it there[^`]*`(.*?)`, `(.*?)`", README.read_text()).groups():
            server.run(f"cd /root/web && {further}")
        elsewhere = re.search(r"`(slotctl --socket .*?)`", README.read_text())[1]
        server.run(elsewhere.replace("/path/to", "/root/web"))
        assert serves(server, "http://127.0.0.1:8080/")
        # nsenter does not pass signals on.
        server.run("pkill -TERM -x slotctl")
        started.wait(30)


def test_the_keys_of_the_readme_are_those_of_the_file():
    keys = set(re.findall(r"^\| `\[{0,2}(\w+)\]{0,2}` \|", README.read_text().split("## slot.toml")[1].split("### How")[0], re.MULTILINE))
    read = "".join((README.parent / "src/config" / name).read_text() for name in ("app.rs", "after.rs"))
    assert keys | {"allow_privileged_user"} == set(re.findall(r'keys\s*\.take\("(\w+)"\)', read)) - {"port", "internal"}


def test_the_exit_statuses_of_the_readme_are_those_of_slotctl(server):
    server.run("dpkg -i /packages/*.deb")
    table = server.out("slotctl --help").split("Exit status:\n")[1]
    said = dict(re.findall(r"^ +(\d+) +(.+)$", table, re.MULTILINE))
    assert said == dict(re.findall(r"^\| (\d+) \| (.+) \|$", README.read_text(), re.MULTILINE))


def test_a_router_is_exchanged_and_writes_an_access_log_as_its_page_says(server):
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init && slotctl deploy ./build")
    page = (README.parent / "man/slot-router.8").read_text().replace("\\-", "-")
    drop_in = re.search(r"^systemctl edit slot-router@\n(.*?)^\.fi$", page, re.MULTILINE | re.DOTALL)[1]
    exchange = re.search(r"^slotctl router upgrade$", page, re.MULTILINE)[0]
    server.write("/etc/systemd/system/slot-router@.service.d/override.conf", drop_in)
    server.run("systemctl daemon-reload")  # as `systemctl edit` does
    with server.load() as load:
        server.run(exchange)
        load.mark("after")
        server.wait_for("journalctl -u slot-router@2 -o cat | grep -q '\"target\":\"/\"'")
        result = load.stop()
    assert (result["failed"], result["failures"]) == (0, {}), result
    assert result["answers"]["release one"] > 0, result


def test_another_listener_is_added_as_the_page_of_the_router_says(server):
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init && slotctl deploy ./build")
    server.run("cd /root/web && printf 'listener = \"internal\"\\n%s' \"$(cat slot.toml)\" >new && mv new slot.toml")
    refused = server.run("cd /root/web && slotctl app add", check=False)
    assert refused.returncode == 6, refused
    assert "the router has no socket with FileDescriptorName=internal; write one of http, or" in refused.stderr, refused
    page = (README.parent / "man/slot-router.8").read_text().replace("\\-", "-")
    added = re.search(r"^\.SH ANOTHER LISTENER\n.*?^\.nf\n(.*?)^\.fi$", page, re.MULTILINE | re.DOTALL)[1]
    with server.load() as load:
        server.run(f"set -e\n{added}")
        assert serves(server, "http://127.0.0.1:8081/"), "without a listener it is on both"
        result = load.stop()
    assert (result["failed"], result["failures"]) == (0, {}), result
    server.run("cd /root/web && slotctl app add && echo '# more' >>build/server && slotctl deploy ./build")
    server.wait_for("curl -sS -m 10 http://127.0.0.1:8081/ | grep -q ^release")
    server.wait_for("test $(curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/) = 404")
    # As after a start of the machine: no router runs, and this listener is the first that is asked.
    server.run("systemctl stop 'slot-router@*.service'")
    assert serves(server, "http://127.0.0.1:8081/")
    server.wait_for("test $(curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/) = 404")


def test_the_group_may_deploy_and_others_may_not_even_look(server):
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init && cp -r /root/web /srv/web && cd /srv/web && slotctl deploy ./build")
    server.run("useradd --create-home --groups slot ann && useradd --create-home bob")
    server.run("echo '# more' >>/srv/web/build/server")
    server.run("cd /srv/web && slotctl deploy ./build", user="ann")
    assert "serves from green" in server.out("cd /srv/web && slotctl status", user="ann")
    for asked in ("status", "rollback"):
        refused = server.run(f"cd /srv/web && slotctl {asked}", user="bob", check=False)
        assert refused.returncode == 4, refused.stderr
    assert server.run("cd /srv/web && slotctl app remove web --purge --now").returncode == 0
    assert server.run("curl -sS -m 10 -o /dev/null -w '%{http_code}' http://127.0.0.1/").stdout == "404"
