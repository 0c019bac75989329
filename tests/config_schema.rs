//! The schemas that editors are given say what the parser does: the same keys, the same defaults, the same values.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value};
use slot::config::{APP_SCHEMA, App, MACHINE_SCHEMA, Machine};

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn toml(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

/// Whether a value is what a schema describes (JSON Schema, draft 7), as far as ours go: a keyword that is not known stops the test.
fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else {
        return schema.as_bool().unwrap();
    };
    rules
        .iter()
        .all(|(keyword, rule)| holds(root, rules, keyword, rule, value))
}

fn holds(
    root: &Value,
    rules: &Map<String, Value>,
    keyword: &str,
    rule: &Value,
    value: &Value,
) -> bool {
    let valid = |schema: &Value, value: &Value| is_valid(root, schema, value);
    let all = |rule: &Value| {
        rule.as_array()
            .unwrap()
            .iter()
            .filter(|it| valid(it, value))
            .count()
    };
    let object = value.as_object();
    match keyword {
        "$schema" | "$id" | "title" | "description" | "default" | "examples" | "definitions"
        | "x-absent" | "x-machine" | "x-secret" => true,
        "$ref" => valid(
            root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap())
                .unwrap(),
            value,
        ),
        "allOf" => all(rule) == rule.as_array().unwrap().len(),
        "anyOf" => all(rule) > 0,
        "oneOf" => all(rule) == 1,
        "not" => !valid(rule, value),
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            other => panic!("type {other}"),
        },
        "pattern" => value
            .as_str()
            .is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap()),
        "maxLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap()),
        "minimum" => value
            .as_f64()
            .is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value
            .as_f64()
            .is_none_or(|number| number <= rule.as_f64().unwrap()),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "uniqueItems" => value.as_array().is_none_or(|items| {
            items
                .iter()
                .map(Value::to_string)
                .collect::<BTreeSet<_>>()
                .len()
                == items.len()
        }),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| valid(rule, item))),
        "required" => object.is_none_or(|it| {
            rule.as_array()
                .unwrap()
                .iter()
                .all(|key| it.contains_key(key.as_str().unwrap()))
        }),
        "properties" => object.is_none_or(|it| {
            it.iter()
                .all(|(key, value)| rule.get(key).is_none_or(|rule| valid(rule, value)))
        }),
        "propertyNames" => {
            object.is_none_or(|it| it.keys().all(|key| valid(rule, &Value::from(key.as_str()))))
        }
        "additionalProperties" => object.is_none_or(|it| {
            let named = rules.get("properties");
            let others = it
                .iter()
                .filter(|(key, _)| named.is_none_or(|named| named.get(key.as_str()).is_none()));
            others.into_iter().all(|(_, value)| valid(rule, value))
        }),
        other => panic!("a keyword that this test does not know: {other}"),
    }
}

/// The tables of fixed keys in a schema, by their path, with their keys.
fn tables(schema: &Value, path: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    let Some(keys) = schema["properties"].as_object() else {
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{path} would let any key through"
    );
    found.push((path.to_owned(), keys.keys().cloned().collect()));
    for (key, about) in keys {
        let path = format!("{path}.{key}");
        tables(about, path.trim_start_matches('.'), found);
        tables(
            &about["items"],
            &format!("[{}]", path.trim_start_matches('.')),
            found,
        );
    }
}

