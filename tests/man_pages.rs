//! The manual pages: each is complete, renders without a warning, and every unit names one that there is.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

/// Those that are written, and those that `slotctl man` writes.
fn pages(made: &Path) -> Vec<PathBuf> {
    let status = Command::new(env!("CARGO_BIN_EXE_slotctl"))
        .args(["man", "--dir"])
        .arg(made)
        .status()
        .unwrap();
    assert!(status.success());
    let folders = [Path::new("man"), made].map(|folder| fs::read_dir(folder).unwrap());
    let mut pages: Vec<PathBuf> = folders
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    pages
}

fn name(page: &Path) -> String {
    page.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_page_is_complete() {
    let made = tempfile::tempdir().unwrap();
    let pages = pages(made.path());
    let names: Vec<String> = pages.iter().map(|page| name(page)).collect();
    for page in [
        "slotctl.1",
        "slotctl-deploy.1",
        "slotctl-config-check.1",
        "slotctl-listener-add.1",
        "slotctl-app-reload.1",
        "slotd.8",
        "slot-router.8",
        "slot.toml.5",
        "slot-machine.toml.5",
        "slot@.service.5",
        "slot.7",
    ] {
        assert!(names.iter().any(|name| name == page), "{page}");
    }
    let reference = Regex::new(r"\.(?:BR|IR) (slot[a-z@.-]*) \(([1-8])\)").unwrap();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap().replace("\\-", "-");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "EXAMPLES",
            "EXIT STATUS",
            "SEE ALSO",
        ] {
            let headed = Regex::new(&format!("(?m)^\\.SH \"?{section}\"?\n[^\n]")).unwrap();
            // Concepts are not called.
            assert!(
                headed.is_match(&text) || (name(page) == "slot.7" && section == "SYNOPSIS"),
                "{}: {section}",
                page.display()
            );
        }
        for named in reference.captures_iter(&text) {
            let other = format!("{}.{}", &named[1], &named[2]);
            assert!(
                names.contains(&other),
                "{} speaks of {other}",
                page.display()
            );
        }
    }
}

/// What a formatter says against a page.
fn against(program: &str, words: &[&str], page: &Path) -> String {
    let output = Command::new(program)
        .args(words)
        .arg(page)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "80")
        .stdout(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `apt install man-db` brings it"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => text,
        false => format!("{}: {text}", output.status),
    }
}

#[test]
fn every_page_renders_without_a_warning() {
    let made = tempfile::tempdir().unwrap();
    for page in pages(made.path()) {
        let page = page.canonicalize().unwrap();
        assert_eq!(
            against("groff", &["-man", "-ww", "-Kutf8", "-Tutf8", "-z"], &page),
            "",
            "{}",
            page.display()
        );
        assert_eq!(
            against("man", &["--warnings", "-E", "UTF-8", "-Tutf8", "-l"], &page),
            "",
            "{}",
            page.display()
        );
    }
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => below(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn every_unit_names_a_page_that_there_is() {
    let made = tempfile::tempdir().unwrap();
    let names: Vec<String> = pages(made.path()).iter().map(|page| name(page)).collect();
    let mut files = Vec::new();
    below(Path::new("units/usr/lib/systemd/system"), &mut files);
    below(Path::new("tests/generator"), &mut files);
    let texts = files.iter().filter(|file| {
        let kinds = ["service", "socket", "slice", "timer", "path", "target"];
        file.extension()
            .is_some_and(|kind| kinds.iter().any(|it| kind == *it))
    });
    let mut units: Vec<(String, String)> = texts
        .map(|file| {
            (
                file.display().to_string(),
                fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    let [socket, _] = slot::units::listener("443", "443", 99);
    units.push((socket.path, socket.text));
    for unit in slot::units::stand_in(&"web".parse().unwrap(), Path::new("/x"), "no") {
        units.push((unit.path, unit.text));
    }
    // An empty file is a mask.
    units.retain(|(_, text)| !text.is_empty());
    assert!(units.len() > 30, "{}", units.len());
    for (unit, text) in units {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("Documentation="));
        let named: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        assert!(!named.is_empty(), "{unit} names no page");
        for page in named {
            let inner = page
                .strip_prefix("man:")
                .and_then(|it| it.strip_suffix(')'));
            let (name, section) = inner
                .and_then(|it| it.split_once('('))
                .unwrap_or_else(|| panic!("{unit}: {page}"));
            assert!(
                names.contains(&format!("{name}.{section}")),
                "{unit} names {page}"
            );
        }
    }
}
