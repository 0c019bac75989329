//! Releases as a user has them: archives of every kind, the list, one that is deployed again, a rollback to one, what stays on disk.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use started::{Project, SLOTCTL};
use tar::{EntryType, Header};

const KINDS: [&str; 4] = ["tar", "tar.gz", "tar.zst", "tar.xz"];

fn packed(kind: &str, plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match kind {
        "tar" => bytes.extend_from_slice(plain),
        "tar.gz" => {
            let mut gzip = flate2::write::GzEncoder::new(bytes, flate2::Compression::fast());
            gzip.write_all(plain).unwrap();
            bytes = gzip.finish().unwrap();
        }
        "tar.zst" => bytes = zstd::encode_all(plain, 1).unwrap(),
        "tar.xz" => {
            liblzma::read::XzEncoder::new(plain, 1)
                .read_to_end(&mut bytes)
                .unwrap();
        }
        other => panic!("{other}"),
    }
    bytes
}

/// An archive of entries that a well-behaved packer would not write.
#[derive(Default)]
struct Entries(Vec<u8>);

impl Entries {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content)
    }

    fn whole(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// The demo's app under a name of its own.
fn serves(name: &str) -> Vec<u8> {
    format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}").into_bytes()
}

fn app(name: &str) -> Entries {
    Entries::default().file("release.json", &serves(name))
}

/// slotctl in the project, asking what was started there.
fn ask(project: &Project, words: &[&str]) -> Output {
    let words = [&["--socket", ".slot/slotd.sock"], words].concat();
    project.slotctl(&words).output().unwrap()
}