/// The keys that the parser knows in a table: what it says of one that it does not.
fn known(path: &str, refuse: impl Fn(&str) -> String) -> BTreeSet<String> {
    let header = if path.is_empty() {
        String::new()
    } else {
        format!("[{path}]\n")
    };
    // What else has to be there for the parser to come as far.
    let first = match path {
        "git" => "remote = 'h:x'\n",
        "auto" => "watch = 'path'\npath = '/srv/x'\n",
        "[notices]" => "url = 'https://h/'\n",
        "canary" | "canary.latency" | "canary.latency_ratio" => "steps = ['1% 1m']\n",
        _ => "",
    };
    let header = match path.split_once('.') {
        Some((outer, _)) => format!("[{outer}]\n{first}{header}"),
        None => format!("{header}{first}"),
    };
    let error = refuse(&format!("{header}qqqqqqqq = 1\n"));
    let (_, keys) = error
        .split_once("the keys are ")
        .unwrap_or_else(|| panic!("{path}: {error}"));
    keys.trim_end_matches(')')
        .split(", ")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_schema_has_the_keys_that_the_parser_has_in_every_table() {
    let app = |text: &str| {
        let text = match text.starts_with('[') {
            true => format!("command = 'x'\n{text}"),
            false => text.to_owned(),
        };
        App::parse(&text, "f").unwrap_err().to_string()
    };
    let machine = |text: &str| Machine::parse(text, "f", None).unwrap_err().to_string();
    let mut found = Vec::new();
    tables(&schema(APP_SCHEMA), "", &mut found);
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert!(
        paths.contains(&"[notices]") && paths.contains(&"canary.latency"),
        "{paths:?}"
    );
    for (path, keys) in &found {
        assert_eq!(known(path, app), *keys, "[{path}]");
    }
    let mut found = Vec::new();
    tables(&schema(MACHINE_SCHEMA), "", &mut found);
    assert_eq!(found.len(), 3);
    for (path, keys) in &found {
        assert_eq!(known(path, machine), *keys, "[{path}]");
    }
}

/// Every key with its path, what is said about it, and the tables that it is in.
fn keys<'s>(schema: &'s Value, path: &str, found: &mut Vec<(String, &'s Value)>) {
    for (key, about) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{key}");
        if about.get("properties").is_some() {
            keys(about, &format!("{path}."), found);
        } else if about["items"].get("properties").is_some() {
            keys(&about["items"], &format!("{path}[]."), found);
        } else {
            found.push((path, about));
        }
    }
}

/// A file with one key of a value, and what has to be there besides.
fn with(path: &str, value: &Value) -> String {
    let value = toml::Value::try_from(value).unwrap();
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let beside = match path {
        "git.remote" | "auto.watch" | "canary.steps" | "notices[].url" => "",
        "auto.path" => "watch = 'path'\n",
        _ => match table {
            "git" => "remote = 'h:x'\n",
            "auto" => "watch = 'git'\n",
            "notices[]" => "url = 'https://h/'\n",
            "router" if key == "proxy_protocol" => "trusted_peers = ['10.0.0.1']\n",
            _ => "",
        },
    };
    let line = format!("{beside}{key} = {value}\n");
    match table {
        "" => line,
        "notices[]" => format!("[[notices]]\n{line}"),
        "canary" if path != "canary.steps" => format!("[canary]\nsteps = ['1% 1m']\n{line}"),
        _ if table.starts_with("canary.") => {
            format!("[canary]\nsteps = ['1% 1m']\n[{table}]\n{line}")
        }
        "auto" => format!("[git]\nremote = 'h:x'\n[auto]\n{line}"),
        _ => format!("[{table}]\n{line}"),
    }
}

fn app_with(path: &str, value: &Value) -> String {
    match path {
        "command" => with(path, value),
        _ => format!("command = 'x'\n{}", with(path, value)),
    }
}

#[test]
fn the_parser_takes_every_default_for_what_it_means_without_the_key() {
    let app = |text: &str| App::parse(text, "f").unwrap_or_else(|error| panic!("{error}\n{text}"));
    let schema_of_apps = schema(APP_SCHEMA);
    let mut found = Vec::new();
    keys(&schema_of_apps, "", &mut found);
    let mut defaults = 0;
    for (path, about) in &found {
        let Some(default) = about.get("default") else {
            let says = ["x-absent", "x-machine"]
                .iter()
                .any(|word| about.get(word).is_some());
            let required = [
                "command",
                "git.remote",
                "canary.steps",
                "auto.watch",
                "notices[].url",
            ];
            assert!(
                says || required.contains(&path.as_str()),
                "{path}: what is meant without it?"
            );
            continue;
        };
        defaults += 1;
        let text = app_with(path, default);
        let key = path.rsplit('.').next().unwrap();
        let without: String = text
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(app(&text), app(&without), "{path}");
    }
    assert!(defaults > 25, "{defaults}");
    let schema_of_machines = schema(MACHINE_SCHEMA);
    let mut found = Vec::new();
    keys(&schema_of_machines, "", &mut found);
    let limits = |text: &str| {
        let machine = Machine::parse(text, "f", None).unwrap();
        let rest = (machine.trusted_peers, machine.proxy_protocol, machine.drain);
        (
            format!(
                "{:?}",
                slot::router::Limits::default().with(&machine.limits)
            ),
            rest,
        )
    };
    for (path, about) in &found {
        if let Some(default) = about.get("default") {
            let proxies = if path == "router.proxy_protocol" {
                "[router]\ntrusted_peers = ['10.0.0.1']\n"
            } else {
                ""
            };
            assert_eq!(limits(&with(path, default)), limits(proxies), "{path}");
        }
    }
}

