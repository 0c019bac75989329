"""Installing, upgrading and removing the package."""

from apps import place, register


def test_an_upgrade_touches_neither_apps_nor_sockets_and_a_removal_leaves_nothing_behind(fresh):
    machine = fresh
    register(machine, "web", 'name = "web"\ncommand = "./server"\nready = "notify"\n[ports]\nblue = 20001\ngreen = 20002\n')
    place(machine, "web", "blue", "notify", "one")
    machine.write("/etc/polkit-1/rules.d/60-slot-app-web.rules", "// a rule\n")
    machine.run("systemctl start web@blue slot-router.socket slotd.socket")
    before = machine.show("web@blue", "MainPID", "InvocationID")
    socket = machine.show("slot-router.socket", "InvocationID")
    machine.install()
    assert machine.show("web@blue", "MainPID", "InvocationID") == before
    assert machine.show("slot-router.socket", "InvocationID") == socket
    machine.run("dpkg -r slotctl")
    assert machine.run("curl -sS http://127.0.0.1:20001/", check=False).returncode != 0
    assert machine.out("systemctl list-units --all --plain --no-legend 'slot*' 'web*' | grep -v not-found || true") == ""
    assert machine.out("ls /etc/polkit-1/rules.d") == "60-slot-app-web.rules.removed"
    assert machine.out("cat /etc/slot/apps/web.toml | head -n 1") == 'name = "web"'
    machine.install()
    assert machine.out("ls /etc/polkit-1/rules.d") == "60-slot-app-web.rules"
    machine.run("systemctl start web@blue")
    machine.run("dpkg -P slotctl")
    assert machine.out("ls -d /etc/slot /var/lib/slot /var/lib/slot-router /var/lib/private/slot-router /etc/polkit-1/rules.d/* 2>/dev/null || true") == ""


def test_what_is_written_survives_a_reboot_and_a_power_cut():
    from machine import Machine

    with Machine(kept=True) as machine:
        machine.install()
        boot = machine.out("cat /proc/sys/kernel/random/boot_id; systemctl show -p UserspaceTimestampMonotonic")
        machine.write("/srv/kept", "yes\n")
        machine.reboot()
        assert machine.out("cat /srv/kept") == "yes"
        assert machine.out("stat -c '%U %a' /run/slot /run/slot/slotd") == "root 755\nslot 755"
        machine.cut_power()
        machine.boot()
        assert machine.out("cat /srv/kept") == "yes"
        assert boot
