//! Archives in, releases out: what is hostile, broken or unusual leaves nothing behind.

// A test may stop at the first surprise, in the functions that it shares with others too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use slot::deploy::ReleaseId;
use slot::release::{
    About, Identity, Links, Record, ReleaseError, Settled, Turn, begin, choose, known, link,
    link_in_turn, list, named, prune, take, tidy,
};
use slot::telemetry::chain;
use slot::wire::release::Origin;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// An archive of entries that a well-behaved packer would not write.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    /// An entry with exactly this name, which [`Builder`] would correct or refuse.
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

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn program(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o755, content.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    fn link(self, name: &str, to: &str) -> Self {
        self.entry(EntryType::Symlink, name, to, 0o777, b"")
    }

    /// With the two blocks of zeros that end an archive.
    fn whole(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Somebody waits for it all the time.
fn unpack(root: &Path, archive: impl Read) -> Result<ReleaseId, ReleaseError> {
    slot::release::unpack(root, archive, &About::default(), || true)
}

fn unpacked(root: &Path, packed: &Packed) -> Result<ReleaseId, ReleaseError> {
    unpack(root, packed.whole().as_slice())
}

/// Every path below a directory, symlinks not followed.
fn everything(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.insert(path.strip_prefix(directory).unwrap().to_owned());
        }
    }
    found
}

#[test]
fn a_release_has_the_files_and_of_their_modes_only_whether_they_run() {
    let root = root();
    let packed = Packed::default()
        .directory("./")
        .entry(EntryType::Regular, "./server", "", 0o700, b"run me")
        .entry(EntryType::Regular, "static/a.css", "", 0o666, b"")
        .link("static/b.css", "a.css")
        .link("current", "./static/../static");
    let id = unpacked(root.path(), &packed).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    let expected = [
        "server",
        "static",
        "static/a.css",
        "static/b.css",
        "current",
    ];
    assert_eq!(
        everything(&home),
        expected.into_iter().map(PathBuf::from).collect()
    );
    let mode = |path: &str| fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("server"), mode("static/a.css")), (0o755, 0o644));
    assert_eq!(fs::read(home.join("server")).unwrap(), b"run me");
    assert_eq!(
        fs::read_link(home.join("static/b.css")).unwrap(),
        Path::new("a.css")
    );
    assert!(!root.path().join("incoming").exists());
}

#[test]
fn the_same_content_is_the_same_release_and_any_other_is_another() {
    let root = root();
    let ids: Vec<ReleaseId> = [
        Packed::default().file("a", "1").file("b", "2"),
        // In another order, from another packer.
        Packed::default().file("./b", "2").file("a", "1"),
        Packed::default()
            .directory("./")
            .file("b", "2")
            .file("a", "1"),
        Packed::default().file("a", "1").file("b", "3"),
        Packed::default().file("a", "1").program("b", "2"),
        Packed::default().file("a", "1").file("c", "2"),
        Packed::default()
            .file("a", "1")
            .file("b", "2")
            .directory("d"),
        Packed::default()
            .file("a", "1")
            .file("b", "2")
            .link("d", "a"),
        Packed::default()
            .file("a", "1")
            .file("b", "2")
            .link("d", "b"),
        Packed::default().file("a", "1b").file("", "2"),
    ]
    .iter()
    .filter_map(|packed| unpacked(root.path(), packed).ok())
    .collect();
    assert_eq!((&ids[0], &ids[0]), (&ids[1], &ids[2]));
    let named = |packed: Packed| unpacked(root.path(), &packed.file("d/e/a", "1")).unwrap();
    assert_eq!(
        named(Packed::default()),
        named(Packed::default().directory("d").directory("d/e"))
    );
    let different: BTreeSet<&ReleaseId> = ids.iter().collect();
    assert_eq!(different.len(), 7);
}

