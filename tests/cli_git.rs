//! `slotctl deploy` of commits, black-box, where no systemd runs.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod git_support;
mod started;

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use git_support::Repo;
use started::{Project, Running, left_in};

/// A project that is a repository, whose app says which release it is.
struct Deployed {
    project: Project,
    repo: Repo,
}

impl Deployed {
    fn new() -> Self {
        Self::with("")
    }

    fn with(lines: &str) -> Self {
        let project = Project::with(lines);
        let repo = Repo::at(project.directory.path());
        repo.write(".gitignore", "tmp\nbuild-*\n");
        Self { project, repo }
    }

    /// Commits a release of this name; gives the commit.
    fn commit(&self, name: &str) -> String {
        let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}");
        self.repo.write("release.json", text).commit(name)
    }

    fn start(&self) -> Running {
        self.project.start(&[])
    }

    fn deploy(&self, words: &[&str]) -> String {
        self.project.deploy(words)
    }

    fn refused(&self, words: &[&str]) -> String {
        self.project.refused(words)
    }

    fn home(&self) -> PathBuf {
        self.project.home()
    }

    fn live(&self, path: &str) -> PathBuf {
        self.home().join("live").join(path)
    }

    fn status(&self) -> serde_json::Value {
        let (_, said) = self.project.ask(&["--json", "status"]);
        serde_json::from_str(&said).unwrap()
    }
}