fn piped(project: &Project, words: &[&str], from: &Path, bytes: &[u8]) -> Output {
    let socket = project.directory.path().join(".slot/slotd.sock");
    let words = [&["--socket", socket.to_str().unwrap()], words].concat();
    let mut child = project
        .slotctl(&words)
        .current_dir(from)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // One that refuses reads no more.
    let _ = input.write_all(bytes);
    drop(input);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn ok(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn releases(project: &Project) -> Vec<Value> {
    let listed = ok(&ask(project, &["--json", "releases"]));
    listed["releases"].as_array().unwrap().clone()
}

fn on_disk(project: &Project) -> BTreeSet<PathBuf> {
    let below = project.directory.path().join(".slot/slot");
    let below = [below.join("releases"), below.join("incoming")];
    let listed = below.iter().filter_map(|folder| fs::read_dir(folder).ok());
    listed
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn an_archive_of_any_kind_is_the_release_that_its_directory_is() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot");
    // Names that a shell would fall over, and two names of one file.
    let folder = project.directory.path().join("built");
    fs::create_dir_all(folder.join("a b\nc")).unwrap();
    fs::write(folder.join("release.json"), serves("packed")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"\t\"q' \xff");
    fs::write(folder.join("a b\nc").join(odd), "odd").unwrap();
    fs::hard_link(folder.join("release.json"), folder.join("again")).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", &folder).unwrap();
    let plain = builder.into_inner().unwrap();

    let first = ok(&ask(&project, &["--json", "deploy", "built"]));
    let id = first["release"].as_str().unwrap().to_owned();
    running.until("release packed on slot");
    for (number, kind) in KINDS.into_iter().enumerate() {
        let bytes = packed(kind, &plain);
        let (name, label) = (format!("some-{kind}-file"), format!("v{number}"));
        fs::write(project.directory.path().join(&name), &bytes).unwrap();
        let words = ["--json", "deploy", &name, "--version", &label];
        let outcome = ok(&ask(&project, &words));
        assert_eq!(outcome["release"], id.as_str(), "{kind}");
        let listed = releases(&project);
        assert_eq!(listed.len(), 2, "{kind}");
        assert_eq!(listed[0]["label"], label.as_str());
        assert_eq!(listed[0]["live"], true);
        assert_eq!(
            listed[0]["source"],
            serde_json::json!({"kind": "archive", "path": name})
        );
        let here = project.directory.path();
        let outcome = ok(&piped(&project, &["--json", "deploy", "-"], here, &bytes));
        assert_eq!(outcome["release"], id.as_str(), "{kind}");
        assert_eq!(releases(&project)[0]["label"], label.as_str(), "it stays");
    }
    running.end();
}

#[test]
fn an_archive_on_standard_input_needs_no_slot_toml_where_slotd_knows_the_app() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let elsewhere = tempfile::tempdir().unwrap();
    for words in [&["deploy", "-"][..], &["--app", "slot", "deploy", "-"]] {
        let name = words.len().to_string();
        let archive = packed("tar.gz", &app(&name).whole());
        let output = piped(&project, words, elsewhere.path(), &archive);
        assert!(output.status.success(), "{}", said(&output));
        running.until(&format!("release {name} on slot"));
    }
    let output = piped(
        &project,
        &["--app", "other", "deploy", "-"],
        elsewhere.path(),
        &app("x").whole(),
    );
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    running.end();
}

#[test]
fn what_start_keeps_in_a_project_is_no_part_of_what_is_deployed_from_there() {
    let mut project = Project::new();
    // The daemon's sockets are nothing to deploy.
    let elsewhere = tempfile::tempdir().unwrap();
    project.temporary = elsewhere.path().to_owned();
    let here = project.directory.path();
    fs::write(here.join("release.json"), serves("here")).unwrap();
    // Its own directories are called so only at the top.
    fs::create_dir_all(here.join("app/.slot")).unwrap();
    fs::write(here.join("app/.slot/mine"), "mine").unwrap();
    fs::create_dir_all(here.join(".slot-machine")).unwrap();
    // More than what an archive may have in it that is of no file.
    fs::write(here.join(".slot-machine/large"), vec![7; 3 << 20]).unwrap();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let outcome = ok(&ask(&project, &["--json", "deploy", "."]));
    let id = outcome["release"].as_str().unwrap().to_owned();
    running.until("release here on slot");
    let release = here.join(".slot/slot/releases").join(&id);
    assert!(!release.join(".slot").exists() && !release.join(".slot-machine").exists());
    assert!(release.join("app/.slot/mine").is_file());
    running.end();

    let running = project.serving(&["."], "release here on slot");
    // As `tar c .` makes it, of what slot keeps there and whatever else might be.
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    for name in ["release.json", "slot.toml"] {
        builder
            .append_path_with_name(here.join(name), name)
            .unwrap();
    }
    for name in ["app", "build-1", "build-2", "tmp", ".slot-machine"] {
        let packed = builder.append_dir_all(format!("./{name}"), here.join(name));
        packed.unwrap();
    }
    let (regular, link) = (EntryType::Regular, EntryType::Symlink);
    let mut packed = builder.into_inner().unwrap();
    // Without the end, after which nothing counts.
    packed.truncate(packed.len() - 1024);
    let archive = Entries(packed)
        .entry(EntryType::Directory, "./.slot/", "", 0o755, b"")
        .entry(link, "./.slot/slotd.sock", "/tmp/slotd.sock", 0o777, b"")
        .entry(regular, ".slot/slot/setuid", "", 0o4755, &[7; 3 << 20]);
    let outcome = piped(&project, &["--json", "deploy", "-"], here, &archive.whole());
    let outcome = ok(&outcome);
    assert_eq!(outcome["release"], id.as_str());
    running.end();
}

#[test]
fn a_hostile_archive_is_refused_whole_however_it_is_packed() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let before = on_disk(&project);
    let cases = [
        ("leaves the release", app("x").file("../escaped", b"x")),
        ("leaves the release", app("x").file("/tmp/escaped", b"x")),
        (
            "neither a file",
            app("x").entry(EntryType::Char, "null", "", 0o666, b""),
        ),
        (
            "setuid",
            app("x").entry(EntryType::Regular, "su", "", 0o4755, b"x"),
        ),
        (
            "symlink that leaves",
            app("x").entry(EntryType::Symlink, "out", "/etc/passwd", 0o777, b""),
        ),
        (
            "belong to no file",
            app("x").entry(
                EntryType::GNULongName,
                "name",
                "",
                0o644,
                &vec![b'n'; 2 << 20],
            ),
        ),
        (
            "hard link",
            app("x").entry(EntryType::Link, "out", "/etc/passwd", 0o644, b""),
        ),
    ];
    for (words, entries) in &cases {
        for kind in KINDS {
            let name = format!("hostile.{kind}");
            let bytes = packed(kind, &entries.whole());
            fs::write(project.directory.path().join(&name), bytes).unwrap();
            let output = ask(&project, &["deploy", &name]);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(said(&output).contains(words), "{kind}: {}", said(&output));
            assert_eq!(on_disk(&project), before, "{kind}: {words}");
        }
    }
    assert!(running.get().contains("release 1 on slot"));
    running.end();
}

/// Cut anywhere, also behind the end of the archive in it: its checksum is missing then.
#[test]
fn a_torn_archive_is_no_release() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let before = on_disk(&project);
    // Nothing that is compressed to less than what slotctl looks at first.
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let plain = app("torn").file("noise", &noise).whole();
    for kind in &KINDS[1..] {
        let whole = packed(kind, &plain);
        for left in [10, whole.len() / 2, whole.len() - 3] {
            let name = format!("torn.{kind}");
            fs::write(project.directory.path().join(&name), &whole[..left]).unwrap();
            let output = ask(&project, &["deploy", &name]);
            let at = format!("{kind}, {left} bytes: {}", said(&output));
            assert_eq!(output.status.code(), Some(6), "{at}");
            assert!(at.contains(&name) && at.contains("is it whole?"), "{at}");
            // slotd hears of it a moment later than slotctl.
            let began = std::time::Instant::now();
            while on_disk(&project) != before {
                assert!(
                    began.elapsed() < started::LONG,
                    "{at}: {:?}",
                    on_disk(&project)
                );
                std::thread::yield_now();
            }
        }
    }
    fs::write(
        project.directory.path().join("whole.tar"),
        app("whole").whole(),
    )
    .unwrap();
    ok(&ask(
        &project,
        &["--json", "deploy", "whole.tar", "--queue", "1m"],
    ));
    running.until("release whole on slot");
    assert_eq!(releases(&project).len(), 2);
    running.end();
}

