//! Commits that slotd fetches from an app's remote, black-box, where no systemd runs.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod git_support;
mod started;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use git_support::{Repo, git_in};
use sha2::{Digest, Sha256};
use started::{LONG, Project, left_in};

/// A remote, and a project outside of any repository that is deployed from it.
struct Remote {
    /// Where commits are made.
    repo: Repo,
    folder: tempfile::TempDir,
    project: Project,
}

/// A bare repository.
fn bare(path: &Path) {
    let made = git_in(
        Path::new("/"),
        ["init", "--quiet", "--bare", "--initial-branch=main"]
            .map(PathBuf::from)
            .into_iter()
            .chain([path.to_owned()]),
    );
    assert!(made.status.success());
}

impl Remote {
    fn new() -> Self {
        Self::with("")
    }

    /// With more lines under `[git]`.
    fn with(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.git");
        bare(&path);
        let repo = Repo::new();
        repo.git(["remote", "add", "origin", path.to_str().unwrap()]);
        let url = format!("file://{}", path.display());
        let project = Project::with(&format!("[git]\nremote = '{url}'\n{lines}"));
        Self {
            repo,
            folder,
            project,
        }
    }

    /// One that cannot be fetched from.
    fn at(url: &str, lines: &str) -> Project {
        Project::with(&format!("[git]\nremote = '{url}'\n{lines}"))
    }

    /// Pushes a release of this name to the branch that is checked out; gives the commit.
    fn push(&self, name: &str) -> String {
        let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}");
        let commit = self.repo.write("release.json", text).commit(name);
        self.repo
            .git(["push", "--quiet", "--force", "origin", "HEAD"]);
        commit
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
}

/// A deployment that goes on meanwhile.
fn deploying(project: &Project, words: &[&str]) -> Child {
    let words = [&["--socket", ".slot/slotd.sock", "deploy"], words].concat();
    let mut command = project.slotctl(&words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The processes whose command line or environment names a path.
fn processes(of: &Path) -> Vec<String> {
    let named = of.to_str().unwrap().to_owned();
    let found = fs::read_dir("/proc").unwrap().flatten();
    // One that has ended has neither.
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let lines = found.map(|entry| entry.path());
    lines
        .map(|path| [read(&path.join("cmdline")), read(&path.join("environ"))].concat())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&named) && !line.contains(" start "))
        .collect()
}

/// Nothing of a fetch runs any more, and nothing of a release is left.
fn nothing_is_left(project: &Project) {
    let began = Instant::now();
    let mirror = project.directory.path().join(".slot/slot/mirror.git");
    while !processes(&mirror).is_empty() {
        assert!(began.elapsed() < LONG, "{:?}", processes(&mirror));
        std::thread::yield_now();
    }
    assert!(
        !project
            .directory
            .path()
            .join(".slot/slot/incoming")
            .exists()
    );
}

