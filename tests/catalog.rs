//! What slot says in the journal is explained: each message id of the code is in the catalog, and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use slot::cli::args::Cli;
use slot::telemetry::message::TOPICS;

const CATALOG: &str = include_str!("../units/usr/lib/systemd/catalog/slot.catalog");

/// What every line about an attempt has (src/telemetry.rs); `SLOT_NAME` and `SLOT_CAUSE` where the topic has them.
const ALWAYS: [&str; 3] = ["MESSAGE", "SLOT_APP", "SLOT_GENERATION"];

/// Topics whose lines are about no attempt, and so have no generation.
const OF_AN_APP: [&str; 11] = [
    "state-corrupt",
    "state-missing",
    "held-up",
    "held-up/state",
    "held-up/table",
    "app-broken",
    "app-mended",
    "units-apart",
    "held",
    "unheld",
    "notices-secret",
];

/// Topics whose lines are about the machine.
const OF_THE_MACHINE: [&str; 4] = [
    "router-upgraded",
    "router-not-upgraded",
    "routers-mended",
    "router-settings",
];

/// What each line about a request has that may change something (src/api/audit.rs).
const OF_A_REQUEST: [&str; 5] = [
    "MESSAGE",
    "SLOT_AUDIT",
    "SLOT_METHOD",
    "SLOT_ROUTE",
    "SLOT_WHO",
];

/// Topics of attempts that may have no slot yet.
const WITHOUT_A_SLOT: [&str; 15] = [
    "began",
    "ended",
    "ended/unprepared",
    "ended/marked",
    "ended/already-live",
    "ended/left",
    "ended/build-failed",
    "ended/build-timeout",
    "ended/hook-failed",
    "ended/hook-timeout",
    "ended/interrupted",
    "ended/preempted",
    "ended/aborted",
    "ended/no-idle-slot",
    "holds",
];

/// One entry: its headers, and what it says.
struct Entry {
    headers: BTreeMap<&'static str, &'static str>,
    text: &'static str,
}

fn entries() -> BTreeMap<&'static str, Entry> {
    let (comment, rest) = CATALOG.split_once("\n-- ").expect("it has entries");
    assert!(
        comment
            .lines()
            .all(|line| line.starts_with('#') || line.is_empty())
    );
    let entry = |text: &'static str| {
        let (id, rest) = text.split_once('\n').expect("an id has a line of its own");
        let (headers, text) = rest
            .split_once("\n\n")
            .expect("headers end with an empty line");
        let headers = headers
            .lines()
            .map(|line| line.split_once(": ").expect("a header has a value"));
        (
            id,
            Entry {
                headers: headers.collect(),
                text,
            },
        )
    };
    rest.split("\n-- ").map(entry).collect()
}

fn topic(id: &str) -> &'static str {
    let known = TOPICS.iter().find(|(_, known)| *known == id);
    known
        .map(|(topic, _)| *topic)
        .unwrap_or_else(|| panic!("{id} is in the catalog and not in the code"))
}

/// The fields that a text speaks of, as systemd finds them: upper case and underscores between two at signs.
fn fields(text: &str) -> BTreeSet<&str> {
    let parts: Vec<&str> = text.split('@').collect();
    let is_field = |part: &&str| {
        !part.is_empty() && part.bytes().all(|it| it.is_ascii_uppercase() || it == b'_')
    };
    let inner = parts.iter().skip(1).take(parts.len().saturating_sub(2));
    inner.copied().filter(is_field).collect()
}

#[test]
fn every_id_of_the_code_is_explained_and_nothing_else_is() {
    let explained: BTreeSet<&str> = entries().into_keys().collect();
    let known: BTreeSet<&str> = TOPICS.iter().map(|(_, id)| *id).collect();
    assert_eq!(explained, known);
    assert_eq!(
        CATALOG.matches("\n-- ").count(),
        TOPICS.len(),
        "no id is explained twice"
    );
}