/// Each is refused with a sentence that has the words, and nothing of it stays.
#[test]
fn what_a_release_may_not_hold_is_refused_whole() {
    let good = || Packed::default().program("server", "fine");
    let cases: Vec<(&str, Packed)> = vec![
        ("leaves the release", good().file("../escaped", "x")),
        ("leaves the release", good().file("a/../../escaped", "x")),
        ("leaves the release", good().file("a/../b", "x")),
        ("leaves the release", good().file("/etc/escaped", "x")),
        ("leaves the release", good().directory("../escaped")),
        ("leaves the release", good().link("../escaped", "server")),
        ("symlink that leaves", good().link("out", "/etc/passwd")),
        ("symlink that leaves", good().link("out", "..")),
        ("symlink that leaves", good().link("a/out", "../../x")),
        ("symlink that leaves", good().link("out", "a/../../x")),
        ("symlink that leaves", good().link("a/out", "x/../../../y")),
        // Each stays inside; together they do not.
        (
            "symlink that leaves",
            good()
                .file("a/b/c/d", "x")
                .link("a/b/c/up", "../../..")
                .link("out", "a/b/c/up/../x"),
        ),
        // In whatever order, and through two.
        (
            "symlink that leaves",
            good()
                .link("out", "way/up/../x")
                .link("way", "a/b")
                .link("a/b/up", "../.."),
        ),
        (
            "symlink that leaves",
            good().link("x", "y/a").link("y", "x/a"),
        ),
        (
            "behind a symlink",
            good()
                .directory("real")
                .link("way", "real")
                .file("way/in", "x"),
        ),
        (
            "behind a symlink",
            good()
                .directory("real")
                .link("way", "real")
                .file("way/deep/in", "x"),
        ),
        (
            "behind a symlink",
            good()
                .directory("real")
                .link("way", "real")
                .directory("way/deep"),
        ),
        (
            "hard link",
            good()
                .entry(EntryType::Link, "other", "later", 0o644, b"")
                .file("later", "x"),
        ),
        (
            "hard link",
            good()
                .link("way", "server")
                .entry(EntryType::Link, "other", "way", 0o644, b""),
        ),
        (
            "hard link",
            good()
                .directory("d")
                .entry(EntryType::Link, "other", "d", 0o644, b""),
        ),
        (
            "hard link",
            good().entry(EntryType::Link, "other", "../escaped", 0o644, b""),
        ),
        (
            "setuid",
            good().entry(EntryType::Link, "other", "server", 0o4755, b""),
        ),
        (
            "behind a symlink",
            good().directory("real").link("way", "real").entry(
                EntryType::Link,
                "way/in",
                "server",
                0o644,
                b"",
            ),
        ),
        (
            "hard link",
            good().entry(EntryType::Link, "other", "/etc/shadow", 0o644, b""),
        ),
        (
            "neither a file",
            good().entry(EntryType::Char, "null", "", 0o666, b""),
        ),
        (
            "neither a file",
            good().entry(EntryType::Block, "sda", "", 0o666, b""),
        ),
        (
            "neither a file",
            good().entry(EntryType::Fifo, "pipe", "", 0o666, b""),
        ),
        ("has no name", Packed::default().file("./", "x")),
        ("has no name", good().link(".", "server")),
        ("has no name", good().link("./", "server")),
        (
            "setuid",
            good().entry(EntryType::Regular, "su", "", 0o4755, b"x"),
        ),
        (
            "setuid",
            good().entry(EntryType::Regular, "sg", "", 0o2755, b"x"),
        ),
        ("twice", good().file("server", "other")),
        ("twice", good().file("./server", "other")),
        ("twice", good().link("server", "x")),
        ("twice", good().link("x", "server").link("x", "y")),
        ("twice", good().link("x", "server").file("x", "y")),
        ("twice", good().directory("server")),
        ("twice", good().directory("d").file("d", "x")),
        ("twice", good().file("d/e/f", "x").file("d/e", "x")),
        ("twice", good().file("d/e/f", "x").link("d", "server")),
        ("below", good().file("server/below", "x")),
        ("below", good().directory("server/below/deep")),
        ("is empty", Packed::default()),
        (
            "is empty",
            Packed::default().directory("a").directory("a/b"),
        ),
        ("is empty", Packed::default().directory("a").link("b", "a")),
    ];
    for (words, packed) in cases {
        let outside = root();
        let root = outside.path().join("web");
        fs::create_dir(&root).unwrap();
        let error = unpacked(&root, &packed).unwrap_err();
        let said = chain(&error);
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(
            everything(outside.path()),
            BTreeSet::from(["web".into()]),
            "{said}"
        );
    }
}

#[test]
fn what_start_keeps_at_the_top_of_a_project_is_passed_over_whatever_it_is() {
    let own = || Packed::default().program("server", "x");
    let plain = unpacked(root().path(), &own().file("app/.slot/own", "y")).unwrap();
    let kept = own()
        .directory("./.slot")
        .link("./.slot/slotd.sock", "/run/user/0/slotd.sock")
        .entry(EntryType::Fifo, ".slot/fifo", "", 0o644, b"")
        .entry(
            EntryType::Regular,
            ".slot-machine/large",
            "",
            0o6755,
            &[7; 3 << 20],
        )
        // After what is passed over the next is where it ought to be.
        .file("app/.slot/own", "y");
    let place = root();
    assert_eq!(unpacked(place.path(), &kept).unwrap(), plain);
    let release = place.path().join("releases").join(plain.as_str());
    assert!(!release.join(".slot").exists() && !release.join(".slot-machine").exists());
    assert!(release.join("app/.slot/own").is_file());
    for refused in [
        own().file(".slot/../../out", ""),
        own().file(".slots/../out", ""),
        own().link("link", "../out"),
        Packed::default().file(".slot/only", ""),
    ] {
        assert!(unpacked(root().path(), &refused).is_err());
    }
}

