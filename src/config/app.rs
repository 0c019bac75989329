//! An app's file: from keys to [`App`], each checked where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::after::{after, migrate};
use super::auto::auto;
use super::canary::rate;
use super::clients::{preview, preview_token, sticky};
use super::env::{env_file, environment, unprintable};
use super::error::{ConfigError, Source};
use super::notices::notices;
use super::remote::remote;
use super::section::{Section, Value};
use super::trust::replaceable;
use super::{App, AppLimits, Bind, Canary, Drain, Hooks, Ports, Ready, SEED, Semantics, Staging};
use crate::deploy::{AppName, Hook, Rate, SlotName};

/// Names in `/run/slot` and `/var/lib/slot` that are taken, and prefixes of slot's own units.
const APP_NAMES_TAKEN: [&str; 3] = ["router", "slotd", "slotctl"];
/// A command, as it is shown to whoever wrote none.
const COMMAND: &str = "\"./server --flag\"";
/// A setup command, as it is shown to whoever wrote a wrong one.
const SETUP: &str = "\"npm ci\"";
/// How long a setup command may take if the file does not say.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Users that can do more than an app should.
pub(super) const PRIVILEGED: [&str; 3] = ["root", "slot", "slot-router"];
/// Names beside the slots' symlinks in `/var/lib/slot/<app>`.
const SLOT_NAMES_TAKEN: [&str; 6] = ["live", "prev", "releases", "staging", "shared", "incoming"];

