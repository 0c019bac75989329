//! Commits, from a user's repository into the store and out of it, by real git.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod git_support;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git_support::{Repo, git_in};
use slot::deploy::ReleaseId;
use slot::git::{Commit, GitError, Repository, Store};

/// An app's directory, with the store in it.
struct Place {
    root: tempfile::TempDir,
    store: Store,
    laid_out: Cell<u32>,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::of(root.path());
        Self {
            root,
            store,
            laid_out: Cell::new(0),
        }
    }

    fn repository(&self) -> PathBuf {
        self.root.path().join("repo.git")
    }

    /// As a deployment does: all parts are packed and taken, the last of them under the release's name; gives the bytes that were sent.
    fn send(&self, repo: &Repo, commit: &str) -> Result<usize, GitError> {
        let commit: Commit = commit.parse().unwrap();
        let held = self.store.hold()?;
        let have: Vec<Commit> = self.store.have()?.into_iter().collect();
        let mut sent = 0;
        for part in Repository::find(&repo.path)?.parts(&commit)? {
            let mut pack = Vec::new();
            part.pack(&have)?.read_to_end(&mut pack).unwrap();
            sent += pack.len();
            if part.commit == commit {
                held.take(&commit, &id(&commit), &pack[..], || true)?;
            } else {
                held.take_module(&part.commit, &pack[..], || true)?;
            }
        }
        Ok(sent)
    }

    fn lay_out(&self, commit: &str) -> PathBuf {
        let number = self.laid_out.get() + 1;
        self.laid_out.set(number);
        let into = self.root.path().join(format!("out{number}"));
        fs::create_dir(&into).unwrap();
        let held = self.store.hold().unwrap();
        held.lay_out(&commit.parse().unwrap(), &into).unwrap();
        into
    }

    /// Everything that is in the store's directory by its path; packs by the beginning of theirs.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.repository()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                let inside = path.strip_prefix(self.repository()).unwrap();
                files.insert(inside.display().to_string());
            }
        }
        files
    }
}

fn id(commit: &Commit) -> ReleaseId {
    commit.short().parse().unwrap()
}

/// A directory's files and symlinks, with what is in them; `x` before those that can be executed.
fn tree(folder: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for path in fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
            let about = fs::symlink_metadata(&path).unwrap();
            let inside = path
                .strip_prefix(folder)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_owned();
            if about.is_dir() {
                folders.push(path);
            } else if about.is_symlink() {
                found.insert(
                    inside,
                    format!("-> {}", fs::read_link(&path).unwrap().display()),
                );
            } else {
                let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                let runs = about.permissions().mode() & 0o111 != 0;
                found.insert(inside, format!("{}{content}", if runs { "x " } else { "" }));
            }
        }
    }
    found
}

fn shown(tree: &BTreeMap<Vec<u8>, String>) -> Vec<String> {
    let line = |(path, content): (&Vec<u8>, &String)| {
        format!("{}: {content}", String::from_utf8_lossy(path))
    };
    tree.iter().map(line).collect()
}

fn find(repo: &Repo) -> Repository {
    Repository::find(&repo.path).unwrap()
}

#[test]
fn a_commit_has_its_name_its_beginning_its_branch_and_its_tags() {
    let repo = Repo::new();
    let first = repo.write("a", "1").commit("first");
    repo.git(["tag", "light"]);
    repo.git(["tag", "--annotate", "heavy", "--message", "heavy"]);
    let second = repo.write("a", "2").commit("second");
    repo.git(["branch", "feature/x", &first]);
    let found = find(&repo);
    let meant = |name: &str| found.resolve(name).unwrap().commit.to_string();
    for name in [
        &first[..],
        &first[..7],
        "light",
        "heavy",
        "feature/x",
        "HEAD~1",
        "main^",
    ] {
        assert_eq!(meant(name), first, "{name}");
    }
    for name in [
        "HEAD",
        "main",
        "refs/heads/main",
        "heads/main",
        &second[..8],
    ] {
        assert_eq!(meant(name), second, "{name}");
    }
    let head = found.resolve("HEAD").unwrap();
    assert_eq!(head.reference.as_deref(), Some("main"));
    repo.git(["checkout", "--quiet", "--detach"]);
    assert_eq!(found.resolve("HEAD").unwrap().reference, None);
}