#[test]
fn a_directory_may_be_named_again() {
    let root = root();
    let packed = Packed::default()
        .file("d/e/f", "x")
        .directory("d")
        .directory("d/e/");
    assert!(unpacked(root.path(), &packed).is_ok());
}

/// Fails where a network would.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the connection ended")),
            count => Ok(count),
        }
    }
}

#[test]
fn an_archive_cut_anywhere_is_no_release() {
    let packed = Packed::default()
        .directory("static")
        .file("static/a", &"a".repeat(700))
        .link("b", "static/a")
        .program("server", "x");
    let whole = packed.whole();
    let root = root();
    // The first block of zeros says that the end is meant.
    let blocks = (0..=packed.0.len()).step_by(512);
    for length in blocks.flat_map(|end| [end.saturating_sub(1), end, end + 1]) {
        let length = length.min(packed.0.len());
        let cut = &whole[..length];
        for error in [unpack(root.path(), cut), unpack(root.path(), Breaks(cut))] {
            let error = error.expect_err(&format!("{length} of {} bytes", whole.len()));
            assert!(
                matches!(error, ReleaseError::Truncated(_)),
                "{length} bytes: {error}"
            );
        }
        assert_eq!(everything(root.path()), BTreeSet::new());
    }
    let error = unpack(root.path(), Breaks(&whole)).unwrap_err();
    assert!(
        matches!(error, ReleaseError::Truncated(_)),
        "torn behind its end: {error}"
    );
    assert!(unpack(root.path(), whole.as_slice()).is_ok());
}

#[test]
fn what_is_no_archive_is_no_release() {
    let root = root();
    for bytes in [&b"\x7fELF"[..], &[0xff; 4096], b"#!/bin/sh\necho hello\n"] {
        let error = unpack(root.path(), bytes).unwrap_err();
        assert!(
            chain(&error).contains("not a whole tar archive"),
            "{}",
            chain(&error)
        );
        assert_eq!(everything(root.path()), BTreeSet::new());
    }
}

#[test]
fn long_names_are_kept() {
    let root = root();
    let name = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &name, &b"x"[..]).unwrap();
    let id = unpack(root.path(), builder.into_inner().unwrap().as_slice()).unwrap();
    assert!(
        root.path()
            .join("releases")
            .join(id.as_str())
            .join(name)
            .is_file()
    );
}

#[test]
fn what_a_crash_left_of_an_upload_does_not_get_into_the_next() {
    let root = root();
    fs::create_dir_all(root.path().join("incoming/left")).unwrap();
    fs::write(root.path().join("incoming/left/over"), "x").unwrap();
    fs::create_dir_all(root.path().join("releases/0123abcd.removed/half")).unwrap();
    let id = unpacked(root.path(), &Packed::default().file("a", "1")).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    assert_eq!(everything(&home), BTreeSet::from(["a".into()]));
    fs::create_dir_all(root.path().join("incoming/again")).unwrap();
    tidy(root.path()).unwrap();
    let left = everything(root.path());
    assert!(!left.contains(Path::new("incoming")), "{left:?}");
    assert!(
        !left.contains(Path::new("releases/0123abcd.removed")),
        "{left:?}"
    );
    assert!(left.contains(&Path::new("releases").join(id.as_str())));
}

fn record(root: &Path, id: &ReleaseId) -> PathBuf {
    root.join(format!("releases/{id}.json"))
}

#[test]
fn a_release_whose_bits_are_not_those_of_its_id_is_not_taken_for_it() {
    let root = root();
    let packed = Packed::default().file("a", "1");
    let id = unpacked(root.path(), &packed).unwrap();
    let other = format!("{id}{}", "0".repeat(56));
    let noted = fs::read_to_string(record(root.path(), &id)).unwrap();
    let noted: serde_json::Value = serde_json::from_str(&noted).unwrap();
    let mut noted = noted.as_object().unwrap().clone();
    noted.insert("digest".to_owned(), other.into());
    let noted = serde_json::to_string(&noted).unwrap();
    fs::write(record(root.path(), &id), noted).unwrap();
    let error = unpacked(root.path(), &packed).unwrap_err();
    assert!(
        chain(&error).contains("with other content"),
        "{}",
        chain(&error)
    );
    assert!(!root.path().join("incoming").exists());
    assert!(root.path().join("releases").join(id.as_str()).is_dir());
}