impl App {
    /// Reads an app's file. `file` names it in errors.
    ///
    /// # Errors
    /// With the first key that is wrong, its line and what to write instead.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        Self::read(Section::of_file(Source { file, text })?)
    }

    /// The same, of a file's keys.
    pub(super) fn read(mut keys: Section<'_>) -> Result<Self, ConfigError> {
        let source = keys.source();
        let name = app_name(keys.take("name"))?;
        let command = keys.take("command").map(|value| words(&value, COMMAND));
        let setup_command = keys.take("setup_command").map(|value| words(&value, SETUP));
        let setup_timeout = keys
            .take("setup_timeout")
            .map_or(Ok(SETUP_TIMEOUT), |value| value.lasting("15m"))?;
        let shared_dirs = keys
            .take("shared_dirs")
            .map_or(Ok(Vec::new()), |value| shared_dirs(&value))?;
        let slots = slots(keys.take("slots"))?;
        let bind = keys.take("bind").map_or(Ok(Bind::default()), |value| {
            value.word(&[("port", Bind::Port), ("unix", Bind::Unix), ("fd", Bind::Fd)])
        })?;
        let ready = keys.take("ready").map_or(Ok(Ready::default()), |value| {
            value.word(&[("notify", Ready::Notify), ("health", Ready::Health)])
        })?;
        let ports = ports(keys.take("ports"), bind, &slots)?;
        let health = keys
            .take("health")
            .map_or(Ok("/".to_owned()), |value| target(&value, "\"/healthz\""))?;
        let start_timeout = positive(keys.take("start_timeout"), 60)?;
        let health_timeout = positive(keys.take("health_timeout"), 30)?;
        let all = span(keys.take("drain"), 120)?;
        let mut of_class = |key| {
            let own = keys.take(key);
            own.map(|value| value.span("\"10m\"")).transpose()
        };
        let drain = Drain {
            all,
            requests: of_class("drain_requests")?,
            streams: of_class("drain_streams")?,
            tunnels: of_class("drain_tunnels")?,
        };
        let stop_timeout = positive(keys.take("stop_timeout"), 10)?;
        let soak = span(keys.take("soak"), 60)?;
        let migrate = migrate(keys.take("migrate"))?;
        let after = after(&mut keys)?;
        let soak_error_rate = keys
            .take("soak_error_rate")
            .map_or(Ok(Some(Rate(1_000))), |value| rate(&value))?;
        let keep = keys
            .take("keep")
            .map_or(Ok(5), |value| value.number(0, 10_000))?;
        let hosts = each(keys.take("hosts"), "*", "[\"example.org\"]", host)?;
        let paths = each(keys.take("paths"), "/", "[\"/\"]", prefix)?;
        let listener = keys.take("listener").map(|value| listener(&value));
        let sticky = keys.take("sticky").map(|value| sticky(&value));
        let preview_under = keys.take("preview").map(|value| preview(&value));
        let token = keys.take("preview_token_sha256");
        let token = token.map(|value| preview_token(&value));
        let allow_privileged = keys
            .take("allow_privileged_user")
            .map_or(Ok(false), |value| value.flag())?;
        let user = keys
            .take("user")
            .map(|value| user(&value, allow_privileged));
        let env_file = keys.take("env_file").map(|value| env_file(&value));
        let remote = remote(keys.take("git"))?;
        let env = environment(keys.take("env"))?;
        let limits = limits(keys.take("limits"))?;
        let hooks = keys.take("hooks").map(Hooks::parse);
        let canary = keys.take("canary").map(Canary::parse);
        let notices = notices(keys.take("notices"));
        let auto = auto(keys.take("auto"), remote.is_some(), allow_privileged);
        let staging = keys.take("staging");
        let staging = staging.map(|table| Staging::parse(table, allow_privileged));
        keys.finish()?;
        // Only now: a key that is missing is often there under a wrong name, and that is what to say then.
        let command = command.unwrap_or_else(|| {
            Err(source.whole(
                "command",
                "the file does not say what to run",
                format!("write `command = {COMMAND}`"),
            ))
        })?;
        let (mut hooks, canary) = (hooks.transpose()?.unwrap_or_default(), canary.transpose()?);
        if let Some(check) = canary.as_ref().and_then(|canary| canary.check.clone()) {
            hooks.commands.insert(Hook::Check, check);
        }
        Ok(Self {
            name,
            command,
            setup_command: setup_command.transpose()?,
            setup_timeout,
            shared_dirs,
            shared_root: None,
            slots,
            bind,
            ports,
            ready,
            health,
            start_timeout,
            health_timeout,
            drain,
            stop_timeout,
            soak,
            migrate,
            after,
            soak_error_rate,
            keep: keep as usize,
            hosts,
            paths,
            listener: listener.transpose()?,
            sticky: sticky.transpose()?,
            preview: preview_under.transpose()?,
            preview_token: token.transpose()?,
            user: user.transpose()?,
            env_file: env_file.transpose()?,
            remote,
            env,
            limits,
            staging: staging.transpose()?,
            hooks,
            canary,
            auto: auto?,
            notices: notices?,
            internal_listener: None,
            semantics: Semantics::Slot,
        })
    }

    /// Whom the setup command runs as: the app's user, unless that is one who can do more than any build should, or one of its own.
    #[must_use]
    pub fn setup_user(&self) -> Option<&str> {
        let user = self.user.as_deref();
        user.filter(|user| !PRIVILEGED.contains(user))
    }

    /// Whether the file may stand in `/etc/slot/apps` under its name: every slot has its ports, and
    /// the name in the file is the file's, and only root can replace what is read as root (`env_file`, `deploy_key`, `known_hosts`). The one check that looks at
    /// the machine.
    ///
    /// # Errors
    /// Naming the key that is missing or wrong.
    pub fn check_installed(&self, file: &str) -> Result<(), ConfigError> {
        let source = Source { file, text: "" };
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
        if stem != Some(self.name.as_str()) {
            return Err(source.whole(
                "name",
                format!("the file is that of an app {:?}", self.name.as_str()),
                format!(
                    "rename it to {}.toml, or write the name that it has",
                    self.name
                ),
            ));
        }
        let missing = self
            .slots
            .iter()
            .find(|slot| self.bind == Bind::Port && !self.ports.contains_key(slot));
        match missing {
            None => Ok(()),
            Some(slot) => Err(source.whole(
                &format!("ports.{slot}"),
                "the slot has no port",
                format!("write `{slot} = 20001` under [ports], a port that nothing listens on"),
            )),
        }?;
        if self.staging.as_ref().is_some_and(|it| it.user.is_none()) {
            return Err(source.whole(
                "staging.user",
                "the work tree is to be somebody's",
                "write `user = \"alice\"` under [staging]: who is to work in it",
            ));
        }
        let fetch = self.remote.as_ref();
        let files = [
            (
                "env_file",
                self.env_file.as_deref(),
                format!("{}.env", self.name),
            ),
            (
                "git.deploy_key",
                fetch.and_then(|it| it.deploy_key.as_deref()),
                format!("{}.key", self.name),
            ),
            (
                "git.known_hosts",
                fetch.and_then(|it| it.known_hosts.as_deref()),
                "known_hosts".to_owned(),
            ),
        ];
        let secrets = self.notices.iter().map(|receiver| {
            let secret = receiver.secret_file.as_deref();
            (
                "notices.secret_file",
                secret,
                format!("{}.notices", self.name),
            )
        });
        for (key, path, there) in files.into_iter().chain(secrets) {
            let path = path.map(Path::new).filter(|path| path.is_absolute());
            if let Some(why) = path.and_then(replaceable) {
                return Err(source.whole(
                    key,
                    format!("root reads it for the app, and {why}"),
                    format!(
                        "put it where only root writes: `install -m 0600 FILE /etc/slot/{there}`"
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn app_name(value: Option<Value<'_>>) -> Result<AppName, ConfigError> {
    let Some(value) = value else {
        return Ok("slot".parse().expect("`slot` is a valid app name"));
    };
    let name: AppName = value.parsed("\"web\"")?;
    if APP_NAMES_TAKEN.contains(&name.as_str()) || name.as_str().starts_with("slot-") {
        return Err(value.error(
            format!("{:?} is a name of slot's own", name.as_str()),
            "choose another, for instance \"web\"",
        ));
    }
    Ok(name)
}

/// A command line; `example` is one for the same key.
pub(super) fn words(value: &Value<'_>, example: &str) -> Result<Vec<String>, ConfigError> {
    let key = value.own_key();
    let words = if value.is_text() {
        let line = value.text(example)?;
        let words = shell_words::split(&line)
            .map_err(|_| value.error("a quote is not closed", "close it, or write an array"))?;
        if let Some(word) = words
            .iter()
            .find(|word| ["&&", "||", "|", ";", "&", ">", "<", ">>"].contains(&word.as_str()))
        {
            return Err(value.error(
                format!("{word:?} is a shell's, and no shell runs this"),
                format!(
                    "write `{key} = [\"/bin/sh\", \"-c\", \"exec …\"]`, or put the steps into a script"
                ),
            ));
        }
        words
    } else {
        value
            .list(example)?
            .iter()
            .map(|word| word.text(example))
            .collect::<Result<_, _>>()?
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(value.error("it is empty", format!("write `{key} = {example}`")));
    }
    if words.iter().any(|word| unprintable(word)) {
        return Err(value.error(
            "it has a control character",
            "write it without; only tabs and line breaks may be in a word",
        ));
    }
    if words[0].contains('/') && !words[0].starts_with('/') && !words[0].starts_with("./") {
        return Err(value.error(
            format!("{:?} is relative to nothing", words[0]),
            format!(
                "write `./{}` for a file of the release, or an absolute path",
                words[0]
            ),
        ));
    }
    Ok(words)
}

/// The plain path of a directory of the release, if it is one.
pub(super) fn shared_dir(written: &str) -> Option<&str> {
    let path = written.trim_start_matches("./").trim_end_matches('/');
    let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
    (plain && !path.chars().any(char::is_control) && !path.starts_with(SEED)).then_some(path)
}

/// Directories of the release, each by its plain path from there: no `.`, no `..`, none inside another.
fn shared_dirs(value: &Value<'_>) -> Result<Vec<String>, ConfigError> {
    const EXAMPLE: &str = "[\"uploads\", \"storage/files\"]";
    let mut found: Vec<String> = Vec::new();
    for item in value.list(EXAMPLE)? {
        let written = item.text("\"uploads\"")?;
        let Some(path) = shared_dir(&written) else {
            return Err(item.error(
                format!("{written:?} is no directory of the release"),
                format!("write its path from there, without `..`: `shared_dirs = {EXAMPLE}`"),
            ));
        };
        let within = |one: &str, other: &str| Path::new(one).starts_with(other);
        if let Some(other) = found
            .iter()
            .find(|other| within(path, other) || within(other, path))
        {
            return Err(item.error(
                format!("{written:?} and {other:?} share a directory"),
                "name the outer one alone",
            ));
        }
        found.push(path.to_owned());
    }
    Ok(found)
}

fn slots(value: Option<Value<'_>>) -> Result<Vec<SlotName>, ConfigError> {
    const EXAMPLE: &str = "[\"blue\", \"green\"]";
    let Some(value) = value else {
        return Ok(["blue", "green"]
            .map(|name| name.parse().expect("both are valid slot names"))
            .to_vec());
    };
    let mut slots: Vec<SlotName> = Vec::new();
    for item in value.list(EXAMPLE)? {
        let slot: SlotName = item.parsed("\"blue\"")?;
        if slots.contains(&slot) {
            return Err(item.error(format!("\"{slot}\" is there twice"), "name each slot once"));
        }
        if SLOT_NAMES_TAKEN.contains(&slot.as_str()) {
            return Err(item.error(
                format!("\"{slot}\" is a name of slot's own"),
                "choose another, for instance \"blue\"",
            ));
        }
        slots.push(slot);
    }
    if slots.len() < 2 {
        return Err(value.error(
            "a release needs a slot to start in while another serves",
            format!("name at least two: `slots = {EXAMPLE}`"),
        ));
    }
    Ok(slots)
}

fn ports(
    value: Option<Value<'_>>,
    bind: Bind,
    slots: &[SlotName],
) -> Result<BTreeMap<SlotName, Ports>, ConfigError> {
    const EXAMPLE: &str = "blue = 20001";
    let mut ports = BTreeMap::new();
    let Some(value) = value else {
        return Ok(ports);
    };
    if bind != Bind::Port {
        return Err(value.error(
            "ports are for bind = \"port\" alone",
            "remove them, or write `bind = \"port\"`",
        ));
    }
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    for value in value.section(EXAMPLE)?.into_entries() {
        let Some(slot) = slots.iter().find(|slot| slot.as_str() == value.own_key()) else {
            return Err(value.error(
                "there is no such slot",
                format!(
                    "write one of {}, or add it to `slots`",
                    slots
                        .iter()
                        .map(|slot| format!("`{slot}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ));
        };
        let (key, at) = (value.key.clone(), value.place());
        let pair = port_pair(value)?;
        for port in BTreeSet::from([pair.port, pair.internal]) {
            if let Some(other) = taken.insert(port, key.clone()) {
                return Err(at.error(
                    format!("port {port} is that of {other}"),
                    "give each slot ports of its own",
                ));
            }
        }
        ports.insert(slot.clone(), pair);
    }
    Ok(ports)
}

/// `20001`, or `{ port = 20001, internal = 20003 }`.
fn port_pair(value: Value<'_>) -> Result<Ports, ConfigError> {
    // An app has no capability to bind a port below 1024 (ip(7), ip_unprivileged_port_start).
    let port = |value: &Value<'_>| {
        value
            .number(1024, 65_535)
            .map(|port| u16::try_from(port).expect("at most 65535"))
    };
    if value.is_number() {
        let port = port(&value)?;
        return Ok(Ports {
            port,
            internal: port,
        });
    }
    let at = value.place();
    let mut keys = value.section("blue = { port = 20001, internal = 20003 }")?;
    let public = keys.take("port").map(|value| port(&value)).transpose()?;
    let internal = keys
        .take("internal")
        .map(|value| port(&value))
        .transpose()?;
    keys.finish()?;
    let Some(public) = public else {
        return Err(at.error("it has no `port`", "write `port = 20001` in it"));
    };
    Ok(Ports {
        port: public,
        internal: internal.unwrap_or(public),
    })
}

fn span(value: Option<Value<'_>>, seconds: u64) -> Result<Duration, ConfigError> {
    value.map_or(Ok(Duration::from_secs(seconds)), |value| {
        value.span(&format!("\"{seconds}s\""))
    })
}

fn positive(value: Option<Value<'_>>, seconds: u64) -> Result<Duration, ConfigError> {
    value.map_or(Ok(Duration::from_secs(seconds)), |value| {
        value.lasting(&format!("{seconds}s"))
    })
}

fn limits(value: Option<Value<'_>>) -> Result<AppLimits, ConfigError> {
    let Some(value) = value else {
        return Ok(AppLimits::default());
    };
    let mut keys = value.section("[limits]")?;
    let limits = AppLimits::take(&mut keys)?;
    keys.finish()?;
    Ok(limits)
}

/// A path with no query, as it stands in a request line.
pub(super) fn target(value: &Value<'_>, example: &str) -> Result<String, ConfigError> {
    let path = value.text(example)?;
    match target_problem(&path) {
        None => Ok(path),
        Some(problem) => Err(value.error(
            problem,
            format!("begin it with / and escape what is not ASCII: `{example}`"),
        )),
    }
}

/// Why a path cannot stand in a request line.
pub(super) fn target_problem(path: &str) -> Option<String> {
    let clean = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
    (!path.starts_with('/') || !clean).then(|| format!("{path:?} is not a path of a URL"))
}

/// A route's path: without a query, and ending at a segment.
fn prefix(value: &Value<'_>) -> Result<String, ConfigError> {
    let path = target(value, "paths = [\"/api\"]")?;
    if path.contains('?') || (path.len() > 1 && path.ends_with('/')) {
        return Err(value.error(
            format!("{path:?} is not a prefix of whole segments"),
            format!(
                "write {:?}",
                path.split('?').next().unwrap_or("/").trim_end_matches('/')
            ),
        ));
    }
    Ok(path)
}

/// `example.org`, `*.example.org` or `*` (RFC 1123, section 2.1).
pub(super) fn host(value: &Value<'_>) -> Result<String, ConfigError> {
    let host = value.text("\"example.org\"")?;
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if host == "*" || (name.len() <= 253 && name.split('.').all(label)) {
        return Ok(host);
    }
    Err(value.error(
        format!("{host:?} is not a host name"),
        "write it in lower case, without scheme, port or path: \"example.org\", \"*.example.org\", or \"*\" for any",
    ))
}

pub(super) fn listener(value: &Value<'_>) -> Result<String, ConfigError> {
    let name = value.text("\"http\"")?;
    // FileDescriptorName= in systemd.socket(5): printable, no colon, at most 255.
    if (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        return Ok(name);
    }
    Err(value.error(
        format!("{name:?} cannot be the name of a listener"),
        "write the FileDescriptorName= of its socket unit: \"http\"",
    ))
}

pub(super) fn user(value: &Value<'_>, allow_privileged: bool) -> Result<String, ConfigError> {
    let user = value.text("\"deploy\"")?;
    // sysusers.d(5), strict mode; a number would be taken for a uid.
    let valid = (1..=31).contains(&user.len())
        && user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && user
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if !valid {
        return Err(value.error(
            format!("{user:?} is not a user's name"),
            "write the name of a user that exists, or remove the key: the app gets one of its own",
        ));
    }
    if PRIVILEGED.contains(&user.as_str()) && !allow_privileged {
        return Err(value.error(
            format!("an app that runs as {user} can do to this machine what {user} can"),
            "remove the key (the app gets a user of its own), name another user, or write `allow_privileged_user = true`",
        ));
    }
    Ok(user)
}

/// A list that is never empty, each item checked.
fn each(
    value: Option<Value<'_>>,
    default: &str,
    example: &str,
    check: fn(&Value<'_>) -> Result<String, ConfigError>,
) -> Result<Vec<String>, ConfigError> {
    let Some(value) = value else {
        return Ok(vec![default.to_owned()]);
    };
    let items = value.list(example)?;
    if items.is_empty() {
        return Err(value.error(
            "it is empty",
            format!("remove the key for `[\"{default}\"]`, or name at least one"),
        ));
    }
    items.iter().map(check).collect()
}