#[test]
fn the_repository_is_found_from_below_from_a_linked_work_tree_and_without_one() {
    let repo = Repo::new();
    let commit = repo.write("deep/er/a", "1").commit("first");
    let below = Repository::find(&repo.path.join("deep/er")).unwrap();
    assert_eq!(below.directory(), repo.path);
    let folder = tempfile::tempdir().unwrap();
    let linked = folder.path().join("linked");
    repo.git([
        OsStr::new("worktree"),
        OsStr::new("add"),
        OsStr::new("--quiet"),
        linked.as_os_str(),
    ]);
    let bare = folder.path().join("bare.git");
    repo.git([
        OsStr::new("clone"),
        OsStr::new("--quiet"),
        OsStr::new("--bare"),
        OsStr::new("."),
        bare.as_os_str(),
    ]);
    for path in [&linked, &bare] {
        let found = Repository::find(path).unwrap();
        assert_eq!(found.resolve("HEAD").unwrap().commit.as_str(), commit);
        assert_eq!(found.changes().unwrap(), Vec::<PathBuf>::new());
    }
    let error = Repository::find(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is in no git repository"), "{error}");
}

#[test]
fn a_name_that_nothing_has_is_told_with_one_that_it_may_have_been_meant_for() {
    let repo = Repo::new();
    let said = |name: &str| find(&repo).resolve(name).unwrap_err().to_string();
    assert!(said("HEAD").contains("no commit yet"), "{}", said("HEAD"));
    repo.write("a", "1").commit("first");
    repo.git(["update-ref", "refs/remotes/origin/release", "HEAD"]);
    assert!(
        said("mian").contains("\"mian\"; did you mean main?"),
        "{}",
        said("mian")
    );
    assert!(
        said("release").contains("did you mean origin/release?"),
        "{}",
        said("release")
    );
    assert!(
        said("deadbeef").contains("git fetch"),
        "{}",
        said("deadbeef")
    );
    assert!(said("nothing-of-it").contains("git branch --all"));
    for option in ["--upload-pack=touch x", "-h", "--all", ""] {
        assert!(find(&repo).resolve(option).is_err(), "{option}");
    }
}

#[test]
fn a_name_that_means_two_commits_is_refused_with_a_name_for_each() {
    let repo = Repo::new();
    let first = repo.write("a", "1").commit("first");
    let second = repo.write("a", "2").commit("second");
    repo.git(["tag", "v1", &first]);
    // git itself would take the tag.
    repo.git(["branch", "v1", &second]);
    let said = find(&repo).resolve("v1").unwrap_err().to_string();
    assert!(
        said.contains("refs/tags/v1") && said.contains("refs/heads/v1"),
        "{said}"
    );
    // A branch that is called as another commit begins.
    let part = &first[..7];
    repo.git(["branch", part, &second]);
    let said = find(&repo).resolve(part).unwrap_err().to_string();
    assert!(
        said.contains(&format!("refs/heads/{part}")) && said.contains(&first),
        "{said}"
    );
    assert_eq!(find(&repo).resolve(&first).unwrap().commit.as_str(), first);
    // Two names for one commit are no question.
    repo.git(["tag", "main", &second]);
    assert_eq!(find(&repo).resolve("main").unwrap().commit.as_str(), second);
}

#[test]
fn digits_that_two_commits_begin_with_are_refused_with_both() {
    let repo = Repo::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    // Of so many two begin alike: 4 digits have 65,536 values.
    let mut orders = String::new();
    for number in 0..2000 {
        orders.push_str(&format!(
            "commit refs/heads/n{number}\nmark :{}\ncommitter Ada <ada@example.org> {} +0000\ndata 1\nx\n",
            number + 1,
            1_000_000_000 + number
        ));
    }
    repo.write("../orders", "").write(".git/orders", &orders);
    let fed = std::process::Command::new("git")
        .current_dir(&repo.path)
        .args(["fast-import", "--quiet"])
        .stdin(fs::File::open(repo.path.join(".git/orders")).unwrap())
        .status()
        .unwrap();
    assert!(fed.success());
    let all = repo.git(["for-each-ref", "--format=%(objectname)"]);
    let (one, two) = all
        .lines()
        .find_map(|commit| {
            let other = known.insert(commit[..4].to_owned(), commit.to_owned())?;
            Some((other, commit.to_owned()))
        })
        .unwrap();
    let said = find(&repo).resolve(&one[..4]).unwrap_err().to_string();
    assert!(said.contains(&one) && said.contains(&two), "{said}");
}

#[test]
fn changes_to_tracked_files_are_listed_and_slots_own_are_not() {
    let repo = Repo::new();
    for name in [
        "app.js",
        "gone",
        "slot.toml",
        "slot-machine.json",
        ".gitignore",
        ".slot/x",
        "odd\n name",
    ] {
        repo.write(name, "1");
    }
    repo.commit("first");
    assert_eq!(find(&repo).changes().unwrap(), Vec::<PathBuf>::new());
    for name in [
        "app.js",
        "slot.toml",
        "slot-machine.json",
        ".gitignore",
        ".slot/x",
        "odd\n name",
    ] {
        repo.write(name, "22");
    }
    repo.write("untracked", "1").write("staged", "1");
    repo.git(["add", "staged"]);
    fs::remove_file(repo.path.join("gone")).unwrap();
    let changes = find(&repo).changes().unwrap();
    let names: Vec<_> = changes
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(names, ["app.js", "gone", "odd\n name", "staged"]);
}

#[test]
fn a_commit_is_laid_out_exactly() {
    let repo = Repo::new();
    repo.write("server", "#!/bin/sh\n").executable("server");
    repo.write("with space\nand line", "1");
    repo.write(OsStr::from_bytes(b"not utf-8 \xff"), "2");
    repo.write("left-out", "3");
    repo.write(".gitattributes", "left-out export-ignore\n* filter=evil\n");
    symlink("server", repo.path.join("inside")).unwrap();
    repo.git(["config", "filter.evil.clean", "cat"]);
    repo.git(["config", "filter.evil.smudge", "touch /smudged; cat"]);
    let commit = repo.commit("first");
    repo.write("server", "changed").write("untracked", "1");
    let place = Place::new();
    place.send(&repo, &commit).unwrap();
    let laid_out = tree(&place.lay_out(&commit));
    assert_eq!(
        shown(&laid_out),
        [
            ".gitattributes: left-out export-ignore\n* filter=evil\n",
            "inside: -> server",
            "left-out: 3",
            "not utf-8 \u{fffd}: 2",
            "server: x #!/bin/sh\n",
            "with space\nand line: 1",
        ]
    );
    assert!(laid_out.contains_key(&b"not utf-8 \xff"[..]));
}

#[test]
fn only_what_is_missing_is_sent_and_no_history() {
    let repo = Repo::new();
    for number in 0..50 {
        repo.write(format!("old/{number}"), format!("history {number}"));
    }
    repo.commit("history");
    fs::remove_dir_all(repo.path.join("old")).unwrap();
    for number in 0..50 {
        repo.write(format!("file{number}"), format!("content of {number}"));
    }
    let first = repo.commit("first");
    let place = Place::new();
    place.send(&repo, &first).unwrap();
    let objects = || -> u64 {
        let packs = git_in(&place.repository(), ["count-objects", "-v"]);
        let told = String::from_utf8(packs.stdout).unwrap();
        let count = told.lines().find_map(|line| line.strip_prefix("in-pack: "));
        count.unwrap().parse().unwrap()
    };
    // The commit, its tree, 50 files.
    assert_eq!(objects(), 52);
    repo.write("file7", "another content");
    let between = repo.commit("between");
    repo.write("file8", "yet another");
    let second = repo.commit("second");
    let mut pack = Vec::new();
    let parts = find(&repo).parts(&second.parse().unwrap()).unwrap();
    let have = [first.parse().unwrap(), "1".repeat(40).parse().unwrap()];
    parts[0]
        .pack(&have)
        .unwrap()
        .read_to_end(&mut pack)
        .unwrap();
    // gitformat-pack(5): the number of objects. A commit, a tree, two files; nothing of the commit between.
    assert_eq!(pack[8..12], 4u32.to_be_bytes());
    place.send(&repo, &second).unwrap();
    assert_eq!(place.send(&repo, &second).unwrap(), 32, "an empty pack");
    // What an older commit has that the deployed one does not has never come.
    repo.git(["checkout", "--quiet", &between]);
    place.send(&repo, &between).unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&between))).len(), 50);
    let reverted = repo.git(["commit-tree", "HEAD~2^{tree}", "-m", "the first tree again"]);
    place.send(&repo, &reverted).unwrap();
    assert_eq!(tree(&place.lay_out(&reverted)).len(), 50);
}

