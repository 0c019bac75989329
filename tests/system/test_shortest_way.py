"""The shortest way there is, word for word, and what is in its way."""

import re

from apps import make


def test_a_package_an_init_and_a_deploy_are_all_it_takes(fresh):
    machine = fresh
    make(machine, "notify", "one", directory="/srv/app/build")
    machine.run("cd /srv/app && slotctl init")
    said = machine.run("cd /srv/app && slotctl deploy ./build/server", check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    address = re.search(r"http://\S+", said.stdout)[0]
    # Of a single file the marker beside it is no part; the app answers with its release then.
    release = re.search(r"release (\w+) serves from blue", said.stdout)[1]
    assert machine.out(f"curl -sS -m 10 {address}") == f"release {release}"
    for unit in ("slot-router.socket", "slotd.socket", "slotd.service"):
        assert machine.out(f"systemctl is-enabled {unit}") == "enabled"
    assert f"release {release} serves from blue" in machine.out("cd /srv/app && slotctl status")
    machine.run("echo '# changed' >>/srv/app/build/server")
    machine.run("cd /srv/app && slotctl deploy ./build/server")
    second = machine.out(f"curl -sS -m 10 {address}")
    assert second != f"release {release}"
    machine.run("cd /srv/app && slotctl rollback")
    assert machine.out(f"curl -sS -m 10 {address}") == f"release {release}"
    assert "serves in blue" in machine.out("cd /srv/app && slotctl logs -n 200")


def test_where_nginx_has_port_80_the_error_names_it_and_its_advice_works(fresh):
    machine = fresh
    machine.run("systemctl start nginx")
    make(machine, "notify", "one", directory="/srv/app/build")
    machine.run("cd /srv/app && slotctl init")
    refused = machine.run("cd /srv/app && slotctl deploy ./build", check=False)
    text = refused.stderr
    assert refused.returncode == 1, text
    assert re.search(r"port 80 is taken by nginx \(pid \d+, nginx.service\)", text), text
    assert "systemctl disable --now nginx.service" in text
    assert machine.run("test -e /etc/slot/apps/app.toml", check=False).returncode != 0, "something was changed"
    # What it says to write, behind nginx, with the location that it gives for it.
    listen = re.search(r"ListenStream=127\.0\.0\.1:8080", text)[0]
    drop_in = re.search(r"( +)\[Socket\]\n\1ListenStream=\n\1ListenStream=8080\n", text)[0].replace("ListenStream=8080", listen)
    machine.write("/etc/systemd/system/slot-router.socket.d/override.conf", re.sub(r"(?m)^ +", "", drop_in))
    machine.run("systemctl daemon-reload")  # as `systemctl edit` does
    location = re.search(r"`(location / \{.*?\})`", text, re.DOTALL)[1]
    upgrade = "map $http_upgrade $connection_upgrade { default upgrade; '' close; }"
    machine.write("/etc/nginx/conf.d/slot.conf", f"{upgrade}\nserver {{ listen 81; {location} }}\n")
    machine.run("nginx -t && systemctl reload nginx")
    said = machine.run("cd /srv/app && slotctl deploy ./build")
    assert "http://127.0.0.1:8080/" in said.stdout, said.stdout
    assert machine.out("curl -sS -m 10 http://127.0.0.1:8080/") == "release one"
    machine.wait_for("test \"$(curl -sS -m 10 http://127.0.0.1:81/)\" = 'release one'")
    whole = machine.out("python3 /tests/streams.py ws 127.0.0.1:81 --seconds 1")
    assert '"whole": true' in whole, whole


def test_the_port_is_free_for_slot_once_the_other_server_is_stopped_as_it_says(fresh):
    machine = fresh
    machine.run("systemctl start nginx")
    make(machine, "notify", "one", directory="/srv/app/build")
    machine.run("cd /srv/app && slotctl init")
    refused = machine.run("cd /srv/app && slotctl deploy ./build", check=False)
    machine.run(re.search(r"`(systemctl disable --now [^`]+)`", refused.stderr)[1])
    machine.run("cd /srv/app && slotctl deploy ./build")
    assert machine.out("curl -sS -m 10 http://127.0.0.1/") == "release one"