#[test]
fn what_is_no_archive_is_refused_before_slotd_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let slotctl = |words: &[&str], input: Stdio| {
        std::process::Command::new(SLOTCTL)
            .args(words)
            .current_dir(folder.path())
            .env("SLOT_SOCKET", "/nonexistent/slotd.sock")
            .stdin(input)
            .output()
            .unwrap()
    };
    let refused = |output: Output, words: &str| {
        assert_eq!(output.status.code(), Some(6), "{}", said(&output));
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    };
    refused(
        slotctl(&["deploy", "-"], Stdio::null()),
        "standard input is no tar archive",
    );
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    at("page.tar.gz", b"<html>404 Not Found</html>");
    refused(
        slotctl(&["deploy", "page.tar.gz"], Stdio::null()),
        "page.tar.gz is no tar archive",
    );
    // By what they are, whatever their names.
    for (name, bytes, kind) in [
        (
            "app.zip",
            &b"PK\x03\x04\x14\0 and so on"[..],
            "a zip archive",
        ),
        ("app", b"PK\x03\x04\x14\0 and so on", "a zip archive"),
        ("app.tar.bz2", b"BZh91AY&SY", "compressed with bzip2"),
        ("app.7z", b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
    ] {
        let file = fs::File::open(at(name, bytes)).unwrap();
        for (what, shown, input) in [
            (format!("./{name}"), format!("./{name}"), Stdio::null()),
            ("-".to_owned(), "standard input".to_owned(), file.into()),
        ] {
            let output = slotctl(&["deploy", &what], input);
            assert!(said(&output).contains("tar czf"), "{}", said(&output));
            refused(
                output,
                &format!("{shown} is {kind}, which slot does not unpack"),
            );
        }
    }
    // What java runs as it is is a file as others are, which nobody is there to take.
    at("app.jar", b"PK\x03\x04\x14\0 and so on");
    let output = slotctl(&["deploy", "./app.jar"], Stdio::null());
    assert!(!said(&output).contains("unpack"), "{}", said(&output));
    let not_tar = at("data", &packed("tar.zst", &[7; 4096]));
    refused(
        slotctl(&["deploy", "data"], Stdio::null()),
        "data is compressed with zstd, and what is in it is no tar archive",
    );
    let input = fs::File::open(not_tar).unwrap();
    refused(
        slotctl(&["deploy", "-"], input.into()),
        "standard input is compressed with zstd",
    );
    let on_a_terminal = std::process::Command::new("script")
        .args(["-qec", &format!("{SLOTCTL} deploy -"), "/dev/null"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("script(1) is there");
    refused(on_a_terminal, "that is a terminal");
}

#[test]
fn a_release_is_listed_deployed_again_and_gone_back_to_by_its_id_or_its_label() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let deploy = |name: &str, label: &str| {
        let file = format!("{name}.tar");
        fs::write(project.directory.path().join(&file), app(name).whole()).unwrap();
        let outcome = ok(&ask(
            &project,
            &["--json", "deploy", &file, "--version", label],
        ));
        running.until(&format!("release {name} on slot"));
        outcome["release"].as_str().unwrap().to_owned()
    };
    let (two, three) = (deploy("two", "v2"), deploy("three", "v3"));
    let listed = releases(&project);
    let flags = |release: &Value| (release["live"] == true, release["prev"] == true);
    let ids: Vec<&str> = listed.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids[..2], [&three, &two]);
    let all: Vec<_> = listed.iter().map(flags).collect();
    assert_eq!(all, [(true, false), (false, true), (false, false)]);
    let status = ok(&ask(&project, &["--json", "status"]));
    let slots = status["slots"].as_array().unwrap().iter();
    let labels: BTreeSet<&str> = slots.filter_map(|slot| slot["label"].as_str()).collect();
    assert_eq!(labels, BTreeSet::from(["v2", "v3"]));
    let status = said(&ask(&project, &["status"]));
    assert!(status.contains(&format!("{three} (v3)")), "{status}");
    let sizes = serves("three").len();
    assert_eq!(listed[0]["size"], sizes);
    assert_eq!(listed[2]["source"]["path"], "build-1");
    let table = said(&ask(&project, &["releases"]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("  RELEASE   SOURCE     LABEL  SIZE"));
    assert!(
        lines[1].starts_with(&format!("  {three}  three.tar  v3     ")),
        "{table}"
    );
    assert!(lines[1].contains("live, "), "{table}");
    assert!(lines[3].contains("build-1    -      "), "{table}");

    let failed = |words: &[&str], code: i32, part: &str| {
        let output = ask(&project, words);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(part), "{part}: {}", said(&output));
    };
    let one = ids[2];
    let outcome = ok(&ask(&project, &["--json", "rollback", "--to", one]));
    assert_eq!(
        (&outcome["kind"], &outcome["release"]),
        (&"rollback".into(), &one.into())
    );
    running.until("release 1 on slot");
    // Another one is no way forward, and says what is.
    let nothing = ok(&ask(&project, &["--json", "rollback"]));
    assert_eq!(
        (
            &nothing["success"],
            &nothing["generation"],
            &nothing["release"]
        ),
        (&true.into(), &outcome["generation"], &Value::Null)
    );
    let already = nothing["already"].as_str().unwrap();
    assert!(already.contains("has served since a rollback"), "{already}");
    let forward = format!("`slotctl deploy --release {three}` to the one that was left");
    assert!(already.ends_with(&forward), "{already}");
    let state = || fs::read(project.home().join("state.json")).unwrap();
    let late = std::time::Instant::now() + started::LONG;
    loop {
        let before = state();
        let again = ask(&project, &["rollback"]);
        assert_eq!(
            (again.status.code(), again.stdout.last()),
            (Some(0), Some(&b'\n'))
        );
        // What the first one left may be on its way out still, which is written down.
        if state() == before {
            break;
        }
        assert!(
            std::time::Instant::now() < late,
            "each of them changes the state"
        );
    }
    let status = ok(&ask(&project, &["--json", "status"]));
    assert_eq!(
        (&status["prev"], &status["way_back"]),
        (&three.as_str().into(), &Value::Null)
    );
    assert!(status["gone_back_ms"].as_u64() > Some(0), "{status}");
    ok(&ask(&project, &["rollback", "--to", three.as_str()]));
    running.until("release three on slot");
    let live = ok(&ask(&project, &["--json", "rollback", "--to", "v3"]));
    let already = live["already"].as_str().unwrap();
    assert!(already.contains("is live already"), "{already}");
    failed(&["rollback", "--to", "v4"], 7, "there is no release");
    failed(&["rollback", "--to", "00000000"], 7, &two);
    failed(&["deploy", "--release", "00000000"], 7, &two);
    ok(&ask(&project, &["rollback", "--to", "v2"]));
    running.until("release two on slot");
    let again = ok(&ask(
        &project,
        &["--json", "deploy", "--release", "v3", "--version", "v2"],
    ));
    assert_eq!(again["release"], three.as_str());
    running.until("release three on slot");
    let both = format!("more than one release has the label v2: {three} (v2), {two} (v2)");
    failed(&["deploy", "--release", "v2"], 6, &both);
    // It is live, and is started anew all the same.
    let again = ok(&ask(&project, &["--json", "deploy", "--release", &three]));
    assert_eq!(again["release"], three.as_str());
    assert_eq!(again["previous"], three.as_str());
    failed(
        &["deploy", "build-1", "--version", "a b"],
        2,
        "without spaces",
    );
    failed(
        &["deploy", "build-1", "--release", "v1"],
        2,
        "cannot be used",
    );
    running.end();
}

#[test]
fn only_so_many_releases_stay_beside_those_in_use() {
    let project = Project::new();
    let file = project.directory.path().join("slot.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("keep = 1\n{text}")).unwrap();
    let running = project.serving(&["build-1"], "release 1 on slot");
    let deploy = |name: &str| {
        fs::write(project.directory.path().join("next.tar"), app(name).whole()).unwrap();
        let words = ["--json", "deploy", "next.tar", "--wait=stopped"];
        let outcome = ok(&ask(&project, &words));
        outcome["release"].as_str().unwrap().to_owned()
    };
    let all: Vec<String> = (2..8).map(|number| deploy(&number.to_string())).collect();
    // Live, the one before it in the other slot, and one more. It is removed when the deployment has been told of.
    let began = std::time::Instant::now();
    let expected: Vec<&String> = all[3..].iter().rev().collect();
    loop {
        let listed = releases(&project);
        let ids: Vec<String> = listed
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect();
        if ids.iter().collect::<Vec<_>>() == expected {
            break;
        }
        assert!(began.elapsed() < started::LONG, "{ids:?}, not {expected:?}");
        std::thread::yield_now();
    }
    assert_eq!(on_disk(&project).len(), 6);
    running.end();
}