#[test]
fn a_checkout_that_is_one_commit_deep_is_deployed_like_any_other() {
    let origin = Repo::new();
    origin.write("a", "1").commit("first");
    let second = origin.write("a", "2").commit("second");
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", origin.path.display());
    let cloned = git_in(folder.path(), ["clone", "--quiet", "--depth=1", &url, "it"]);
    assert!(cloned.status.success());
    let shallow = Repo::at(&folder.path().join("it"));
    let place = Place::new();
    place.send(&shallow, &second).unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&second))), ["a: 2"]);
    // And the next one from a whole clone.
    let third = origin.write("a", "3").commit("third");
    place.send(&origin, &third).unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&third))), ["a: 3"]);
}

#[test]
fn a_branch_that_was_pushed_by_force_and_a_commit_that_is_gone_are_no_obstacle() {
    let repo = Repo::new();
    repo.write("a", "1").commit("first");
    let old = repo.write("a", "2").write("b", "same").commit("old");
    let place = Place::new();
    place.send(&repo, &old).unwrap();
    repo.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    let new = repo.write("a", "3").write("b", "same").commit("new");
    repo.git(["reflog", "expire", "--expire=now", "--all"]);
    repo.git(["gc", "--quiet", "--prune=now"]);
    assert!(!repo.try_git(["cat-file", "-e", &old]).status.success());
    place.send(&repo, &new).unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&new))), ["a: 3", "b: same"]);
    // The store has it still, for a rollback that finds its directory gone.
    assert_eq!(shown(&tree(&place.lay_out(&old))), ["a: 2", "b: same"]);
    let said = find(&repo).resolve(&old).unwrap_err().to_string();
    assert!(said.contains("force-push"), "{said}");
}

