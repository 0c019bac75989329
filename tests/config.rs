//! Wrong app files, and what their authors are told: the file, the line, the key and what to write instead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use slot::config::{App, Bind, Machine, Ready, Watched};
use slot::deploy::{ByClass, Hook, Quantile, Quiet, Rate, Ratio, Topic};
use slot::router::Limits;

fn refusal(text: &str) -> String {
    App::parse(text, "slot.toml")
        .expect_err(&format!("this should be refused:\n{text}"))
        .to_string()
}

/// One line before it, so that line 2 is the line asked about.
fn refusal_of_line(line: &str) -> String {
    refusal(&format!("command = \"./server\"\n{line}\n"))
}

#[test]
fn the_shortest_file_has_the_defaults() {
    let app = App::parse("command = \"./server --flag 'two words'\"", "slot.toml").unwrap();
    assert_eq!(app.name.as_str(), "slot");
    assert_eq!(app.command, ["./server", "--flag", "two words"]);
    let slots: Vec<&str> = app.slots.iter().map(|slot| slot.as_str()).collect();
    assert_eq!(slots, ["blue", "green"]);
    assert_eq!((app.bind, app.ready), (Bind::Port, Ready::Health));
    assert_eq!(app.health, "/");
    let seconds = [
        app.start_timeout,
        app.health_timeout,
        app.drain.all,
        app.stop_timeout,
        app.soak,
    ]
    .map(|span| span.as_secs());
    assert_eq!(seconds, [60, 30, 120, 10, 60]);
    assert_eq!(app.drain.by_class(), ByClass::all(Some(app.drain.all)));
    assert_eq!(
        (app.keep, app.hosts, app.paths),
        (5, vec!["*".to_owned()], vec!["/".to_owned()])
    );
    assert_eq!((app.setup_command, app.shared_dirs), (None, vec![]));
    assert_eq!(app.setup_timeout.as_secs(), 15 * 60);
}

#[test]
fn a_setup_is_a_command_with_a_limit_and_shared_directories_are_plain_paths() {
    let text = "command = \"./run\"\nsetup_command = \"npm ci --omit=dev\"\nsetup_timeout = \"90s\"\n\
                shared_dirs = [\"./uploads/\", \"storage/files\"]\n";
    let app = App::parse(text, "slot.toml").unwrap();
    assert_eq!(app.setup_command.unwrap(), ["npm", "ci", "--omit=dev"]);
    assert_eq!(app.setup_timeout.as_secs(), 90);
    assert_eq!(app.shared_dirs, ["uploads", "storage/files"]);
}

#[test]
fn a_remote_has_a_url_and_the_rest_has_defaults() {
    let of = |lines: &str| {
        let text = format!("command = \"./run\"\n[git]\n{lines}\n");
        App::parse(&text, "slot.toml").unwrap().remote.unwrap()
    };
    let short = of("remote = \"git@example.org:me/shop.git\"");
    assert_eq!(short.url, "git@example.org:me/shop.git");
    assert_eq!(
        (short.branch, short.deploy_key, short.known_hosts),
        (None, None, None)
    );
    assert_eq!(short.timeout.as_secs(), 300);
    let whole = of(
        "remote = \"https://example.org/shop\"\nbranch = \"stable\"\ndeploy_key = \"/etc/slot/keys/shop\"\n\
                    known_hosts = \"/etc/slot/keys/known_hosts\"\nfetch_timeout = \"90s\"",
    );
    assert_eq!(whole.branch.as_deref(), Some("stable"));
    assert_eq!(whole.deploy_key.as_deref(), Some("/etc/slot/keys/shop"));
    assert_eq!(whole.timeout.as_secs(), 90);
    for (lines, says) in [
        (
            "branch = \"main\"",
            ":2: git: it does not say where commits are fetched from; write `remote = ",
        ),
        (
            "remote = \"ext::sh -c x\"",
            ":3: git.remote: \"ext::sh -c x\" is no URL",
        ),
        (
            "remote = \"--upload-pack=x\"",
            ":3: git.remote: \"--upload-pack=x\" is no URL",
        ),
        ("remote = \"/srv/shop.git\"", ":3: git.remote: "),
        (
            "remote = \"ssh://me:secret@h/x\"",
            ":3: git.remote: it has a password in it",
        ),
        (
            "remote = \"https://ghp_token@h/x\"",
            ":3: git.remote: it has a user in it",
        ),
        (
            "remote = \"h:x\"\nbranch = \"-x\"",
            ":4: git.branch: \"-x\" is not a branch's name",
        ),
        (
            "remote = \"h:x\"\ndeploy_key = \"keys/shop\"",
            ":4: git.deploy_key: \"keys/shop\" is not an absolute path",
        ),
        (
            "remote = \"h:x\"\ndeploy_key = \"/etc/slot/a key\"",
            ":4: git.deploy_key: ",
        ),
        (
            "remote = \"h:x\"\ndeploy_key = \"/var/lib/slot/key\"",
            ":4: git.deploy_key: root reads /var/lib/slot/key for the app",
        ),
        (
            "remote = \"h:x\"\nknown_hosts = \"/etc/../tmp/x\"",
            ":4: git.known_hosts: root reads",
        ),
        (
            "remote = \"h:x\"\nfetch_timeout = \"0s\"",
            ":4: git.fetch_timeout: no time at all",
        ),
        ("remote = \"h:x\"\nkey = \"x\"", ":4: unknown key `git.key`"),
    ] {
        let said = refusal(&format!("command = \"./run\"\n[git]\n{lines}\n"));
        assert!(said.contains(says), "{lines}: {said}");
    }
}

