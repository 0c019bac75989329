//! The layers of `src/lib.rs`, enforced: modules import strictly downward, those of one layer do not import each other, decisions
//! know nothing of the outside, binaries only wire, and files stay short enough to be read at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every unit of the crate with its layer, as in the documentation of `src/lib.rs`. `router::h1` and `router::table` are decisions;
/// the rest of `router` is an adapter.
const LAYERS: &[(&str, u8)] = &[
    ("deploy", 0),
    ("router::h1", 0),
    ("router::table", 0),
    ("wire", 1),
    ("config", 1),
    ("telemetry", 1),
    ("systemd", 2),
    ("children", 2),
    ("store", 2),
    ("release", 2),
    ("git", 2),
    ("staging", 2),
    ("probe", 2),
    ("traffic", 2),
    ("launch", 2),
    ("preflight", 2),
    ("units", 2),
    ("load", 2),
    ("doctor", 2),
    ("router", 2),
    ("daemon", 3),
    ("api", 4),
    ("cli", 4),
];

/// Imports that the rule does not allow and that are meant, each with its reason.
const MEANT: &[(&str, &str, &str)] = &[
    (
        "router::table",
        "router::h1",
        "hosts and paths are compared in the one form that h1 makes of them; h1 knows nothing of tables",
    ),
    (
        "staging",
        "git",
        "a work tree is git's: it is asked by the same command line, in the same environment",
    ),
    (
        "cli",
        "api",
        "`slotctl start` and `demo` serve the API from their own process",
    ),
];

/// What a decision may not name: a runtime, the outside, a clock, an encoding, a log, chance.
const NOT_IN_DECISIONS: &[&str] = &[
    "async",
    "await",
    "tokio",
    "futures_util",
    "serde",
    "serde_json",
    "tracing",
    "rand",
    "SystemTime",
    "Instant",
    "UNIX_EPOCH",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "println",
    "eprintln",
];

/// No file of the product is longer. Most are a quarter of it.
const LONGEST_FILE: usize = 600;

/// No binary has more lines of code, comments aside: its `main` reads arguments and wires.
const LONGEST_MAIN: usize = 80;