#[test]
fn without_a_name_it_is_the_branch_that_the_remotes_head_names() {
    let it = Remote::new();
    let commit = it.push("first");
    let running = it.project.start(&[]);
    let said = it.deploy(&["--remote"]);
    assert_eq!(running.who(), "first");
    let short = &commit[..8];
    assert!(said.contains(&format!("main is {short}")), "{said}");
    assert!(
        said.contains(&format!("release {short} (main) serves")),
        "{said}"
    );
    let (_, said) = it.project.ask(&["--json", "releases"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let source = &listed["releases"][0]["source"];
    assert_eq!(source["kind"], "git");
    assert_eq!(
        (&source["commit"], &source["ref"]),
        (&commit.into(), &"main".into())
    );
    // Where there is no repository, there is nothing else that could be meant. The same again is the same release.
    it.deploy(&[]);
    assert_eq!(it.project.releases(), 1);
    nothing_is_left(&it.project);
    running.end();
}

#[test]
fn a_branch_a_tag_and_a_whole_hash_are_names_of_a_remote_and_branch_is_the_default() {
    let it = Remote::with("branch = 'stable'\n");
    let first = it.push("first");
    it.repo.git(["tag", "light"]);
    it.repo
        .git(["tag", "--annotate", "heavy", "--message", "heavy"]);
    it.repo.git(["push", "--quiet", "--tags", "origin"]);
    it.repo.git(["checkout", "--quiet", "-b", "stable"]);
    it.push("stable");
    it.repo.git(["checkout", "--quiet", "-b", "feature/x"]);
    let third = it.push("feature");
    let running = it.project.start(&[]);
    for (words, release) in [
        (&["--remote"][..], "stable"),
        (&["--remote", "main"], "first"),
        (&["feature/x"], "feature"),
        (&["--remote", "light"], "first"),
        (&["refs/heads/stable"], "stable"),
        (&["heavy", "--version", "v1"], "first"),
        (&["--remote", &third], "feature"),
        (&[&first], "first"),
        (&[], "stable"),
    ] {
        it.deploy(words);
        assert_eq!(running.who(), release, "{words:?}");
    }
    assert_eq!(it.project.releases(), 3);
    let (_, said) = it.project.ask(&["releases"]);
    assert!(said.contains("v1"), "{said}");
    running.end();
}

#[test]
fn what_the_remote_has_not_is_told_and_nothing_changes() {
    let it = Remote::new();
    it.push("first");
    it.repo.git(["branch", "both"]);
    it.repo.git(["push", "--quiet", "origin", "both"]);
    let second = it.push("second");
    it.repo.git(["tag", "both"]);
    it.repo.git(["push", "--quiet", "--tags", "origin"]);
    let running = it.project.start(&[]);
    it.deploy(&[]);
    let absent = "0123456789".repeat(4);
    for (name, wanted) in [
        ("mian", "did you mean main?"),
        ("nothing", "git ls-remote file://"),
        (&second[..8], "write all 40 digits"),
        (&absent, "cannot be fetched from"),
        ("both", "refs/heads/both, refs/tags/both"),
    ] {
        let said = it.refused(&["--remote", name]);
        assert!(said.contains(wanted), "{name}: {said}");
        assert!(said.contains("failed in phase fetch"), "{name}: {said}");
    }
    let said = it.refused(&["--remote", "main~1"]);
    assert!(
        said.contains("is no name that a remote could have"),
        "{said}"
    );
    assert_eq!(running.who(), "second");
    assert_eq!(it.project.releases(), 1);
    nothing_is_left(&it.project);
    running.end();
}

#[test]
fn a_branch_that_was_pushed_by_force_is_deployed_and_one_that_is_deleted_is_not() {
    let it = Remote::new();
    it.push("first");
    it.push("gone");
    let running = it.project.start(&[]);
    it.deploy(&["main"]);
    assert_eq!(running.who(), "gone");
    it.repo.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    it.push("rewritten");
    let pruned = ["reflog", "expire", "--expire=now", "--all"];
    git_in(&it.folder.path().join("shop.git"), pruned);
    let gc = ["gc", "--quiet", "--prune=now"];
    assert!(
        git_in(&it.folder.path().join("shop.git"), gc)
            .status
            .success()
    );
    it.deploy(&["main"]);
    assert_eq!(running.who(), "rewritten");
    it.repo.git(["checkout", "--quiet", "-b", "other"]);
    it.push("other");
    it.deploy(&["other"]);
    it.repo
        .git(["push", "--quiet", "--delete", "origin", "other"]);
    let said = it.refused(&["other"]);
    assert!(said.contains("has no branch or tag \"other\""), "{said}");
    assert_eq!(running.who(), "other");
    running.end();
}

#[test]
fn submodules_come_from_beside_the_remote_and_theirs_from_beside_them() {
    let it = Remote::new();
    let beside = |name: &str| it.folder.path().join(name);
    let published = |repo: &Repo, name: &str| {
        bare(&beside(name));
        let at = beside(name);
        repo.git(["push", "--quiet", at.to_str().unwrap(), "main"]);
    };
    let inner = Repo::new();
    inner.write("inner", "deep").commit("inner");
    published(&inner, "inner.git");
    let library = Repo::new();
    let added = |repo: &Repo, from: &str, to: &str| {
        let at = beside(from);
        repo.git(["submodule", "--quiet", "add", at.to_str().unwrap(), to]);
        let relative = format!("../{from}");
        repo.git([
            "config",
            "--file",
            ".gitmodules",
            &format!("submodule.{to}.url"),
            &relative,
        ]);
    };
    added(&library, "inner.git", "deep");
    library.write("lib", "pinned").commit("lib");
    published(&library, "lib.git");
    added(&it.repo, "lib.git", "vendor/lib");
    it.push("first");
    let running = it.project.start(&[]);
    it.deploy(&[]);
    assert_eq!(running.who(), "first");
    let read = |path: &str| fs::read_to_string(it.home().join("live").join(path)).unwrap();
    assert_eq!(
        (read("vendor/lib/lib"), read("vendor/lib/deep/inner")),
        ("pinned".to_owned(), "deep".to_owned())
    );
    // Its repository knows no other kind than the remote's, and no option.
    for (url, wanted) in [
        ("ext::touch x", "no URL"),
        ("--upload-pack=x", "no URL"),
        ("../absent.git", "absent.git cannot be fetched from"),
    ] {
        let key = "submodule.vendor/lib.url";
        it.repo.git(["config", "--file", ".gitmodules", key, url]);
        it.push("second");
        library.write("lib", url).commit("new");
        let new = library.git(["rev-parse", "HEAD"]);
        let entry = format!("160000,{new},vendor/lib");
        it.repo.git(["update-index", "--cacheinfo", &entry]);
        it.repo.git(["commit", "--quiet", "--message", "moved"]);
        it.repo.git(["push", "--quiet", "origin", "HEAD"]);
        let said = it.refused(&[]);
        assert!(said.contains(wanted), "{url}: {said}");
    }
    assert_eq!(running.who(), "first");
    running.end();
}

#[test]
fn a_remote_that_says_nothing_is_given_up_at_its_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("git://127.0.0.1:{port}/shop.git");
    let project = Remote::at(&url, "fetch_timeout = '1s'\n");
    let running = project.serving(&["./build-1"], "release 1");
    let said = project.refused(&["--remote", "main"]);
    for wanted in [
        &url,
        "did not end within fetch_timeout (1 s)",
        "failed in phase fetch",
    ] {
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(running.who(), "1");
    assert_eq!(project.releases(), 1);
    nothing_is_left(&project);
    running.end();
}

#[test]
fn a_rollback_goes_ahead_of_a_fetch_and_ends_it() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "git://127.0.0.1:{}/shop.git",
        silent.local_addr().unwrap().port()
    );
    let project = Remote::at(&url, "");
    let text = "{\"name\":\"2\",\"behaviour\":\"serves\"}";
    fs::write(project.directory.path().join("build-2/release.json"), text).unwrap();
    let running = project.serving(&["./build-1"], "release 1");
    project.deploy(&["./build-2"]);
    let mut fetching = deploying(&project, &["--remote"]);
    // git has called, so all of it runs.
    let (_called, _) = silent.accept().unwrap();
    project.until("asks git://");
    let (code, said) = project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "1");
    assert!(!fetching.wait().unwrap().success());
    nothing_is_left(&project);
    running.end();
}

