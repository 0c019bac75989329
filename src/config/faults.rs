//! Every fault of a file, where its parser stops at the first.
//!
//! What is faulty is taken out of the table, and the rest is read again, until nothing is left to say. The places of what stays are
//! those of the text.
//!
//! **Invariant:** no fault is reported that is only the consequence of another one.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source, place};
use super::section::Section;
use super::{App, Machine};

/// Keys that are right or wrong by another one: as long as that is wrong, nothing can be said of them.
const DEPENDENT: [(&str, &[&str]); 6] = [
    ("slots", &["ports"]),
    ("bind", &["ports"]),
    ("allow_privileged_user", &["user", "auto", "staging"]),
    ("git", &["auto"]),
    ("auto.user", &["auto.path"]),
    ("router.trusted_peers", &["router.proxy_protocol"]),
];

impl App {
    /// Every fault of an app's file; none, if [`App::parse`] takes it.
    #[must_use]
    pub fn faults(text: &str, file: &str) -> Vec<ConfigError> {
        faults(Source { file, text }, |keys| Self::read(keys).map(drop))
    }
}

impl Machine {
    /// Every fault of a machine's file; none, if [`Machine::parse`] takes it.
    #[must_use]
    pub fn faults(text: &str, file: &str, listeners: Option<&[&str]>) -> Vec<ConfigError> {
        faults(Source { file, text }, |keys| {
            Self::of(keys, listeners).map(drop)
        })
    }
}

