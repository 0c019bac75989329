//! Files that Git LFS keeps, from a user's repository into a release. Pointers and contents are made by hand, as git-lfs makes them.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod git_support;
mod started;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git_support::{Repo, programs};
use sha2::{Digest, Sha256};
use slot::deploy::ReleaseId;
use slot::git::{Commit, GitError, Large, Oid, Repository, Store};
use started::{Project, Running, left_in};

const ATTRIBUTES: &str = "*.bin filter=lfs diff=lfs merge=lfs -text\n";

fn oid(content: &[u8]) -> String {
    let digits = Sha256::digest(content);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pointer(content: &[u8]) -> String {
    let (oid, size) = (oid(content), content.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

/// Where git-lfs has a content, under its own directory.
fn shelved(content: &[u8]) -> PathBuf {
    let oid = oid(content);
    Path::new("objects")
        .join(&oid[..2])
        .join(&oid[2..4])
        .join(&oid)
}

/// Keeps a content as git-lfs does, and writes the pointer that is committed for it.
fn track(repo: &Repo, path: &str, content: &[u8]) {
    repo.write(Path::new(".git/lfs").join(shelved(content)), content);
    repo.write(path, pointer(content));
}

/// What a content of some size has in it.
fn random(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// An app's directory, with the store in it.
struct Place {
    root: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::of(root.path());
        Self { root, store }
    }

    /// As a deployment does; gives how many contents were sent.
    fn send(&self, repo: &Repo, commit: &str) -> Result<usize, GitError> {
        let commit: Commit = commit.parse().unwrap();
        let held = self.store.hold()?;
        let parts = Repository::find(&repo.path)?.parts(&commit)?;
        let mut sent = 0;
        for part in &parts {
            let files = part.large()?;
            let lacked = self.store.lacks(files.iter().map(sized));
            let shelf = part.shelf()?;
            for file in files.iter().filter(|file| lacked.contains(&file.oid)) {
                if !shelf.absent(&[file]).is_empty() {
                    shelf.fetch(&[file], true)?;
                }
                held.take_content(&file.oid, file.size, shelf.open(file)?, || true)?;
                sent += 1;
            }
        }
        for part in &parts {
            let pack = part.pack(&[])?;
            if part.commit == commit {
                let id = commit.short().parse().unwrap();
                held.take(&commit, &id, pack, || true)?;
            } else {
                held.take_module(&part.commit, pack, || true)?;
            }
        }
        Ok(sent)
    }

    fn lay_out(&self, commit: &str) -> Result<tempfile::TempDir, GitError> {
        let into = tempfile::tempdir().unwrap();
        let held = self.store.hold()?;
        held.lay_out(&commit.parse().unwrap(), into.path())?;
        Ok(into)
    }

    fn content(&self, content: &[u8]) -> PathBuf {
        let oid = oid(content);
        let large = self.root.path().join("repo.git/large");
        large.join(&oid[..2]).join(oid)
    }

    /// Lets a content have come so long ago that its commit ought to be there.
    fn age(&self, content: &[u8]) {
        let file = File::open(self.content(content)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(4000))
            .unwrap();
    }

    /// The store's directories in which something may be left half-way.
    fn left(&self) -> Vec<PathBuf> {
        let incoming = self.root.path().join("repo.git/incoming");
        left_in(&incoming)
    }
}

fn sized(file: &Large) -> (&Oid, u64) {
    (&file.oid, file.size)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().unwrap().permissions().mode() & 0o111 != 0
}

#[test]
fn each_content_takes_the_place_of_its_pointer_and_other_files_stay_as_they_are() {
    let repo = Repo::new();
    // Longer than what is read at once, and no multiple of it.
    let (model, tool, odd) = (random(300_001, 1), b"#!/bin/sh\n", b"\0odd\r\n");
    repo.write("art/.gitattributes", ATTRIBUTES);
    // By a name of its own, and with line ends that only text has.
    let macros = "[attr]kept filter=lfs\n*.dat kept text eol=crlf\n";
    repo.write(".gitattributes", macros);
    track(&repo, "art/model.bin", &model);
    track(&repo, "art/again.bin", &model);
    track(&repo, "art/tool.bin", tool);
    repo.executable("art/tool.bin");
    track(&repo, "with space\nand line.dat", odd);
    repo.write("art/small.bin", "committed as it is");
    repo.write("art/empty.bin", "");
    repo.write("pointer.bin", pointer(&model));
    repo.write("art/long.bin", pointer(&model) + &" ".repeat(1024));
    let commit = repo.commit("first");
    let place = Place::new();
    // What the work tree has by now does not matter.
    repo.write(".gitattributes", "")
        .write("art/.gitattributes", "");
    assert_eq!(place.send(&repo, &commit).unwrap(), 4);
    let out = place.lay_out(&commit).unwrap();
    let read = |path: &str| fs::read(out.path().join(path)).unwrap();
    assert!(read("art/model.bin") == model && read("art/again.bin") == model);
    assert_eq!(read("art/tool.bin"), tool);
    assert_eq!(read("with space\nand line.dat"), odd);
    assert_eq!(read("art/small.bin"), b"committed as it is");
    assert_eq!(read("art/empty.bin"), b"");
    assert_eq!(read("pointer.bin"), pointer(&model).as_bytes());
    assert!(read("art/long.bin").starts_with(b"version"));
    assert!(is_executable(&out.path().join("art/tool.bin")));
    assert!(!is_executable(&out.path().join("art/model.bin")));
    assert!(place.left().is_empty());
}

#[test]
fn what_the_store_has_is_not_sent_again_and_need_not_be_here_any_more() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    track(&repo, "one.bin", b"one");
    let first = repo.commit("first");
    let place = Place::new();
    assert_eq!(place.send(&repo, &first).unwrap(), 1);
    fs::remove_dir_all(repo.path.join(".git/lfs")).unwrap();
    track(&repo, "two.bin", b"two");
    let second = repo.commit("second");
    assert_eq!(place.send(&repo, &second).unwrap(), 1);
    let out = place.lay_out(&second).unwrap();
    assert_eq!(fs::read(out.path().join("one.bin")).unwrap(), b"one");
    assert_eq!(fs::read(out.path().join("two.bin")).unwrap(), b"two");
}

#[test]
fn a_content_that_never_came_refuses_the_layout_with_its_path() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    repo.write("art/large one.bin", pointer(b"never"));
    let commit = repo.commit("first");
    let place = Place::new();
    let held = place.store.hold().unwrap();
    let commit: Commit = commit.parse().unwrap();
    let parts = Repository::find(&repo.path).unwrap().parts(&commit);
    let pack = parts.unwrap()[0].pack(&[]).unwrap();
    let id: ReleaseId = commit.short().parse().unwrap();
    held.take(&commit, &id, pack, || true).unwrap();
    let said = place.lay_out(commit.as_str()).unwrap_err().to_string();
    assert!(said.contains("\"art/large one.bin\""), "{said}");
    assert!(said.contains(&oid(b"never")), "{said}");
}

#[test]
fn a_content_that_is_not_what_its_name_says_is_refused_and_nothing_of_it_kept() {
    let place = Place::new();
    let held = place.store.hold().unwrap();
    let name: Oid = oid(b"right").parse().unwrap();
    let take = |size, content: &[u8]| held.take_content(&name, size, content, || true);
    for (size, content, wanted) in [
        (5, &b"wrong"[..], "its SHA-256 is"),
        (4, b"right", "goes on after its 4 bytes"),
        (6, b"right", "ends after 5 of 6 bytes"),
        (0, b"", "its SHA-256 is"),
    ] {
        let said = take(size, content).unwrap_err().to_string();
        assert!(said.contains(wanted), "{said}");
        assert!(!place.content(b"right").exists());
    }
    let torn = held.take_content(&name, 5, Torn, || true).unwrap_err();
    assert!(matches!(torn, GitError::TornContent { .. }), "{torn}");
    let unwanted = held.take_content(&name, 5, &b"right"[..], || false);
    assert!(matches!(unwanted, Err(GitError::Unwanted)));
    assert!(!place.content(b"right").exists() && place.left().is_empty());
    take(5, b"right").unwrap();
    assert_eq!(fs::read(place.content(b"right")).unwrap(), b"right");
}

/// An upload that breaks off.
struct Torn;

impl Read for Torn {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_content_that_has_changed_on_disk_is_not_laid_out_and_is_sent_again() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    track(&repo, "one.bin", b"right");
    let commit = repo.commit("first");
    let place = Place::new();
    for spoilt in ["wrong", "shorter", ""] {
        place.send(&repo, &commit).unwrap();
        fs::write(place.content(b"right"), spoilt).unwrap();
        let said = place.lay_out(&commit).unwrap_err().to_string();
        assert!(said.contains("one.bin"), "{said}");
        assert_eq!(place.send(&repo, &commit).unwrap(), 1);
        let out = place.lay_out(&commit).unwrap();
        assert_eq!(fs::read(out.path().join("one.bin")).unwrap(), b"right");
    }
}

#[test]
fn a_pointer_whose_size_is_not_its_contents_is_refused_and_the_content_stays() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    track(&repo, "one.bin", b"right");
    let good = repo.commit("good");
    let place = Place::new();
    place.send(&repo, &good).unwrap();
    let lies = pointer(b"right").replace("size 5", "size 6");
    repo.write("one.bin", lies);
    let bad: Commit = repo.commit("bad").parse().unwrap();
    let held = place.store.hold().unwrap();
    let parts = Repository::find(&repo.path).unwrap().parts(&bad).unwrap();
    let id: ReleaseId = bad.short().parse().unwrap();
    held.take(&bad, &id, parts[0].pack(&[]).unwrap(), || true)
        .unwrap();
    assert!(place.lay_out(bad.as_str()).is_err());
    place.lay_out(&good).unwrap();
}

