//! Archives in, releases out: what is hostile, broken or unusual leaves nothing behind.

// A test may stop at the first surprise, in the functions that it shares with others too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use slot::deploy::ReleaseId;
use slot::release::{ReleaseError, Turn, link, link_in_turn, named, prune, tidy};
use slot::telemetry::chain;
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
    slot::release::unpack(root, archive, || true)
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
            good().entry(EntryType::Link, "other", "server", 0o644, b""),
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

#[test]
fn a_release_whose_bits_are_not_those_of_its_id_is_not_taken_for_it() {
    let root = root();
    let packed = Packed::default().file("a", "1");
    let id = unpacked(root.path(), &packed).unwrap();
    let digest = root.path().join(format!("releases/{id}.sha256"));
    fs::write(&digest, "0123abcd".repeat(8)).unwrap();
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
fn a_release_whose_digest_was_lost_is_still_itself() {
    let root = root();
    let packed = Packed::default()
        .directory("static")
        .directory("empty")
        .file("static/a", "1")
        .program("deep/er/server", "2")
        .link("b", "static/a");
    let id = unpacked(root.path(), &packed).unwrap();
    let digest = root.path().join(format!("releases/{id}.sha256"));
    let noted = fs::read(&digest).unwrap();
    for lost in [&b""[..], b"0123", b"\0\0\0\0"] {
        fs::write(&digest, lost).unwrap();
        assert_eq!(unpacked(root.path(), &packed).unwrap(), id);
        assert_eq!(fs::read(&digest).unwrap(), noted);
    }
    fs::remove_file(&digest).unwrap();
    let home = root.path().join("releases").join(id.as_str());
    fs::write(home.join("static/a"), "other").unwrap();
    let error = unpacked(root.path(), &packed).unwrap_err();
    assert!(matches!(error, ReleaseError::Collision { .. }), "{error}");
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
            let home = fs::File::open(root.path().join("releases").join(id.as_str())).unwrap();
            let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + number);
            home.set_modified(when).unwrap();
            id
        })
        .collect();
    let in_use = BTreeSet::from([ids[0].clone(), ids[2].clone()]);
    prune(root.path(), &in_use, 2).unwrap();
    let left = |id: &ReleaseId| root.path().join("releases").join(id.as_str()).is_dir();
    let there: Vec<bool> = ids.iter().map(left).collect();
    assert_eq!(there, [true, false, true, false, true, true]);
    let files = fs::read_dir(root.path().join("releases")).unwrap().count();
    assert_eq!(files, 8, "a directory and a digest for each of the four");
    prune(root.path(), &in_use, 0).unwrap();
    let there: Vec<bool> = ids.iter().map(left).collect();
    // Nothing has named the last upload yet.
    assert_eq!(there, [true, false, true, false, false, true]);
    prune(&root.path().join("none"), &in_use, 0).unwrap();
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
    let error = slot::release::unpack(&root, &mut read, || wanted.get()).unwrap_err();
    assert!(matches!(error, ReleaseError::Unwanted), "{error}");
    assert!(!read.0.is_empty(), "it was read to its end");
    assert_eq!(everything(outside.path()), BTreeSet::from(["web".into()]));
    // Nor does one get a name that was whole when its deployment ended: the last that is asked is after the last read.
    let asked = std::cell::Cell::new(0);
    let count = || {
        asked.set(asked.get() + 1);
        true
    };
    slot::release::unpack(&root, archive.as_slice(), count).unwrap();
    prune(&root, &BTreeSet::new(), 0).unwrap();
    let (last, left) = (asked.replace(0), everything(&root));
    let until_last = || {
        asked.set(asked.get() + 1);
        asked.get() < last
    };
    let error = slot::release::unpack(&root, archive.as_slice(), until_last).unwrap_err();
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
