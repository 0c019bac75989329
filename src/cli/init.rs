//! `slotctl init`: a commented slot.toml for the current directory.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::Exit;
use super::project::FILE;
use super::term::{say, say_json};
use crate::config::App;
use crate::deploy::AppName;

/// Where builds put what they make.
const BUILT_INTO: [&str; 6] = ["build", "dist", "bin", "out", "target/release", "."];

/// Writes the file. `name` is that of `--app`.
///
/// # Errors
/// If there is one already and `force` is not set, or it cannot be written.
pub fn run(name: Option<&AppName>, force: bool, json: bool) -> anyhow::Result<Exit> {
    let here = std::env::current_dir()?;
    let name = name.cloned().unwrap_or_else(|| name_from(&here));
    let built = built(&here);
    let text = text(&name, built.as_deref());
    // What is written is what `deploy` reads.
    App::parse(&text, FILE)?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(!force)
        .create(true)
        .truncate(force);
    let opened = options.open(FILE).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Exit::Input.because(format!(
            "{FILE} is there already and was left as it is; `slotctl init --force` writes over it"
        )),
        _ => anyhow::Error::from(error).context(format!("cannot write {FILE}")),
    });
    opened?
        .write_all(text.as_bytes())
        .with_context(|| format!("cannot write {FILE}"))?;
    if json {
        say_json(
            &serde_json::json!({ "success": true, "file": here.join(FILE), "app": name.as_str() }),
        )?;
    } else {
        let path = built.unwrap_or_else(|| PathBuf::from("PATH"));
        say(&format!(
            "wrote {FILE} for the app {name}\n  look it over, then: sudo slotctl deploy {}\n",
            path.display()
        ))?;
    }
    Ok(Exit::Ok)
}

/// A directory's name made into an app's: `My Shop_2` is `my-shop-2`.
fn name_from(folder: &Path) -> AppName {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let mut label = String::new();
    for c in name.chars() {
        if c.is_ascii_lowercase() || (c.is_ascii_digit() && !label.is_empty()) {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(22);
    let label = label.trim_end_matches('-');
    // Names that are slot's own are refused by the parser, like those that are none.
    let fits = |name: &AppName| App::parse(&text(name, None), FILE).is_ok();
    label
        .parse()
        .ok()
        .filter(fits)
        .unwrap_or_else(|| "web".parse().expect("`web` is a valid app name"))
}

/// The one program that a build seems to have made, relative to the directory.
fn built(folder: &Path) -> Option<PathBuf> {
    BUILT_INTO.iter().find_map(|place| {
        let mut programs = fs::read_dir(folder.join(place))
            .ok()?
            .flatten()
            .filter(|entry| {
                let shown = !entry.file_name().to_string_lossy().starts_with('.');
                shown
                    && entry.metadata().is_ok_and(|about| {
                        about.is_file() && about.permissions().mode() & 0o111 != 0
                    })
            })
            // Libraries are executable too, and are not what is run; scripts of the project are not what was built.
            .filter(|entry| {
                let path = entry.path();
                let ending = path.extension().and_then(|ending| ending.to_str());
                !matches!(ending, Some("so" | "d" | "sh" | "py"))
            })
            .map(|entry| Path::new(place).join(entry.file_name()));
        let only = programs.next()?;
        programs
            .next()
            .is_none()
            .then(|| Path::new(".").join(only.strip_prefix(".").unwrap_or(&only)))
    })
}

/// The file, with every key that there is.
fn text(name: &AppName, built: Option<&Path>) -> String {
    let program = built
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .filter(|name| {
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        })
        .unwrap_or("server");
    TEMPLATE
        .replace("{name}", name.as_str())
        .replace("{program}", program)
}

const TEMPLATE: &str = r#"# What slot runs. Every key but `command` may be left out; those behind a # show what is then meant.
# All of them: man slot.toml

name = "{name}"

# The first word is relative to what is deployed when it begins with ./ ; $NAME comes from the environment. No shell runs this.
command = "./{program}"

# What makes a release ready before it is started, in its own directory, as another user: installs what it needs, builds.
# setup_command = "npm ci"
# setup_timeout = "15m"

# Directories that every release shares: what the app writes there stays.
# shared_dirs = ["uploads"]

# How the app is reached.
#   "port"  it listens on 127.0.0.1:$PORT
#   "unix"  it makes the unix socket $SOCKET
#   "fd"    it gets a socket that listens already (LISTEN_FDS, as with systemd)
# bind = "port"

# What says that it is up: "notify" (it sends READY=1) or "health" (the path below answers).
# ready = "health"

# Has to answer 2xx or 3xx before the release gets any traffic.
# health = "/"

# start_timeout = "60s"    # to READY
# health_timeout = "30s"   # from then to the first answer of `health` that passes
# soak = "30s"             # how long a new release is watched, and taken back if it fails
# drain = "120s"           # how long the old release may finish what is in flight; "0s": as long as that takes
# stop_timeout = "10s"     # from SIGTERM to SIGKILL
# keep = 5                 # old releases kept on disk

# Which requests are this app's; any, unless said.
# hosts = ["example.org"]
# paths = ["/"]

# user = "deploy"                     # a user of its own, unless said
# env_file = "/etc/slot/{name}.env"   # for secrets: root's own, 0600

# [env]
# LOG_LEVEL = "info"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_directories() {
        for (folder, name) in [
            ("/home/me/My Shop_2", "my-shop-2"),
            ("/home/me/2048-game", "game"),
            ("/home/me/--", "web"),
            ("/", "web"),
            ("/srv/slotd", "web"),
            (
                "/srv/a-name-that-is-very-much-too-long",
                "a-name-that-is-very-mu",
            ),
        ] {
            assert_eq!(name_from(Path::new(folder)).as_str(), name, "{folder}");
        }
    }

    #[test]
    fn what_is_commented_out_is_valid_when_it_is_not() {
        let open: String = text(&"web".parse().unwrap(), None)
            .lines()
            .map(|line| {
                let inner = line.strip_prefix("# ").unwrap_or(line);
                let key = inner.split(['=', ']']).next().unwrap_or_default().trim();
                let is_key = !key.is_empty() && !key.contains(' ');
                if is_key {
                    format!("{inner}\n")
                } else {
                    String::new()
                }
            })
            .collect();
        let parsed = App::parse(&open, FILE).unwrap();
        let short = App::parse("name = \"web\"\ncommand = \"./server\"\n", FILE).unwrap();
        assert_eq!(parsed.drain, short.drain);
        assert_eq!(
            (parsed.soak, parsed.keep, parsed.bind),
            (short.soak, short.keep, short.bind)
        );
        assert_eq!(parsed.hosts, ["example.org"]);
        assert_eq!(parsed.env["LOG_LEVEL"], "info");
    }
}