#[test]
fn a_record_says_what_the_release_is_of_what_it_is_called_and_how_large() {
    let root = root();
    let about = |path: &str, label: Option<&str>| About {
        origin: Origin::Path {
            path: path.to_owned(),
        },
        label: label.map(|label| label.parse().unwrap()),
        ..About::default()
    };
    let archive = Packed::default()
        .file("a", "12")
        .directory("d")
        .program("d/b", "345")
        .entry(EntryType::Link, "d/c", "a", 0o644, b"")
        .whole();
    let deploy = |about: &About| {
        slot::release::unpack(root.path(), archive.as_slice(), about, || true).unwrap()
    };
    let id = deploy(&about("build", Some("v1")));
    let text = fs::read_to_string(record(root.path(), &id)).unwrap();
    let noted: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(noted["version"], 1);
    assert!(noted["digest"].as_str().unwrap().starts_with(id.as_str()));
    assert_eq!(noted["digest"].as_str().unwrap().len(), 64);
    assert_eq!(
        noted["source"],
        serde_json::json!({"kind": "path", "path": "build"})
    );
    assert_eq!((&noted["label"], &noted["size"]), (&"v1".into(), &5.into()));
    let first = Record::read(root.path(), &id).unwrap();
    // The same bits under another label: that is its label now. Without one it keeps what it has.
    assert_eq!(deploy(&about("other", Some("v2"))), id);
    assert_eq!(deploy(&about("other", None)), id);
    let mut expected = first.clone();
    expected.origin = about("other", None).origin;
    expected.label = Some("v2".parse().unwrap());
    assert_eq!(Record::read(root.path(), &id), Some(expected));
    assert_eq!(list(root.path()).len(), 1);
}

#[test]
fn a_hard_link_is_a_second_name_of_a_file_that_came_before() {
    let root = root();
    let linked = Packed::default().program("bin/one", "run me").entry(
        EntryType::Link,
        "./two",
        "./bin/one",
        0o755,
        b"",
    );
    let copied = Packed::default()
        .program("bin/one", "run me")
        .program("two", "run me");
    let id = unpacked(root.path(), &linked).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    let inode = |path: &str| fs::metadata(home.join(path)).unwrap().ino();
    assert_eq!(inode("two"), inode("bin/one"));
    assert_eq!(unpacked(root.path(), &copied).unwrap(), id);
}

#[test]
fn an_archive_of_git_is_an_archive() {
    let root = root();
    let comment = b"52 comment=0123456789012345678901234567890123456789\n";
    let packed = Packed::default()
        .entry(
            EntryType::XGlobalHeader,
            "pax_global_header",
            "",
            0o666,
            comment,
        )
        .file("a", "1");
    let plain = Packed::default().file("a", "1");
    let id = unpacked(root.path(), &packed).unwrap();
    assert_eq!(unpacked(root.path(), &plain).unwrap(), id);
}

#[test]
fn a_sparse_file_is_itself_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", 1 << 20).unwrap();
    let packed = |format: &str| {
        let output = std::process::Command::new("tar")
            .args(["-cS", format, "-C"])
            .args([folder.path(), Path::new("holes")])
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let root = root();
    let plain = Packed::default().file("holes", &("\0".repeat(1 << 20) + "end"));
    let archive = packed("--format=gnu");
    assert!(archive.len() < 1 << 19, "it has holes");
    let id = unpack(root.path(), archive.as_slice()).unwrap();
    assert_eq!(unpacked(root.path(), &plain).unwrap(), id);
    let error = unpack(root.path(), packed("--format=pax").as_slice()).unwrap_err();
    assert!(chain(&error).contains("--sparse"), "{}", chain(&error));
}

/// It would be written for as long as there is room, out of an archive of a few hundred bytes.
#[test]
fn a_hole_that_nobody_waits_for_any_more_is_not_filled() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("hole")).unwrap();
    file.set_len(1 << 40).unwrap();
    let output = std::process::Command::new("tar")
        .args(["-cS", "--format=gnu", "-C"])
        .args([folder.path(), Path::new("hole")])
        .output()
        .unwrap();
    assert!(output.status.success());
    let (root, asked) = (root(), std::cell::Cell::new(0));
    let wanted = || asked.replace(asked.get() + 1) < 100;
    let archive = output.stdout.as_slice();
    let error = slot::release::unpack(root.path(), archive, &About::default(), wanted).unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    assert!(list(root.path()).is_empty() && !root.path().join("incoming").exists());
}

