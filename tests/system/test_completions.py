"""bash, zsh and fish complete words of slotctl by the scripts of the package, with what the slotd that runs has."""

import shlex

import pytest
from slots import QUICK, App

# As readline calls it: with the function that the script has registered for the command.
BASH = """
. /usr/share/bash-completion/completions/slotctl
registered=($(complete -p slotctl))
for at in "${!registered[@]}"; do [ "${registered[at]}" = -F ] && named=${registered[at + 1]}; done
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMP_LINE="$*" COMP_POINT=$((${#COMP_LINE}))
"$named" slotctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def app(machine):
    app = App(machine, "web", QUICK + 'hosts = ["web.test"]\n')
    app.deploy("one", "--version v1 --wait=stopped")
    app.deploy("two", "--wait=stopped")
    return app


@pytest.fixture(scope="module")
def other(machine, app):
    return App(machine, "able", QUICK + 'hosts = ["able.test"]\n')


def bash(machine, line):
    said = machine.out(["bash", "--norc", "--noprofile", "-c", BASH, "bash", *words(line)])
    return said.splitlines()


def zsh(machine, line):
    return machine.json(["python3", "/tests/zsh_tab.py", line])["proposed"]


def fish(machine, line):
    said = machine.out(["fish", "-c", f"complete -C {shlex.quote(line)}"])
    return [proposed.split("\t")[0] for proposed in said.splitlines()]


def words(line):
    """As a shell splits it; a space at its end begins another word."""
    return shlex.split(line) + [""] * line.endswith(" ")


SHELLS = [bash, zsh, fish]


def proposes(machine, shell, line):
    """What is proposed, but for options, which may stand wherever nothing is begun."""
    found = shell(machine, line)
    assert len(found) == len(set(found)), found
    return {word for word in found if word and not word.startswith("-")}


@pytest.mark.parametrize("shell", SHELLS, ids=[shell.__name__ for shell in SHELLS])
def test_a_shell_completes_commands_apps_slots_releases_and_generations(machine, app, shell):
    status = app.status()
    releases = {release["id"] for release in app.slotctl("releases")["releases"]}
    assert len(releases) == 2 and status["generation"] == 2
    for line, expected in [
        ("slotctl listener a", {"add"}),
        ("slotctl --app w", {"web"}),
        ("slotctl app remove ", {"web"}),
        ("slotctl config show w", {"web"}),
        ("slotctl logs ", {"blue", "green"}),
        ("slotctl --app web stop g", {"green"}),
        ("slotctl rollback --to ", releases | {"v1"}),
        ("slotctl deploy --release v", {"v1"}),
        ("slotctl rollback --expected-generation ", {"2"}),
        ("slotctl rollback --expected-active ", {status["active"], status["live"]}),
    ]:
        assert proposes(machine, shell, line) == expected, line


@pytest.mark.parametrize("shell", SHELLS, ids=[shell.__name__ for shell in SHELLS])
def test_with_several_apps_a_slot_is_proposed_with_its_app(machine, other, shell):
    assert proposes(machine, shell, "slotctl --app ") == {"able", "web"}
    slots = {f"{app}:{slot}" for app in ("able", "web") for slot in ("blue", "green")}
    assert proposes(machine, shell, "slotctl logs ") == slots
    assert proposes(machine, shell, "slotctl --app able logs b") == {"blue"}


@pytest.mark.parametrize(
    "typed, wanted",
    [
        ("slotctl --app w", "slotctl --app web "),
        ("slotctl app rel", "slotctl app reload "),
        ("slotctl --app web logs bl", "slotctl --app web logs blue "),
        ("slotctl logs web:bl", "slotctl logs web:blue "),
    ],
)
def test_at_a_terminal_the_line_is_completed(machine, other, typed, wanted):
    assert machine.json(["python3", "/tests/zsh_tab.py", typed])["line"] == wanted
    machine.run(["python3", "/tests/type_tab.py", typed, wanted], timeout=60)


@pytest.mark.parametrize("shell", SHELLS, ids=[shell.__name__ for shell in SHELLS])
def test_without_slotd_nothing_is_proposed_that_it_would_have_to_say(machine, app, shell):
    machine.run("systemctl stop slotd.socket slotd.service")
    try:
        assert proposes(machine, shell, "slotctl --app w") == set()
        assert proposes(machine, shell, "slotctl listener a") == {"add"}
    finally:
        machine.run("systemctl start slotd.socket slotd.service")