#[test]
fn a_pointer_that_slot_cannot_follow_is_refused_with_its_path_and_why() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    let hostile = pointer(b"").replace(&oid(b""), "../../../../../etc/passwd");
    repo.write("art/one.bin", hostile);
    let commit = repo.commit("first");
    let said = Place::new().send(&repo, &commit).unwrap_err().to_string();
    assert!(
        said.contains("art/one.bin") && said.contains("SHA-256"),
        "{said}"
    );
}

#[test]
fn the_contents_of_a_submodule_come_from_its_own_repository() {
    let library = Repo::new();
    library.write(".gitattributes", ATTRIBUTES);
    library.write("deep/inner.bin", pointer(b"inner"));
    library.commit("library");
    let repo = Repo::new();
    let url = library.path.to_str().unwrap();
    repo.git(["submodule", "--quiet", "add", url, "vendor/lib"]);
    repo.write(".gitattributes", ATTRIBUTES);
    track(&repo, "outer.bin", b"outer");
    let commit = repo.commit("first");
    let place = Place::new();
    let said = place.send(&repo, &commit).unwrap_err().to_string();
    assert!(said.contains("\"vendor/lib/deep/inner.bin\""), "{said}");
    let kept = Path::new(".git/modules/vendor/lib/lfs").join(shelved(b"inner"));
    repo.write(kept, "inner");
    place.send(&repo, &commit).unwrap();
    let out = place.lay_out(&commit).unwrap();
    let read = |path: &str| fs::read_to_string(out.path().join(path)).unwrap();
    assert_eq!(read("vendor/lib/deep/inner.bin"), "inner");
    assert_eq!(read("outer.bin"), "outer");
}