#[test]
fn names_may_have_spaces_and_newlines_in_them() {
    let root = root();
    let packed = Packed::default()
        .file("a b\nc/\td\u{e9}", "1")
        .entry(EntryType::Link, "e\nf", "a b\nc/\td\u{e9}", 0o644, b"")
        .link("g h", "a b\nc");
    let id = unpacked(root.path(), &packed).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    assert_eq!(fs::read(home.join("g h/\td\u{e9}")).unwrap(), b"1");
    assert_eq!(fs::read(home.join("e\nf")).unwrap(), b"1");
}

#[test]
fn a_directory_without_a_record_is_no_release_and_what_is_deployed_next_takes_its_place() {
    let root = root();
    let packed = Packed::default().file("a", "1");
    let id = unpacked(root.path(), &packed).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    for lost in [
        Some(&b""[..]),
        Some(b"{\"version\":1}"),
        Some(b"\0\0\0\0"),
        None,
    ] {
        fs::write(home.join("half"), "of a layout").unwrap();
        match lost {
            Some(lost) => fs::write(record(root.path(), &id), lost).unwrap(),
            None => fs::remove_file(record(root.path(), &id)).unwrap(),
        }
        assert_eq!(list(root.path()), []);
        assert_eq!(unpacked(root.path(), &packed).unwrap(), id);
        assert_eq!(everything(&home), BTreeSet::from(["a".into()]));
        assert_eq!(list(root.path()).len(), 1);
    }
    fs::remove_file(record(root.path(), &id)).unwrap();
    tidy(root.path()).unwrap();
    assert_eq!(everything(root.path()), BTreeSet::from(["releases".into()]));
}

#[test]
fn a_release_that_a_symlink_names_outlives_the_loss_of_its_record() {
    let root = root();
    let packed = Packed::default().file("a", "1");
    let id = unpacked(root.path(), &packed).unwrap();
    link(root.path(), "live", Some(&id)).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    let inode = || fs::metadata(&home).unwrap().ino();
    let before = inode();
    let heals: [&dyn Fn(); 2] = [&|| tidy(root.path()).unwrap(), &|| {
        unpacked(root.path(), &packed).unwrap();
    }];
    for heal in heals {
        fs::remove_file(record(root.path(), &id)).unwrap();
        heal();
        assert_eq!(inode(), before);
        let listed = list(root.path());
        assert_eq!((&listed[0].0, listed[0].1.size), (&id, 1));
    }
}

#[test]
fn releases_of_before_there_were_records_get_theirs() {
    let root = root();
    let id = unpacked(root.path(), &Packed::default().file("a", "1")).unwrap();
    let noted = Record::read(root.path(), &id).unwrap();
    fs::remove_file(record(root.path(), &id)).unwrap();
    let digest = root.path().join(format!("releases/{id}.sha256"));
    fs::write(&digest, format!("{}\n", noted.digest.as_ref().unwrap())).unwrap();
    fs::create_dir(root.path().join("releases/00000000")).unwrap();
    fs::write(root.path().join("releases/00000000.sha256"), "").unwrap();
    tidy(root.path()).unwrap();
    let healed = Record::read(root.path(), &id).unwrap();
    assert_eq!((healed.digest, healed.size), (noted.digest, 1));
    assert_eq!(list(root.path()).len(), 1);
    assert!(!digest.exists());
    assert!(!root.path().join("releases/00000000").exists());
}

fn commit(first: &str) -> Identity {
    Identity::Commit(format!("{first}{}", "0".repeat(32)))
}

fn of(identity: &Identity) -> About {
    let Identity::Commit(commit) = identity else {
        panic!("{identity:?} is no commit");
    };
    About {
        origin: Origin::Git {
            commit: commit.clone(),
            reference: Some("main".to_owned()),
        },
        ..About::default()
    }
}