#[test]
fn modules_import_strictly_downward() {
    let mut wrong = BTreeSet::new();
    let mut used = BTreeSet::new();
    for source in sources("src") {
        let Some(from) = source.unit() else { continue };
        for path in source.crate_paths() {
            let Some(to) = unit_of(&path) else {
                wrong.insert(format!(
                    "{}: `crate::{path}` is of no layer; add its module to the layers",
                    source.file.display()
                ));
                continue;
            };
            if from == to || layer(from) > layer(to) {
                continue;
            }
            if let Some(meant) = MEANT
                .iter()
                .find(|(by, what, _)| (*by, *what) == (from, to))
            {
                used.insert(*meant);
            } else {
                wrong.insert(format!(
                    "{}: {from} (L{}) imports {to} (L{}): crate::{path}",
                    source.file.display(),
                    layer(from),
                    layer(to)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", lines(&wrong));
    assert_eq!(used.len(), MEANT.len(), "an exception that nothing needs");
}

#[test]
fn every_module_has_a_layer() {
    let declared = Source::read(Path::new("src/lib.rs"));
    let modules: BTreeSet<String> = declared
        .words
        .windows(2)
        .filter(|pair| pair[0] == "mod")
        .map(|pair| pair[1].clone())
        .collect();
    let layered: BTreeSet<String> = LAYERS
        .iter()
        .filter(|(name, _)| !name.contains("::"))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(modules, layered);
}

#[test]
fn decisions_know_nothing_of_the_outside() {
    let mut wrong = BTreeSet::new();
    for source in sources("src") {
        if source.unit().is_none_or(|unit| layer(unit) != 0) {
            continue;
        }
        let text = source.words.join(" ").replace(" :: ", "::");
        let named: BTreeSet<&str> = text.split(' ').collect();
        for banned in NOT_IN_DECISIONS {
            let found = named
                .iter()
                .any(|word| format!("::{word}::").contains(&format!("::{banned}::")));
            if found {
                wrong.insert(format!("{}: {banned}", source.file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn binaries_wire_and_hold_no_modules() {
    let mut wrong = BTreeSet::new();
    let mains = sources("src/bin");
    assert_eq!(
        mains.len(),
        4,
        "slotctl, slotd, slot-router, slot-generator"
    );
    for source in mains {
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let code = source.text.lines().filter(is_code).count();
        if code >= LONGEST_MAIN {
            wrong.insert(format!("{}: {code} lines of code", source.file.display()));
        }
        if source.words.iter().any(|word| word == "mod") {
            wrong.insert(format!("{}: holds a module", source.file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn no_file_is_too_long_and_each_says_what_it_is() {
    let mut wrong = BTreeSet::new();
    for source in sources("src") {
        if source.lines > LONGEST_FILE {
            wrong.insert(format!(
                "{}: {} lines, where {LONGEST_FILE} is the most",
                source.file.display(),
                source.lines
            ));
        }
        if !source.text.starts_with("//!") {
            wrong.insert(format!(
                "{}: does not begin with //!",
                source.file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", lines(&wrong));
}

#[test]
fn imports_are_found_in_every_form() {
    let source = Source {
        file: PathBuf::from("src/router/h1/scan.rs"),
        text: String::new(),
        lines: 0,
        words: words(
            "use crate::{a, b::{c as d, self}, e::*}; // crate::comment\n\
             use super::table::T; pub(crate) fn f(x: &'static str, c: char) -> crate::g::H { \
             let _ = (\"crate::text\", 'c', '\\'', r#\"crate::\"raw\"#); self::near() }\n\
             mod tests { use super::super::far; } use super::after;",
        ),
    };
    let expected = [
        "a",
        "b::c",
        "b",
        "e",
        "router::h1::table::T",
        "g::H",
        "router::h1::scan::near",
        "router::h1::far",
        "router::h1::after",
    ];
    assert_eq!(source.crate_paths(), expected);
}

fn layer(unit: &str) -> u8 {
    LAYERS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, layer)| *layer)
        .expect("only units of the table are asked for")
}

/// The unit that a path below `crate::` is of: the longest that begins it.
fn unit_of(path: &str) -> Option<&'static str> {
    LAYERS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| path == *name || path.starts_with(&format!("{name}::")))
        .max_by_key(|name| name.len())
}

fn lines(wrong: &BTreeSet<String>) -> String {
    wrong.iter().map(|line| format!("\n  {line}")).collect()
}

fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("src is there") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(Source::read(&path));
            }
        }
    }
    assert!(!found.is_empty(), "{directory} has sources");
    found
}

/// A file, as words: comments and what is between quotes are gone, `::` and single characters of punctuation are words.
struct Source {
    file: PathBuf,
    text: String,
    lines: usize,
    words: Vec<String>,
}

impl Source {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a source is text");
        Self {
            file: file.to_owned(),
            lines: text.lines().count(),
            words: words(&text),
            text,
        }
    }

    /// The module that the file is, below `crate`; a file `x_tests.rs` holds the tests of `x`.
    fn module(&self) -> Vec<String> {
        let inside = self.file.strip_prefix("src").expect("a file of src");
        let mut module: Vec<String> = inside
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if let Some(last) = module.last_mut()
            && let Some(tested) = last.strip_suffix("_tests").map(str::to_owned)
        {
            *last = tested;
            module.push("tests".to_owned());
        }
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        module
    }

    fn unit(&self) -> Option<&'static str> {
        unit_of(&self.module().join("::"))
    }

    /// Every path that is named from `crate` on, in imports (groups taken apart) and in expressions; `super` and `self` are resolved.
    fn crate_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        let mut module = self.module();
        // Modules that are written out in this file, with the depth of braces at which each ends.
        let mut inline: Vec<usize> = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while at < self.words.len() {
            match self.words[at].as_str() {
                "mod" if self.words.get(at + 2).is_some_and(|word| word == "{") => {
                    module.push(self.words[at + 1].clone());
                    inline.push(depth);
                    at += 1;
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        module.pop();
                    }
                }
                // `pub(crate)` and `pub(super)` are no paths.
                start @ ("crate" | "super" | "self")
                    if self.words.get(at + 1).is_some_and(|word| word == "::") =>
                {
                    let mut base = if start == "crate" {
                        Vec::new()
                    } else {
                        module.clone()
                    };
                    if start == "super" {
                        base.pop();
                    }
                    at += 2;
                    while self.words[at] == "super" {
                        base.pop();
                        at += 2;
                    }
                    at = tree(&self.words, at, &base, &mut paths);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        paths
    }
}

/// Takes a use tree apart (the Rust Reference, use declarations): collects its leaves, returns where it ends.
fn tree(words: &[String], mut at: usize, base: &[String], paths: &mut Vec<String>) -> usize {
    let mut path = base.to_vec();
    loop {
        match words[at].as_str() {
            "{" => {
                at += 1;
                while words[at] != "}" {
                    at = tree(words, at, &path, paths);
                    if words[at] == "as" {
                        at += 2;
                    }
                    if words[at] == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "self" | "*" => at += 1,
            word => {
                path.push(word.to_owned());
                at += 1;
            }
        }
        if words[at] == "::" && words[at + 1] != "<" {
            at += 1;
        } else {
            paths.push(path.join("::"));
            return at;
        }
    }
}

fn words(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut words = Vec::new();
    let mut at = 0;
    let starts = |at: usize, with: &str| {
        with.chars()
            .enumerate()
            .all(|(offset, character)| characters.get(at + offset) == Some(&character))
    };
    while at < characters.len() {
        let character = characters[at];
        if starts(at, "//") {
            while at < characters.len() && characters[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "::") {
            words.push("::".to_owned());
            at += 2;
        } else if let Some(end) = raw_string(&characters, at) {
            at = end;
        } else if character == '"' {
            at += 1;
            while at < characters.len() && characters[at] != '"' {
                at += if characters[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if character == '\'' {
            // A character literal, or a lifetime.
            at += match (characters.get(at + 1), characters.get(at + 2)) {
                (Some('\\'), _) => {
                    let rest = characters[at + 3..].iter().position(|c| *c == '\'');
                    4 + rest.expect("a character literal ends")
                }
                (Some(_), Some('\'')) => 3,
                _ => 1,
            };
        } else if character.is_alphanumeric() || character == '_' {
            let start = at;
            while at < characters.len()
                && (characters[at].is_alphanumeric() || characters[at] == '_')
            {
                at += 1;
            }
            words.push(characters[start..at].iter().collect());
        } else {
            if !character.is_whitespace() {
                words.push(character.to_string());
            }
            at += 1;
        }
    }
    words
}

/// Where a raw string that begins here ends: `r"…"`, `r#"…"#`, `br"…"`.
fn raw_string(characters: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| characters[before]);
    if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
        return None;
    }
    let mut next = at;
    if characters[next] == 'b' {
        next += 1;
    }
    if characters.get(next) != Some(&'r') {
        return None;
    }
    let hashes = characters[next + 1..]
        .iter()
        .take_while(|c| **c == '#')
        .count();
    if characters.get(next + 1 + hashes) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let start = next + 2 + hashes;
    characters[start..]
        .windows(close.len())
        .position(|window| window == close)
        .map(|found| start + found + close.len())
}