#[test]
fn a_submodule_and_its_own_are_laid_out_at_their_commits() {
    let (inner, library, repo) = (Repo::new(), Repo::new(), Repo::new());
    inner.write("deepest", "1").commit("inner");
    library.write("lib.js", "1");
    let add = |to: &Repo, what: &Repo, at: &str| {
        to.git([
            "submodule",
            "--quiet",
            "add",
            what.path.to_str().unwrap(),
            at,
        ]);
    };
    add(&library, &inner, "inner");
    let pinned = library.commit("library");
    repo.write("a", "1");
    add(&repo, &library, "vendor/lib");
    let commit = repo.commit("with a submodule");
    // What its branch has since is not what was committed.
    library.write("lib.js", "2").commit("newer");

    let place = Place::new();
    let said = place.send(&repo, &commit).unwrap_err().to_string();
    assert!(
        said.contains("\"inner\"") && said.contains("submodule update --init"),
        "{said}"
    );
    repo.git(["submodule", "--quiet", "update", "--init", "--recursive"]);
    place.send(&repo, &commit).unwrap();
    let laid_out = tree(&place.lay_out(&commit));
    let files: Vec<_> = shown(&laid_out)
        .into_iter()
        .filter(|line| !line.contains(".gitmodules"))
        .collect();
    assert_eq!(
        files,
        [
            "a: 1",
            "vendor/lib/inner/deepest: 1",
            "vendor/lib/lib.js: 1"
        ]
    );
    assert!(!laid_out.keys().any(|path| path.ends_with(b"/.git")));

    // From a commit without it, whose checkout has put the submodule away.
    repo.git(["rm", "--quiet", "vendor/lib"]);
    repo.commit("without");
    let other = Place::new();
    other.send(&repo, &commit).unwrap();
    assert_eq!(tree(&other.lay_out(&commit)), laid_out);
    assert!(
        other
            .store
            .have()
            .unwrap()
            .contains(&pinned.parse().unwrap())
    );

    // And straight from the user's repository, whose index and work tree stay as they are.
    let into = other.root.path().join("straight");
    fs::create_dir(&into).unwrap();
    find(&repo)
        .lay_out(&commit.parse().unwrap(), &into)
        .unwrap();
    assert_eq!(tree(&into), laid_out);
    assert_eq!(repo.git(["status", "--porcelain"]), "");

    // With the release go the submodules that no other has, but those that have only come: theirs may be on its way.
    let plain = repo.git(["rev-parse", "HEAD"]);
    other.send(&repo, &plain).unwrap();
    let prune = || {
        let keep = [id(&plain.parse().unwrap())].into();
        other.store.prune(&keep).unwrap();
        other.store.have().unwrap()
    };
    assert!(prune().contains(&pinned.parse().unwrap()));
    for module in fs::read_dir(other.repository().join("refs/modules")).unwrap() {
        let file = fs::File::open(module.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600))
            .unwrap();
    }
    // What nobody's release is of any more is looked for with the next that goes.
    other.send(&repo, &commit).unwrap();
    prune();
    assert_eq!(other.store.have().unwrap(), [plain.parse().unwrap()].into());
    // A commit of another repository that no .gitmodules names is an empty directory, as git itself has it.
    let cache = format!("160000,{pinned},stray");
    repo.git(["update-index", "--add", "--cacheinfo", &cache]);
    repo.git(["commit", "--quiet", "--message", "stray"]);
    let stray = repo.git(["rev-parse", "HEAD"]);
    other.send(&repo, &stray).unwrap();
    assert!(other.lay_out(&stray).join("stray").is_dir());
}

