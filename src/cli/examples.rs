//! An example of each command, as its page shows them. A test parses every line.

/// Lines to type and what each does, by command: `app add`.
pub const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "demo",
        &[(
            "slotctl demo --once",
            "Deploys a sample app under load, and says what was served.",
        )],
    ),
    (
        "start",
        &[(
            "slotctl start ./build/server",
            "Runs the app of ./slot.toml on 127.0.0.1:8080, as you.",
        )],
    ),
    (
        "init",
        &[(
            "slotctl init",
            "Writes slot.toml by what the project is made with.",
        )],
    ),
    (
        "app",
        &[("slotctl app list", "Lists the apps of this machine.")],
    ),
    (
        "app add",
        &[(
            "sudo slotctl app add",
            "Registers the app of ./slot.toml, or takes over what changed there.",
        )],
    ),
    (
        "app reload",
        &[
            (
                "sudo slotctl app reload web",
                "Takes over what was changed in /etc/slot/apps/web.toml.",
            ),
            ("sudo slotctl app reload", "The same for every app."),
        ],
    ),
    (
        "app list",
        &[("slotctl app list --json", "Lists the apps for a script.")],
    ),
    (
        "app remove",
        &[(
            "sudo slotctl app remove web --purge",
            "Drains and stops web, and deletes its releases and data.",
        )],
    ),
    (
        "config",
        &[(
            "slotctl config check",
            "Says what is wrong with ./slot.toml.",
        )],
    ),
    (
        "config check",
        &[
            (
                "slotctl config check",
                "Says what is wrong with ./slot.toml, as FILE:LINE:COLUMN.",
            ),
            (
                "slotctl config check /etc/slot/machine.toml /etc/slot/apps/web.toml",
                "Looks at what this machine goes by.",
            ),
        ],
    ),
    (
        "config show",
        &[
            (
                "slotctl config show web",
                "Shows every setting of web and of the machine, and where each comes from.",
            ),
            (
                "slotctl --json config show",
                "The same of the project here, for a script.",
            ),
        ],
    ),
    (
        "deploy",
        &[
            ("slotctl deploy", "Deploys the commit that is checked out."),
            (
                "slotctl deploy ./build/server --version v1.2",
                "Deploys what was built, and calls it v1.2.",
            ),
            (
                "tar c . | ssh host slotctl deploy - --app web",
                "Deploys what another machine has built.",
            ),
            (
                "slotctl deploy v1.2 --weight 10 --queue 5m",
                "Waits for its turn, and gives the release a tenth of the requests.",
            ),
        ],
    ),
    (
        "rollback",
        &[
            ("slotctl rollback", "Goes back to the release before."),
            ("slotctl rollback --to v1.1", "Goes back to an earlier one."),
        ],
    ),
    (
        "releases",
        &[(
            "slotctl --app web releases",
            "Lists the releases of web that are on disk.",
        )],
    ),
    (
        "weight",
        &[(
            "slotctl weight green 50",
            "Gives what runs in green half of the requests.",
        )],
    ),
    (
        "route",
        &[(
            "slotctl route web --from blue --to green",
            "Lets green take the place of blue.",
        )],
    ),
    (
        "promote",
        &[(
            "slotctl promote --wait soaked",
            "Gives the candidate all requests, and waits for the end of its soak.",
        )],
    ),
    (
        "abort",
        &[(
            "slotctl abort web",
            "Takes back the deployment that has not switched.",
        )],
    ),
    (
        "pause",
        &[(
            "slotctl pause web",
            "Lets the plan stand still at its step.",
        )],
    ),
    ("resume", &[("slotctl resume web", "Lets it go on.")]),
    (
        "stop",
        &[("slotctl stop web:green", "Lets green drain, and stops it.")],
    ),
    (
        "drain",
        &[(
            "slotctl drain blue --now",
            "Cuts what is still in flight on blue.",
        )],
    ),
    (
        "hold",
        &[(
            "slotctl --app web hold --reason \"release day\"",
            "Lets nothing of web be deployed by itself.",
        )],
    ),
    ("unhold", &[("slotctl --app web unhold", "Lets it again.")]),
    ("ps", &[("slotctl ps", "Lists the slots of the app here.")]),
    (
        "status",
        &[
            ("slotctl status", "Shows what runs, and what is under way."),
            (
                "slotctl --json status --connections",
                "Lists for a script who is still on a slot that drains.",
            ),
        ],
    ),
    (
        "router",
        &[(
            "slotctl router upgrade",
            "Exchanges the router for a new instance of it.",
        )],
    ),
    (
        "router upgrade",
        &[(
            "slotctl router upgrade --drain 10m",
            "The same; what the old one has left after ten minutes is cut.",
        )],
    ),
    (
        "token",
        &[(
            "slotctl token new --name ci --scope act",
            "Makes a token for the API over TCP.",
        )],
    ),
    (
        "token new",
        &[(
            "slotctl token new --name grafana --scope read",
            "Makes one that may look and not act.",
        )],
    ),
    (
        "listener",
        &[("slotctl listener list", "Lists the public sockets.")],
    ),
    (
        "listener add",
        &[
            (
                "sudo slotctl listener add 443",
                "Takes requests on port 443 of every address, too.",
            ),
            (
                "sudo slotctl listener add 127.0.0.1:8081 --name internal",
                "For apps with listener = \"internal\", and those that name none.",
            ),
        ],
    ),
    (
        "listener remove",
        &[(
            "sudo slotctl listener remove 443",
            "Closes that socket; what came in there goes on to its end.",
        )],
    ),
    (
        "listener list",
        &[(
            "slotctl listener list --json",
            "Lists the public sockets for a script.",
        )],
    ),
    (
        "doctor",
        &[
            (
                "sudo slotctl doctor",
                "Says what is wrong with slot on this machine, and what to do about it.",
            ),
            (
                "sudo slotctl doctor --fix",
                "Does of that what is safe, and says what it did.",
            ),
        ],
    ),
    (
        "logs",
        &[(
            "slotctl logs green -f -n 50",
            "Follows what is said of, and by, what runs in green.",
        )],
    ),
];

/// Those of a command.
#[must_use]
pub fn of(command: &str) -> &'static [(&'static str, &'static str)] {
    let found = EXAMPLES.iter().find(|(name, _)| *name == command);
    found.map_or(&[], |(_, examples)| examples)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::args::Cli;
    use super::*;

    fn shown(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for inner in command
            .get_subcommands()
            .filter(|it| !it.is_hide_set() && it.get_name() != "help")
        {
            let path = format!("{path} {}", inner.get_name()).trim().to_owned();
            shown(inner, &path, found);
            found.push(path);
        }
    }

    #[test]
    fn every_command_that_is_shown_has_examples_and_they_are_lines_that_it_takes() {
        let mut commands = Vec::new();
        shown(&Cli::command(), "", &mut commands);
        for command in &commands {
            assert!(!of(command).is_empty(), "slotctl {command} has no example");
        }
        for (command, examples) in EXAMPLES {
            assert!(
                commands.iter().any(|it| it == command),
                "there is no slotctl {command}"
            );
            for (line, about) in *examples {
                let words = shell_words::split(line).unwrap();
                let own = words.iter().position(|word| word == "slotctl").unwrap();
                Cli::try_parse_from(&words[own..])
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                let first = command.split(' ').next().unwrap();
                assert!(words.iter().any(|word| word == first), "{line}");
                assert!(about.ends_with('.'), "{about}");
            }
        }
    }
}