#[test]
fn a_fetcher_that_is_killed_ends_the_deployment() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "git://127.0.0.1:{}/shop.git",
        silent.local_addr().unwrap().port()
    );
    let project = Remote::at(&url, "");
    let running = project.serving(&["./build-1"], "release 1");
    let mut fetching = deploying(&project, &["--remote"]);
    let (_called, _) = silent.accept().unwrap();
    let mirror = project.directory.path().join(".slot/slot/mirror.git");
    let fetcher = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_it = line.contains(" fetch ") && line.contains(mirror.to_str().unwrap());
        is_it.then(|| entry.file_name().to_str()?.parse::<i32>().ok())?
    });
    let fetcher = nix::unistd::Pid::from_raw(fetcher.unwrap());
    nix::sys::signal::kill(fetcher, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(!fetching.wait().unwrap().success());
    project.until("/shop.git failed: killed by SIGKILL");
    assert_eq!(running.who(), "1");
    nothing_is_left(&project);
    running.end();
}

#[test]
fn what_is_there_is_neither_fetched_nor_sent_again_and_nothing_grows_for_ever() {
    let it = Remote::new();
    let large: Vec<u8> = (0..400_000u32)
        .flat_map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    it.repo.write("large", &large);
    it.push("0");
    let running = it.project.start(&[]);
    it.deploy(&[]);
    for number in 1..14 {
        it.push(&number.to_string());
        it.deploy(&["--wait", "stopped"]);
    }
    assert_eq!(running.who(), "13");
    for repository in ["mirror.git", "repo.git"] {
        let packs: Vec<u64> = fs::read_dir(it.home().join(repository).join("objects/pack"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "pack"))
            .map(|entry| entry.metadata().unwrap().len())
            .collect();
        assert!(packs.len() <= 12, "{repository}: {packs:?}");
        let all: u64 = packs.iter().sum();
        assert!(all < 2 * large.len() as u64, "{repository}: {packs:?}");
    }
    running.end();
}

