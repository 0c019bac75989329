//! The files that `init` writes, as text.

use std::fmt::Write as _;
use std::path::Path;

use super::detect::Detected;
use crate::deploy::AppName;

/// slot.toml, with every key that there is. `program` is what the app's own build has made, where nothing was detected.
pub(super) fn slot_toml(
    name: &AppName,
    detected: Option<&Detected>,
    program: Option<&Path>,
    env_file: bool,
) -> String {
    let program = program
        .and_then(Path::file_name)
        .and_then(|name| name.to_str())
        .unwrap_or("server");
    // A binary is deployed by itself, so it is at the top of its release.
    let command = match detected {
        Some(detected) if detected.with != super::BINARY => line_as_value(&detected.start),
        Some(_) | None => program_as_value(program),
    };
    let guess = match detected.and_then(|detected| detected.guess.as_deref()) {
        Some(why) => format!("# The program is a guess, since {why}: correct it.\n"),
        None => String::new(),
    };
    let setup = match detected.and_then(|detected| detected.setup.as_deref()) {
        Some(setup) => format!("setup_command = {}", line_as_value(setup)),
        None => "# setup_command = \"npm ci\"".to_owned(),
    };
    let env_file = match env_file {
        true => {
            "# .env is for this directory; a server has its own, which root reads:\n#   sudo install -m 0600 .env /etc/slot/{name}.env\n"
        }
        false => "",
    };
    TEMPLATE
        .replace("{env}", env_file)
        .replace("{name}", name.as_str())
        .replace("{guess}", &guess)
        .replace("{command}", &command)
        .replace("{setup}", &setup)
}

/// A line for a shell as the value of `command`: the words alone where that means the same, else the shell.
fn line_as_value(line: &str) -> String {
    let words = shell_words::split(line).unwrap_or_default();
    let assigns = |word: &String| {
        let name = word.split('=').next().unwrap_or_default();
        word.contains('=') && !name.contains('/')
    };
    let plain = !line.contains(['&', '|', ';', '<', '>', '`', '*', '?', '~', '\n'])
        && !line.contains("$(")
        && words.first().is_some_and(|first| !assigns(first));
    if !plain {
        return format!(
            "[\"/bin/sh\", \"-c\", {}]",
            quoted(&line.replace('$', "$$"))
        );
    }
    let first = &words[0];
    if first.contains('/') && !first.starts_with(['/', '.']) {
        return quoted(&format!("./{line}"));
    }
    quoted(line)
}