/// The line and the character of a key (`ports.blue`), or of the table that it would be in, if the text has it.
#[must_use]
pub fn locate(text: &str, key: &str) -> Option<(usize, u32)> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.get_ref();
    let mut found = None;
    for part in key.split('.') {
        let Some((own, value)) = table.get_key_value(part) else {
            break;
        };
        found = Some(own.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found.map(|byte| place(text, byte))
}

fn faults<'t>(
    source: Source<'t>,
    read: impl Fn(Section<'t>) -> Result<(), ConfigError>,
) -> Vec<ConfigError> {
    let (table, wrong) = DeTable::parse_recoverable(source.text);
    if !wrong.is_empty() {
        return not_toml(source, &wrong);
    }
    let mut table = table.into_inner();
    let (mut found, mut removed) = (Vec::new(), Vec::<String>::new());
    let mut misspelt = false;
    while let Err(error) = read(Section::of_table(source, table.clone())) {
        let Some(at) = error.line.zip(error.column) else {
            // A key is missing. It is often there under a wrong name, and then that was said.
            let stands_in = stand_in(&mut table, &error.key);
            if !misspelt && !removed.iter().any(|key| **key == *error.key) {
                found.push(error);
            }
            match stands_in {
                true => continue,
                false => break,
            }
        };
        misspelt |= error.key.is_empty();
        let taken = take_out(&mut table, source.text, at, "");
        let within = |path: &str, gone: &str| {
            let rest = gone.strip_prefix(path);
            rest.is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let is_consequence = taken
            .as_ref()
            .is_some_and(|path| removed.iter().any(|gone| within(path, gone)));
        if !is_consequence {
            found.push(error);
        }
        let Some(path) = taken else { break };
        for (_, others) in DEPENDENT
            .iter()
            .filter(|(key, _)| path == *key || within(key, &path))
        {
            for other in *others {
                remove(&mut table, other);
                removed.push((*other).to_owned());
            }
        }
        removed.push(path);
    }
    found.sort_by_key(|fault| (fault.line.unwrap_or(usize::MAX), fault.column));
    found
}

/// What makes the text no TOML: of each line the first, since what follows is often of the same making.
fn not_toml(source: Source<'_>, wrong: &[toml::de::Error]) -> Vec<ConfigError> {
    let errors = wrong
        .iter()
        .map(|error| super::section::no_toml(source, error));
    let mut found: Vec<ConfigError> = errors.collect();
    found.sort_by_key(|fault| (fault.line, fault.column));
    found.dedup_by_key(|fault| fault.line);
    found
}

/// Puts something right where a key is missing, so that the rest can be read; false if nothing is known for it.
fn stand_in(table: &mut DeTable<'_>, key: &str) -> bool {
    let absent = key == "command" && !table.contains_key(key);
    if absent {
        table.insert(
            Spanned::new(0..0, key.to_owned().into()),
            Spanned::new(0..0, DeValue::String("./server".into())),
        );
    }
    absent
}

/// Takes the entry, or the item of an array, at a place out of a table; its path, if there is one: `git.remote`, `hosts[3:10]`.
fn take_out(table: &mut DeTable<'_>, text: &str, at: (usize, u32), prefix: &str) -> Option<String> {
    let is_there = |span: std::ops::Range<usize>| place(text, span.start) == at;
    let mut own = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        let path = format!("{prefix}{name}");
        let (key, span) = (key.span(), value.span());
        // The innermost one: a table begins where its first key may begin.
        if let Some(inner) = within(value.get_mut(), text, at, &path) {
            return Some(inner);
        }
        if is_there(key) || is_there(span) {
            own = Some((name, path));
        }
    }
    let (name, path) = own?;
    table.remove(name.as_str());
    Some(path)
}

fn within(value: &mut DeValue<'_>, text: &str, at: (usize, u32), path: &str) -> Option<String> {
    match value {
        DeValue::Table(inner) => take_out(inner, text, at, &format!("{path}.")),
        DeValue::Array(items) => {
            let numbered = items.iter_mut().enumerate();
            let mut own = None;
            for (number, item) in numbered {
                let (line, column) = place(text, item.span().start);
                let path = format!("{path}[{line}:{column}]");
                if let Some(inner) = within(item.get_mut(), text, at, &path) {
                    return Some(inner);
                }
                if (line, column) == at {
                    own = Some((number, path));
                }
            }
            let (number, path) = own?;
            let others = items.iter().enumerate();
            let others = others.filter(|(other, _)| *other != number);
            *items = others.map(|(_, item)| item.clone()).collect();
            Some(path)
        }
        _ => None,
    }
}

/// Takes a key out: `auto.path`.
fn remove(table: &mut DeTable<'_>, key: &str) {
    let Some((outer, inner)) = key.split_once('.') else {
        table.remove(key);
        return;
    };
    if let Some(DeValue::Table(table)) = table.get_mut(outer).map(Spanned::get_mut) {
        remove(table, inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let faults = App::faults(text, "slot.toml");
        let place = |fault: &ConfigError| match (fault.line, fault.column) {
            (Some(line), Some(column)) => format!("{line}:{column} {}", fault.key),
            _ => fault.key.to_string(),
        };
        faults.iter().map(place).collect()
    }

    #[test]
    fn every_fault_is_told_with_its_line_and_column_in_their_order() {
        let text = "command = \"./server\"\nsoak = 5\nkeep = \"ä\"\ncolour = 1\n\n[git]\nremote = \"h:x\"\nbranch = \"-x\"\n\n[limits]\n  \
                    body_bytes = \"1X\"\n[canary]\nsteps = [\"5% 1m\", \"x\", \"200%\"]\n";
        assert_eq!(
            told(text),
            [
                "2:8 soak",
                "3:8 keep",
                "4:1 ",
                "8:10 git.branch",
                "11:16 limits.body_bytes",
                "13:19 canary.steps",
                "13:24 canary.steps",
            ]
        );
        // Characters are counted, and not bytes.
        assert_eq!(
            told("env = { \"Ä\" = 1, \"ö ö\" = 1 }\ncommand = \"x\"\n"),
            ["1:9 env.Ä", "1:18 env.ö ö"]
        );
    }

    #[test]
    fn what_only_follows_from_another_fault_is_not_told() {
        for (text, expected) in [
            // The misspelt key is the one that is missing.
            ("comand = \"./server\"\n", &["1:1 "][..]),
            ("keep = \"x\"\n", &["1:8 keep", "command"]),
            // A faulty remote is none to look at, and the table without it says nothing of where to fetch from.
            (
                "command = \"x\"\n[git]\nremote = 1\n[auto]\nwatch = \"git\"\n",
                &["3:10 git.remote"],
            ),
            ("command = \"x\"\n[git]\nremot = \"h:x\"\n", &["3:1 "]),
            (
                "command = \"x\"\nslots = [\"blue\", \"Red\"]\n[ports]\nRed = 20001\n",
                &["2:18 slots"],
            ),
            (
                "command = \"x\"\nbind = \"prot\"\n[ports]\nblue = 20001\n",
                &["2:8 bind"],
            ),
            (
                "command = \"x\"\nuser = \"root\"\nallow_privileged_user = \"yes\"\n",
                &["3:25 allow_privileged_user"],
            ),
            (
                "command = \"x\"\n[[notices]]\nurl = 1\n[[notices]]\nevents = []\n",
                &["3:7 notices.url", "5:10 notices.events"],
            ),
            (
                "command = \"x\"\n[ports]\nblue = { port = 1 }\n",
                &["3:17 ports.blue.port"],
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn a_right_file_has_no_fault_and_one_that_is_no_toml_has_those_alone() {
        assert_eq!(told("command = \"./server\"\n"), [""; 0]);
        assert_eq!(
            told("command = \"./server\nsoak = 5\nkeep =\n"),
            ["1:20 ", "3:7 "]
        );
    }

    #[test]
    fn what_is_found_first_is_what_the_parser_says() {
        for text in [
            "",
            "x",
            "soak = 1\ncommand = 2\n",
            "[git]\n",
            "command = \"x\"\nslots = []\n",
        ] {
            let first = App::parse(text, "slot.toml").unwrap_err();
            assert!(App::faults(text, "slot.toml").contains(&first), "{text}");
        }
    }

    #[test]
    fn a_key_is_found_or_the_table_that_it_would_be_in() {
        let text = "command = \"x\"\n[ports]\nblue = 20001\n";
        assert_eq!(locate(text, "ports.blue"), Some((3, 1)));
        assert_eq!(locate(text, "ports.green"), Some((2, 2)));
        assert_eq!(locate(text, "soak"), None);
    }
}
