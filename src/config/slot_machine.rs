//! slot-machine's file (`slot-machine.json`, whatever its name): JSON in, an [`App`] with slot-machine's semantics out.
//!
//! | key | without it | means |
//! |---|---|---|
//! | `start_command` | refused | a line for `/bin/sh -c`, run in the release |
//! | `setup_command` | none | the same, run once before a release is first started |
//! | `port` | refused | where the app is reached; proxied to the live slot |
//! | `internal_port` | `port` | as `port`, for what the app serves on `INTERNAL_PORT` |
//! | `listen` | `127.0.0.1` | the address of both |
//! | `health_endpoint` | `/healthz` | asked on the slot's `INTERNAL_PORT`; has to answer 200 |
//! | `health_timeout_ms` | 10000 | from the start of the process to the first such answer |
//! | `drain_timeout_ms` | 5000 | from SIGTERM to SIGKILL |
//! | `env_file` | none | relative to the repository |
//! | `api_port` | 9100 | where `deploy`, `rollback`, `status` ask |
//! | `shared_dirs` | none | directories that every release shares |
//!
//! A number that is 0, an empty string and `null` are as if the key were not there: slot-machine takes them so.
//!
//! **Invariant:** a key that is none of these changes nothing and is named; one whose value is of another type is refused.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::app::{SETUP_TIMEOUT, shared_dir, target_problem};
use super::env::is_env_name;
use super::error::{ConfigError, Source};
use super::{App, AppLimits, Bind, Drain, Hooks, Ready, Semantics};
use crate::deploy::{After, Failing};

/// The file's name in a project.
pub const FILE: &str = "slot-machine.json";

/// What the listeners on `port` and on `internal_port` are called.
const LISTENER: &str = "http";
const INTERNAL: &str = "internal";

/// Where the API is without `api_port`.
pub const API_PORT: u16 = 9100;

/// What such a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMachine {
    /// The app; its ports are yet to be chosen.
    pub app: App,
    /// The address of `port` and `internal_port`.
    pub listen: IpAddr,
    /// Where requests for the app come in.
    pub port: u16,
    /// Where requests for its `INTERNAL_PORT` come in; may be `port`, which is then the app's own alone.
    pub internal_port: u16,
    /// Where the API answers, on loopback.
    pub api_port: u16,
    /// Keys that mean nothing here, in the order of the alphabet.
    pub unknown: Vec<String>,
    /// Those of `shared_dirs` that are no directories of a release; slot-machine passes over them, too.
    pub ignored_dirs: Vec<String>,
}