#[test]
fn contents_are_found_where_lfs_storage_says_and_from_a_linked_work_tree() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    repo.write("one.bin", pointer(b"one"));
    let commit = repo.commit("first");
    let elsewhere = tempfile::tempdir().unwrap();
    let linked = elsewhere.path().join("linked");
    repo.git(["worktree", "add", "--quiet", linked.to_str().unwrap()]);
    let linked = Repo::at(&linked);
    let storage = elsewhere.path().join("storage");
    for (said, place) in [
        (storage.to_str().unwrap(), storage.clone()),
        ("within", repo.path.join(".git/within")),
        ("", repo.path.join(".git/lfs")),
    ] {
        repo.git(["config", "lfs.storage", said]);
        repo.write(place.join(shelved(b"one")), "one");
        for repo in [&repo, &linked] {
            assert_eq!(Place::new().send(repo, &commit).unwrap(), 1, "{said}");
        }
        fs::remove_dir_all(&place).unwrap();
        assert!(Place::new().send(&repo, &commit).is_err());
    }
}

#[test]
fn contents_are_let_go_with_the_last_release_that_needs_them() {
    let repo = Repo::new();
    repo.write(".gitattributes", ATTRIBUTES);
    let place = Place::new();
    let commit = |names: &[&str], message: &str| {
        for name in ["both", "first", "second"] {
            let path = format!("{name}.bin");
            let _ = fs::remove_file(repo.path.join(&path));
            if names.contains(&name) {
                track(&repo, &path, name.as_bytes());
            }
        }
        let commit = repo.commit(message);
        place.send(&repo, &commit).unwrap();
        commit[..8].parse::<ReleaseId>().unwrap()
    };
    let first = commit(&["both", "first"], "first");
    let second = commit(&["both", "second"], "second");
    let has = |name: &str| place.content(name.as_bytes()).exists();
    // One whose commit is still to come, and one whose commit never came.
    let held = place.store.hold().unwrap();
    for name in ["comes", "never"] {
        let oid = oid(name.as_bytes()).parse().unwrap();
        held.take_content(&oid, 5, name.as_bytes(), || true)
            .unwrap();
    }
    for name in ["both", "first", "second", "never"] {
        place.age(name.as_bytes());
    }
    let prune = |keep: &[&ReleaseId]| {
        let keep: BTreeSet<ReleaseId> = keep.iter().copied().cloned().collect();
        place.store.prune(&keep).unwrap();
    };
    prune(&[&first]);
    assert!(has("never"), "nothing goes while somebody holds the store");
    drop(held);
    prune(&[&first, &second]);
    assert!(has("both") && has("first") && has("second") && has("comes"));
    assert!(!has("never"));
    prune(&[&second]);
    assert!(has("both") && has("second") && has("comes") && !has("first"));
    // Whoever asks for one is about to need it.
    place.age(b"comes");
    let oid: Oid = oid(b"comes").parse().unwrap();
    assert!(place.store.lacks([(&oid, 5)]).is_empty());
    prune(&[]);
    assert!(has("comes") && !has("both") && !has("second"));
}

