//! slotctl against a slotd that is written down: what it asks, what it shows, what it exits with.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod fake_slotd;
mod git_support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use axum::http::StatusCode;
use fake_slotd::{Fake, Script, failure, problem, status, stderr, stdout, success};
use git_support::Repo;
use slot::wire::api::{Apps, Begun, Outcome, Problem, RolledBack, Status};

#[test]
fn a_deploy_sends_the_binary_under_its_name_and_shows_release_slot_address_and_phases() {
    let fake = Fake::new(Script::default());
    fake.project();
    let output = fake.slotctl(&[
        "deploy",
        "build/server",
        "--drain",
        "5s",
        "--queue",
        "10m",
        "--version",
        "v1+a&b",
        "--skip-check",
        "memory",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "web: release 1a2b3c4d serves from green (before: 99887766)\n\
         \x20 http://127.0.0.1:80/\n\
         \x20 preparing 12 ms, starting 1.8s, ready 31 ms, 1.8s in all\n"
    );
    let asked = fake.asked();
    assert!(
        asked.contains(
            &"POST /apps/web/deploy?drain=5000ms&queue=600000ms&skip=memory&label=v1%2Ba%26b&origin=path&name=build/server&size=23"
                .to_owned()
        ),
        "{asked:?}"
    );
    assert!(
        asked.contains(&"GET /apps/web/outcome?generation=7&wait=switched".to_owned()),
        "{asked:?}"
    );
    let uploaded = fake.uploaded.lock().unwrap().clone();
    let mut archive = tar::Archive::new(&uploaded[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["server"]);
}

#[test]
fn a_large_directory_is_streamed_whole() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    let big: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(path.with_file_name("big"), &big).unwrap();
    let output = fake.slotctl(&["deploy", "build"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let uploaded = fake.uploaded.lock().unwrap().clone();
    let mut archive = tar::Archive::new(&uploaded[..]);
    let mut sizes = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        sizes.push((entry.path().unwrap().display().to_string(), bytes == big));
    }
    assert_eq!(
        sizes,
        [("big".to_owned(), true), ("server".to_owned(), false)]
    );
}

#[test]
fn each_phase_is_one_plain_line_where_there_is_no_terminal() {
    let fake = Fake::new(Script {
        outcome: vec![Err(fake_slotd::progress("starting")), Ok(success())],
        status: Status {
            deployment: Some(fake_slotd::progress("starting")),
            ..status()
        },
        ..Script::default()
    });
    let path = fake.project();
    let output = fake.slotctl(&["deploy", path.to_str().unwrap()]);
    assert!(!stderr(&output).contains('\x1b'), "{}", stderr(&output));
}

#[test]
fn a_failed_deploy_is_one_screen_of_evidence() {
    let fake = Fake::new(Script {
        outcome: vec![Ok(failure())],
        ..Script::default()
    });
    let path = fake.project();
    let output = fake.slotctl(&["deploy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let log: String = (6..=25)
        .map(|line| format!("  | line {line}\u{fffd}[31m\n"))
        .collect();
    assert_eq!(
        stderr(&output),
        format!(
            "web: deployment 7 failed in phase ready: health-timeout
  green was not healthy within 30s

  release     1a2b3c4d in green
  gate        a health probe that passes within health_timeout
  unit        web@green.service
  result      success: still running
  STATUS=     waiting for the database
  last probe  503 Service Unavailable: no database
  listens on  127.0.0.1:3000
  told        127.0.0.1:20002: let it take the port from $PORT, and the address 127.0.0.1
  time        preparing 12 ms, starting 180 ms, ready 30s, 30s in all

  The last 20 lines of its log:
{log}
  The active slot is untouched: blue serves release 99887766.
  The rest of the log: journalctl -u web@green.service _SYSTEMD_INVOCATION_ID=0123
"
        )
    );
}

#[test]
fn a_failed_deploy_as_json_is_the_outcome_alone_on_stdout() {
    let fake = Fake::new(Script {
        outcome: vec![Ok(failure())],
        ..Script::default()
    });
    let path = fake.project();
    let output = fake.slotctl(&["--json", "deploy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "");
    let outcome: Outcome = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(outcome, failure());
}

#[test]
fn a_deploy_during_another_says_who_holds_it_and_exits_with_5() {
    let busy =
        "a deployment is in progress: generation 6, begun by root, phase starting; wait for it";
    let script = Script {
        begin: Err((StatusCode::CONFLICT, problem("busy", busy))),
        ..Script::default()
    };
    let fake = Fake::new(script);
    let path = fake.project();
    let output = fake.slotctl(&["deploy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), format!("slotctl: {busy}\n"));
    let output = fake.slotctl(&["deploy", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said: Problem = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said.code, "busy");
}

#[test]
fn a_refusal_before_the_upload_was_read_is_still_the_reason() {
    let script = Script {
        begin: Err((
            StatusCode::CONFLICT,
            problem("busy", "a deployment is in progress"),
        )),
        status: Status {
            deployment: Some(fake_slotd::progress("starting")),
            ..status()
        },
        rude: true,
        ..Script::default()
    };
    let fake = Fake::new(script);
    let path = fake.project();
    std::fs::write(path.with_file_name("big"), vec![7; 30_000_000]).unwrap();
    let output = fake.slotctl(&["deploy", "build"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("a deployment is in progress"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_rollback_with_nothing_to_go_back_to_is_refused_with_the_reason() {
    let text = "nothing to roll back to: no earlier release has served";
    let fake = Fake::new(Script {
        begin: Err((
            StatusCode::BAD_REQUEST,
            problem("nothing-to-roll-back-to", text),
        )),
        ..Script::default()
    });
    let output = fake.slotctl(&["rollback"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), format!("slotctl: {text}\n"));
}

#[test]
fn a_rollback_and_a_promotion_name_the_app_and_wait_as_long_as_asked() {
    let rolled_back = Outcome {
        kind: "rollback".to_owned(),
        ..success()
    };
    let fake = Fake::new(Script {
        outcome: vec![Ok(rolled_back)],
        ..Script::default()
    });
    let output = fake.slotctl(&["--app", "web", "rollback", "--wait=stopped"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("web: rolled back: release 1a2b3c4d serves from green"));
    let output = fake.slotctl(&["--app", "web", "promote", "green"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let asked = fake.asked();
    for wanted in [
        "POST /apps/web/rollback",
        "GET /apps/web/outcome?generation=7&wait=stopped",
        "POST /apps/web/promote?slot=green",
    ] {
        assert!(asked.contains(&wanted.to_owned()), "{wanted}: {asked:?}");
    }
}

#[test]
fn an_app_that_slotd_does_not_know_exits_with_7_and_nothing_is_registered_elsewhere() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    let output = fake.slotctl(&["--app", "other", "deploy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("there is no app other"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fake.asked(), ["GET /apps/other/status"]);
}

#[test]
fn a_path_that_cannot_be_deployed_is_refused_before_slotd_is_asked() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    let folder = fake.folder.path();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::create_dir(folder.join("void")).unwrap();
    std::fs::write(folder.join("build/plain"), "x").unwrap();
    let refused = |path: &str, said: &str| {
        let output = fake.slotctl(&["deploy", path]);
        assert_eq!(output.status.code(), Some(6), "{path}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(said),
            "{path}: {}",
            stderr(&output)
        );
    };
    refused("gone", "gone does not exist; name the binary");
    refused("empty", "empty is empty; did the build finish?");
    refused("void", "void has no file in it");
    refused(
        "build/plain",
        "command runs ./server, and build/plain will be ./plain",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused("build/server", "not executable, and `command`");
    refused("build", "`chmod +x build/server`");
    assert_eq!(fake.asked(), [""; 0]);
}

#[test]
fn a_config_with_an_unknown_key_is_refused_with_file_line_and_remedy() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    let file = fake.folder.path().join("slot.toml");
    std::fs::write(
        &file,
        "name = \"web\"\ncommand = \"./server\"\ndrian = \"5s\"\n",
    )
    .unwrap();
    let output = fake.slotctl(&["deploy", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("slot.toml:3: unknown key `drian`; did you mean `drain`?"),
        "{said}"
    );
    assert_eq!(fake.asked(), [""; 0]);
}

#[test]
fn status_is_a_table_and_as_json_what_slotd_said() {
    let fake = Fake::new(Script::default());
    let output = fake.slotctl(&["status"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "web  idle  generation 7  http://127.0.0.1:80/
  release 99887766 serves from blue, `slotctl rollback` goes to 55443322

  SLOT   CONDITION    RELEASE   WEIGHT  IN FLIGHT   DRAIN  UNIT
  blue   active (up)  99887766  100%    requests 2  -      web@blue.service
  green  idle         -         0%      -           -      web@green.service
"
    );
    let output = fake.slotctl(&["status", "--json"]);
    let said: Status = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said, status());
    let output = fake.slotctl(&["app", "list", "--json"]);
    let said: Apps = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said.apps, [status()]);
}

#[test]
fn status_tells_that_the_traffic_went_back_and_why_and_what_is_wrong_below_its_table() {
    let mut told = status();
    told.last = Some(Outcome {
        success: false,
        cause: "probes-failed".to_owned(),
        phase: "switched".to_owned(),
        ..success()
    });
    told.rolled_back = Some(RolledBack {
        generation: 7,
        at_ms: 1,
        from_slot: "green".to_owned(),
        from_release: Some("1a2b3c4d".to_owned()),
        to_slot: "blue".to_owned(),
        to_release: Some("99887766".to_owned()),
        cause: "probes-failed".to_owned(),
        text: "3 probes of web@green failed".to_owned(),
        reached: Some(
            "asked for / of localhost at the public listener 127.0.0.1:80: 200 OK".to_owned(),
        ),
    });
    told.slots[0].detail = Some("down: exited with status 1, which is a long story".to_owned());
    told.slots[1].condition = "failed".to_owned();
    told.slots[1].detail = Some("no probe passed within health_timeout".to_owned());
    let fake = Fake::new(Script {
        status: told.clone(),
        ..Script::default()
    });
    let output = fake.slotctl(&["status"]);
    let text = stdout(&output);
    let (table, remarks) = text.split_once("web@green.service\n\n").unwrap();
    assert!(table.contains("  blue   active (down)  99887766"), "{text}");
    assert!(table.contains("  green  failed         -"), "{text}");
    let remarks: Vec<&str> = remarks.lines().collect();
    let (when, what) = remarks[0].split_once(" ago: ").unwrap();
    assert!(when.starts_with("  rolled back by itself "), "{text}");
    assert_eq!(
        what,
        "the traffic went from release 1a2b3c4d in green back to release 99887766 in blue, because 3 probes of web@green failed; then \
         asked for / of localhost at the public listener 127.0.0.1:80: 200 OK"
    );
    assert_eq!(
        remarks[1..],
        [
            "  blue is down, its requests are held: exited with status 1, which is a long story",
            "  green failed: no probe passed within health_timeout",
            "  last: deploy 7 switched, and was rolled back: probes-failed",
        ]
    );
    let output = fake.slotctl(&["status", "--json"]);
    let said: Status = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(said, told);
}

#[test]
fn a_deploy_that_fails_in_its_soak_says_that_it_was_rolled_back() {
    let soaked = Outcome {
        phase: "switched".to_owned(),
        cause: "exited".to_owned(),
        ..failure()
    };
    let fake = Fake::new(Script {
        outcome: vec![Ok(soaked)],
        ..Script::default()
    });
    let path = fake.project();
    let output = fake.slotctl(&["deploy", path.to_str().unwrap(), "--wait=soaked"]);
    let text = stderr(&output);
    assert!(
        text.starts_with("web: deployment 7 failed in its soak: exited\n"),
        "{text}"
    );
    assert!(
        text.contains("gate        the soak: it has to stay up\n"),
        "{text}"
    );
    assert!(
        text.contains("It was rolled back: blue serves release 99887766 again."),
        "{text}"
    );
}

#[test]
fn a_command_that_means_a_file_of_the_release_and_does_not_say_so_is_refused() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    std::fs::rename(&path, path.with_file_name("my-server")).unwrap();
    let file = fake.folder.path().join("slot.toml");
    std::fs::write(file, "name = \"web\"\ncommand = \"my-server --fast\"\n").unwrap();
    for path in ["build", "build/my-server"] {
        let output = fake.slotctl(&["deploy", path]);
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(
            text.contains("looked for in PATH and is not there"),
            "{text}"
        );
        assert!(text.contains("`command = \"./my-server …\"`"), "{text}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[test]
fn a_symlink_that_leaves_the_release_is_refused_before_anything_is_sent() {
    let fake = Fake::new(Script::default());
    let path = fake.project();
    let link = path.with_file_name("data");
    for target in ["/etc/passwd", "../outside", "inner/up/../x"] {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        std::fs::create_dir_all(path.with_file_name("inner")).unwrap();
        let up = path.with_file_name("inner").join("up");
        let _ = std::fs::remove_file(&up);
        std::os::unix::fs::symlink("..", &up).unwrap();
        let output = fake.slotctl(&["deploy", "build"]);
        assert_eq!(
            output.status.code(),
            Some(6),
            "{target}: {}",
            stderr(&output)
        );
        let text = stderr(&output);
        let said = format!("build/data is a symlink to {target}, which leaves the release");
        assert!(text.contains(&said), "{text}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("inner/up/server", &link).unwrap();
    let output = fake.slotctl(&["deploy", "build"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// What a deploy writes to a terminal (script(1)).
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let mut outcome = vec![Err(fake_slotd::progress("starting")); 60];
    outcome.push(Ok(success()));
    let fake = Fake::new(Script {
        status: Status {
            deployment: Some(fake_slotd::progress("starting")),
            ..status()
        },
        outcome,
        ..Script::default()
    });
    fake.project();
    let line = format!("{} deploy build/server", env!("CARGO_BIN_EXE_slotctl"));
    let output = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(fake.folder.path())
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .env("SLOT_SOCKET", fake.socket())
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script(1) is there");
    stdout(&output)
}

#[test]
fn no_color_takes_the_colours_alone_and_a_dumb_terminal_is_never_written_over() {
    let colours = |text: &str| text.contains("\x1b[1m") || text.contains("\x1b[2m");
    let moves = |text: &str| text.contains("\x1b[2K");
    let usual = on_a_terminal(&[]);
    assert!(colours(&usual) && moves(&usual), "{usual:?}");
    let plain = on_a_terminal(&[("NO_COLOR", "1")]);
    assert!(!colours(&plain) && moves(&plain), "{plain:?}");
    let dumb = on_a_terminal(&[("TERM", "dumb")]);
    assert!(!dumb.contains('\x1b'), "{dumb:?}");
    assert!(dumb.contains("starting"), "{dumb:?}");
}

#[test]
fn drain_cuts_only_when_told_to() {
    let fake = Fake::new(Script::default());
    let output = fake.slotctl(&["drain", "blue"]);
    assert_eq!(output.status.code(), Some(2));
    let output = fake.slotctl(&["drain", "--now", "blue"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fake.asked(), ["POST /drain?slot=blue"]);
}

#[test]
fn logs_of_an_app_outside_systemd_say_where_they_are() {
    let mut script = Script::default();
    for slot in &mut script.status.slots {
        slot.unit = slot.unit.trim_end_matches(".service").to_owned();
    }
    let fake = Fake::new(script);
    let output = fake.slotctl(&["logs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("`slotctl start`"),
        "{}",
        stderr(&output)
    );
}

fn lost() -> Outcome {
    Outcome {
        phase: "preparing".to_owned(),
        cause: "interrupted".to_owned(),
        text: "slotd was restarted while the release was being prepared; deploy again".to_owned(),
        report: None,
        ..failure()
    }
}

#[test]
fn what_a_restart_of_slotd_has_lost_is_asked_for_again_with_its_key_and_what_it_expects_then() {
    let fake = Fake::new(Script {
        outcome: vec![Ok(lost()), Ok(success())],
        ..Script::default()
    });
    fake.project();
    let words =
        "deploy build/server --idempotency-key k --expected-generation 6 --expected-active blue";
    let output = fake.slotctl(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let asked = fake.asked();
    let mut begun = asked.iter().filter(|it| it.starts_with("POST "));
    for generation in [6, 7] {
        let expected = format!("expected_generation={generation}&expected_active=blue");
        let asked = begun.next();
        assert!(asked.is_some_and(|it| it.contains(&expected)), "{asked:?}");
    }
    assert_eq!(begun.next(), None);
    assert!(stderr(&output).contains("it is deployed again"));
}

#[test]
fn who_waited_for_his_turn_when_slotd_was_restarted_asks_again_with_one_key_and_others_are_told() {
    // Of the losses the first is said by slotd, and the second is not.
    for (words, losses, exit, begun) in [
        (&["--queue", "10m"][..], 2, 0, 3),
        (&["--idempotency-key", "k"], 1, 0, 2),
        (&[], 2, 3, 2),
        (&[], 1, 3, 1),
    ] {
        let fake = Fake::new(Script {
            gone: losses,
            ..Script::default()
        });
        fake.project();
        let output = fake.slotctl(&[&["deploy", "build/server"], words].concat());
        assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
        let keys = fake.keys.lock().unwrap().clone();
        assert_eq!(keys.len(), begun, "{words:?} {losses}");
        match words.first() {
            None => assert!(keys.iter().all(Option::is_none), "{keys:?}"),
            Some(&"--queue") => {
                let own = keys[0].as_deref().unwrap();
                assert!(own.starts_with("\"slotctl-") && own.len() > 40, "{own}");
                assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
            }
            Some(_) => assert!(keys.iter().all(|key| key.as_deref() == Some("\"k\""))),
        }
        let is_repeated = begun > 1;
        assert_eq!(stderr(&output).contains("it is asked again"), is_repeated);
    }
}

#[test]
fn what_was_begun_although_its_answer_was_lost_is_watched_and_a_key_of_slotctls_is_not_spoken_of() {
    for words in [&["--queue", "10m"][..], &["--idempotency-key", "k"]] {
        let fake = Fake::new(Script {
            gone: 1,
            begin: Ok(Begun {
                generation: 7,
                release: None,
                repeated: true,
                already: None,
            }),
            ..Script::default()
        });
        fake.project();
        let output = fake.slotctl(&[&["deploy", "build/server"], words].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let is_told = stderr(&output).contains("under way or over already: generation 7");
        assert_eq!(is_told, words[0] == "--idempotency-key");
    }
}

#[test]
fn what_is_deployed_again_is_the_commit_that_was_meant_when_the_command_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::at(folder.path());
    repo.write("slot.toml", "name = \"web\"\ncommand = \"./server\"\n");
    for (words, moved) in [(&[][..], "HEAD"), (&["main"], "main"), (&["v1"], "v1")] {
        let meant = repo.write("server", moved).commit("meant");
        repo.git(["tag", "--force", "v1"]);
        let path = repo.path.clone();
        let fake = Fake::new(Script {
            outcome: vec![Ok(lost()), Ok(success())],
            meanwhile: Arc::new(move || {
                let repo = Repo::at(&path);
                repo.write("server", "later");
                repo.commit("later");
                repo.git(["tag", "--force", "v1"]);
            }),
            ..Script::default()
        });
        let socket = fake.socket();
        let output = fake_slotd::slotctl(folder.path(), &socket, &[&["deploy"], words].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let asked = fake.asked();
        let begun = asked.iter().filter(|it| it.contains("/deploy?"));
        let begun: Vec<_> = begun.collect();
        assert_eq!(begun.len(), 2, "{asked:?}");
        let is_meant = |it: &&String| it.contains(&format!("commit={meant}"));
        assert!(begun.iter().all(is_meant), "{moved}: {asked:?}");
    }
}

/// slotctl with an archive on standard input.
fn piped(fake: &Fake, words: &[&str]) -> std::process::Output {
    let packed = fake.folder.path().join("release.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&packed).unwrap());
    let path = fake.project();
    archive.append_path_with_name(path, "server").unwrap();
    archive.finish().unwrap();
    std::process::Command::new(env!("CARGO_BIN_EXE_slotctl"))
        .args(["deploy", "-"])
        .args(words)
        .current_dir(fake.folder.path())
        .env("SLOT_SOCKET", fake.socket())
        .stdin(std::fs::File::open(packed).unwrap())
        .output()
        .unwrap()
}

#[test]
fn what_was_read_of_a_pipe_is_not_sent_again_and_slotctl_says_what_to_do() {
    let interrupted = Script {
        outcome: vec![Ok(lost()), Ok(success())],
        ..Script::default()
    };
    let gone = |gone| Script {
        gone,
        ..Script::default()
    };
    let queued = &["--queue", "10m"][..];
    for (script, words, exit) in [
        (interrupted, &[][..], 1),
        (gone(1), &[], 3),
        (gone(1), queued, 3),
        (gone(2), queued, 1),
    ] {
        let fake = Fake::new(script);
        let output = piped(&fake, words);
        assert_eq!(output.status.code(), Some(exit), "{}", stderr(&output));
        let asked = fake.asked();
        let begun = asked.iter().filter(|it| it.starts_with("POST ")).count();
        assert_eq!(begun, 1, "{asked:?}");
        let said = stderr(&output);
        assert!(
            said.contains("standard input cannot be read a second time: run again what writes it"),
            "{said}"
        );
    }
}

#[test]
fn an_interrupted_watch_says_that_the_deployment_goes_on() {
    let fake = Fake::new(Script {
        outcome: vec![Err(fake_slotd::progress("starting"))],
        ..Script::default()
    });
    let path = fake.project();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_slotctl"))
        .args(["deploy", path.to_str().unwrap()])
        .current_dir(fake.folder.path())
        .env("SLOT_SOCKET", fake.socket())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begin = std::time::Instant::now();
    while !fake.asked().iter().any(|asked| asked.contains("/outcome")) {
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            fake.asked()
        );
        std::thread::yield_now();
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("generation 7 goes on without slotctl"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_router_is_upgraded_whatever_project_this_directory_is_of() {
    let fake = Fake::new(Script::default());
    std::fs::write(fake.folder.path().join("slot.toml"), "comand = 1\n").unwrap();
    // The fake has no router; that it is asked is what counts.
    fake.slotctl(&["router", "upgrade"]);
    assert_eq!(fake.asked(), ["POST /router/upgrade"]);
}
