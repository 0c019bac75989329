//! Wrong app files, and what their authors are told: the file, the line, the key and what to write instead.

use slot::config::{App, Bind, Ready};

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
        app.drain,
        app.stop_timeout,
        app.soak,
    ]
    .map(|span| span.as_secs());
    assert_eq!(seconds, [60, 30, 120, 10, 30]);
    assert_eq!(
        (app.keep, app.hosts, app.paths),
        (5, vec!["*".to_owned()], vec!["/".to_owned()])
    );
}

#[test]
fn a_refusal_names_file_line_key_and_remedy() {
    assert_eq!(
        refusal_of_line("helth = \"/healthz\""),
        "slot.toml:2: unknown key `helth`; did you mean `health`? (the keys are name, \
         command, slots, bind, ready, ports, health, start_timeout, health_timeout, drain, stop_timeout, soak, keep, \
         hosts, paths, listener, allow_privileged_user, user, env_file, env)"
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