/// git runs commands that a repository's configuration names, and a submodule's name says where its repository is.
#[test]
fn a_submodule_whose_name_leads_out_of_git_or_that_cannot_be_read_about_is_refused() {
    let (library, repo) = (Repo::new(), Repo::new());
    let pinned = library.write("lib.js", "1").commit("library");
    // One is needed for git to have the directory that the other's name begins in.
    repo.git([
        "submodule",
        "--quiet",
        "add",
        library.path.to_str().unwrap(),
        "vendor",
    ]);
    let ran = repo.path.with_extension("ran");
    let fake = repo.path.join("fake");
    git_in(
        &repo.path,
        ["init", "--quiet", "--bare", fake.to_str().unwrap()],
    );
    fs::write(
        fake.join("config"),
        format!(
            "[core]\nrepositoryformatversion = 1\nbare = true\n[extensions]\npartialClone = evil\n\
             [remote \"evil\"]\npromisor = true\nurl = {0}\nuploadpack = touch {0};\n",
            ran.display()
        ),
    )
    .unwrap();
    fs::write(fake.join("refs/keep"), "").unwrap();
    for (modules, says) in [
        (
            "[submodule \"../../fake\"]\n\tpath = vendor\n\turl = ./x\n",
            "rename it",
        ),
        ("[submodule \"x\"\n", "bad config"),
    ] {
        repo.git([
            "rm",
            "--quiet",
            "--cached",
            "--force",
            "--ignore-unmatch",
            "vendor",
        ]);
        repo.write(".gitmodules", modules);
        repo.git(["add", ".gitmodules", "fake"]);
        let cache = format!("160000,{},vendor", pinned.replace(&pinned[..4], "0000"));
        repo.git(["update-index", "--add", "--cacheinfo", &cache]);
        repo.git(["commit", "--quiet", "--message", "hostile"]);
        let commit = repo.git(["rev-parse", "HEAD"]).parse().unwrap();
        let error = find(&repo).parts(&commit).unwrap_err().to_string();
        assert!(
            error.contains(".gitmodules") && error.contains(says),
            "{error}"
        );
        assert!(!ran.exists());
    }
}

/// What its configuration says is done as slotd's user, and others may write beside it.
#[test]
fn a_store_that_is_a_symlink_or_a_file_is_not_used() {
    let (repo, place) = (Repo::new(), Place::new());
    let commit = repo.write("a", "1").commit("first");
    symlink(repo.path.join(".git"), place.repository()).unwrap();
    let refused = |error: GitError| matches!(error, GitError::NotOurs(_));
    assert!(refused(place.store.have().unwrap_err()));
    assert!(refused(place.store.prune(&BTreeSet::new()).unwrap_err()));
    assert!(refused(place.send(&repo, &commit).unwrap_err()));
    fs::remove_file(place.repository()).unwrap();
    place.send(&repo, &commit).unwrap();
}

