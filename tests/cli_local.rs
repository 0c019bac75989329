//! slotctl where no slotd is: usage, exit statuses, `init`, and what it says when it cannot reach anybody.

mod fake_slotd;

use std::os::unix::net::UnixListener;
use std::path::Path;

use fake_slotd::{ending, slotctl, stderr, stdout};

const NOBODY: &str = "/nonexistent/slotd.sock";

#[test]
fn without_arguments_usage_goes_to_stderr_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let output = slotctl(folder.path(), Path::new(NOBODY), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert!(
        stderr(&output).contains("Usage: slotctl"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("Exit status:"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_option_and_a_wrong_span_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["weight", "green"][..],
        &["weight", "green", "101"],
        &["weight", "a b", "10"],
        &["route", "web", "--from", "blue"],
        &["--app", "web", "stop", "api:blue"],
        &["deploy", "x", "--weight", "-1"],
        &["deploy", "x", "--release", "1a2b3c4d"],
        &["deploy", "x", "--drain", "30"],
        &["frobnicate"],
        &["--app", "No Such Name", "status"],
    ] {
        let output = slotctl(folder.path(), Path::new(NOBODY), words);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{words:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_usage_error_is_json_where_json_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for (words, part) in [
        (&["--json", "deploy", "--drain"][..], "--drain <SPAN>"),
        (
            &["deploy", "x", "--drain", "30", "--json"],
            "not a span of time",
        ),
        (&["frobnicate", "--json"], "unknown command"),
        (&["--json"], "Usage: slotctl"),
        (&["app", "--json"], "Usage: slotctl app"),
    ] {
        let output = slotctl(folder.path(), Path::new(NOBODY), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert_eq!(stderr(&output), "", "{words:?}");
        let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(
            (&said["success"], &said["code"]),
            (&false.into(), &"usage".into())
        );
        let error = said["error"].as_str().unwrap();
        assert!(error.contains(part), "{words:?}: {error}");
        assert!(!error.starts_with("error:"), "{error}");
    }
    let help = slotctl(folder.path(), Path::new(NOBODY), &["--help", "--json"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Usage: slotctl"));
}

#[test]
fn a_unit_whose_program_is_only_in_the_release_says_how_to_name_it() {
    let folder = tempfile::tempdir().unwrap();
    fake_slotd::program(&folder.path().join("web/releases/0123abcd/my-server"));
    std::os::unix::fs::symlink("releases/0123abcd", folder.path().join("web/blue")).unwrap();
    let root = folder.path().to_str().unwrap();
    let launched = |program: &str| {
        let words = [
            "--app", "web", "launch", "--slot", "blue", "--root", root, "--", program,
        ];
        let output = slotctl(folder.path(), Path::new(NOBODY), &words);
        assert_eq!(output.status.code(), Some(203), "{}", stderr(&output));
        stderr(&output)
    };
    let said = launched("my-server");
    let part = "cannot run my-server; it is in no directory of PATH, but in the release: write ./ before it";
    assert!(said.contains(part), "{said}");
    let said = launched("no-server");
    assert!(
        said.contains("cannot run no-server; it is in no directory of PATH (write ./"),
        "{said}"
    );
}

#[test]
fn help_lists_the_commands_and_hides_what_is_not_for_people() {
    let folder = tempfile::tempdir().unwrap();
    let output = slotctl(folder.path(), Path::new(NOBODY), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for command in [
        "demo", "start", "init", "app", "deploy", "rollback", "weight", "route", "promote",
        "abort", "stop", "drain", "ps", "status", "logs",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
    }
    assert!(!help.contains("launch"), "{help}");
}

#[test]
fn a_slotd_that_is_not_there_is_named_with_what_starts_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = slotctl(folder.path(), Path::new(NOBODY), &["status"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("slotd is not running: /nonexistent/slotd.sock does not exist"),
        "{said}"
    );
    assert!(
        said.contains("systemctl enable --now slotd.socket slotd.service"),
        "{said}"
    );

    assert!(
        said.contains("`slotctl start` in the directory of a slot.toml"),
        "{said}"
    );
    let file = folder.path().join("slot.toml");
    std::fs::write(&file, "command = './x'\n").unwrap();
    let said = stderr(&slotctl(folder.path(), Path::new(NOBODY), &["status"]));
    let here = folder.path().canonicalize().unwrap();
    let here = format!("`slotctl start` in {}", here.display());
    assert!(said.contains(&here), "{said}");

    let socket = folder.path().join("dead.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let output = slotctl(folder.path(), &socket, &["status", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said["success"], false);
    assert_eq!(said["code"], "unreachable");
    assert!(
        said["error"].as_str().unwrap().contains("nothing answers"),
        "{said}"
    );
}

#[test]
fn what_changes_nothing_is_asked_again_of_a_slotd_that_is_restarted() {
    let (folder, slotd) = ending(2);
    let output = slotctl(
        folder.path(),
        &folder.path().join("slotd.sock"),
        &["app", "list"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(slotd.join().unwrap(), 3);

    let (folder, slotd) = ending(4);
    let output = slotctl(
        folder.path(),
        &folder.path().join("slotd.sock"),
        &["app", "list"],
    );
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(
        said.contains("ended the connection during GET /apps; `journalctl -u slotd` says why"),
        "{said}"
    );
    assert_eq!(slotd.join().unwrap(), 4);
}

#[test]
fn init_writes_a_file_that_deploy_reads_and_never_writes_over_one() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("My Shop");
    fake_slotd::program(&project.join("build/shop"));
    let output = slotctl(&project, Path::new(NOBODY), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("sudo slotctl deploy ./build/shop"),
        "{}",
        stdout(&output)
    );
    let file = project.join("slot.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let app = slot::config::App::parse(&text, "slot.toml").unwrap();
    assert_eq!(
        (app.name.as_str(), app.command),
        ("my-shop", vec!["./shop".to_owned()])
    );

    std::fs::write(&file, "# mine\n").unwrap();
    let output = slotctl(&project, Path::new(NOBODY), &["init"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n");

    let output = slotctl(&project, Path::new(NOBODY), &["init", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn init_finds_out_what_a_project_is_made_with_and_writes_either_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    write("bun.lock", "");
    write(
        "package.json",
        r#"{"scripts":{"start":"bun server/index.ts"}}"#,
    );
    write(".env", "FOO=bar\n");
    write(".gitignore", "node_modules");
    let init = |words: &[&str]| slotctl(folder.path(), Path::new(NOBODY), words);

    let output = init(&["init", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("slot-machine.json"),
        "{}",
        stdout(&output)
    );
    let said: serde_json::Value = serde_json::from_str(&read("slot-machine.json")).unwrap();
    for (key, value) in [
        ("setup_command", "bun install --frozen-lockfile"),
        ("start_command", "bun server/index.ts"),
        ("env_file", ".env"),
        ("health_endpoint", "/healthz"),
    ] {
        assert_eq!(said[key], value);
    }
    assert_eq!(read(".gitignore"), "node_modules\n.slot-machine\n.slot\n");

    let output = init(&["init", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let app = slot::config::App::parse(&read("slot.toml"), "slot.toml").unwrap();
    assert_eq!(app.command, ["bun", "server/index.ts"]);
    let setup = app.setup_command.unwrap();
    assert_eq!(setup, ["bun", "install", "--frozen-lockfile"]);
    assert_eq!(read(".gitignore"), "node_modules\n.slot-machine\n.slot\n");

    write("slot-machine.json", "{}");
    let output = init(&["init", "--format", "json"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        stderr(&output).contains("`slotctl init --format json --force` writes over it"),
        "{}",
        stderr(&output)
    );
    assert_eq!(read("slot-machine.json"), "{}");
    assert!(
        init(&["init", "--format", "json", "--force"])
            .status
            .success()
    );
    assert_ne!(read("slot-machine.json"), "{}");
    assert_eq!(read(".gitignore"), "node_modules\n.slot-machine\n.slot\n");
}

#[test]
fn init_writes_a_program_with_a_space_in_its_name_as_one_word() {
    let folder = tempfile::tempdir().unwrap();
    let program = fake_slotd::program(&folder.path().join("build/my $server"));
    std::fs::write(&program, "#!/bin/sh\necho it runs\n").unwrap();
    let init = |words: &[&str]| slotctl(folder.path(), Path::new(NOBODY), words);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();

    let output = init(&["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("sudo slotctl deploy './build/my $server'\n"),
        "{}",
        stdout(&output)
    );
    let app = slot::config::App::parse(&read("slot.toml"), "slot.toml").unwrap();
    assert_eq!(app.command, ["./my $$server"]);

    let output = init(&["init", "--format", "json", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said: serde_json::Value = serde_json::from_str(&read("slot-machine.json")).unwrap();
    let run = std::process::Command::new("/bin/sh")
        .args(["-c", said["start_command"].as_str().unwrap()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(stdout(&run), "it runs\n", "{run:?}");
}

#[test]
fn init_says_of_a_program_that_it_guessed_that_it_did() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("go.mod"), "module shop\n").unwrap();
    for program in ["api", "worker"] {
        std::fs::create_dir_all(folder.path().join("cmd").join(program)).unwrap();
    }
    for (words, key, file) in [
        (&["init"][..], "command", "slot.toml"),
        (
            &["init", "--format", "json", "--force"],
            "start_command",
            "slot-machine.json",
        ),
    ] {
        let output = slotctl(folder.path(), Path::new(NOBODY), words);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let guess = format!("{key} in {file} is a guess, `./bin/api`, since cmd has api, worker");
        assert!(stderr(&output).contains(&guess), "{}", stderr(&output));
    }
    let text = std::fs::read_to_string(folder.path().join("slot.toml")).unwrap();
    let lines = "# The program is a guess, since cmd has api, worker: correct it.\ncommand = \"./bin/api\"\n";
    assert!(text.contains(lines), "{text}");
}

#[test]
fn init_writes_no_file_beside_one_of_the_other_kind_unless_it_is_forced_to() {
    for (there, words, written) in [
        ("slot-machine.json", &["init"][..], "slot.toml"),
        (
            "slot.toml",
            &["init", "--format", "json"],
            "slot-machine.json",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(there), "mine").unwrap();
        let init = |words: &[&str]| slotctl(folder.path(), Path::new(NOBODY), words);
        let output = init(words);
        assert_eq!(output.status.code(), Some(6));
        let forced = format!("slotctl {} --force", words.join(" "));
        let said = stderr(&output);
        for part in [
            format!("{there} is there, and works as it is: `slotctl start`"),
            format!("`{forced}` writes {written}, which then"),
        ] {
            assert!(said.contains(&part), "{said}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let output = init(&[words, &["--force"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(folder.path().join(written).exists());
        let kept = std::fs::read_to_string(folder.path().join(there)).unwrap();
        assert_eq!(kept, "mine");
    }
}

#[test]
fn an_unknown_command_is_said_to_be_one_and_usage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = slotctl(folder.path(), Path::new(NOBODY), &["badcmd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("unknown command 'badcmd'"),
        "{}",
        stderr(&output)
    );
    let output = slotctl(folder.path(), Path::new(NOBODY), &[]);
    assert!(stderr(&output).contains("usage"), "{}", stderr(&output));
}

#[test]
fn a_deploy_without_a_project_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = fake_slotd::program(&folder.path().join("server"));
    let output = slotctl(
        folder.path(),
        Path::new(NOBODY),
        &["deploy", path.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(6));
    assert!(
        stderr(&output).contains("slotctl init"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_project_file_does_not_let_a_command_guess_the_app() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("slot.toml"), "name = 5\n").unwrap();
    let output = slotctl(folder.path(), Path::new(NOBODY), &["rollback"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(stderr(&output).contains("--app"), "{}", stderr(&output));
    let output = slotctl(
        folder.path(),
        Path::new(NOBODY),
        &["--app", "web", "rollback"],
    );
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn a_current_directory_that_is_gone_is_said_to_be_and_how_to_come_to_its_successor() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let said = |successor: &str, words: &str| {
        let slotctl = env!("CARGO_BIN_EXE_slotctl");
        let script = format!(
            "mkdir -p staging && cd staging && rm -r ../staging && {successor} && exec {slotctl} {words}"
        );
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(&root)
            .env("PWD", &root)
            .env_remove("SLOT_SOCKET")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        stderr(&output)
    };
    let again = format!("`cd .`, or `cd {}`", root.join("staging").display());
    for words in ["status", "deploy", "rollback", "start", "init"] {
        let gone = said("mkdir ../staging", words);
        assert!(
            gone.contains("the current directory is gone") && gone.contains(&again),
            "{words}: {gone}"
        );
    }
    let gone = said("true", "deploy");
    assert!(gone.contains("`cd` to one that is there"), "{gone}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "{} completions bash | head -c 1",
        env!("CARGO_BIN_EXE_slotctl")
    );
    let output = std::process::Command::new("bash")
        .args(["-o", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
