//! SECURITY.md names a test for each of its claims: every one of them exists.

// A test may stop at the first surprise.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

/// `file::name` in backquotes.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|words| words.split_once("::"));
    pairs
        .filter(|(file, _)| file.starts_with("tests/") || file.starts_with("src/"))
        .map(|(file, name)| (file.to_owned(), name.to_owned()))
        .collect()
}

/// Whether a source has a test of this name: a function with nothing else between it and the attribute that makes it one.
fn has_test(source: &str, is_rust: bool, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        if !is_rust {
            return line.starts_with(&format!("def {name}(")) && name.starts_with("test_");
        }
        let is_it = [format!("fn {name}("), format!("async fn {name}(")]
            .iter()
            .any(|begin| line.starts_with(begin));
        let before = lines[..at].iter().rev();
        let mut attributes = before.take_while(|line| line.starts_with("#["));
        is_it && attributes.any(|line| line.contains("test"))
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let text = fs::read_to_string("SECURITY.md").unwrap();
    let named = named(&text);
    assert!(named.len() > 50, "{named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, name)| {
            let source = fs::read_to_string(file).unwrap_or_default();
            !has_test(&source, file.ends_with(".rs"), name)
        })
        .collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md names what is not there: {missing:#?}"
    );
}

#[test]
fn every_claim_about_somebody_hostile_names_a_test() {
    let text = fs::read_to_string("SECURITY.md").unwrap();
    let chapters = text.split("\n## ").filter(|it| it.starts_with("What a "));
    let claims = chapters.flat_map(|chapter| chapter.split("\n- ").skip(1));
    let mut seen = 0;
    for claim in claims {
        let item = claim.split("\n\n").next().unwrap_or(claim);
        assert!(!named(item).is_empty(), "{item}");
        seen += 1;
    }
    assert!(seen > 20, "{seen} claims were found");
    // And each unit of the package is a line of the first table.
    for entry in fs::read_dir("units/usr/lib/systemd/system").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(unit) = name.strip_suffix("@.service") {
            let row = text
                .lines()
                .find(|line| line.starts_with(&format!("| `{unit}@")));
            assert!(!named(row.unwrap_or_default()).is_empty(), "{unit}");
        }
    }
}

#[test]
fn a_function_that_is_no_test_is_none() {
    let source = "#[test]\nfn yes() {}\nfn no() {}\n#[tokio::test]\nasync fn also() {}\n";
    assert!(has_test(source, true, "yes") && has_test(source, true, "also"));
    assert!(!has_test(source, true, "no") && !has_test(source, true, "ye"));
    assert!(!has_test("def helper(x):", false, "helper"));
}