#[test]
fn what_somebody_else_laid_out_is_a_release_once_it_is_finished() {
    let root = root();
    let one = commit("0123abcd");
    let incoming = begin(root.path()).unwrap();
    fs::write(incoming.path().join("server"), "x").unwrap();
    fs::set_permissions(
        incoming.path().join("server"),
        PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    fs::create_dir(incoming.path().join("d")).unwrap();
    fs::set_permissions(incoming.path().join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    symlink("../server", incoming.path().join("d/link")).unwrap();
    let Settled::New(unfinished) = incoming.settle(one.clone(), || true).unwrap() else {
        panic!("it was there");
    };
    assert!(list(root.path()).is_empty(), "it may be built in still");
    assert_eq!(known(root.path(), &one, None).unwrap(), None);
    // As a build does.
    symlink("/usr/bin/python3", unfinished.path().join("python")).unwrap();
    let id = unfinished.finish(&of(&one), Links::Any, || true).unwrap();
    assert_eq!(id.as_str(), "0123abcd");
    let home = root.path().join("releases/0123abcd");
    let mode = |path: &str| fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("server"), mode("d")), (0o755, 0o755));
    assert_eq!(known(root.path(), &one, None).unwrap(), Some(id.clone()));
    // The same again is the same, whatever lies in the new directory; another commit with these digits is not.
    let again = |identity: &Identity| {
        let incoming = begin(root.path()).unwrap();
        fs::write(incoming.path().join("other"), "x").unwrap();
        incoming.finish(identity.clone(), &of(identity), Links::Inside, || true)
    };
    assert_eq!(again(&one).unwrap(), id);
    assert!(home.join("server").exists());
    let other = Identity::Commit(format!("0123abcd{}", "1".repeat(32)));
    let error = again(&other).unwrap_err();
    assert!(matches!(error, ReleaseError::Collision { .. }), "{error}");
    assert!(!root.path().join("incoming").exists());
}

#[test]
fn what_is_given_up_before_it_is_finished_leaves_nothing() {
    let root = root();
    let lay_out = || {
        let incoming = begin(root.path()).unwrap();
        fs::write(incoming.path().join("server"), "x").unwrap();
        incoming
    };
    drop(lay_out());
    let settle = || match lay_out().settle(commit("0123abcd"), || true).unwrap() {
        Settled::New(unfinished) => unfinished,
        Settled::Known(id) => panic!("{id} was there"),
    };
    drop(settle());
    let about = of(&commit("0123abcd"));
    let refused = |work: &dyn Fn(&Path), words: &str| {
        let unfinished = settle();
        work(&unfinished.path());
        let error = unfinished
            .finish(&about, Links::Inside, || true)
            .unwrap_err();
        assert!(chain(&error).contains(words), "{words}: {}", chain(&error));
    };
    refused(
        &|home| symlink("/etc", home.join("out")).unwrap(),
        "symlink that leaves",
    );
    let listen =
        |home: &Path| drop(std::os::unix::net::UnixListener::bind(home.join("socket")).unwrap());
    refused(&listen, "neither a file");
    refused(
        &|home| fs::remove_file(home.join("server")).unwrap(),
        "at least one file",
    );
    let error = settle().finish(&about, Links::Any, || false).unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    let error = lay_out()
        .settle(Identity::Commit("é".repeat(40)), || true)
        .unwrap_err();
    assert!(matches!(error, ReleaseError::Nameless), "{error}");
    assert_eq!(everything(root.path()), BTreeSet::from(["releases".into()]));
    // One whose place another has taken since is not that other.
    let (first, second) = (settle(), settle());
    let error = first.finish(&about, Links::Any, || true).unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    let id = second.finish(&about, Links::Any, || true).unwrap();
    assert_eq!(list(root.path())[0].0, id);
    assert!(root.path().join("releases/0123abcd/server").exists());
}

#[test]
fn what_is_taken_or_chosen_again_outlives_a_removal_that_was_decided_before() {
    let root = root();
    let ids = ["1", "2", "3"].map(|content| release(root.path(), content));
    let about = About::default();
    take(root.path(), &ids[0], &about, || true).unwrap();
    choose(root.path(), &ids[1]).unwrap();
    prune(root.path(), &BTreeSet::new(), 0).unwrap();
    let left: BTreeSet<ReleaseId> = list(root.path()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, ids[..2].iter().cloned().collect());
    // Once a symlink has named it, what holds it is that symlink.
    link(root.path(), "blue", Some(&ids[1])).unwrap();
    link(root.path(), "blue", Some(&ids[0])).unwrap();
    prune(root.path(), &BTreeSet::new(), 0).unwrap();
    assert_eq!(list(root.path()).len(), 1);
    let gone = take(root.path(), &ids[1], &about, || true).unwrap_err();
    assert!(gone.to_string().contains("slotctl releases"), "{gone}");
    choose(root.path(), &ids[2]).unwrap_err();
}

#[test]
fn symlinks_that_pass_through_others_and_stay_inside_are_kept() {
    let root = root();
    let packed = Packed::default()
        .program("Versions/A/server", "x")
        .link("server", "Versions/Current/server")
        .link("Versions/Current", "A")
        .link("also", "server")
        .link("round", "round");
    let id = unpacked(root.path(), &packed).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    assert_eq!(fs::read(home.join("also")).unwrap(), b"x");
}

fn release(root: &Path, content: &str) -> ReleaseId {
    unpacked(root, &Packed::default().file("a", content)).unwrap()
}