#[test]
fn every_topic_is_one_that_the_code_names() {
    let (mut code, mut folders) = (String::new(), vec![PathBuf::from("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("telemetry/message.rs") {
                code.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    for (topic, _) in TOPICS {
        // Of `ended/start-failed` the parts are an event and a cause, each spelled out where it is made.
        let spelled = topic.split('/').all(|part| {
            ["judged", "failed", "killed", "lost"].contains(&part)
                || code.contains(&format!("\"{part}\""))
        });
        assert!(spelled, "{topic} is named nowhere");
    }
    let named = code
        .split("message::id(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    for name in named {
        assert!(
            TOPICS.iter().any(|(topic, _)| *topic == name),
            "{name} has no id"
        );
    }
}

#[test]
fn every_cause_of_an_attempts_end_or_a_soaks_is_explained_by_itself() {
    let source = include_str!("../src/deploy/state.rs");
    let (_, code) = source
        .split_once("pub fn code(&self)")
        .expect("causes have codes");
    let (code, _) = code.split_once("\n    }\n").expect("the function ends");
    let codes = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.is_empty());
    let mut known = 0;
    for code in codes.filter(|code| *code != "reboot") {
        let topics = ["ended", "soak"].map(|event| format!("{event}/{code}"));
        let explained = TOPICS
            .iter()
            .any(|(topic, _)| topics.iter().any(|it| it == topic));
        assert!(explained, "{code} has no id of its own");
        known += 1;
    }
    assert!(known > 20, "{known}");
}

#[test]
fn an_entry_has_a_subject_a_page_and_a_text_made_of_fields_that_its_lines_have() {
    for (id, entry) in entries() {
        let topic = topic(id);
        assert!(entry.headers.contains_key("Subject"), "{topic}");
        assert_eq!(entry.headers.get("Defined-By"), Some(&"slot"), "{topic}");
        assert!(!entry.text.trim().is_empty(), "{topic}");
        let mut has: BTreeSet<&str> = match topic {
            topic if OF_THE_MACHINE.contains(&topic) => BTreeSet::from(["MESSAGE"]),
            topic if OF_AN_APP.contains(&topic) => BTreeSet::from(["MESSAGE", "SLOT_APP"]),
            "audit" => BTreeSet::from(OF_A_REQUEST),
            _ => BTreeSet::from(ALWAYS),
        };
        if has.contains("SLOT_GENERATION") && !WITHOUT_A_SLOT.contains(&topic) {
            has.insert("SLOT_NAME");
        }
        let caused = topic.starts_with("ended") || topic.starts_with("soak") || topic.contains('/');
        if has.contains("SLOT_GENERATION")
            && (caused || ["rolled-back", "failing"].contains(&topic))
        {
            has.insert("SLOT_CAUSE");
        }
        let said = fields(entry.headers["Subject"])
            .into_iter()
            .chain(fields(entry.text));
        for field in said {
            assert!(
                has.contains(field),
                "{topic}: a line of it may have no {field}"
            );
        }
    }
}

#[test]
fn the_pages_and_commands_that_it_names_are_there() {
    let mut command = Cli::command();
    command.build();
    for (id, entry) in entries() {
        let topic = topic(id);
        let page = entry.headers["Documentation"]
            .strip_prefix("man:")
            .expect("a manual page");
        let (name, section) = page
            .trim_end_matches(')')
            .split_once('(')
            .expect("with its section");
        let written = Path::new("man").join(format!("{name}.{section}")).exists();
        let generated = name.strip_prefix("slotctl").is_some_and(|words| {
            let mut words = words.split('-').filter(|word| !word.is_empty());
            words
                .try_fold(&command, |command, word| command.find_subcommand(word))
                .is_some()
        });
        assert!(written || generated, "{topic}: {page}");
        let commands = entry.text.split('`').skip(1).step_by(2);
        for line in commands.filter(|line| line.starts_with("slotctl ")) {
            let line = line.replace('\n', " ").replace("--app @SLOT_APP@ ", "");
            let word = line.split(' ').nth(1).expect("a command");
            assert!(command.find_subcommand(word).is_some(), "{topic}: {line}");
        }
    }
}