/// A pack with these objects in it, of a repository that is not asked what it thinks of them.
fn pack_of(repo: &Repo, objects: &[&str]) -> Vec<u8> {
    use std::io::Write;
    let mut child = std::process::Command::new("git")
        .current_dir(&repo.path)
        .args(["pack-objects", "--stdout", "--quiet"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let list = objects.join("\n") + "\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(list.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap().stdout
}

/// A commit of a tree with one entry of this name, which git would not make: the objects, the commit last.
fn commit_of_entry(repo: &Repo, mode: &str, name: &str, object: &str) -> Vec<String> {
    let mut tree = format!("{mode} {name}\0").into_bytes();
    tree.extend(
        (0..40)
            .step_by(2)
            .map(|at| u8::from_str_radix(&object[at..at + 2], 16).unwrap()),
    );
    repo.write(".git/tree", tree);
    let tree = repo.git([
        "hash-object",
        "-t",
        "tree",
        "-w",
        "--literally",
        ".git/tree",
    ]);
    let commit = repo.git(["commit-tree", &tree, "-m", "x"]);
    vec![object.to_owned(), tree, commit]
}

#[test]
fn a_hostile_pack_is_refused_whole() {
    let repo = Repo::new();
    let good = repo.write("a", "1").commit("good");
    let blob = repo.git(["rev-parse", "HEAD:a"]);
    let tree_id = repo.git(["rev-parse", "HEAD^{tree}"]);
    let place = Place::new();
    let other = Repo::new();
    let first = other.write("z", "there").commit("there already");
    place.send(&other, &first).unwrap();
    let before = place.files();
    let shallow = fs::read_to_string(place.repository().join("shallow")).unwrap();

    let whole = pack_of(&repo, &[&good, &tree_id, &blob]);
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0x55;
    let mut cases = vec![
        ("not a pack", good.clone(), b"#!/bin/sh\n".repeat(100)),
        ("corrupt", good.clone(), corrupt),
        (
            "without its end",
            good.clone(),
            whole[..whole.len() - 10].to_vec(),
        ),
        (
            "without a file",
            good.clone(),
            pack_of(&repo, &[&good, &tree_id]),
        ),
        (
            "without the tree",
            good.clone(),
            pack_of(&repo, &[&good, &blob]),
        ),
        ("of another commit", "1".repeat(40), whole.clone()),
        ("a file for a commit", blob.clone(), whole.clone()),
        ("nothing", good.clone(), Vec::new()),
    ];
    let entries = [
        ("100644", ".git", &blob),
        ("100644", ".GIT", &blob),
        ("40000", ".git", &tree_id),
        ("100644", "..", &blob),
        ("100644", ".", &blob),
        ("100644", "a/b", &blob),
        ("100644", "", &blob),
    ];
    for (mode, name, object) in entries {
        let mut objects = commit_of_entry(&repo, mode, name, object);
        let commit = objects.last().unwrap().clone();
        objects.push(blob.clone());
        let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
        cases.push((name, commit, pack_of(&repo, &objects)));
    }
    for (what, commit, pack) in cases {
        let commit: Commit = commit.parse().unwrap();
        let held = place.store.hold().unwrap();
        let error = held
            .take(&commit, &id(&commit), &pack[..], || true)
            .expect_err(what);
        assert!(matches!(error, GitError::Refused { .. }), "{what}: {error}");
        assert_eq!(place.files(), before, "{what}");
        assert_eq!(place.store.have().unwrap().len(), 1, "{what}");
        let now = fs::read_to_string(place.repository().join("shallow")).unwrap();
        assert_eq!(now, shallow, "{what}");
    }
    let held = place.store.hold().unwrap();
    let commit = good.parse().unwrap();
    held.take(&commit, &id(&commit), &whole[..], || true)
        .unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&good))), ["a: 1"]);
}

#[test]
fn a_torn_upload_and_one_that_nobody_waits_for_leave_nothing() {
    struct Torn;
    impl Read for Torn {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the connection broke"))
        }
    }
    let repo = Repo::new();
    let commit = repo.write("a", "1").commit("first");
    let place = Place::new();
    let held = place.store.hold().unwrap();
    let before = place.files();
    let mut pack = Vec::new();
    let commit: Commit = commit.parse().unwrap();
    let parts = find(&repo).parts(&commit).unwrap();
    parts[0].pack(&[]).unwrap().read_to_end(&mut pack).unwrap();
    let torn = (&pack[..pack.len() / 2]).chain(Torn);
    let error = held.take(&commit, &id(&commit), torn, || true).unwrap_err();
    assert!(matches!(error, GitError::Torn { .. }), "{error}");
    let error = held
        .take(&commit, &id(&commit), &pack[..], || false)
        .unwrap_err();
    assert!(matches!(error, GitError::Unwanted), "{error}");
    let mut after = place.files();
    after.remove("incoming");
    assert_eq!(after, before);
}