#[test]
fn staging_is_somebodys_on_a_branch_and_absent_unless_it_is_asked_for() {
    let app = |lines: &str| {
        let text = format!("name = \"web\"\ncommand = \"./run\"\nbind = \"unix\"\n{lines}");
        App::parse(&text, "web.toml")
    };
    assert_eq!(app("").unwrap().staging, None);
    let bare = app("[staging]").unwrap();
    assert_eq!(bare.staging.as_ref().unwrap().branch, "machine");
    let wrong = bare.check_installed("web.toml").unwrap_err().to_string();
    assert!(
        wrong.contains("staging.user") && wrong.contains("user = \"alice\""),
        "{wrong}"
    );
    let whole = app("[staging]\nuser = \"alice\"\nbranch = \"next/one\"").unwrap();
    whole.check_installed("web.toml").unwrap();
    let staging = whole.staging.unwrap();
    assert_eq!(
        (staging.user.as_deref(), &*staging.branch),
        (Some("alice"), "next/one")
    );
    for (line, says) in [
        ("user = \"root\"", "allow_privileged_user"),
        ("user = \"slot\"", "allow_privileged_user"),
        ("user = \"0\"", "is not a user's name"),
        ("branch = \"-x\"", "cannot be the name of a branch"),
        ("branch = \"a..b\"", "cannot be the name of a branch"),
        ("branch = \"a/.b\"", "cannot be the name of a branch"),
        ("branch = \"*\"", "cannot be the name of a branch"),
        ("branch = \"\"", "cannot be the name of a branch"),
        ("brunch = \"x\"", "did you mean `branch`?"),
    ] {
        let refused = app(&format!("[staging]\n{line}")).unwrap_err().to_string();
        assert!(refused.contains(says), "{line}: {refused}");
    }
    app("allow_privileged_user = true\n[staging]\nuser = \"root\"").unwrap();
}

#[test]
fn what_a_class_does_not_say_of_its_drain_is_said_by_drain() {
    let text =
        "command = \"./server\"\ndrain = \"1m\"\ndrain_streams = \"0s\"\ndrain_tunnels = \"1h\"\n";
    let drain = App::parse(text, "slot.toml").unwrap().drain;
    let seconds = drain.by_class().map(|span| span.as_secs());
    let expected = ByClass {
        requests: Some(60),
        streams: None,
        tunnels: Some(3600),
    };
    assert_eq!((seconds, seconds.last()), (expected, None));
    // As `deploy --drain` does.
    let other = drain.with(Duration::from_secs(5)).by_class();
    let expected = ByClass {
        requests: Some(5),
        ..expected
    };
    assert_eq!(other.map(|span| span.as_secs()), expected);
    let wrong = refusal_of_line("drain_tunnels = 120");
    assert!(
        wrong.starts_with("slot.toml:2: drain_tunnels: 120 has no unit"),
        "{wrong}"
    );
}

