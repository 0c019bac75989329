//! App files and the trees of units made of them, kept as golden files in `tests/generator/`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test generator` writes them anew; their diff is then what to review.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use slot::config::App;
use slot::units;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generator")
}

/// Every file below a directory by its relative path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn each_app_file_makes_the_units_that_are_kept_for_it() {
    let mut apps = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        apps += 1;
        let installed = Path::new("/etc/slot/apps").join(file.file_name().unwrap());
        let text = fs::read_to_string(&file).unwrap();
        let app = App::parse(&text, installed.to_str().unwrap()).unwrap();
        app.check_installed(installed.to_str().unwrap()).unwrap();
        let mut made: BTreeMap<String, String> = units::render(&app, &installed)
            .into_iter()
            .map(|unit| (unit.path, unit.text))
            .collect();
        let rule = units::polkit_rule_path(&app.name);
        assert_eq!(units::app_of_rule(&rule), Some(app.name.as_str()));
        made.insert(
            rule.file_name().unwrap().to_str().unwrap().to_owned(),
            units::polkit_rule(&app),
        );
        let kept = file.with_extension("units");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let _ = fs::remove_dir_all(&kept);
            for (name, text) in &made {
                let path = kept.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        assert_eq!(made, tree(&kept), "{}", file.display());
    }
    assert!(apps >= 4, "the golden files are gone: {apps} left");
}

#[test]
fn a_file_that_is_wrong_costs_its_own_app_only() {
    let work = tempfile::tempdir().unwrap();
    let apps = work.path().join("apps");
    let units = work.path().join("units");
    fs::create_dir_all(&apps).unwrap();
    fs::write(apps.join("bad.toml"), "name = \"bad\"\ncomand = \"./x\"\n").unwrap();
    fs::write(
        apps.join("portless.toml"),
        "name = \"portless\"\ncommand = \"./x\"\n",
    )
    .unwrap();
    fs::copy(golden().join("web.toml"), apps.join("web.toml")).unwrap();
    fs::write(apps.join("web.toml.orig"), "not looked at").unwrap();
    let rules = work.path().join("rules");
    let output = Command::new(env!("CARGO_BIN_EXE_slot-generator"))
        .args([&units, &units, &units, &apps, &rules])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("bad.toml:2: unknown key `comand`; did you mean `command`?"),
        "{told}"
    );
    assert!(
        told.contains("portless.toml: ports.blue: the slot has no port"),
        "{told}"
    );
    let made = tree(&units);
    let names: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "bad@.service",
            "bad@.socket",
            "portless@.service",
            "portless@.socket",
            "web@.service",
            "web@.socket",
            "web@blue.service.d/10-slot.conf",
            "web@green.service.d/10-slot.conf"
        ]
    );
    assert!(
        made["bad@.service"].starts_with("# "),
        "{}",
        made["bad@.service"]
    );
    assert!(made["bad@.service"].contains("unknown key `comand`"));
    // What ran before goes on, and if it ends, comes back once the file is right.
    assert!(made["bad@.service"].contains("\nRestart=always\n"));
    assert_eq!(made["bad@.socket"], "", "an empty file is a mask");
}

#[test]
fn an_app_whose_file_was_removed_leaves_no_name_free_that_its_rule_names() {
    let work = tempfile::tempdir().unwrap();
    let [apps, rules, units] = ["apps", "rules", "units"].map(|name| work.path().join(name));
    fs::create_dir_all(&rules).unwrap();
    for rule in [
        "60-slot-app-web.rules",
        "60-slot-app-old.rules.removed",
        "60-slot.rules",
    ] {
        fs::write(rules.join(rule), "// a rule").unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_slot-generator"))
        .args([&units, &units, &units, &apps, &rules])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let made = tree(&units);
    let names: Vec<&str> = made.keys().map(String::as_str).collect();
    assert_eq!(names, ["web@.service", "web@.socket"]);
    assert!(made["web@.service"].contains("web.toml is gone"));
    assert_eq!(made["web@.socket"], "", "an empty file is a mask");
}

#[test]
fn no_unit_that_any_rule_of_an_app_lets_slotd_start_is_free() {
    for (bind, masked) in [("port", true), ("unix", true), ("fd", false)] {
        let text = format!("name = \"web\"\ncommand = \"./x\"\nbind = \"{bind}\"\n");
        let app = App::parse(&text, "web.toml").unwrap();
        let made = units::render(&app, Path::new("/etc/slot/apps/web.toml"));
        let text = |path: &str| {
            made.iter()
                .find(|unit| unit.path == path)
                .unwrap()
                .text
                .as_str()
        };
        assert!(!text("web@.service").is_empty(), "{bind}");
        assert_eq!(text("web@.socket").is_empty(), masked, "{bind}");
    }
}

#[test]
fn a_machine_without_apps_has_no_units_and_no_error() {
    let work = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_slot-generator"))
        .args([
            work.path(),
            work.path(),
            work.path(),
            &work.path().join("absent"),
            &work.path().join("absent"),
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(tree(work.path()).is_empty());
}

#[test]
fn staging_has_the_sandbox_of_the_apps_without_a_network() {
    let template = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("units/usr/lib/systemd/system/slot-stage@.service");
    let template = fs::read_to_string(template).unwrap();
    let app = fs::read_to_string(golden().join("web.units/web@.service")).unwrap();
    let (_, sandbox) = app.split_once("NoNewPrivileges=yes").unwrap();
    for line in sandbox
        .lines()
        .filter(|line| !line.starts_with("RestrictAddressFamilies="))
    {
        assert!(
            template.lines().any(|it| it == line) || line.is_empty(),
            "{line}"
        );
    }
    assert!(template.contains("\nPrivateNetwork=yes\n"));
    assert!(
        template.contains("\nExecStart=/bin/false\n") && template.contains("\nDynamicUser=yes\n")
    );
}

#[test]
fn builds_fetches_and_hooks_have_the_sandbox_of_the_apps() {
    let app = fs::read_to_string(golden().join("web.units/web@.service")).unwrap();
    let (_, sandbox) = app.split_once("NoNewPrivileges=yes").unwrap();
    for template in [
        "slot-setup@.service",
        "slot-fetch@.service",
        "slot-hook@.service",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("units/usr/lib/systemd/system");
        let text = fs::read_to_string(path.join(template)).unwrap();
        assert!(
            text.ends_with(&format!("NoNewPrivileges=yes{sandbox}")),
            "{template} says otherwise than:\n{sandbox}"
        );
    }
}