#[test]
fn what_a_crash_leaves_is_cleared_and_stands_in_nobodys_way() {
    let repo = Repo::new();
    let first = repo.write("a", "1").commit("first");
    let place = Place::new();
    let half = place.root.path().join("repo.git.new");
    fs::create_dir_all(half.join("objects")).unwrap();
    place.send(&repo, &first).unwrap();
    let path = place.repository();
    for left in [
        "incoming/a/objects/pack/tmp_pack_x",
        "objects/pack/tmp_idx_x",
        "refs/slot/00000000.lock",
        "shallow.lock",
    ] {
        let left = path.join(left);
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        fs::write(left, "x").unwrap();
    }
    fs::create_dir_all(&half).unwrap();
    place.store.tidy().unwrap();
    assert!(!half.exists());
    let left: Vec<_> = place
        .files()
        .into_iter()
        .filter(|name| {
            name.ends_with(".lock") || name.contains("tmp_") || name.contains("incoming/")
        })
        .collect();
    assert_eq!(left, Vec::<String>::new());
    let second = repo.write("a", "2").commit("second");
    place.send(&repo, &second).unwrap();
    assert_eq!(shown(&tree(&place.lay_out(&second))), ["a: 2"]);
}

#[test]
fn commits_are_taken_and_laid_out_at_once() {
    let repo = Repo::new();
    let commits: Vec<String> = (0..6)
        .map(|number| repo.write("a", number.to_string()).commit("next"))
        .collect();
    let place = Place::new();
    let root = place.root.path();
    std::thread::scope(|scope| {
        for (number, commit) in commits.iter().enumerate() {
            let repo = &repo;
            scope.spawn(move || {
                let store = Store::of(root);
                let held = store.hold().unwrap();
                let commit: Commit = commit.parse().unwrap();
                let part = &find(repo).parts(&commit).unwrap()[0];
                held.take(&commit, &id(&commit), part.pack(&[]).unwrap(), || true)
                    .unwrap();
                // What is held is not pruned.
                store.prune(&BTreeSet::new()).unwrap();
                let into = root.join(format!("at-once-{number}"));
                fs::create_dir(&into).unwrap();
                held.lay_out(&commit, &into).unwrap();
                assert_eq!(shown(&tree(&into)), [format!("a: {number}")]);
            });
        }
    });
    assert_eq!(place.store.have().unwrap().len(), 6);
}

#[test]
fn commits_go_with_their_releases_and_packs_stay_few() {
    let repo = Repo::new();
    let place = Place::new();
    let mut newest = String::new();
    for number in 0..25 {
        newest = repo
            .write(format!("{}", number % 3), number.to_string())
            .commit("next");
        place.send(&repo, &newest).unwrap();
        place
            .store
            .prune(&[id(&newest.parse().unwrap())].into())
            .unwrap();
        let packs = place
            .files()
            .iter()
            .filter(|name| name.ends_with(".pack"))
            .count();
        assert!(packs < 10, "{packs}");
    }
    assert_eq!(
        place.store.have().unwrap(),
        [newest.parse().unwrap()].into()
    );
    assert_eq!(tree(&place.lay_out(&newest)).len(), 3);
    let objects = git_in(&place.repository(), ["count-objects", "-v"]);
    let told = String::from_utf8(objects.stdout).unwrap();
    let count: u32 = told
        .lines()
        .find_map(|line| line.strip_prefix("in-pack: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(count < 60, "{told}");
    let sound = git_in(&place.repository(), ["fsck", "--strict"]);
    assert!(
        sound.status.success(),
        "{}",
        String::from_utf8_lossy(&sound.stderr)
    );
    // And a person may look at it.
    let log = git_in(&place.repository(), ["log", "--all", "--format=%s"]);
    assert_eq!(log.stdout, b"next\n");
}

#[test]
fn a_repository_with_longer_names_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        git_in(
            folder.path(),
            ["init", "--quiet", "--object-format=sha256", "."]
        )
        .status
        .success()
    );
    assert!(
        git_in(
            folder.path(),
            ["commit", "--quiet", "--allow-empty", "-m", "x"]
        )
        .status
        .success()
    );
    let found = Repository::find(folder.path()).unwrap();
    let said = found.resolve("HEAD").unwrap_err().to_string();
    assert!(
        said.contains("SHA-256") && said.contains("slotctl deploy ./dir"),
        "{said}"
    );
}