/// A program of the release as the value of `command`: as one word of an array where its name is no plain word.
fn program_as_value(name: &str) -> String {
    let path = format!("./{name}");
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match name.bytes().all(plain) {
        true => quoted(&path),
        false => format!("[{}]", quoted(&path.replace('$', "$$"))),
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// slot-machine.json, with the keys that it needs in the order in which a reader asks for them.
pub(super) fn slot_machine_json(detected: Option<&Detected>, env_file: bool) -> String {
    let mut text = "{".to_owned();
    let mut field = |key: &str, value: serde_json::Value| {
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, "{comma}\n  \"{key}\": {value}");
    };
    if let Some(setup) = detected.and_then(|detected| detected.setup.as_deref()) {
        field("setup_command", setup.into());
    }
    let start = detected.map_or("./server", |detected| detected.start.as_str());
    field("start_command", start.into());
    field("port", 3000.into());
    field("internal_port", 3000.into());
    field("health_endpoint", "/healthz".into());
    field("health_timeout_ms", 10_000.into());
    field("drain_timeout_ms", 5_000.into());
    if env_file {
        field("env_file", ".env".into());
    }
    field("api_port", 9100.into());
    text.push_str("\n}\n");
    text
}

const TEMPLATE: &str = r#"# What slot runs. Every key but `command` may be left out; those behind a # show what is then meant.
# All of them: man slot.toml

name = "{name}"

# The first word is relative to what is deployed when it begins with ./ ; $NAME comes from the environment. No shell runs this.
{guess}command = {command}

# What makes a release ready before it is started, in its own directory, as another user: installs what it needs, builds.
{setup}
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
# soak = "60s"             # how long a new release is watched, and taken back if it fails
# soak_error_rate = "10%"  # and the most of its requests that may fail then; "off": they are not counted
# migrate = "99:1"        # the old release keeps 1% of new requests for ten seconds after a switch
# keep_warm = "30m"        # the old release is kept running for longer than the soak, for a rollback that is immediate
# after_soak = "report"    # what becomes of one that fails later; "rollback": the one before takes its place
# drain = "120s"           # how long the old release may finish what is in flight; "0s": as long as that takes
# stop_timeout = "10s"     # from SIGTERM to SIGKILL
# keep = 5                 # old releases kept on disk

# Which requests are this app's; any, unless said.
# hosts = ["example.org"]
# paths = ["/"]

# By what a client keeps to the version that it saw while a share grows: "cookie", "header:X-User" or "address".
# sticky = "cookie"

# green.{name}.example.org, and a release's id or label instead, reach what runs there, whatever its share.
# preview = "example.org"

# user = "deploy"                     # a user of its own, unless said
{env}# env_file = "/etc/slot/{name}.env"   # for secrets: root's own, 0600

# [env]
# LOG_LEVEL = "info"

# Where `slotctl deploy --remote` has commits fetched from; otherwise they come out of the repository here.
# [git]
# remote = "git@example.org:me/{name}.git"
# deploy_key = "/etc/slot/keys/{name}"   # a private key without a passphrase, root's own, 0600

# What is deployed by itself: what the remote has on its branch, or a file that is dropped (watch = "path", path = "/srv/drop/{name}").
# [auto]
# watch = "git"
# window = "Mon..Fri 09:00-17:00"

# Commands of a release around its switch; the first two end the deployment if they fail.
# [hooks]
# before_deploy = "./bin/backup"
# before_switch = "./bin/migrate"
# after_switch = "./bin/announce"
# after_rollback = "./bin/announce"

# A new release comes to its requests by steps, and is judged in each by what the router counts.
# [canary]
# steps = ["1% 2m", "10% 5m", "50% 5m"]
# error_rate = "5%"
# latency_ratio = { p99 = 2 }
# Who is told elsewhere of what happens: a signed POST of JSON for each event.
# [[notices]]
# url = "https://example.org/hooks/slot"
# events = ["ended", "soak", "rolled-back", "failing", "holds", "down"]
# secret_file = "/etc/slot/keys/notices"   # root's own, 0600

# A git work tree of what is live, for the next deployment, in /var/lib/slot-staging/{name}: whose it is.
# [staging]
# user = "alice"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{App, SlotMachine};

    fn detected(setup: Option<&str>, start: &str) -> Detected {
        Detected {
            with: "npm",
            setup: setup.map(ToOwned::to_owned),
            start: start.to_owned(),
            guess: None,
        }
    }

    #[test]
    fn what_is_commented_out_is_valid_when_it_is_not() {
        let text = slot_toml(&"web".parse().unwrap(), None, None, true);
        let open: String = text
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
        let parsed = App::parse(&open, "slot.toml").unwrap();
        let short = App::parse("name = \"web\"\ncommand = \"./server\"\n", "slot.toml").unwrap();
        assert_eq!(parsed.drain, short.drain);
        assert_eq!(
            (parsed.soak, parsed.keep, parsed.bind),
            (short.soak, short.keep, short.bind)
        );
        assert_eq!(parsed.hosts, ["example.org"]);
        assert_eq!(parsed.env["LOG_LEVEL"], "info");
        assert_eq!(parsed.remote.unwrap().url, "git@example.org:me/web.git");
    }

    #[test]
    fn a_line_becomes_words_where_no_shell_is_needed() {
        for (line, words) in [
            ("node server.js", &["node", "server.js"][..]),
            ("node --port=$PORT", &["node", "--port=$PORT"]),
            ("bin/serve \"two words\"", &["./bin/serve", "two words"]),
            ("./a", &["./a"]),
            (
                "NODE_ENV=production node s.js",
                &["/bin/sh", "-c", "NODE_ENV=production node s.js"],
            ),
            ("cd x && node $A", &["/bin/sh", "-c", "cd x && node $$A"]),
        ] {
            let made = detected(Some(line), line);
            let text = slot_toml(&"web".parse().unwrap(), Some(&made), None, false);
            let app = App::parse(&text, "slot.toml").unwrap();
            assert_eq!(app.command, words, "{line}");
            assert_eq!(app.setup_command.unwrap(), words, "{line}");
        }
    }

    #[test]
    fn slot_machines_file_has_what_was_detected_and_can_be_read() {
        let made = detected(Some("npm ci"), "node server.js");
        let text = slot_machine_json(Some(&made), true);
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(said["setup_command"], "npm ci");
        assert_eq!(said["start_command"], "node server.js");
        assert_eq!(said["env_file"], ".env");
        assert_eq!(said["health_endpoint"], "/healthz");
        let read = SlotMachine::parse(&text, "slot-machine.json", Path::new("/srv")).unwrap();
        assert!(read.unknown.is_empty());
        let bare = slot_machine_json(None, false);
        SlotMachine::parse(&bare, "slot-machine.json", Path::new("/srv")).unwrap();
        assert!(!bare.contains("env_file"), "{bare}");
    }
}
