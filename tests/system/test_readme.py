"""What the README says to type on a server, typed on a server."""

import re
from pathlib import Path

import pytest
from apps import make
from machine import Machine

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks(name):
    """The code blocks that are marked with a name: ```sh NAME"""
    found = re.findall(rf"^```sh {name}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"no block of {README} is marked `sh {name}`"
    return found


@pytest.fixture
def server():
    """A machine without slot, with its package in /root and a project in /root/web."""
    with Machine() as machine:
        machine.run("cp /packages/slotctl_*.deb /root/")
        machine.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n', mode="0755")
        make(machine, "notify", "one", directory="/root/web/build")
        yield machine


def typed(machine, lines):
    """Runs a block in /root; what would go on for ever is ended after a second."""
    lines = re.sub(r"^(.*logs -f)$", r"timeout 1 \1 || [ $? = 124 ]", lines, flags=re.MULTILINE)
    return machine.run(f"set -e; cd /root\n{lines}", timeout=180)


def serves(machine, address="http://127.0.0.1/"):
    return machine.run(f"curl -sS -m 10 {address}").stdout.startswith("release ")


def test_every_command_for_a_server_works_in_the_order_of_the_readme(server):
    for number, lines in enumerate(blocks("server")):
        typed(server, lines)
        assert serves(server), lines
        # Each block deploys something new.
        server.run(f"echo '# {number}' >>/root/web/build/server")


def test_the_package_is_upgraded_removed_and_purged_as_the_readme_says(server):
    server.run("dpkg -i /packages/*.deb && cd /root/web && slotctl init && slotctl deploy ./build")
    upgrade, remove = blocks("package")
    typed(server, upgrade)
    assert serves(server)
    typed(server, remove)
    assert server.run("ls -d /etc/slot /var/lib/slot", check=False).stdout == ""


def test_the_rpm_is_installed_and_removed_as_the_readme_says(server):
    # Of Debian's packages rpm knows nothing.
    server.write("/usr/local/bin/rpm", '#!/bin/sh\nexec /usr/bin/rpm --dbpath /var/lib/rpm --nodeps "$@"\n', mode="0755")
    server.run("mkdir -p /var/lib/rpm && /usr/bin/rpm --dbpath /var/lib/rpm --initdb && cp /packages/slotctl-*.rpm /root/")
    (lines,) = blocks("rpm")
    install, remove = lines.splitlines()
    typed(server, install)
    server.run("cd /root/web && slotctl init && slotctl deploy ./build")
    assert serves(server)
    typed(server, remove)
    left = re.search(r"there is no purge; (`.*?`) are what is left", README.read_text(), re.DOTALL)[1]
    server.run(f"rm -rf {' '.join(re.findall(r'`([^`]+)`', left))}")
    assert server.out("find / -xdev -name 'slot*' ! -path '/proc/*' ! -path '/root/*' ! -path '/packages/*' ! -path '/tests/*'") == ""


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
