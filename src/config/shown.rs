//! Every setting of a file with its value and where it comes from, by the file's schema.
//!
//! The schemas (JSON Schema, draft 7) are what editors are given, in `/usr/share/slot`. They are written by hand, since the parser is: it
//! says on which line what stands and what to write instead, and no type has its rules. A test holds them to it, key by key, default by
//! default. Three of their words are slot's own: `x-absent` says what is meant without a key that has no default, `x-machine` that it is
//! then the machine's key of the same name, `x-secret` that a value is not to be shown.
//!
//! **Invariant:** a secret is in nothing that is returned.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Source, place};

/// The schema of an app's file.
pub const APP_SCHEMA: &str = include_str!("../../units/usr/share/slot/app.schema.json");
/// The schema of the machine's file.
pub const MACHINE_SCHEMA: &str = include_str!("../../units/usr/share/slot/machine.schema.json");

/// What a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// This.
    Value(Value),
    /// Something that is nobody's business.
    Secret,
    /// Nothing; what that means.
    Absent(String),
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Spelled in full: `git.remote`, `notices[0].url`.
    pub key: String,
    /// Its value.
    pub shown: Shown,
    /// The file and the line that it is from; the default, if there is none.
    pub from: Option<(String, usize)>,
}

/// The settings of an app, on a machine that says something for all apps.
#[must_use]
pub fn app_settings(app: Source<'_>, machine: Source<'_>) -> Vec<Setting> {
    settings(APP_SCHEMA, app, &machine_settings(machine))
}

/// The settings of a machine.
#[must_use]
pub fn machine_settings(machine: Source<'_>) -> Vec<Setting> {
    settings(MACHINE_SCHEMA, machine, &[])
}

fn settings(schema: &str, said: Source<'_>, machine: &[Setting]) -> Vec<Setting> {
    let schema: Value = serde_json::from_str(schema).expect("a test has parsed it");
    let parsed = DeTable::parse(said.text).ok();
    let mut walk = Walk {
        said,
        machine,
        found: Vec::new(),
    };
    walk.table(&schema, parsed.as_ref().map(toml::Spanned::get_ref), "");
    walk.found
}

struct Walk<'t> {
    said: Source<'t>,
    machine: &'t [Setting],
    found: Vec<Setting>,
}

impl Walk<'_> {
    fn table(&mut self, schema: &Value, table: Option<&DeTable<'_>>, prefix: &str) {
        let Some(keys) = schema["properties"].as_object() else {
            return;
        };
        for (key, about) in keys {
            let path = format!("{prefix}{key}");
            let found = table.and_then(|table| table.get_key_value(key.as_str()));
            let has = |word: &str| about.get(word).is_some_and(|it| !it.is_boolean());
            match found.map(|(_, value)| value.get_ref()) {
                Some(DeValue::Table(inner)) if has("properties") => {
                    self.table(about, Some(inner), &format!("{path}."));
                }
                None if has("properties") && !has("x-absent") => {
                    self.table(about, None, &format!("{path}."));
                }
                // The keys are the user's own words.
                Some(DeValue::Table(inner)) if has("additionalProperties") => {
                    for (name, value) in inner {
                        let path = format!("{path}.{}", name.get_ref());
                        let at = (name.span().start, value.get_ref());
                        self.leaf(path, &about["additionalProperties"], Some(at));
                    }
                }
                Some(DeValue::Array(items)) if about["items"].get("properties").is_some() => {
                    for (number, item) in items.iter().enumerate() {
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.table(&about["items"], Some(inner), &format!("{path}[{number}]."));
                        }
                    }
                }
                _ => {
                    let at = found.map(|(own, value)| (own.span().start, value.get_ref()));
                    self.leaf(path, about, at);
                }
            }
        }
    }

    fn leaf(&mut self, key: String, about: &Value, found: Option<(usize, &DeValue<'_>)>) {
        let is = |word: &str| about[word] == true;
        let setting = match found {
            Some((at, value)) => Setting {
                key,
                shown: match is("x-secret") {
                    true => Shown::Secret,
                    false => Shown::Value(json(value)),
                },
                from: Some((self.said.file.to_owned(), place(self.said.text, at).0)),
            },
            None => {
                let machines = self
                    .machine
                    .iter()
                    .find(|it| is("x-machine") && it.key == key);
                let default = || match (about.get("default"), about["x-absent"].as_str()) {
                    (Some(value), _) => Shown::Value(value.clone()),
                    (None, words) => Shown::Absent(words.unwrap_or("none").to_owned()),
                };
                machines.cloned().unwrap_or_else(|| Setting {
                    shown: default(),
                    from: None,
                    key,
                })
            }
        };
        self.found.push(setting);
    }
}

/// TOML as JSON. What no key has, a date, is its text.
fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(digits) => {
            i64::from_str_radix(digits.as_str(), digits.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(digits) => digits
            .as_str()
            .parse::<f64>()
            .map_or(Value::Null, Value::from),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table.iter();
            let entries =
                entries.map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(entries.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Source<'static> = Source {
        file: "machine.toml",
        text: "[limits]\nbody_bytes = \"1M\"\n",
    };

    fn of(text: &str, key: &str) -> (Shown, Option<usize>) {
        let app = Source {
            file: "slot.toml",
            text,
        };
        let all = app_settings(app, MACHINE);
        let found = all.iter().filter(|setting| setting.key == key);
        let [one] = found.collect::<Vec<_>>()[..] else {
            panic!("{key} is not there once: {all:#?}");
        };
        (one.shown.clone(), one.from.as_ref().map(|(_, line)| *line))
    }

    #[test]
    fn a_setting_is_from_the_file_the_machine_or_the_default() {
        let text = "command = \"./server\"\n\nsoak = \"5s\"\n[limits]\nbody_stall = \"9s\"\n";
        let value = |value: Value| Shown::Value(value);
        for (key, expected) in [
            ("soak", (value("5s".into()), Some(3))),
            ("drain", (value("120s".into()), None)),
            ("drain_streams", (Shown::Absent("as drain".into()), None)),
            ("limits.body_stall", (value("9s".into()), Some(5))),
            ("limits.body_bytes", (value("1M".into()), Some(2))),
            ("limits.response_timeout", (value("60s".into()), None)),
            ("hooks.timeout", (value("1m".into()), None)),
            ("git", (Shown::Absent("none".into()), None)),
        ] {
            assert_eq!(of(text, key), expected, "{key}");
        }
    }

    #[test]
    fn tables_are_shown_key_by_key_and_no_secret_is_there() {
        let text = "command = \"./server\"\npreview_token_sha256 = \"hunter2\"\nenv_file = \"/etc/slot/web.env\"\n[env]\nTOKEN = \"hunter2\"\n\
                    [ports]\nblue = 20001\n[[notices]]\nurl = \"https://h/hunter2\"\nsecret_file = \"/etc/slot/keys/notices\"\n";
        let value = |value: Value| Shown::Value(value);
        for (key, expected) in [
            ("preview_token_sha256", (Shown::Secret, Some(2))),
            ("env.TOKEN", (Shown::Secret, Some(5))),
            ("notices[0].url", (Shown::Secret, Some(9))),
            ("env_file", (value("/etc/slot/web.env".into()), Some(3))),
            (
                "notices[0].secret_file",
                (value("/etc/slot/keys/notices".into()), Some(10)),
            ),
            ("ports.blue", (value(20001.into()), Some(7))),
        ] {
            assert_eq!(of(text, key), expected, "{key}");
        }
        let app = Source { file: "f", text };
        assert!(!format!("{:?}", app_settings(app, MACHINE)).contains("hunter2"));
    }
}