/// A project that is a repository.
struct Deployed {
    project: Project,
    repo: Repo,
    programs: tempfile::TempDir,
}

impl Deployed {
    /// In whose `PATH` is no git-lfs, or one that is these lines of a shell.
    fn new(git_lfs: Option<&str>) -> Self {
        let project = Project::with("");
        let repo = Repo::at(project.directory.path());
        repo.write(".gitignore", "tmp\nbuild-*\n.slot\n");
        repo.write(".gitattributes", ATTRIBUTES);
        repo.write(
            "release.json",
            "{\"name\":\"first\",\"behaviour\":\"serves\"}",
        );
        Self {
            project,
            repo,
            programs: programs(git_lfs),
        }
    }

    fn start(&self) -> Running {
        self.project.start(&[])
    }

    /// `slotctl deploy`; whether it went well, and what was said.
    fn deploy(&self) -> (bool, String) {
        let words = ["--socket", ".slot/slotd.sock", "deploy"];
        let mut slotctl = self.project.slotctl(&words);
        let output = slotctl.env("PATH", self.programs.path()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn home(&self) -> PathBuf {
        self.project.directory.path().join(".slot/slot")
    }

    fn live(&self, path: &str) -> Vec<u8> {
        fs::read(self.home().join("live").join(path)).unwrap()
    }

    /// What the API answers to bytes that are posted.
    fn post(&self, path: &str, body: &[u8], length: usize) -> String {
        let socket = self.project.directory.path().join(".slot/slotd.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: slotd\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        if body.len() < length {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn a_commit_is_deployed_with_what_git_lfs_keeps_of_it() {
    let it = Deployed::new(None);
    let model = random(500_000, 7);
    track(&it.repo, "model.bin", &model);
    it.repo.commit("first");
    let running = it.start();
    let (went, said) = it.deploy();
    assert!(went, "{said}");
    assert!(
        said.contains("upload") && said.contains("model.bin"),
        "{said}"
    );
    assert!(it.live("model.bin") == model);
    // What slotd has is neither needed here nor sent again.
    fs::remove_dir_all(it.repo.path.join(".git/lfs")).unwrap();
    let next = "{\"name\":\"second\",\"behaviour\":\"serves\"}";
    it.repo.write("release.json", next).commit("second");
    let (went, said) = it.deploy();
    assert!(went && !said.contains("upload"), "{said}");
    assert!(it.live("model.bin") == model);
    assert!(running.get().contains("second"));
    running.end();
}

#[test]
fn a_content_that_is_damaged_where_git_lfs_keeps_it_is_refused_with_its_path_before_anything_begins()
 {
    let it = Deployed::new(None);
    track(&it.repo, "art/one.bin", b"right");
    it.repo
        .write(Path::new(".git/lfs").join(shelved(b"right")), "wrong");
    it.repo.commit("first");
    let running = it.start();
    let (went, said) = it.deploy();
    assert!(
        !went && said.contains("cannot send art/one.bin") && said.contains("git lfs fsck"),
        "{said}"
    );
    let (_, status) = it.project.ask(&["--json", "status"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["generation"], 0);
    let repository = it.home().join("repo.git");
    assert!(!repository.join("large").exists() && left_in(&repository.join("incoming")).is_empty());
    running.end();
}

#[test]
fn what_is_neither_here_nor_can_be_fetched_is_refused_before_anything_begins() {
    let it = Deployed::new(None);
    it.repo.write("art/one.bin", pointer(b"missing"));
    it.repo.write("art/two.bin", pointer(b"missing too"));
    it.repo.commit("first");
    let running = it.start();
    let (went, said) = it.deploy();
    assert!(!went);
    assert!(said.contains("\"art/one.bin\" (7 B; and 1 more)"), "{said}");
    assert!(said.contains("apt install git-lfs"), "{said}");
    let (_, status) = it.project.ask(&["--json", "status"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["generation"], 0);
    assert!(!it.home().join("repo.git").exists());
    running.end();
}

#[test]
fn git_lfs_fetches_what_is_not_here_and_says_why_when_it_cannot() {
    let it = Deployed::new(Some(
        r#"[ "$1" != version ] || exit 0
echo "$@" >.git/asked
[ -e .git/remote-lfs ] || { echo "no route to the server" >&2; exit 2; }
mkdir -p .git/lfs && cp -R .git/remote-lfs/objects .git/lfs/"#,
    ));
    it.repo.write("art/one.bin", pointer(b"one"));
    let commit = it.repo.commit("first");
    let running = it.start();
    let (went, said) = it.deploy();
    assert!(!went && said.contains("has no remote"), "{said}");
    it.repo.git(["remote", "add", "origin", "/nowhere"]);
    let (went, said) = it.deploy();
    assert!(!went && said.contains("no route to the server"), "{said}");
    assert!(
        said.contains(&format!("git lfs fetch origin {commit}")),
        "{said}"
    );
    let remote = Path::new(".git/remote-lfs").join(shelved(b"one"));
    it.repo.write(remote, "one");
    let (went, said) = it.deploy();
    assert!(went && said.contains("fetch"), "{said}");
    assert_eq!(it.live("art/one.bin"), b"one");
    let asked = fs::read_to_string(it.repo.path.join(".git/asked")).unwrap();
    let wanted = format!("fetch --include= --exclude= origin {commit}\n");
    assert_eq!(asked, wanted);
    running.end();
}

#[test]
fn the_api_refuses_contents_that_are_none_and_keeps_nothing_of_them() {
    let it = Deployed::new(None);
    it.repo.commit("first");
    let running = it.start();
    let name = oid(b"right");
    let list = |oid: &str, size: u64| {
        format!("{{\"contents\":[{{\"oid\":\"{oid}\",\"size\":{size}}}]}}").into_bytes()
    };
    let upload = format!("/large/{name}?size=5");
    let long = "[".repeat(17 << 20).into_bytes();
    for (path, body, status, wanted) in [
        ("/large", list("../../state.json", 1), "400", "64 small"),
        ("/large", list(&name.to_uppercase(), 1), "400", "64 small"),
        ("/large", b"{}".to_vec(), "400", "missing field"),
        ("/large?skip=all", list(&name, 1), "400", "disk or memory"),
        ("/large", list(&name, u64::MAX), "422", "--skip-check disk"),
        ("/large?skip=disk", list(&name, u64::MAX), "200", &name),
        ("/large", long, "400", "its limit is"),
        (
            "/large/..%2f..%2fx?size=5",
            b"right".to_vec(),
            "400",
            "64 small",
        ),
        (&upload, b"wrong".to_vec(), "400", "its SHA-256 is"),
        (&upload, b"longer".to_vec(), "400", "goes on"),
        (&format!("/large/{name}"), b"right".to_vec(), "400", "size"),
    ] {
        let answer = it.post(path, &body, body.len());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        assert!(answer.contains(wanted), "{path}: {answer}");
    }
    // One that breaks off, to which nobody waits for an answer.
    it.post(&upload, b"ri", 5);
    let repository = it.home().join("repo.git");
    assert!(!repository.join("large").exists());
    let answer = it.post(&upload, b"right", 5);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let kept = repository.join("large").join(&name[..2]).join(&name);
    assert_eq!(fs::read(kept).unwrap(), b"right");
    assert!(left_in(&repository.join("incoming")).is_empty());
    running.end();
}