#[test]
fn without_a_name_head_is_deployed_and_its_id_is_the_commits_beginning() {
    let it = Deployed::new();
    let commit = it.commit("first");
    let running = it.start();
    let said = it.deploy(&[]);
    assert_eq!(running.who(), "first");
    let shown = format!("{} (main)", &commit[..8]);
    assert!(said.contains(&format!("release {shown} serves")), "{said}");
    assert_eq!(it.status()["live"], commit[..8]);
    let (_, said) = it.project.ask(&["status"]);
    assert!(said.contains(&shown), "{said}");
    let (_, said) = it.project.ask(&["--json", "releases"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let source = &listed["releases"][0]["source"];
    assert_eq!(source["kind"], "git");
    assert_eq!(
        (&source["commit"], &source["ref"]),
        (&commit.into(), &"main".into())
    );
    // The same again is the same release, and says so.
    it.deploy(&[]);
    assert_eq!(it.project.releases(), 1);
    running.end();
}

#[test]
fn a_commit_is_named_by_its_hash_its_beginning_a_branch_or_a_tag_and_may_have_a_label() {
    let it = Deployed::new();
    let first = it.commit("first");
    it.repo.git(["tag", "v1"]);
    it.repo.git(["branch", "feature/old"]);
    let second = it.commit("second");
    let running = it.start();
    for (name, release) in [
        (&first[..], "first"),
        ("main", "second"),
        (&first[..7], "first"),
        (&second[..10], "second"),
        ("v1", "first"),
        ("HEAD", "second"),
        ("feature/old", "first"),
    ] {
        it.deploy(&[name, "--version", "r1"]);
        assert_eq!(running.who(), release, "{name}");
    }
    assert_eq!(it.project.releases(), 2);
    let (_, said) = it.project.ask(&["releases"]);
    assert!(said.contains("r1"), "{said}");
    running.end();
}

#[test]
fn a_rollback_runs_the_commit_that_ran_before() {
    let it = Deployed::new();
    it.commit("first");
    let running = it.start();
    it.deploy(&[]);
    it.commit("second");
    it.deploy(&["--wait", "stopped"]);
    assert_eq!(running.who(), "second");
    let (code, said) = it.project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "first");
    running.end();
}

#[test]
fn heads_uncommitted_changes_refuse_it_and_are_listed() {
    let it = Deployed::new();
    it.commit("first");
    let running = it.start();
    it.repo.write(
        "release.json",
        "{\"name\":\"changed\",\"behaviour\":\"serves\"}",
    );
    let toml = it.project.directory.path().join("slot.toml");
    let mut text = std::fs::read_to_string(&toml).unwrap();
    text.push_str("# changed\n");
    std::fs::write(&toml, text).unwrap();
    it.repo.write("untracked", "1");
    let said = it.refused(&[]);
    assert!(said.contains("1 tracked file has changes"), "{said}");
    assert!(said.contains("  release.json\n"), "{said}");
    assert!(
        !said.contains("slot.toml") && !said.contains("untracked"),
        "{said}"
    );
    assert!(said.contains("--allow-dirty"), "{said}");
    assert!(it.status()["live"].is_null());
    // Who names a commit has not meant the work tree; who says so means HEAD without it.
    it.deploy(&["main"]);
    assert_eq!(running.who(), "first");
    it.repo.write(
        "release.json",
        "{\"name\":\"second\",\"behaviour\":\"serves\"}",
    );
    it.repo.commit("second");
    it.repo
        .write("release.json", "changed again")
        .write("later", "1");
    it.deploy(&["--allow-dirty"]);
    assert_eq!(running.who(), "second");
    assert!(!it.live("later").exists());
    running.end();
}

#[test]
fn what_could_be_a_path_and_a_commit_is_refused_and_each_can_be_written() {
    let it = Deployed::new();
    it.commit("first");
    it.repo.git(["branch", "build-1"]);
    let running = it.start();
    let said = it.refused(&["build-1"]);
    assert!(
        said.contains("./build-1") && said.contains("git rev-parse build-1"),
        "{said}"
    );
    it.deploy(&["./build-1"]);
    assert_eq!(running.who(), "1");
    it.deploy(&["refs/heads/build-1"]);
    assert_eq!(running.who(), "first");
    it.repo.git(["branch", "--quiet", "-D", "build-1"]);
    it.deploy(&["build-1"]);
    assert_eq!(running.who(), "1");
    for (name, wanted) in [
        ("nothing", "does not exist as a path, and the repository"),
        ("./nothing", "does not exist; name the binary"),
        ("mian", "did you mean main?"),
        ("1234567890", "force-push"),
    ] {
        let said = it.refused(&[name]);
        assert!(said.contains(wanted), "{said}");
    }
    running.end();
}

#[test]
fn outside_of_a_repository_a_path_is_asked_for() {
    let project = Project::new();
    let running = project.start(&[]);
    let (code, said) = project.ask(&["deploy"]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("is in no git repository") && said.contains("slotctl deploy ./"),
        "{said}"
    );
    Repo::at(project.directory.path());
    let (code, said) = project.ask(&["deploy"]);
    assert_ne!(code, Some(0));
    assert!(said.contains("no commit yet"), "{said}");
    running.end();
}

#[test]
fn a_branch_that_was_pushed_by_force_is_deployed_and_a_commit_that_is_gone_is_still_a_release() {
    let it = Deployed::new();
    it.commit("first");
    let gone = it.commit("gone");
    let running = it.start();
    it.deploy(&["main"]);
    it.repo.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    it.commit("rewritten");
    it.repo.git(["reflog", "expire", "--expire=now", "--all"]);
    it.repo.git(["gc", "--quiet", "--prune=now"]);
    it.deploy(&["main"]);
    assert_eq!(running.who(), "rewritten");
    let said = it.refused(&[&gone]);
    assert!(said.contains("force-push"), "{said}");
    it.deploy(&["--release", &gone[..8]]);
    assert_eq!(running.who(), "gone");
    running.end();
}

#[test]
fn a_submodule_and_odd_names_come_along_and_nothing_that_is_not_in_the_commit() {
    let it = Deployed::new();
    let library = Repo::new();
    library.write("lib", "pinned").commit("pinned");
    it.repo.git([
        "submodule",
        "--quiet",
        "add",
        library.path.to_str().unwrap(),
        "vendor/lib",
    ]);
    it.repo
        .write("with space\nand line", "1")
        .write("export", "2");
    it.repo.write(".gitattributes", "export export-ignore\n");
    it.repo.write("run", "#!/bin/sh\n").executable("run");
    symlink("run", it.repo.path.join("link")).unwrap();
    it.commit("first");
    it.repo.write("untracked", "1");
    let running = it.start();
    it.deploy(&[]);
    assert_eq!(running.who(), "first");
    let read = |path: &str| std::fs::read_to_string(it.live(path)).unwrap();
    assert_eq!(read("vendor/lib/lib"), "pinned");
    assert_eq!(
        (read("with space\nand line"), read("export")),
        ("1".into(), "2".into())
    );
    assert_eq!(read("link"), "#!/bin/sh\n");
    for path in [".git", "vendor/lib/.git", "untracked"] {
        assert!(it.live(path).symlink_metadata().is_err(), "{path}");
    }
    running.end();
}

#[test]
fn a_symlink_that_leaves_the_release_ends_the_deployment_with_its_name() {
    let it = Deployed::new();
    it.commit("first");
    let running = it.start();
    it.deploy(&[]);
    symlink("../../etc/passwd", it.repo.path.join("leaves")).unwrap();
    it.commit("second");
    let said = it.refused(&[]);
    assert!(
        said.contains("leaves") && said.contains("leaves the release"),
        "{said}"
    );
    assert_eq!(running.who(), "first");
    assert_eq!(it.project.releases(), 1);
    assert!(!it.home().join("incoming").exists());
    running.end();
}

#[test]
fn a_commit_is_built_once_and_what_is_not_committed_has_no_part_in_it() {
    let it = Deployed::with("setup_command = ['sh', 'setup']\n");
    it.repo.write("setup", "echo built >>made\n");
    it.commit("first");
    let running = it.start();
    it.deploy(&[]);
    it.commit("second");
    it.deploy(&["--wait", "stopped"]);
    it.deploy(&["HEAD~1"]);
    assert_eq!(running.who(), "first");
    assert_eq!(std::fs::read_to_string(it.live("made")).unwrap(), "built\n");
    running.end();
}

#[test]
fn a_pack_that_is_none_and_a_name_that_is_none_are_refused_by_the_api() {
    use std::io::{Read, Write};
    let it = Deployed::new();
    let commit = it.commit("first");
    let running = it.start();
    let post = |path: &str, body: &str| {
        let socket = it.project.directory.path().join(".slot/slotd.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: slotd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (path, status, wanted) in [
        (
            "/deploy?commit=main".to_owned(),
            "400",
            "40 hexadecimal digits",
        ),
        (
            format!("/deploy?commit={commit}&release=12345678"),
            "400",
            "leave one out",
        ),
        (
            format!("/deploy?commit={commit}&ref="),
            "400",
            "ref is to be",
        ),
        (
            "/repository?commit=--all".to_owned(),
            "400",
            "40 hexadecimal digits",
        ),
        (format!("/repository?commit={commit}"), "400", "is refused"),
    ] {
        let answer = post(&path, "no pack");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        assert!(answer.contains(wanted), "{path}: {answer}");
    }
    let answer = post(&format!("/deploy?commit={commit}"), "no pack");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    it.project.until("\"cause\":\"unprepared\"");
    let refs = std::fs::read_dir(it.home().join("repo.git/refs/slot"));
    assert_eq!(refs.map_or(0, Iterator::count), 0);
    assert!(!it.home().join("releases").exists());
    it.deploy(&[]);
    assert_eq!(running.who(), "first");
    running.end();
}

#[test]
fn commits_are_let_go_with_their_releases() {
    let it = Deployed::with("keep = 1\n");
    it.commit("0");
    let running = it.start();
    for number in 0..5 {
        it.commit(&number.to_string());
        it.deploy(&["--wait", "stopped"]);
    }
    let kept = || left_in(&it.home().join("repo.git/refs/slot")).len();
    // The live one, the previous one, and the one that is kept; what is removed is removed after the answer.
    let began = std::time::Instant::now();
    while kept() > 3 {
        assert!(began.elapsed() < started::LONG, "{} are left", kept());
        std::thread::yield_now();
    }
    assert_eq!(running.who(), "4");
    running.end();
}

#[test]
fn staging_is_made_after_each_promotion_and_head_is_deployed_from_there() {
    let it = Deployed::with("[staging]\n");
    let first = it.commit("first");
    let running = it.start();
    it.deploy(&[]);
    let made = |commit: &str| format!("\"release\":\"{}\"", &commit[..8]);
    let of = |commit: &str| {
        let began = std::time::Instant::now();
        while it.status()["staging"]["release"] != commit[..8] {
            assert!(began.elapsed() < started::LONG, "{}", it.status());
        }
    };
    of(&first);
    let tree = it.home().join("staging");
    assert_eq!(it.status()["staging"]["path"], tree.to_str().unwrap());
    let staging = Tree(tree.clone());
    assert_eq!(staging.git(&["rev-parse", "HEAD"]), first);
    // Somebody works there, and deploys from there.
    std::fs::write(
        tree.join("release.json"),
        "{\"name\":\"mine\",\"behaviour\":\"serves\"}",
    )
    .unwrap();
    let second = it.commit("second");
    it.deploy(&[]);
    it.project.until("stays as it is");
    let (_, said) = it.project.ask(&["status"]);
    assert!(
        said.contains("work that is not committed (\"release.json\")"),
        "{said}"
    );
    staging.git(&["commit", "--quiet", "--all", "--message", "mine"]);
    let mine = staging.git(&["rev-parse", "HEAD"]);
    let socket = it.project.directory.path().join(".slot/slotd.sock");
    let deployed = it
        .project
        .slotctl(&["--socket", socket.to_str().unwrap(), "deploy"])
        .current_dir(&tree)
        .output()
        .unwrap();
    assert!(deployed.status.success(), "{deployed:?}");
    assert_eq!(running.who(), "mine");
    of(&mine);
    let (_, said) = it.project.ask(&["--json", "rollback"]);
    assert!(said.contains(&made(&second)), "{said}");
    of(&second);
    assert_eq!(staging.git(&["branch", "--show-current"]), "machine");
    // What is of no commit leaves it as it is, and says so.
    let (code, said) = it.project.ask(&["deploy", "./build-1"]);
    assert_eq!(code, Some(0), "{said}");
    it.project.until("is of no commit");
    assert_eq!(staging.git(&["rev-parse", "HEAD"]), second);
    running.end();
    // After a restart it is known what it is of.
    let running = it.start();
    it.project.until("is of no commit");
    running.end();
}

struct Tree(PathBuf);

impl Tree {
    fn git(&self, words: &[&str]) -> String {
        let output = git_support::git_in(&self.0, words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }
}