#[test]
fn a_symlink_names_a_release_that_is_there_or_stays_as_it_was() {
    let root = root();
    let (one, two) = (release(root.path(), "1"), release(root.path(), "2"));
    link(root.path(), "live", Some(&one)).unwrap();
    link(root.path(), "live", Some(&two)).unwrap();
    assert_eq!(named(root.path(), "live"), Some(two.clone()));
    let gone: ReleaseId = "00000000".parse().unwrap();
    assert!(link(root.path(), "live", Some(&gone)).is_err());
    assert_eq!(named(root.path(), "live"), Some(two));
    // Half of an earlier replacement is no obstacle.
    symlink("releases/gone", root.path().join(".live.new")).unwrap();
    link(root.path(), "live", Some(&one)).unwrap();
    assert_eq!(named(root.path(), "live"), Some(one));
    link(root.path(), "live", None).unwrap();
    link(root.path(), "live", None).unwrap();
    assert_eq!(named(root.path(), "live"), None);
    // What names nothing is removed as well.
    symlink("releases/gone", root.path().join("prev")).unwrap();
    link(root.path(), "prev", None).unwrap();
    assert!(fs::symlink_metadata(root.path().join("prev")).is_err());
}

#[test]
fn a_symlink_that_names_something_else_names_no_release() {
    let root = root();
    let one = release(root.path(), "1");
    for target in ["/etc", "releases", "releases/00000000", "."] {
        let path = root.path().join("blue");
        symlink(target, &path).unwrap();
        assert_eq!(named(root.path(), "blue"), None, "{target}");
        fs::remove_file(path).unwrap();
    }
    fs::write(root.path().join("blue"), "").unwrap();
    assert_eq!(named(root.path(), "blue"), None);
    link(root.path(), "blue", Some(&one)).unwrap();
    assert_eq!(named(root.path(), "blue"), Some(one));
}

#[test]
fn what_is_in_use_and_the_newest_of_the_others_stay() {
    let root = root();
    let ids: Vec<ReleaseId> = (0..6_u64)
        .map(|number| {
            let id = release(root.path(), &number.to_string());
            let text = fs::read_to_string(record(root.path(), &id)).unwrap();
            let mut noted: serde_json::Value = serde_json::from_str(&text).unwrap();
            noted["made_ms"] = (1_000 + number).into();
            fs::write(record(root.path(), &id), noted.to_string()).unwrap();
            id
        })
        .collect();
    let in_use = BTreeSet::from([ids[0].clone(), ids[2].clone()]);
    prune(root.path(), &in_use, 2).unwrap();
    let left = |id: &ReleaseId| root.path().join("releases").join(id.as_str()).is_dir();
    let there: Vec<bool> = ids.iter().map(left).collect();
    assert_eq!(there, [true, false, true, false, true, true]);
    let files = fs::read_dir(root.path().join("releases")).unwrap().count();
    assert_eq!(files, 8, "a directory and a record for each of the four");
    prune(root.path(), &in_use, 0).unwrap();
    let there: Vec<bool> = ids.iter().map(left).collect();
    // Nothing has named the last upload yet.
    assert_eq!(there, [true, false, true, false, false, true]);
    prune(root.path().join("none"), &in_use, 0).unwrap();
}

/// Does something else when it has been read half.
struct Interrupted<'a, F>(&'a [u8], Option<F>);

impl<F: FnOnce()> Read for Interrupted<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(512);
        let count = self.0.read(&mut buffer[..most])?;
        if self.0.len() < 2048
            && let Some(interrupt) = self.1.take()
        {
            interrupt();
        }
        Ok(count)
    }
}

#[test]
fn two_uploads_at_once_have_nothing_to_do_with_each_other() {
    let root = root();
    let one = Packed::default().file("a", "1").file("only/one", "1");
    let two = Packed::default().file("a", "2").file("b", "2");
    let mut second = None;
    let archive = one.whole();
    let interrupt = || second = Some(unpacked(root.path(), &two).unwrap());
    let first = unpack(root.path(), Interrupted(&archive, Some(interrupt))).unwrap();
    let home = |id: &ReleaseId| everything(&root.path().join("releases").join(id.as_str()));
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
    assert_eq!(home(&first), paths(&["a", "only", "only/one"]));
    assert_eq!(home(&second.unwrap()), paths(&["a", "b"]));
    assert!(!root.path().join("incoming").exists());
}

#[test]
fn of_two_uploads_of_the_same_at_once_both_have_it() {
    let root = root();
    let packed = Packed::default().file("a", "1").file("b", "1");
    let mut second = None;
    let archive = packed.whole();
    let interrupt = || second = Some(unpacked(root.path(), &packed).unwrap());
    let first = unpack(root.path(), Interrupted(&archive, Some(interrupt))).unwrap();
    assert_eq!(Some(first), second);
    assert!(!root.path().join("incoming").exists());
}