#[test]
fn the_parser_and_the_schema_take_every_example() {
    let root = schema(APP_SCHEMA);
    let mut found = Vec::new();
    keys(&root, "", &mut found);
    let mut examples = 0;
    for (path, about) in &found {
        let default = about.get("default").into_iter();
        let own = about["examples"]
            .as_array()
            .into_iter()
            .flatten()
            .chain(default);
        for example in own.filter(|it| *it != &Value::Array(Vec::new())) {
            let text = app_with(path, example);
            App::parse(&text, "f").unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(is_valid(&root, &root, &toml(&text)), "{text}");
            examples += 1;
        }
    }
    assert!(examples > 60, "{examples}");
}

#[test]
fn the_parser_and_the_schema_agree_on_what_is_right_and_what_is_wrong() {
    let root = schema(APP_SCHEMA);
    let whole = |line: &str| match line.starts_with("command") {
        true => line.to_owned(),
        false => format!("command = 'x'\n{line}\n"),
    };
    for (line, right) in [
        ("", true),
        ("command = ''", false),
        ("command = []", false),
        ("command = 5", false),
        ("command = ['./a', '']", true),
        ("name = 'web'", true),
        ("name = 'Web'", false),
        ("name = 'web-'", false),
        ("name = 'slotd'", false),
        ("name = 'slot-x'", false),
        ("name = 'abcdefghijklmnopqrstuvw'", false),
        ("slots = ['a', 'b', 'c']", true),
        ("slots = ['a']", false),
        ("slots = ['a', 'a']", false),
        ("slots = ['a', 'live']", false),
        ("bind = 'tcp'", false),
        (
            "ports = { blue = 20001, green = { port = 20002, internal = 20003 } }",
            true,
        ),
        ("ports = { blue = 80 }", false),
        ("ports = { blue = { internal = 20003 } }", false),
        ("ports = { blue = { port = 20003, x = 1 } }", false),
        ("health = '/a?b=c'", true),
        ("health = 'a'", false),
        ("health = '/a b'", false),
        ("health = '/a#b'", false),
        ("start_timeout = '0s'", false),
        ("start_timeout = '1m 30s'", true),
        ("start_timeout = '1500ms'", true),
        ("start_timeout = '30'", false),
        ("start_timeout = 30", false),
        ("drain = '0'", true),
        ("drain = ''", false),
        ("drain = '1 s'", false),
        ("drain = '1.5s'", false),
        ("soak_error_rate = '0.5%'", true),
        ("soak_error_rate = '5'", false),
        ("soak_error_rate = 'off'", true),
        ("after_soak = 'rollback'", true),
        ("after_soak = 'never'", false),
        ("keep = 0", true),
        ("keep = -1", false),
        ("keep = 10001", false),
        ("keep = '5'", false),
        ("keep_warm_frozen = 'yes'", false),
        (
            "hosts = ['a.example.org', '*.example.org', '*', 'a_b']",
            true,
        ),
        ("hosts = []", false),
        ("hosts = ['A.example.org']", false),
        ("hosts = ['a..b']", false),
        ("hosts = ['-a']", false),
        ("hosts = ['http://a']", false),
        ("paths = ['/', '/api', '/a/b']", true),
        ("paths = ['/api/']", false),
        ("paths = ['/a?b']", false),
        ("paths = ['api']", false),
        ("listener = '443'", true),
        ("listener = 'a:b'", false),
        ("sticky = 'header:X-User'", true),
        ("sticky = 'header:'", false),
        ("sticky = 'ip'", false),
        ("preview = 'example.org'", true),
        ("preview = '*.example.org'", false),
        ("preview_token_sha256 = 'abc'", false),
        ("user = 'deploy'", true),
        ("user = '1000'", false),
        ("env_file = './x.env'", true),
        ("env_file = 'x.env'", false),
        ("env = { A = '1' }", true),
        ("env = { A = 1 }", false),
        ("env = { '1A' = '1' }", false),
        ("env = { PORT = '1' }", false),
        ("env = { SLOT_X = '1' }", false),
        ("git = { branch = 'main' }", false),
        ("git = { remote = 'h:x', branch = 'a b' }", false),
        ("git = { remote = 'h:x', deploy_key = 'k' }", false),
        ("git = { remote = 'h:x', fetch_timeout = '0s' }", false),
        ("hooks = { before_switch = './x', timeout = '5m' }", true),
        ("hooks = { before = './x' }", false),
        ("canary = { steps = ['1% 2m', '10% 1h 30m'] }", true),
        ("canary = { }", false),
        ("canary = { steps = [] }", false),
        ("canary = { steps = ['100% 2m'] }", false),
        ("canary = { steps = ['0% 2m'] }", false),
        ("canary = { steps = ['10%'] }", false),
        (
            "canary = { steps = ['1% 1m'], latency = { p99 = '1s' }, latency_ratio = { p50 = 1.5 } }",
            true,
        ),
        (
            "canary = { steps = ['1% 1m'], latency = { p90 = '1s' } }",
            false,
        ),
        ("canary = { steps = ['1% 1m'], error_ratio = 0.5 }", false),
        ("canary = { steps = ['1% 1m'], quiet = 'no' }", false),
        ("canary = { steps = ['1% 1m'], min_requests = 0 }", false),
        ("auto = { watch = 'path', path = '/srv/drop' }", true),
        ("auto = { watch = 'path', path = '/srv/a b' }", false),
        ("auto = { path = '/srv/drop' }", false),
        (
            "auto = { watch = 'path', path = '/srv/drop', window = ['Mon..Fri 09:00-17:00', '08:00-24:00'] }",
            true,
        ),
        (
            "auto = { watch = 'path', path = '/srv/drop', window = 'Mon 9:00-17:00' }",
            false,
        ),
        (
            "auto = { watch = 'path', path = '/srv/drop', window = [] }",
            false,
        ),
        (
            "notices = [{ url = 'https://h/x', events = ['ended'] }]",
            true,
        ),
        ("notices = [{ url = 'ftp://h/x' }]", false),
        ("notices = [{ events = ['ended'] }]", false),
        ("notices = [{ url = 'https://h/x', events = ['x'] }]", false),
        ("notices = { url = 'https://h/x' }", false),
        ("staging = { user = 'alice', branch = 'x/y' }", true),
        ("staging = { branch = '-x' }", false),
        (
            "limits = { body_bytes = 1024, response_timeout = '5m' }",
            true,
        ),
        ("limits = { body_bytes = '10M' }", true),
        ("limits = { body_bytes = '10X' }", false),
        ("limits = { body_bytes = -1 }", false),
        ("limits = { head_bytes = 1 }", false),
        ("soka = '1s'", false),
    ] {
        let text = whole(line);
        let parsed = App::parse(&text, "f");
        assert_eq!(parsed.is_ok(), right, "the parser: {line}: {parsed:?}");
        let faults = App::faults(&text, "f");
        match &parsed {
            Ok(_) => assert_eq!(faults, [], "{line}"),
            Err(error) => assert!(faults.contains(error), "{line}: {faults:?}"),
        }
        assert_eq!(
            is_valid(&root, &root, &toml(&text)),
            right,
            "the schema: {line}"
        );
    }
}

#[test]
fn what_init_writes_and_what_the_tests_have_is_valid() {
    let root = schema(APP_SCHEMA);
    for file in std::fs::read_dir("tests/generator").unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|it| it == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(is_valid(&root, &root, &toml(&text)), "{}", path.display());
        }
    }
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once("## slot.toml\n\n```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert!(is_valid(&root, &root, &toml(example)), "{example}");
}

#[test]
fn every_key_is_in_the_manual() {
    for (text, page) in [
        (APP_SCHEMA, include_str!("../man/slot.toml.5")),
        (MACHINE_SCHEMA, include_str!("../man/slot-machine.toml.5")),
    ] {
        let root = schema(text);
        let mut found = Vec::new();
        keys(&root, "", &mut found);
        for (path, _) in found {
            let key = path.rsplit('.').next().unwrap();
            let is_there = Regex::new(&format!(r"\b{key}\b")).unwrap();
            assert!(
                is_there.is_match(&page.replace("\\-", "-")),
                "{path} is not in the manual"
            );
        }
    }
}