impl SlotMachine {
    /// Whether a text is meant to be such a file: JSON begins with a brace, and TOML never does.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.trim_start_matches('\u{feff}')
            .trim_start()
            .starts_with('{')
    }

    /// Reads a file. `file` names it in errors; `repository` is the directory that `env_file` is relative to.
    ///
    /// # Errors
    /// With the first key that is wrong, and what to write instead.
    pub fn parse(text: &str, file: &str, repository: &Path) -> Result<Self, ConfigError> {
        let mut keys = Keys::read(text, file)?;
        let start = keys.text("start_command", "\"node server.js\"")?;
        let setup = keys.text("setup_command", "\"npm ci\"")?;
        let port = keys.port("port")?;
        let internal_port = keys.port("internal_port")?;
        let api_port = keys.port("api_port")?.unwrap_or(API_PORT);
        let listen = keys.text("listen", "\"127.0.0.1\"")?;
        let health = keys
            .text("health_endpoint", "\"/healthz\"")?
            .unwrap_or_else(|| "/healthz".to_owned());
        let health_timeout = keys.millis("health_timeout_ms")?.unwrap_or(10_000);
        let drain_timeout = keys.millis("drain_timeout_ms")?.unwrap_or(5_000);
        let env_file = keys.text("env_file", "\".env\"")?;
        let (shared_dirs, ignored_dirs) = keys.directories("shared_dirs")?;

        let Some(start) = start else {
            return Err(keys.missing(
                "start_command",
                "the file does not say what to run",
                "\"start_command\": \"node server.js\"",
            ));
        };
        let Some(port) = port else {
            return Err(keys.missing(
                "port",
                "the file does not say where the app is to be reached",
                "\"port\": 3000",
            ));
        };
        let listen = match listen {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => text.parse().map_err(|_| {
                keys.error(
                    "listen",
                    format!("{text:?} is not an address"),
                    "write \"127.0.0.1\", or \"0.0.0.0\" for every interface",
                )
            })?,
        };
        if let Some(problem) = target_problem(&health) {
            return Err(keys.error("health_endpoint", problem, "write a path: \"/healthz\""));
        }
        let internal_port = internal_port.unwrap_or(port);
        for (key, taken) in [("port", port), ("internal_port", internal_port)] {
            if taken == api_port {
                return Err(keys.error(
                    "api_port",
                    format!("{api_port} is `{key}` as well"),
                    "give the API a port of its own",
                ));
            }
        }
        let health_timeout = Duration::from_millis(health_timeout);
        let drain_timeout = Duration::from_millis(drain_timeout);
        let app = App {
            name: "slot".parse().expect("`slot` is a valid app name"),
            command: shell(&start),
            setup_command: setup.as_deref().map(shell),
            setup_timeout: SETUP_TIMEOUT,
            shared_dirs,
            shared_root: Some(repository.to_owned()),
            slots: ["blue", "green"]
                .map(|name| name.parse().expect("both are valid slot names"))
                .to_vec(),
            bind: Bind::Port,
            ports: std::collections::BTreeMap::new(),
            ready: Ready::Health,
            health,
            start_timeout: health_timeout,
            health_timeout,
            drain: Drain {
                all: drain_timeout,
                requests: None,
                streams: None,
                tunnels: None,
            },
            stop_timeout: drain_timeout,
            soak: Duration::ZERO,
            migrate: None,
            after: After {
                failing: Failing::Unseen,
                ..After::default()
            },
            soak_error_rate: None,
            canary: None,
            keep: 0,
            hosts: vec!["*".to_owned()],
            paths: vec!["/".to_owned()],
            listener: Some(LISTENER.to_owned()),
            sticky: None,
            preview: None,
            preview_token: None,
            user: None,
            env_file: env_file.map(|file| repository.join(file).to_string_lossy().into_owned()),
            env: std::collections::BTreeMap::new(),
            limits: AppLimits::default(),
            staging: None,
            hooks: Hooks::default(),
            auto: None,
            notices: Vec::new(),
            internal_listener: (internal_port != port).then(|| INTERNAL.to_owned()),
            remote: None,
            semantics: Semantics::SlotMachine,
        };
        Ok(Self {
            app,
            listen,
            port,
            internal_port,
            api_port,
            unknown: keys.keys.into_iter().map(|(key, _)| key).collect(),
            ignored_dirs,
        })
    }
}

/// Where the API of the daemon with this file is. Whoever only asks needs no more of the file than this.
///
/// # Errors
/// The file is no JSON, or the key no port.
pub fn api_port(text: &str, file: &str) -> Result<u16, ConfigError> {
    Ok(Keys::read(text, file)?
        .port("api_port")?
        .unwrap_or(API_PORT))
}

/// slot-machine's env file as one that the launcher reads: there a line is a name, an `=` and a value that nobody unquotes, and what
/// is none is passed over.
#[must_use]
pub fn env_file(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let pairs = lines.filter_map(|line| line.split_once('='));
    let pairs = pairs.filter(|(name, value)| is_env_name(name) && !value.contains('\0'));
    pairs
        .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', "'\\''")))
        .collect()
}

/// A line for the shell. Its dollars are the shell's, and not for the launcher to replace.
fn shell(line: &str) -> Vec<String> {
    vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        line.replace('$', "$$"),
    ]
}

/// The keys of a file, taken one by one.
struct Keys<'t> {
    source: Source<'t>,
    keys: Map<String, Value>,
}

impl<'t> Keys<'t> {
    fn read(text: &'t str, file: &'t str) -> Result<Self, ConfigError> {
        let text = text.trim_start_matches('\u{feff}');
        let source = Source { file, text };
        let remedy = "write JSON: { \"start_command\": \"node server.js\", \"port\": 3000 }";
        match serde_json::from_str(text) {
            Ok(Value::Object(keys)) => Ok(Self { source, keys }),
            Ok(_) => Err(source.whole("", "it is not an object", remedy)),
            Err(error) => Err(ConfigError {
                line: Some(error.line()),
                column: u32::try_from(error.column()).ok(),
                ..source.whole("", error.to_string(), remedy)
            }),
        }
    }

