//! `slotctl config`, black-box: what is wrong with a file and where, what is set and where that comes from.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod fake_slotd;

use std::fs;
use std::path::Path;
use std::process::Output;

use fake_slotd::{slotctl, stderr, stdout};
use serde_json::{Value, json};

const NOBODY: &str = "/nowhere/slotd.sock";

fn run(folder: &Path, words: &[&str]) -> Output {
    slotctl(folder, Path::new(NOBODY), words)
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

#[test]
fn every_fault_is_a_line_as_compilers_write_it_and_the_status_says_that_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("slot.toml"),
        "command = \"./server\"\nsoak = 5\n\n[git]\nremote = \"ftp://x\"\nbrunch = \"main\"\n",
    )
    .unwrap();
    let output = run(folder.path(), &["config", "check", "slot.toml"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = stdout(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, begins) in lines.iter().zip([
        "slot.toml:2:8: soak: 5 has no unit; write a number and ms, s, m, h or d: `soak = ",
        "slot.toml:5:10: git.remote: ",
        "slot.toml:6:1: unknown key `git.brunch`; did you mean `branch`?",
    ]) {
        assert!(line.starts_with(begins), "{line}");
    }
    let output = run(folder.path(), &["config", "check", "--json"]);
    assert_eq!(output.status.code(), Some(6));
    let said = json_of(&output);
    assert_eq!(
        (&said["success"], &said["code"]),
        (&json!(false), &json!("refused-input"))
    );
    assert_eq!(said["error"], "there are 3 faults");
    let first = &said["files"][0]["faults"][0];
    assert_eq!(
        (&first["line"], &first["column"], &first["key"]),
        (&json!(2), &json!(8), &json!("soak"))
    );
    assert!(
        first["problem"].is_string() && first["remedy"].is_string(),
        "{first}"
    );
}

#[test]
fn files_of_every_kind_are_told_apart_and_right_ones_are_right() {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("slot.toml", "name = \"web\"\ncommand = \"./server\"\n"),
        ("machine.toml", "[limits]\nhead_bytes = \"64K\"\n"),
        (
            "slot-machine.json",
            "{ \"start_command\": \"node s.js\", \"port\": 3000 }",
        ),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let output = run(
        folder.path(),
        &[
            "config",
            "check",
            "slot.toml",
            "machine.toml",
            "slot-machine.json",
            "--json",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = json_of(&output);
    let kinds: Vec<_> = said["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["app", "machine", "slot-machine"]);
    let output = run(folder.path(), &["config", "check"]);
    assert!(
        stdout(&output)
            .ends_with("slot.toml: nothing is wrong with it; it is the file of app web\n"),
        "{output:?}"
    );
    // By what is asked, and not by the name.
    let output = run(
        folder.path(),
        &["config", "check", "--machine", "slot.toml"],
    );
    assert!(
        stdout(&output).starts_with("slot.toml:1:1: unknown key `name`"),
        "{output:?}"
    );
    let output = run(folder.path(), &["config", "check", "none.toml"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        stdout(&output).starts_with("none.toml: it cannot be read: "),
        "{output:?}"
    );
    let empty = tempfile::tempdir().unwrap();
    let output = run(empty.path(), &["config", "check"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        stderr(&output).contains("there is no slot.toml here or above"),
        "{output:?}"
    );
}

#[test]
fn every_setting_is_shown_with_its_value_and_where_it_is_from_and_no_secret_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("slot.toml"),
        "name = \"web\"\ncommand = \"./server\"\nsoak = \"5s\"\nenv_file = \"/etc/slot/web.env\"\n[env]\nTOKEN = \"hunter2\"\n",
    )
    .unwrap();
    let output = run(folder.path(), &["config", "show", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = json_of(&output);
    assert_eq!(said["app"], "web");
    let all = said["settings"].as_array().unwrap();
    let of = |key: &str| {
        all.iter()
            .find(|row| row["key"] == key)
            .unwrap_or_else(|| panic!("{key}: {all:#?}"))
    };
    let soak = of("soak");
    assert_eq!(
        (&soak["value"], &soak["from"], &soak["line"]),
        (&json!("5s"), &json!("file"), &json!(3))
    );
    assert!(
        soak["file"].as_str().unwrap().ends_with("/slot.toml"),
        "{soak}"
    );
    assert_eq!(
        (&of("drain")["value"], &of("drain")["from"]),
        (&json!("120s"), &json!("default"))
    );
    assert_eq!(of("keep_warm")["absent"], "as soak");
    assert_eq!(of("env_file")["value"], "/etc/slot/web.env");
    assert_eq!(
        (&of("env.TOKEN")["value"], &of("env.TOKEN")["secret"]),
        (&Value::Null, &json!(true))
    );
    let socket = &said["slotctl"][0];
    assert_eq!(
        (&socket["value"], &socket["from"], &socket["variable"]),
        (&json!(NOBODY), &json!("env"), &json!("SLOT_SOCKET"))
    );
    let people = stdout(&run(folder.path(), &["config", "show"]));
    assert!(
        !people.contains("hunter2") && people.contains("(not shown)"),
        "{people}"
    );
    let line = people
        .lines()
        .find(|line| line.trim_start().starts_with("soak "))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..2], ["soak", "\"5s\""], "{line}");
    assert!(words[2].ends_with("/slot.toml:3"), "{line}");
    let output = run(folder.path(), &["config", "show", "--socket", "/x/y"]);
    assert!(stdout(&output).contains("\"/x/y\""), "{output:?}");
    assert!(stdout(&output).trim_end().ends_with("option"), "{output:?}");
}

#[test]
fn of_an_app_that_is_nowhere_and_of_a_file_that_is_wrong_nothing_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["config", "show", "no-such-app"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(
        stderr(&output).contains("there is no app no-such-app"),
        "{output:?}"
    );
    fs::write(
        folder.path().join("slot.toml"),
        "command = \"./server\"\nsoak = 5\n",
    )
    .unwrap();
    let output = run(folder.path(), &["config", "show"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert!(
        stderr(&output).contains("slot.toml:2: soak: "),
        "{output:?}"
    );
    // Without any app there is still the machine.
    fs::remove_file(folder.path().join("slot.toml")).unwrap();
    let output = run(folder.path(), &["config", "show"]);
    assert!(
        stdout(&output).starts_with("Machine (/etc/slot/machine.toml)\n  limits.body_bytes"),
        "{output:?}"
    );
}