#[test]
fn a_mirror_in_which_a_killed_git_left_its_locks_is_used_and_one_that_is_lost_is_made_anew() {
    let it = Remote::new();
    it.push("first");
    let running = it.project.start(&[]);
    it.deploy(&[]);
    for left in [
        "shallow.lock",
        "packed-refs.lock",
        "objects/pack/tmp_pack_1",
    ] {
        fs::write(it.home().join("mirror.git").join(left), "").unwrap();
    }
    it.push("locked");
    it.deploy(&[]);
    assert_eq!(running.who(), "locked");
    assert!(
        !it.home()
            .join("mirror.git/objects/pack/tmp_pack_1")
            .exists()
    );
    fs::remove_dir_all(it.home().join("mirror.git")).unwrap();
    it.push("second");
    it.deploy(&[]);
    assert_eq!(running.who(), "second");
    running.end();
}

#[test]
fn where_there_is_no_remote_that_is_said_and_what_to_write() {
    let project = Project::new();
    let running = project.start(&[]);
    let said = project.refused(&["--remote"]);
    assert!(
        said.contains("has no remote to fetch from; write `[git]`"),
        "{said}"
    );
    let said = project.refused(&["main"]);
    assert!(said.contains("main does not exist"), "{said}");
    running.end();
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("shop");
    fs::write(&key, "a key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let lines = format!("deploy_key = '{}'\n", key.display());
    let project = Remote::at("git@127.0.0.1:shop.git", &lines);
    let running = project.start(&[]);
    let said = project.refused(&["--remote"]);
    assert!(said.contains("others than its owner may read"), "{said}");
    fs::remove_file(&key).unwrap();
    let said = project.refused(&["--remote"]);
    assert!(said.contains("there is no file"), "{said}");
    running.end();
}

#[test]
fn a_repository_around_the_directory_goes_before_the_remote() {
    let it = Remote::new();
    it.push("far");
    let near = Repo::at(it.project.directory.path());
    near.write(".gitignore", "tmp\nbuild-*\n");
    let text = "{\"name\":\"near\",\"behaviour\":\"serves\"}";
    near.write("release.json", text).commit("near");
    let running = it.project.start(&[]);
    it.deploy(&["main"]);
    assert_eq!(running.who(), "near");
    it.deploy(&["--remote", "main"]);
    assert_eq!(running.who(), "far");
    running.end();
}

/// git-lfs as a remote with a server beside it needs it: fetches of a commit what it is told to, and notes how it was called. While there
/// is a pipe in the server's place, it waits for somebody who writes to that.
const GIT_LFS: &str = r#"
[ "$1" != version ] || exit 0
remote=$(git config "remote.$4.url")
remote=${remote#file://}
[ ! -p "$remote.lfs" ] || read -r line <"$remote.lfs"
echo "$2 $(git config lfs.url || true)" >>"$remote.asked"
[ -e "$remote.lfs" ] || { echo "no route to the server" >&2; exit 2; }
set -f
patterns=${2#--include=}
git ls-tree -r --name-only "$5" | while read -r path; do
    IFS=,
    for pattern in ${patterns:-*}; do
        case $path in $pattern) ;; *) continue ;; esac
        oid=$(git cat-file blob "$5:$path" | sed -n 's/^oid sha256://p')
        [ -f "$remote.lfs/$oid" ] || continue
        place=$(git config lfs.storage)/objects/$(echo "$oid" | sed 's|^\(..\)\(..\).*|\1/\2|')
        mkdir -p "$place"
        cp "$remote.lfs/$oid" "$place/"
    done
done"#;

/// Writes the pointer to a content; gives the content's name.
fn point(repo: &Repo, path: &str, content: &str) -> String {
    let digits = Sha256::digest(content);
    let oid: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    let size = content.len();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n");
    repo.write(path, pointer);
    oid
}

/// A remote whose commits have files of Git LFS, and the directory that its server has their contents in.
struct LargeRemote {
    it: Remote,
    _programs: tempfile::TempDir,
}

impl LargeRemote {
    fn new(git_lfs: Option<&str>) -> Self {
        let programs = git_support::programs(git_lfs);
        let mut it = Remote::new();
        it.project.programs = Some(programs.path().to_owned());
        it.repo.write(".gitattributes", "*.bin filter=lfs\n");
        let it = Self {
            it,
            _programs: programs,
        };
        fs::create_dir(it.beside("lfs")).unwrap();
        it
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.it.folder.path().join(format!("shop.git.{what}"))
    }

    /// Writes the pointer to a content, which is at the server.
    fn keep(&self, path: &str, content: &str) {
        let oid = point(&self.it.repo, path, content);
        fs::write(self.beside("lfs").join(oid), content).unwrap();
    }

    fn live(&self, path: &str) -> String {
        fs::read_to_string(self.it.home().join("live").join(path)).unwrap()
    }

    /// How git-lfs was called since this was asked last.
    fn asked(&self) -> String {
        let asked = fs::read_to_string(self.beside("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.beside("asked"));
        asked
    }
}

#[test]
fn what_git_lfs_keeps_comes_with_a_commit_and_only_what_is_new_of_it() {
    let large = LargeRemote::new(Some(GIT_LFS));
    large.keep("art/one.bin", "one");
    large.keep("art/two.bin", "two");
    large.keep("art/same.bin", "one");
    large.it.push("first");
    let running = large.it.project.start(&[]);
    let said = large.it.deploy(&[]);
    assert!(said.contains("with 6 B of Git LFS"), "{said}");
    let live = ["one", "two", "same"].map(|name| large.live(&format!("art/{name}.bin")));
    assert_eq!(live, ["one", "two", "one"]);
    assert_eq!(large.asked(), "--include= \n", "all of it");
    let mirror = large.it.home().join("mirror.git");
    assert!(mirror.is_dir() && !mirror.join("lfs").exists());
    large.keep("art/two.bin", "second");
    large.it.push("second");
    large.it.deploy(&[]);
    assert_eq!(large.live("art/two.bin"), "second");
    assert_eq!(large.live("art/one.bin"), "one");
    assert_eq!(large.asked(), "--include=art/two.bin \n");
    // What would be more than one pattern, or another, is told as one that matches it.
    large.keep("art/a, b*.bin", "third");
    large.it.push("third");
    large.it.deploy(&[]);
    assert_eq!(large.live("art/a, b*.bin"), "third");
    assert_eq!(large.asked(), "--include=art/a*b*.bin \n");
    assert_eq!(running.who(), "third");
    running.end();
}

#[test]
fn the_server_that_a_commit_names_is_asked_if_it_is_one() {
    let large = LargeRemote::new(Some(GIT_LFS));
    large.keep("one.bin", "one");
    let name = |url: &str| {
        let text = format!("[lfs]\n\turl = {url}\n");
        large.it.repo.write(".lfsconfig", text);
        large.it.push("named");
    };
    let running = large.it.project.start(&[]);
    for (url, wanted) in [
        ("ext::sh -c x", "is no URL"),
        ("https://ada:secret@example.org/x", "a user in it"),
        ("--upload-pack=x", "is no URL"),
    ] {
        name(url);
        let said = large.it.refused(&[]);
        assert!(
            said.contains(wanted) && said.contains("correct its lfs.url"),
            "{said}"
        );
        assert_eq!(large.asked(), "", "{url}");
    }
    large.it.repo.write(".lfsconfig", "[lfs\n");
    large.it.push("broken");
    let said = large.it.refused(&[]);
    assert!(said.contains("bad config line 1"), "{said}");
    name("https://lfs.example.org/shop");
    large.it.deploy(&[]);
    assert_eq!(large.live("one.bin"), "one");
    assert_eq!(large.asked(), "--include= https://lfs.example.org/shop\n");
    running.end();
}

#[test]
fn what_git_lfs_cannot_fetch_is_refused_with_its_file_and_why() {
    let large = LargeRemote::new(Some(GIT_LFS));
    large.it.push("first");
    let running = large.it.project.start(&[]);
    large.it.deploy(&[]);
    let refused = |wanted: &[&str]| {
        let said = large.it.refused(&[]);
        for wanted in wanted {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert_eq!(running.who(), "first");
        nothing_is_left(&large.it.project);
    };
    let missing = point(&large.it.repo, "model.bin", "missing");
    large.it.push("second");
    refused(&["\"model.bin\" (7 B)", "kept by Git LFS", "did not come"]);
    fs::write(large.beside("lfs").join(&missing), "other!!").unwrap();
    refused(&[&missing, "its SHA-256 is"]);
    // What was damaged is not there any more, and asked for again.
    fs::rename(large.beside("lfs"), large.beside("away")).unwrap();
    refused(&["no route to the server", "\"model.bin\" (7 B)"]);
    fs::rename(large.beside("away"), large.beside("lfs")).unwrap();
    fs::write(large.beside("lfs").join(&missing), "missing").unwrap();
    large.it.deploy(&[]);
    assert_eq!(large.live("model.bin"), "missing");
    running.end();
}

#[test]
fn without_git_lfs_a_commit_that_needs_it_is_refused_with_what_to_install() {
    let large = LargeRemote::new(None);
    large.it.push("first");
    let running = large.it.project.start(&[]);
    large.it.deploy(&[]);
    large.keep("model.bin", "model");
    large.it.push("second");
    let said = large.it.refused(&[]);
    assert!(
        said.contains("\"model.bin\" (5 B)") && said.contains("apt install git-lfs"),
        "{said}"
    );
    assert_eq!(running.who(), "first");
    nothing_is_left(&large.it.project);
    running.end();
}

#[test]
fn what_git_lfs_keeps_of_a_submodule_comes_once_with_its_own_and_however_much_there_is() {
    let large = LargeRemote::new(Some(GIT_LFS));
    let it = &large.it;
    let library = Repo::new();
    library.write(".gitattributes", "*.bin filter=lfs\n");
    let shared = point(&library, "shared.bin", "shared");
    library.commit("lib");
    let at = it.folder.path().join("lib.git");
    bare(&at);
    library.git(["push", "--quiet", at.to_str().unwrap(), "main"]);
    fs::create_dir(it.folder.path().join("lib.git.lfs")).unwrap();
    fs::write(it.folder.path().join("lib.git.lfs").join(shared), "shared").unwrap();
    it.repo
        .git(["submodule", "--quiet", "add", at.to_str().unwrap(), "lib"]);
    large.keep("shared.bin", "shared");
    for n in 0..300 {
        large.keep(&format!("many/{n}.bin"), &format!("content {n}"));
    }
    it.push("first");
    let running = it.project.start(&[]);
    let said = it.deploy(&[]);
    assert!(said.contains("with 6 B of Git LFS"), "{said}");
    assert!(said.contains("with 3.1 KiB of Git LFS"), "{said}");
    assert_eq!(large.live("lib/shared.bin"), "shared");
    assert_eq!(large.live("shared.bin"), "shared");
    for n in [0, 255, 256, 299] {
        let path = format!("many/{n}.bin");
        assert_eq!(large.live(&path), format!("content {n}"));
    }
    let left = left_in(&it.home().join("mirror.git"));
    assert!(!left.iter().any(|path| path.ends_with("lfs")), "{left:?}");
    running.end();
}

#[test]
fn a_rollback_goes_ahead_of_git_lfs_and_ends_it() {
    let large = LargeRemote::new(Some(GIT_LFS));
    large.it.push("first");
    let running = large.it.project.start(&[]);
    large.it.deploy(&[]);
    large.it.push("second");
    large.it.deploy(&[]);
    large.keep("model.bin", "model");
    large.it.push("third");
    let lfs = large.beside("lfs");
    fs::rename(&lfs, large.beside("away")).unwrap();
    nix::unistd::mkfifo(&lfs, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut fetching = deploying(&large.it.project, &[]);
    large.it.project.until("with 5 B of Git LFS");
    let (code, said) = large.it.project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "first");
    assert!(!fetching.wait().unwrap().success());
    nothing_is_left(&large.it.project);
    fs::remove_file(&lfs).unwrap();
    fs::rename(large.beside("away"), &lfs).unwrap();
    large.it.deploy(&[]);
    assert_eq!(large.live("model.bin"), "model");
    running.end();
}