#[test]
fn an_upload_that_nobody_waits_for_any_more_ends_at_its_next_read_and_leaves_nothing() {
    let outside = root();
    let root = outside.path().join("web");
    fs::create_dir(&root).unwrap();
    let wanted = std::cell::Cell::new(true);
    let packed = Packed::default()
        .file("a", "1")
        .file("b", &"b".repeat(9_000));
    let archive = packed.whole();
    let mut read = Interrupted(&archive, Some(|| wanted.set(false)));
    let error =
        slot::release::unpack(&root, &mut read, &About::default(), || wanted.get()).unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    assert!(!read.0.is_empty(), "it was read to its end");
    assert_eq!(everything(outside.path()), BTreeSet::from(["web".into()]));
    // Nor does one get a name that was whole when its deployment ended: the last that is asked is after the last read.
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        true
    };
    slot::release::unpack(&root, archive.as_slice(), &About::default(), count).unwrap();
    prune(&root, &BTreeSet::new(), 0).unwrap();
    let (last, left) = (asked.replace(0), everything(&root));
    let until_last = || {
        asked.set(asked.get() + 1);
        asked.get() < last
    };
    let error = slot::release::unpack(&root, archive.as_slice(), &About::default(), until_last)
        .unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    assert_eq!(everything(&root), left);
}

#[test]
fn an_upload_that_goes_on_while_its_directory_is_tidied_is_none() {
    let root = root();
    let packed = Packed::default()
        .file("a", "1")
        .file("b/c", "1")
        .file("d", "1");
    let archive = packed.whole();
    let interrupt = || tidy(root.path()).unwrap();
    let read = Interrupted(&archive, Some(interrupt));
    let error = unpack(root.path(), read).unwrap_err();
    assert!(matches!(error, ReleaseError::Disk { .. }), "{error}");
    assert_eq!(everything(root.path()), BTreeSet::new());
}

#[test]
fn what_was_decided_earlier_and_is_done_later_changes_no_symlink() {
    let root = root();
    let (one, two) = (release(root.path(), "1"), release(root.path(), "2"));
    let (earlier, later) = (Turn::next(), Turn::next());
    link_in_turn(root.path(), later, "live", Some(&two)).unwrap();
    link_in_turn(root.path(), earlier, "live", Some(&one)).unwrap();
    link_in_turn(root.path(), earlier, "live", None).unwrap();
    assert_eq!(named(root.path(), "live"), Some(two.clone()));
    // Each symlink for itself, and a turn may be tried again.
    link_in_turn(root.path(), earlier, "prev", Some(&one)).unwrap();
    link_in_turn(root.path(), later, "live", Some(&one)).unwrap();
    link(root.path(), "prev", Some(&two)).unwrap();
    assert_eq!(named(root.path(), "live"), Some(one));
    assert_eq!(named(root.path(), "prev"), Some(two));
}

#[test]
fn symlinks_that_are_set_at_once_are_set_one_after_the_other() {
    let root = root();
    let ids = [release(root.path(), "1"), release(root.path(), "2")];
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                for _ in 0..50 {
                    link(root.path(), "live", Some(id)).unwrap();
                }
            });
        }
    });
    assert!(ids.contains(&named(root.path(), "live").unwrap()));
    assert!(fs::symlink_metadata(root.path().join(".live.new")).is_err());
}

#[test]
fn a_removal_that_comes_late_takes_neither_what_was_just_uploaded_nor_what_a_symlink_names() {
    let root = root();
    let one = release(root.path(), "1");
    let two = release(root.path(), "2");
    // Again, and it is there: the same release.
    assert_eq!(release(root.path(), "1"), one);
    let stale = || prune(root.path(), &BTreeSet::new(), 0).unwrap();
    let there = |id: &ReleaseId| root.path().join("releases").join(id.as_str()).is_dir();
    stale();
    assert_eq!((there(&one), there(&two)), (true, false));
    link(root.path(), "blue", Some(&one)).unwrap();
    stale();
    assert!(there(&one));
    link(root.path(), "blue", None).unwrap();
    stale();
    assert!(!there(&one));
    // What is removed may come again and go again.
    assert_eq!(release(root.path(), "1"), one);
    let three = release(root.path(), "3");
    fs::create_dir_all(root.path().join(format!("releases/{one}.removed/stuck"))).unwrap();
    stale();
    assert_eq!((there(&one), there(&three)), (false, true));
}