    fn error(
        &self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        self.source.whole(key, problem, remedy)
    }

    fn missing(&self, key: &str, problem: &str, example: &str) -> ConfigError {
        self.error(
            key,
            problem,
            format!("write `{example}`; `slotctl init --format json` makes a whole file"),
        )
    }

    fn wrong(&self, key: &str, found: &Value, wanted: &str, example: &str) -> ConfigError {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.error(
            key,
            format!("it is {found}, not {wanted}"),
            format!("write `\"{key}\": {example}`"),
        )
    }

    fn text(&mut self, key: &str, example: &str) -> Result<Option<String>, ConfigError> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => {
                Err(self.error(key, "it has a zero byte", "write it without"))
            }
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(key, &other, "a string", example)),
        }
    }

    /// Directories of a release, and what is named as one and is none.
    fn directories(&mut self, key: &str) -> Result<(Vec<String>, Vec<String>), ConfigError> {
        const EXAMPLE: &str = "[\"uploads\"]";
        let values = match self.keys.remove(key) {
            None | Some(Value::Null) => return Ok((Vec::new(), Vec::new())),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(key, &other, "a list of strings", EXAMPLE)),
        };
        let (mut directories, mut others) = (Vec::new(), Vec::new());
        for value in values {
            let Value::String(text) = value else {
                return Err(self.wrong(key, &value, "a string", EXAMPLE));
            };
            match shared_dir(&text) {
                Some(directory) => directories.push(directory.to_owned()),
                None => others.push(text),
            }
        }
        Ok((directories, others))
    }

    fn number(&mut self, key: &str, most: u64, example: &str) -> Result<Option<u64>, ConfigError> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match number.as_u64().filter(|number| *number <= most) {
                Some(number) => Ok(Some(number).filter(|number| *number > 0)),
                None => Err(self.error(
                    key,
                    format!("{number} is not a whole number from 0 to {most}"),
                    format!("write `\"{key}\": {example}`"),
                )),
            },
            Some(other) => Err(self.wrong(key, &other, "a number", example)),
        }
    }

    fn port(&mut self, key: &str) -> Result<Option<u16>, ConfigError> {
        let number = self.number(key, u16::MAX.into(), "3000")?;
        Ok(number.map(|number| u16::try_from(number).expect("at most 65535")))
    }

    fn millis(&mut self, key: &str) -> Result<Option<u64>, ConfigError> {
        // A day; what is meant to be longer is a mistake in the unit.
        self.number(key, 86_400_000, "10000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SlotMachine, ConfigError> {
        SlotMachine::parse(text, FILE, Path::new("/srv/shop"))
    }

    #[test]
    fn every_key_has_its_meaning() {
        let read = parse(
            r#"{"start_command":"node server.js --at $PORT","port":3000,"internal_port":3900,"health_endpoint":"/up",
                "setup_command":"npm ci","shared_dirs":["uploads/","./data"],"health_timeout_ms":1500,"drain_timeout_ms":700,"env_file":".env","api_port":9200,"listen":"0.0.0.0"}"#,
        )
        .unwrap();
        assert_eq!(
            (read.port, read.internal_port, read.api_port),
            (3000, 3900, 9200)
        );
        assert_eq!(read.listen.to_string(), "0.0.0.0");
        let app = read.app;
        assert_eq!(app.command, ["/bin/sh", "-c", "node server.js --at $$PORT"]);
        assert_eq!(app.setup_command.unwrap(), ["/bin/sh", "-c", "npm ci"]);
        assert_eq!(app.shared_dirs, ["uploads", "data"]);
        assert_eq!(app.health, "/up");
        assert_eq!(app.health_timeout, Duration::from_millis(1500));
        assert_eq!(app.stop_timeout, Duration::from_millis(700));
        assert_eq!(app.env_file.as_deref(), Some("/srv/shop/.env"));
        assert_eq!((app.soak, app.keep), (Duration::ZERO, 0));
        assert_eq!(app.semantics, Semantics::SlotMachine);
        assert!(read.unknown.is_empty());
    }

    #[test]
    fn what_is_not_said_is_as_with_slot_machine() {
        for rest in [
            "",
            r#","internal_port":0,"api_port":0,"health_endpoint":"","health_timeout_ms":0,"drain_timeout_ms":null,"env_file":"","listen":"""#,
        ] {
            let read = parse(&format!(r#"{{"start_command":"./s","port":3000{rest}}}"#)).unwrap();
            assert_eq!((read.internal_port, read.api_port), (3000, 9100));
            assert_eq!(read.listen.to_string(), "127.0.0.1");
            assert_eq!(read.app.health, "/healthz");
            assert_eq!(read.app.health_timeout, Duration::from_secs(10));
            assert_eq!(read.app.stop_timeout, Duration::from_secs(5));
            assert_eq!(read.app.env_file, None);
        }
    }

    #[test]
    fn unknown_keys_are_named_and_change_nothing() {
        let plain = parse(r#"{"start_command":"./s","port":3000}"#).unwrap();
        let more = parse(r#"{"start_command":"./s","prot":1,"port":3000,"agent_auth":"none"}"#);
        let more = more.unwrap();
        assert_eq!(more.unknown, ["agent_auth", "prot"]);
        let odd = r#"{"start_command":"./s","port":3000,"shared_dirs":[".","/a","data","../b"]}"#;
        let odd = parse(odd).unwrap();
        assert_eq!(odd.app.shared_dirs, ["data"]);
        assert_eq!(odd.ignored_dirs, [".", "/a", "../b"]);
        assert_eq!(more.app, plain.app);
    }

    #[test]
    fn wrong_types_and_missing_keys_are_refused_with_the_key() {
        for (text, said) in [
            (
                r#"{"port":1}"#,
                "f.json: start_command: the file does not say what to run",
            ),
            (r#"{"start_command":"s"}"#, "f.json: port: "),
            (
                r#"{"start_command":["s"],"port":1}"#,
                "f.json: start_command: it is a list, not a string; write `\"start_command\": ",
            ),
            (
                r#"{"start_command":"s","port":"3000"}"#,
                "f.json: port: it is a string, not a number; write `\"port\": 3000`",
            ),
            (
                r#"{"start_command":"s","port":70000}"#,
                "f.json: port: 70000 is not a whole",
            ),
            (
                r#"{"start_command":"s","port":-1}"#,
                "f.json: port: -1 is not a whole",
            ),
            (
                r#"{"start_command":"s","port":1,"drain_timeout_ms":1.5}"#,
                "f.json: drain_timeout_ms: 1.5 is not a whole number",
            ),
            (
                r#"{"start_command":"s","port":1,"shared_dirs":"a"}"#,
                "f.json: shared_dirs: it is a string, not a list of strings",
            ),
            (
                r#"{"start_command":"s","port":1,"shared_dirs":[1]}"#,
                "f.json: shared_dirs: it is a number, not a string",
            ),
            (
                r#"{"start_command":"s","port":1,"health_endpoint":"healthz"}"#,
                "f.json: health_endpoint: \"healthz\" is not a path",
            ),
            (
                r#"{"start_command":"s","port":9100}"#,
                "f.json: api_port: 9100 is `port` as well",
            ),
            (
                r#"{"start_command":"s","port":1,"listen":"lo"}"#,
                "f.json: listen: \"lo\" is",
            ),
            ("[]", "f.json: it is not an object"),
            ("{\n\"port\" 1}", "f.json:2: "),
        ] {
            let error = SlotMachine::parse(text, "f.json", Path::new("/")).unwrap_err();
            assert!(error.to_string().starts_with(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_env_file_is_read_as_slot_machine_reads_it() {
        let text = "# A=0\nA=1\n  B = spaced\nB=it's \"so\" $HOME \\n\n\nnothing\nexport C=1\nD=\n";
        let made = env_file(text);
        assert_eq!(made, "A='1'\nB='it'\\''s \"so\" $HOME \\n'\nD=''\n");
    }

    #[test]
    fn json_is_told_from_toml_by_its_first_character() {
        assert!(SlotMachine::is_meant(" \n{\"port\":1}"));
        assert!(!SlotMachine::is_meant("name = \"web\""));
        assert!(!SlotMachine::is_meant("# {"));
    }

    #[test]
    fn who_only_asks_needs_the_port_of_the_api_alone() {
        assert_eq!(api_port(r#"{"api_port":9200}"#, FILE).unwrap(), 9200);
        assert_eq!(api_port("{}", FILE).unwrap(), 9100);
        assert!(api_port(r#"{"api_port":"x"}"#, FILE).is_err());
    }
}