#[test]
fn hooks_are_commands_with_one_limit() {
    let parse = |lines: &str| App::parse(&format!("command = \"./run\"\n{lines}"), "slot.toml");
    assert_eq!(parse("").unwrap().hooks, slot::config::Hooks::default());
    let text = "[hooks]\nbefore_deploy = \"./bin/backup --all\"\nafter_rollback = [\"/bin/echo\", \"\"]\ntimeout = \"90s\"\n";
    let hooks = parse(text).unwrap().hooks;
    assert_eq!(hooks.timeout, Duration::from_secs(90));
    assert_eq!(
        hooks.commands,
        BTreeMap::from([
            (
                Hook::BeforeDeploy,
                vec!["./bin/backup".to_owned(), "--all".to_owned()]
            ),
            (
                Hook::AfterRollback,
                vec!["/bin/echo".to_owned(), String::new()]
            ),
        ])
    );
    for (line, why) in [
        ("before_deploi = \"x\"", "did you mean `before_deploy`?"),
        ("before_switch = \"bin/x\"", "is relative to nothing"),
        ("before_switch = \"a && b\"", "before_switch = [\"/bin/sh\""),
        ("after_switch = []", "it is empty"),
        ("timeout = \"0s\"", "timeout"),
    ] {
        let refused = parse(&format!("[hooks]\n{line}\n"))
            .unwrap_err()
            .to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_plan_is_steps_that_grow_and_what_each_is_held_to() {
    let parse = |lines: &str| App::parse(&format!("command = \"./run\"\n{lines}"), "slot.toml");
    let of = |lines: &str| parse(&format!("[canary]\n{lines}"));
    let plain = of("steps = [\"1% 2m\", \"50% 90s\"]").unwrap();
    let canary = plain.canary.unwrap();
    let steps = canary.plan.steps.iter();
    let steps: Vec<_> = steps
        .map(|step| (step.weight.get(), step.lasts.as_secs()))
        .collect();
    assert_eq!(steps, [(1, 120), (50, 90)]);
    let checks = &canary.plan.checks;
    assert_eq!(
        (checks.min_requests, checks.error_rate),
        (100, Some(Rate(500)))
    );
    assert_eq!((checks.error_ratio, checks.latency.len()), (None, 0));
    assert!(canary.plan.auto_promote && canary.probes.is_empty());
    assert_eq!(canary.plan.quiet, Quiet::Probe);
    for (written, keeps, seconds) in [("99:1", 1, 10), ("80:20 1m 30s", 20, 90)] {
        let app = parse(&format!("migrate = \"{written}\"")).unwrap();
        let migrate = app.migrate.unwrap();
        assert_eq!(
            (migrate.keeps.get(), migrate.lasts.as_secs()),
            (keeps, seconds)
        );
    }
    assert_eq!(parse("migrate = \"off\"").unwrap().migrate, None);
    for written in [
        "99",
        "99:2",
        "100:0",
        "50:50",
        "1:99",
        "99:1 0s",
        "99:1 soon",
        "",
        "99 :1",
    ] {
        let refused = parse(&format!("migrate = \"{written}\""))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("two parts that add up to 100"),
            "{refused}"
        );
    }
    assert_eq!(plain.soak_error_rate, Some(Rate(1_000)));
    assert_eq!(
        parse("soak_error_rate = \"off\"").unwrap().soak_error_rate,
        None
    );
    let all = "steps = [\"10% 5m\"]\nauto_promote = false\nerror_rate = \"0.25%\"\nerror_ratio = 1.5\n\
               latency = { p99 = \"800ms\", p50 = \"20ms\" }\nlatency_ratio = { p95 = 2 }\nmin_requests = 50\n\
               quiet = \"hold\"\nprobes = [\"/search?q=1\"]\nmax_hold = \"2h\"\nwarm_up = \"10s\"\ncheck = \"./smoke --all\"";
    let app = of(all).unwrap();
    let canary = app.canary.unwrap();
    let checks = &canary.plan.checks;
    assert_eq!(checks.error_rate, Some(Rate(25)));
    assert_eq!(checks.error_ratio, Some(Ratio(150)));
    assert_eq!(checks.latency[&Quantile::P50], Duration::from_millis(20));
    assert_eq!(checks.latency_ratio[&Quantile::P95], Ratio(200));
    assert_eq!(canary.probes, ["/search?q=1"]);
    assert_eq!(app.hooks.commands[&Hook::Check], ["./smoke", "--all"]);
    for (lines, why) in [
        ("auto_promote = true", "it does not say by which steps"),
        ("steps = []", "it is empty"),
        ("steps = [\"100% 1m\"]", "is no step"),
        ("steps = [\"0% 1m\"]", "is no step"),
        ("steps = [\"10% 0s\"]", "is no step"),
        ("steps = [\"10 5m\"]", "is no step"),
        (
            "steps = [\"10% 5m\", \"10% 5m\"]",
            "gives no more than the step before it, 10%",
        ),
        (
            "steps = [\"10% 5m\"]\nerror_rate = 5",
            "write text in quotes",
        ),
        (
            "steps = [\"10% 5m\"]\nerror_rate = \"101%\"",
            "is no part of a hundred",
        ),
        (
            "steps = [\"10% 5m\"]\nerror_rate = \"0.001%\"",
            "is no part of a hundred",
        ),
        (
            "steps = [\"10% 5m\"]\nerror_ratio = 0.5",
            "how many times as much",
        ),
        (
            "steps = [\"10% 5m\"]\nerror_ratio = -2",
            "how many times as much",
        ),
        (
            "steps = [\"10% 5m\"]\nlatency = { p90 = \"1s\" }",
            "unknown key `canary.latency.p90`",
        ),
        (
            "steps = [\"10% 5m\"]\nquiet = \"wait\"",
            "is not one of its values",
        ),
        (
            "steps = [\"10% 5m\"]\nprobes = [\"search\"]",
            "is not a path of a URL",
        ),
        ("steps = [\"10% 5m\"]\nmin_requests = 0", "out of range"),
        ("step = [\"10% 5m\"]", "did you mean `steps`?"),
    ] {
        let refused = of(lines).unwrap_err().to_string();
        assert!(refused.contains(why), "{lines}: {refused}");
    }
}

#[test]
fn notices_name_who_is_told_and_of_what() {
    let parse = |lines: &str| App::parse(&format!("command = \"./run\"\n{lines}"), "slot.toml");
    let told = parse(
        "[[notices]]\nurl = \"https://example.org/a\"\nsecret_file = \"/etc/slot/keys/a\"\n\
         [[notices]]\nurl = \"http://127.0.0.1:9000\"\nevents = [\"up\", \"began\"]\n",
    );
    let told = told.unwrap().notices;
    assert_eq!(told[0].topics, Topic::USUAL.into());
    assert_eq!(told[0].secret_file.as_deref(), Some("/etc/slot/keys/a"));
    assert_eq!(told[1].topics, BTreeSet::from([Topic::Began, Topic::Up]));
    assert_ne!(told[0].key(), told[1].key());
    for (lines, why) in [
        (
            "[notices]\nurl = \"https://example.org\"",
            "write it as one of several: `[[notices]]`",
        ),
        (
            "[[notices]]\nevents = [\"up\"]",
            "write `url = \"https://example.org/hooks/slot\"` in it",
        ),
        (
            "[[notices]]\nurl = \"ftp://example.org\"",
            "is no URL of http or https",
        ),
        (
            "[[notices]]\nurl = \"https://a:b@example.org\"",
            "has a user in it",
        ),
        (
            "[[notices]]\nurl = \"https://a.org\"\nevents = [\"ends\"]",
            "\"ends\" is not one of its values",
        ),
        (
            "[[notices]]\nurl = \"https://a.org\"\nevents = []",
            "it is empty",
        ),
        (
            "[[notices]]\nurl = \"https://a.org\"\nsecret = \"x\"",
            "unknown key",
        ),
        (
            "[[notices]]\nurl = \"https://a.org\"\nsecret_file = \"x\"",
            "is not an absolute path",
        ),
        (
            "[[notices]]\nurl = \"https://a.org\"\n[[notices]]\nurl = \"https://a.org\"",
            "is there twice",
        ),
    ] {
        let refused = parse(lines).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn what_is_deployed_by_itself_is_of_a_path_or_of_the_remote() {
    let parse = |lines: &str| App::parse(&format!("command = \"./run\"\n{lines}"), "slot.toml");
    let auto = |lines: &str| parse(lines).unwrap().auto.unwrap();
    let path = auto("[auto]\nwatch = \"path\"\npath = \"/srv/drop/web/\"\nuser = \"ci\"\n");
    assert_eq!(path.watched, Watched::Path("/srv/drop/web".to_owned()));
    assert_eq!(
        (path.every, path.windows.len()),
        (Duration::from_secs(60), 0)
    );
    let git = "[git]\nremote = \"git@example.org:me/shop.git\"\n";
    let both = auto(&format!(
        "{git}[auto]\nwatch = \"git\"\nevery = \"5m\"\nwindow = [\"Mon..Fri 09:00-17:00\", \"Sat 22:00-02:00\"]\n"
    ));
    assert_eq!(both.watched, Watched::Git);
    assert_eq!(
        (both.every, both.windows.len()),
        (Duration::from_secs(300), 2)
    );
    for (lines, why) in [
        ("[auto]\nevery = \"1m\"", "does not say what is looked at"),
        ("[auto]\nwatch = \"git\"", "there is no remote to look at"),
        ("[auto]\nwatch = \"path\"", "does not say which path"),
        (
            "[auto]\nwatch = \"path\"\npath = \"drop\"",
            "is not an absolute path",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/srv/a b\"",
            "is not an absolute path",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/var/lib/slot/web/x\"",
            "slot's own directories",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/tmp/x\"",
            "has a /tmp of its own",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/home/a/x\"",
            "sees no homes",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/srv/x\"\nevery = \"1s\"",
            "too often",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/srv/x\"\nwindow = \"Mon-Fri\"",
            "`Mon..Fri 09:00-17:00`",
        ),
        (
            "[auto]\nwatch = \"path\"\npath = \"/srv/x\"\nuser = \"root\"",
            "allow_privileged_user",
        ),
        (
            &format!("{git}[auto]\nwatch = \"git\"\npath = \"/srv/x\""),
            "a remote has none",
        ),
    ] {
        let refused = parse(lines).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_refusal_names_file_line_key_and_remedy() {
    assert_eq!(
        refusal_of_line("helth = \"/healthz\""),
        "slot.toml:2: unknown key `helth`; did you mean `health`? (the keys are name, \
         command, setup_command, setup_timeout, shared_dirs, slots, bind, ready, ports, health, start_timeout, health_timeout, drain, drain_requests, \
         drain_streams, drain_tunnels, stop_timeout, soak, migrate, after_soak, keep_warm, keep_warm_frozen, soak_error_rate, keep, \
         hosts, paths, listener, sticky, preview, preview_token_sha256, allow_privileged_user, user, env_file, git, env, limits, hooks, canary, notices, auto, staging)"
    );
    assert_eq!(
        refusal_of_line("drain = 120"),
        "slot.toml:2: drain: 120 has no unit; write a number and ms, s, m, h or d: `drain = \"120s\"`"
    );
    assert_eq!(
        refusal("name = \"web\"\n"),
        "slot.toml: command: the file does not say what to run; write `command = \"./server --flag\"`"
    );
    assert_eq!(
        refusal_of_line("user = \"root\""),
        "slot.toml:2: user: an app that runs as root can do to this machine what root can; remove the key (the app \
         gets a user of its own), name another user, or write `allow_privileged_user = true`"
    );
}

#[test]
fn what_makes_no_sense_is_refused_where_it_stands() {
    for (line, says) in [
        (
            "health = \"healthz\"",
            ":2: health: \"healthz\" is not a path of a URL",
        ),
        (
            "health = 5",
            ":2: health: an integer is not what belongs here",
        ),
        (
            "bind = \"tcp\"",
            ":2: bind: \"tcp\" is not one of its values; write \"port\" or \"unix\" or \"fd\"",
        ),
        (
            "ready = true",
            ":2: ready: a boolean is not what belongs here",
        ),
        ("slots = [\"blue\"]", ":2: slots: a release needs a slot"),
        (
            "slots = [\"blue\", \"blue\"]",
            ":2: slots: \"blue\" is there twice",
        ),
        (
            "slots = [\"blue\", \"live\"]",
            ":2: slots: \"live\" is a name of slot's own",
        ),
        (
            "preview = \"*.example.org\"",
            ":2: preview: \"*.example.org\" is no domain; write what follows the app's name",
        ),
        (
            "preview_token_sha256 = \"secret\"",
            ":2: preview_token_sha256: it is not the 64 hexadecimal digits of a SHA-256; make a token",
        ),
        (
            "sticky = \"header:X User\"",
            ":2: sticky: \"header:X User\" is nothing that a client could be known by; write \"cookie\"",
        ),
        (
            "slots = [\"Blue\", \"green\"]",
            ":2: slots: \"Blue\" is no slot name",
        ),
        (
            "name = \"slot-router\"",
            ":2: name: \"slot-router\" is a name of slot's own",
        ),
        ("name = \"Web\"", ":2: name: \"Web\" is no app name"),
        (
            "start_timeout = \"0s\"",
            ":2: start_timeout: no time at all",
        ),
        (
            "stop_timeout = \"soon\"",
            ":2: stop_timeout: \"soon\" is not a span of time",
        ),
        ("keep = -1", ":2: keep: -1 is out of range"),
        (
            "setup_command = \"npm ci && npm run build\"",
            ":2: setup_command: \"&&\" is a shell's, and no shell runs this; write `setup_command = [\"/bin/sh\", \"-c\"",
        ),
        (
            "setup_command = []",
            ":2: setup_command: it is empty; write `setup_command = \"npm ci\"`",
        ),
        (
            "setup_command = \"bin/setup\"",
            ":2: setup_command: \"bin/setup\" is relative to nothing; write `./bin/setup`",
        ),
        (
            "setup_timeout = \"0s\"",
            ":2: setup_timeout: no time at all is not enough",
        ),
        ("setup_timeout = 15", ":2: setup_timeout: 15 has no unit"),
        (
            "shared_dirs = \"uploads\"",
            ":2: shared_dirs: a string is not what belongs here; write an array",
        ),
        (
            "shared_dirs = [\"../x\"]",
            ":2: shared_dirs: \"../x\" is no directory of the release",
        ),
        (
            "shared_dirs = [\"/srv/x\"]",
            ":2: shared_dirs: \"/srv/x\" is no directory",
        ),
        (
            "shared_dirs = [\".\"]",
            ":2: shared_dirs: \".\" is no directory",
        ),
        (
            "shared_dirs = [\"a/b\", \"a\"]",
            ":2: shared_dirs: \"a\" and \"a/b\" share a directory; name the outer one alone",
        ),
        ("hosts = []", ":2: hosts: it is empty"),
        (
            "hosts = [\"http://example.org\"]",
            ":2: hosts: \"http://example.org\" is not a host name",
        ),
        (
            "hosts = [\"Example.org\"]",
            ":2: hosts: \"Example.org\" is not a host name",
        ),
        (
            "paths = [\"/api/\"]",
            ":2: paths: \"/api/\" is not a prefix of whole segments; write \"/api\"",
        ),
        ("listener = \"a:b\"", ":2: listener: \"a:b\" cannot be"),
        ("user = \"1000\"", ":2: user: \"1000\" is not a user's name"),
        ("user = \"slot\"", ":2: user: an app that runs as slot"),
        (
            "env_file = \"web.env\"",
            ":2: env_file: \"web.env\" is relative to nothing",
        ),
        (
            "env_file = \"/var/lib/slot/web/web.env\"",
            ":2: env_file: root reads /var/lib/slot/web/web.env for the app, and not only root writes there",
        ),
        (
            "env_file = \"/etc/../run/slot/web.env\"",
            ":2: env_file: root reads /etc/../run/slot/web.env",
        ),
        (
            "env_file = \"/etc/web.env\\nUser=root\"",
            ":2: env_file: \"/etc/web.env\\nUser=root\" has a character that no unit takes",
        ),
        (
            "env = { PORT = \"1\" }",
            ":2: env.PORT: slot sets it itself",
        ),
        (
            "env = { SLOT_APP = \"x\" }",
            ":2: env.SLOT_APP: slot sets it itself",
        ),
        (
            "env = { \"A.B\" = \"1\" }",
            ":2: env.A.B: it is not the name of a variable",
        ),
        (
            "env = { A = 1 }",
            ":2: env.A: an integer is not what belongs here",
        ),
        ("[ports]\nblue = 80", ":3: ports.blue: 80 is out of range"),
        (
            "[ports]\nred = 2000",
            ":3: ports.red: there is no such slot; write one of `blue`, `green`",
        ),
        (
            "[ports]\nblue = 2000\ngreen = 2000",
            ":4: ports.green: port 2000 is that of ports.blue",
        ),
        (
            "[ports]\nblue = { internal = 2000 }",
            ":3: ports.blue: it has no `port`",
        ),
        (
            "[ports]\nblue = { port = 2000, extern = 1 }",
            ":3: unknown key `ports.blue.extern`; remove it; the keys are port, internal",
        ),
        (
            "bind = \"unix\"\n[ports]\nblue = 2000",
            ":3: ports: ports are for bind = \"port\" alone",
        ),
        ("command = \"again\"", ":2: duplicate key"),
        ("health = ", ":2: "),
    ] {
        let told = refusal_of_line(line);
        assert!(
            told.contains(says),
            "{line}\n  told: {told}\n  not:  {says}"
        );
    }
}

#[test]
fn a_command_that_would_need_a_shell_is_refused() {
    for (line, says) in [
        ("\"\"", "it is empty"),
        ("[]", "it is empty"),
        ("\"make && ./server\"", "\"&&\" is a shell's"),
        ("\"./server 'open\"", "a quote is not closed"),
        ("\"bin/server\"", "write `./bin/server`"),
        ("\"./server \\u0000\"", "control character"),
        ("7", "an integer is not what belongs here"),
    ] {
        let told = refusal(&format!("command = {line}\n"));
        assert!(
            told.contains(says),
            "{line}\n  told: {told}\n  not:  {says}"
        );
    }
}

#[test]
fn a_privileged_user_is_accepted_when_it_is_asked_for() {
    let text = "command = \"./server\"\nuser = \"root\"\nallow_privileged_user = true\n";
    assert_eq!(
        App::parse(text, "slot.toml").unwrap().user.as_deref(),
        Some("root")
    );
}

#[test]
fn a_misspelt_key_is_named_rather_than_the_one_that_it_stands_for() {
    assert!(
        refusal("name = \"web\"\ncomand = \"./server\"\n")
            .starts_with("slot.toml:2: unknown key `comand`; did you mean `command`?"),
    );
    assert!(
        refusal_of_line("[ports]\nblue = { prot = 2000 }")
            .starts_with("slot.toml:3: unknown key `ports.blue.prot`; did you mean `port`?"),
    );
}

#[test]
fn an_env_file_that_root_reads_is_one_that_only_root_can_replace() {
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let file = place.path().join("web.env");
    std::fs::write(&file, "A=1\n").unwrap();
    let check = |path: &str| {
        let text =
            format!("name = \"web\"\ncommand = \"x\"\nbind = \"fd\"\nenv_file = \"{path}\"\n");
        let app = App::parse(&text, "/etc/slot/apps/web.toml").unwrap();
        app.check_installed("/etc/slot/apps/web.toml")
    };
    let error = check(file.to_str().unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("/etc/slot/apps/web.toml: env_file: root reads it for the app, and others than root may write to /tmp; put it"),
        "{error}"
    );
    for path in ["/etc/passwd", "./tmp/web.env"] {
        check(path).unwrap();
    }
    // Nor is a key or what says whom to believe.
    for key in ["deploy_key", "known_hosts"] {
        let text = format!(
            "name = \"web\"\ncommand = \"x\"\nbind = \"fd\"\n[git]\nremote = \"h:x\"\n{key} = \"{}\"\n",
            file.display()
        );
        let app = App::parse(&text, "/etc/slot/apps/web.toml").unwrap();
        let error = app.check_installed("/etc/slot/apps/web.toml");
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("git.{key}: root reads it")),
            "{error}"
        );
    }
}

#[test]
fn an_installed_file_has_its_own_name_and_a_port_for_each_slot() {
    let text = "name = \"web\"\ncommand = \"./server\"\n[ports]\nblue = 20001\n";
    let app = App::parse(text, "/etc/slot/apps/web.toml").unwrap();
    let missing = app.check_installed("/etc/slot/apps/web.toml").unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("ports.green: the slot has no port"),
        "{missing}"
    );
    let misnamed = app.check_installed("/etc/slot/apps/shop.toml").unwrap_err();
    assert!(
        misnamed.to_string().contains("rename it to web.toml"),
        "{misnamed}"
    );
}

#[test]
fn limits_are_sizes_and_times_and_each_is_named_where_it_is_wrong() {
    let text =
        "command = \"./server\"\n[limits]\nbody_bytes = \"10M\"\nresponse_timeout = \"2m\"\n";
    let limits = App::parse(text, "slot.toml").unwrap().limits;
    assert_eq!(limits.body_bytes, Some(10 << 20));
    assert_eq!(
        limits.response_timeout.map(|span| span.as_secs()),
        Some(120)
    );
    assert_eq!(
        (limits.body_stall, limits.write_stall, limits.response_stall),
        (None, None, None)
    );
    for (line, says) in [
        (
            "body_bytes = -1",
            ":3: limits.body_bytes: it is no number of bytes; write a whole number of bytes, or one with K, M or G",
        ),
        (
            "body_bytes = 1.5",
            ":3: limits.body_bytes: it is no number of bytes; write a whole number of bytes, or one with K, M or G",
        ),
        (
            "body_bytes = \"1T\"",
            ":3: limits.body_bytes: \"1T\" is not a number of bytes",
        ),
        (
            "body_bytes = \"99999999999G\"",
            ":3: limits.body_bytes: \"99999999999G\" is not a number of bytes",
        ),
        ("body_stall = \"0s\"", ":3: limits.body_stall: no time"),
        ("head_bytes = 1", ":3: unknown key `limits.head_bytes`"),
    ] {
        let refusal = refusal(&format!("command = \"./server\"\n[limits]\n{line}\n"));
        assert!(refusal.contains(says), "{line}: {refusal}");
    }
}

#[test]
fn a_machines_file_may_be_empty_or_set_everything() {
    assert_eq!(
        Machine::parse("", "machine.toml", None).unwrap(),
        Machine::default()
    );
    let text = "[limits]\nhead_bytes = \"32K\"\nhead_fields = 50\ntarget_bytes = 4096\nhead_timeout = \"10s\"\nidle_timeout = \"20s\"\n\
        connect_timeout = \"1s\"\nconnections = 5\nconnections_per_address = 0\nheld_requests = 7\nbody_bytes = \"1G\"\nbody_stall = \"2s\"\n\
        write_stall = \"3s\"\nresponse_timeout = \"4s\"\nresponse_stall = \"5s\"\nheld_bytes = \"1M\"\nhold_timeout = \"6s\"\n\
        table_timeout = \"7s\"\nproxy_header_timeout = \"8s\"\nhalf_closed_timeout = \"9s\"\ninterim_answers = 3\nlinger_timeout = \"11s\"\n\
        [router]\ntrusted_peers = [\"10.0.0.0/8\", \"2001:db8::1\"]\nproxy_protocol = [\"http\", \"https\"]\ndrain = \"10m\"\n";
    let machine = Machine::parse(text, "machine.toml", None).unwrap();
    let limits = Limits::default().with(&machine.limits);
    let seconds = [
        limits.connect,
        limits.body_stall,
        limits.write_stall,
        limits.response_head,
        limits.response_stall,
        limits.hold,
        limits.held_without_table,
        limits.proxy_header,
        limits.half_closed,
        limits.head,
        limits.linger_most,
        limits.idle,
    ];
    assert_eq!(
        seconds.map(|span| span.as_secs()),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20]
    );
    assert_eq!((limits.held_bytes, limits.interim), (1 << 20, 3));
    let heads = limits.heads;
    assert_eq!(
        (heads.head_bytes, heads.fields, heads.target_bytes),
        (32 << 10, 50, 4096)
    );
    assert_eq!(
        (
            limits.connections,
            limits.connections_per_address,
            limits.held,
            limits.body_bytes
        ),
        (5, 0, 7, 1 << 30)
    );
    assert!(machine.trusted_peers[0].contains([10, 1, 2, 3].into()));
    let large = Machine::parse(
        "[limits]\nbody_bytes = 5_000_000_000\n",
        "machine.toml",
        None,
    );
    assert_eq!(
        large.unwrap().limits.apps.body_bytes,
        Some(5_000_000_000),
        "more than 32 bits have"
    );
    assert_eq!(machine.proxy_protocol, ["http", "https"]);
    assert_eq!(machine.drain.map(|limit| limit.as_secs()), Some(600));
    assert_eq!(
        Limits::default().with(&Machine::default().limits),
        Limits::default()
    );
}

#[test]
fn a_drain_of_the_router_without_a_limit_is_the_default_and_can_be_said() {
    let drain = |text| Machine::parse(text, "machine.toml", None).map(|machine| machine.drain);
    assert_eq!(drain("[router]\ndrain = \"0s\"\n"), Ok(None));
    assert_eq!(drain("[router]\n"), Ok(None));
    let wrong = drain("[router]\ndrain = 600\n").unwrap_err().to_string();
    assert!(
        wrong.starts_with("machine.toml:2: router.drain: 600 has no unit; write"),
        "{wrong}"
    );
}

#[test]
fn a_machines_file_that_is_absent_sets_nothing_and_one_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = Machine::read(&directory.path().join("machine.toml"));
    assert_eq!(absent.unwrap(), Machine::default());
    // A directory cannot be read, by root neither.
    let error = Machine::read(directory.path()).unwrap_err().to_string();
    let path = directory.path().display();
    assert!(
        error.starts_with(&format!("cannot read {path}, ")),
        "{error}"
    );
}
