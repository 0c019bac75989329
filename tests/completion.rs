//! What shells complete words with, black-box: bash for real, the others by what their scripts ask.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod fake_slotd;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use fake_slotd::{Fake, Script, slotctl, stdout};

/// Has bash complete the last of the words, as readline does it: with the function that the script has registered. Options, which may
/// stand wherever nothing is begun, are left out.
fn bash(folder: &Path, socket: &Path, words: &[&str]) -> Vec<String> {
    let script = slotctl(folder, socket, &["completions", "bash"]);
    std::fs::write(folder.join("completion"), stdout(&script)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_slotctl")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let line = "source ./completion\n\
                registered=($(complete -p slotctl))\n\
                for at in \"${!registered[@]}\"; do [ \"${registered[at]}\" = -F ] && named=${registered[at + 1]}; done\n\
                COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMP_LINE=$LINE\n\
                \"$named\" slotctl \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
                printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["--norc", "--noprofile", "-c", line, "bash", "slotctl"])
        .args(words)
        .current_dir(folder)
        .env("PATH", path)
        .env("LINE", typed(words))
        .env("SLOT_SOCKET", socket)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    stdout(&output)
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

/// The line that bash takes for these words: what is before and after a `:` or a `=` are words of their own to it.
fn typed(words: &[&str]) -> String {
    let breaks = |word: &str| [":", "="].contains(&word);
    let mut line = "slotctl".to_owned();
    let mut joined = false;
    for word in words {
        if !(joined || breaks(word)) {
            line.push(' ');
        }
        line.push_str(word);
        joined = breaks(word);
    }
    line
}

/// What the script of another shell gets for its question.
fn asks(shell: &str, fake: &Fake, words: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_slotctl"))
        .args(["--", "slotctl"])
        .args(words)
        .current_dir(fake.folder.path())
        .env("SLOTCTL_COMPLETE", shell)
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .env("SLOT_SOCKET", fake.socket())
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    stdout(&output).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_apps_slots_releases_and_generations_as_slotd_has_them() {
    let fake = Fake::new(Script::default());
    let complete = |words: &[&str]| bash(fake.folder.path(), &fake.socket(), words);
    for (words, expected) in [
        (&["--app", "w"][..], &["web"][..]),
        (&["app", "remove", ""], &["web"]),
        (&["app", "reload", "w"], &["web"]),
        (&["config", "show", "w"], &["web"]),
        (&["promote", "b"], &["blue"]),
        (&["logs", "g"], &["green"]),
        (&["--app", "web", "stop", "g"], &["green"]),
        (&["route", "--from", "blue", "--to", "gr"], &["green"]),
        (&["rollback", "--to", ""], &["99887766", "55443322", "v2"]),
        (&["deploy", "--release", "v"], &["v2"]),
        (&["rollback", "--expected-generation", ""], &["7"]),
        (
            &["rollback", "--expected-active", ""],
            &["blue", "99887766"],
        ),
        // As bash splits `--app=w`.
        (&["--app", "=", "w"], &["web"]),
        (&["--app", "=", "web", "logs", "g"], &["green"]),
        // What there is no question about.
        (&["listener", "a"], &["add"]),
        (&["--app", "nobody", "logs", ""], &[]),
    ] {
        assert_eq!(complete(words), expected, "{words:?}");
    }
    let commands = complete(&["r"]);
    for command in ["releases", "resume", "rollback", "route", "router"] {
        assert!(commands.iter().any(|it| it == command), "{commands:?}");
    }
    // Nothing was asked to be done.
    assert!(
        fake.asked()
            .iter()
            .all(|asked| asked.starts_with("GET /apps")),
        "{:?}",
        fake.asked()
    );
}

#[test]
fn zsh_and_fish_are_told_what_each_is_besides() {
    let fake = Fake::new(Script::default());
    assert_eq!(
        asks("fish", &fake, &["logs", "b"]),
        ["blue\tactive, 99887766"]
    );
    assert_eq!(
        asks("zsh", &fake, &["logs", "b"]),
        ["blue:active, 99887766"]
    );
    assert_eq!(asks("fish", &fake, &["--app", "w"]), ["web\tidle"]);
    for (shell, part) in [
        ("fish", "SLOTCTL_COMPLETE=fish slotctl"),
        ("zsh", "#compdef slotctl"),
        ("bash", "-F _slotctl slotctl"),
    ] {
        let script = stdout(&fake.slotctl(&["completions", shell]));
        assert!(script.contains(part), "{shell}: {script}");
        // The package's script is for the package's slotctl, wherever it was made.
        assert!(!script.contains(env!("CARGO_MANIFEST_DIR")), "{script}");
    }
}

#[test]
fn where_slotd_is_away_or_does_not_answer_nothing_is_proposed_and_nothing_said() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("slotd.sock");
    assert_eq!(bash(folder.path(), &socket, &["--app", ""]), [""; 0]);
    // It takes connections, and says nothing.
    let _silent = UnixListener::bind(&socket).unwrap();
    assert_eq!(bash(folder.path(), &socket, &["logs", ""]), [""; 0]);
}
