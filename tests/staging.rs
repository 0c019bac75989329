//! Staging trees of real releases: made anew when nothing is in them, and kept whenever something is that is nowhere else.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod git_support;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use git_support::{Repo, git_in};
use slot::git::{Commit, Pack, Repository, Store};
use slot::staging::{Made, Promoted, Staging};

/// A user's repository, the store that its commits are deployed into, and staging.
struct Bench {
    repo: Repo,
    place: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let repo = Repo::new();
        repo.write(".gitignore", "node_modules\n");
        Self {
            repo,
            place: tempfile::tempdir().unwrap(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap()
    }

    fn tree(&self) -> PathBuf {
        self.directory().join("staging")
    }

    fn staging(&self) -> Staging {
        Staging::within(&self.directory(), "machine")
    }

    /// Commits a version, deploys it, and has its setup make `made` and `node_modules/dep`.
    fn release(&self, version: &str) -> Promoted {
        self.repo.write("version", version);
        self.repo.commit(version);
        self.deploy(&self.repo.path)
    }

    /// The release of HEAD of a repository.
    fn deploy(&self, repository: &Path) -> Promoted {
        let repository = Repository::find(repository).unwrap();
        let commit = repository.resolve("HEAD").unwrap().commit;
        let release = commit.short().parse().unwrap();
        let home = self.directory().join("releases").join(commit.short());
        let held = Store::of(&self.directory()).hold().unwrap();
        for part in repository.parts(&commit).unwrap() {
            let pack = part.pack(&[]).unwrap();
            if part.commit == commit {
                held.take(&commit, &release, pack, || true).unwrap();
            } else {
                held.take_module(&part.commit, pack, || true).unwrap();
            }
        }
        fs::create_dir_all(&home).unwrap();
        held.lay_out(&commit, &home).unwrap();
        fs::create_dir(home.join("node_modules")).unwrap();
        fs::write(home.join("node_modules/dep"), "installed").unwrap();
        fs::write(home.join("made"), "by setup").unwrap();
        Promoted {
            release,
            commit,
            home,
            shared_dirs: Vec::new(),
        }
    }

    fn pack(&self, of: &Promoted, have: &[Commit]) -> io::Result<Pack> {
        let held = Store::of(&self.directory()).hold().unwrap();
        held.pack(&of.commit, have).map_err(io::Error::other)
    }

    fn make(&self, of: &Promoted) -> Made {
        self.staging().make(of, |have| self.pack(of, have)).unwrap()
    }

    fn git(&self, words: &[&str]) -> String {
        let output = git_in(&self.tree(), words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.tree().join(path)).unwrap()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.tree().join(path), text).unwrap();
    }

    /// A work tree of the release beside the one that is there, in which nothing is yet; where git keeps what it knows of it.
    fn begin(&self, of: &Promoted) -> PathBuf {
        let new = self.directory().join("staging.new");
        let add = ["worktree", "add", "--quiet", "--no-checkout", "--detach"];
        let words = [&add[..], &[new.to_str().unwrap(), of.commit.as_str()]].concat();
        let output = git_in(&self.directory().join("staging.git"), words);
        assert!(output.status.success(), "{output:?}");
        let admin = git_in(&new, ["rev-parse", "--absolute-git-dir"]).stdout;
        String::from_utf8(admin).unwrap().trim_end().into()
    }

    /// The tree is of this release, whole, on its branch, and nothing is left beside it.
    fn is_of(&self, of: &Promoted) {
        assert_eq!(self.git(&["rev-parse", "HEAD"]), of.commit.as_str());
        assert_eq!(self.git(&["branch", "--show-current"]), "machine");
        assert_eq!(self.git(&["status", "--porcelain"]), "?? made");
        assert_eq!(self.read("node_modules/dep"), "installed");
        assert!(!self.directory().join("staging.new").exists());
        let trees = fs::read_dir(self.directory().join("staging.git/worktrees")).unwrap();
        assert_eq!(trees.count(), 1, "the repository knows of one tree");
        // What git itself would clear away as nobody's.
        assert_eq!(self.git(&["worktree", "prune", "--dry-run"]), "");
    }

    /// A newer release does not replace it, and is told why.
    fn is_kept(&self, why: &str) {
        let next = self.release(&format!("next after {why}"));
        let Made::Kept(said) = self.make(&next) else {
            panic!("it was replaced, and had {why}");
        };
        assert!(said.starts_with("staging stays as it is: "), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(!self.directory().join("staging.new").exists());
    }
}

#[test]
fn staging_is_the_release_with_what_came_along_and_the_next_one_replaces_it() {
    let it = Bench::new();
    let first = it.release("one");
    assert_eq!(it.make(&first), Made::Of(first.release.clone()));
    it.is_of(&first);
    // The same again changes nothing.
    it.write("node_modules/mine", "here");
    assert_eq!(it.make(&first), Made::Of(first.release.clone()));
    assert_eq!(it.read("node_modules/mine"), "here");
    let second = it.release("two");
    assert_eq!(it.make(&second), Made::Of(second.release.clone()));
    it.is_of(&second);
    assert_eq!(it.read("version"), "two");
    // And back, as after a rollback.
    it.make(&first);
    it.is_of(&first);
    assert_eq!(it.read("version"), "one");
}

#[test]
fn a_commit_that_was_made_there_and_deployed_is_held_and_its_history_stays() {
    let it = Bench::new();
    it.make(&it.release("one"));
    for version in ["idea", "better idea"] {
        it.write("version", version);
        it.git(&["commit", "--quiet", "--all", "--message", version]);
    }
    it.is_kept("commits that no branch but machine holds");
    let own = it.deploy(&it.tree());
    assert_eq!(it.make(&own), Made::Of(own.release.clone()));
    it.is_of(&own);
    assert_eq!(it.git(&["log", "--format=%s"]), "better idea\nidea\none");
    // What is on a branch of the user's outlives the tree.
    it.git(&["checkout", "--quiet", "-b", "feature"]);
    it.git(&[
        "commit",
        "--quiet",
        "--allow-empty",
        "--message",
        "kept on feature",
    ]);
    let next = it.release("two");
    assert_eq!(it.make(&next), Made::Of(next.release.clone()));
    it.is_of(&next);
    assert_eq!(
        it.git(&["log", "-1", "--format=%s", "feature"]),
        "kept on feature"
    );
}

#[test]
fn commits_that_were_made_there_and_rolled_back_have_a_branch_and_releases_have_none() {
    let it = Bench::new();
    let first = it.release("one");
    it.make(&first);
    // Not its parent, which does not come along: the branch is set to what does not contain the one before.
    it.repo.commit("between");
    let second = it.release("two");
    it.make(&second);
    it.make(&first);
    it.make(&second);
    let branches = || it.git(&["branch", "--format=%(refname:short)"]);
    assert_eq!(branches(), "machine");
    it.write("version", "mine");
    it.git(&["commit", "--quiet", "--all", "--message", "mine"]);
    let own = it.deploy(&it.tree());
    it.make(&own);
    it.is_of(&own);
    it.make(&second);
    it.is_of(&second);
    let kept = format!("machine-{}", own.commit.short());
    assert_eq!(branches(), format!("machine\n{kept}"));
    assert_eq!(it.git(&["rev-parse", &kept]), own.commit.as_str());
    // Which holds it: once more there is nothing to keep.
    it.make(&own);
    it.make(&second);
    assert_eq!(branches(), format!("machine\n{kept}"));
}

#[test]
fn whatever_is_in_it_and_nowhere_else_keeps_it() {
    type Change = fn(&Bench);
    let changes: [(&str, Change); 12] = [
        ("not committed (\"version\")", |it| {
            it.write("version", "mine")
        }),
        ("not committed (\"idea\")", |it| it.write("idea", "mine")),
        ("not committed (\"staged\")", |it| {
            it.write("staged", "mine");
            it.git(&["add", "staged"]);
            fs::remove_file(it.tree().join("staged")).unwrap();
        }),
        ("not committed (\"made\")", |it| {
            it.write("made", "came along, and was edited")
        }),
        ("no branch but machine holds", |it| {
            it.git(&["checkout", "--quiet", "--detach"]);
            it.git(&[
                "commit",
                "--quiet",
                "--allow-empty",
                "--message",
                "detached",
            ]);
        }),
        ("stashed", |it| {
            it.write("version", "mine");
            it.git(&["stash"]);
        }),
        ("a merge", |it| {
            it.git(&["checkout", "--quiet", "-b", "other"]);
            it.git(&["commit", "--quiet", "--allow-empty", "--message", "other"]);
            it.git(&["checkout", "--quiet", "machine"]);
            it.git(&["merge", "--quiet", "--no-ff", "--no-commit", "other"]);
        }),
        ("HEAD names no commit", |it| {
            it.git(&["update-ref", "-d", "refs/heads/machine"]);
        }),
        ("no work tree of", |it| {
            fs::remove_file(it.tree().join(".git")).unwrap();
        }),
        ("not to look at \"version\"", |it| {
            it.git(&["update-index", "--skip-worktree", "version"]);
            it.write("version", "mine");
        }),
        ("not to look at \"version\"", |it| {
            it.git(&["update-index", "--assume-unchanged", "version"]);
            it.write("version", "mine");
        }),
        ("checked out in", |it| {
            it.git(&["checkout", "--quiet", "--detach"]);
            it.git(&["worktree", "add", "--quiet", "../mine", "machine"]);
        }),
    ];
    for (why, change) in changes {
        let it = Bench::new();
        it.make(&it.release("one"));
        change(&it);
        it.is_kept(why);
    }
}

#[test]
fn what_is_in_a_submodule_and_nowhere_else_keeps_it() {
    type Change = fn(&Bench);
    let changes: [(&str, Change); 4] = [
        ("not committed (\"sub/deep/file\")", |it| {
            it.write("sub/deep/file", "mine")
        }),
        ("not committed (\"sub/idea\")", |it| {
            it.write("sub/idea", "mine")
        }),
        ("staging/sub/.git\"), which would go", |it| {
            git_in(&it.tree().join("sub"), ["init", "--quiet"]);
        }),
        ("modules\"), which would go", |it| {
            fs::remove_dir_all(it.tree().join("sub")).unwrap();
            it.git(&["submodule", "--quiet", "update", "--init"]);
            fs::remove_dir_all(it.tree().join("sub")).unwrap();
            fs::create_dir(it.tree().join("sub")).unwrap();
        }),
    ];
    let module = Repo::new();
    module.write("deep/file", "of the submodule").commit("sub");
    let source = module.path.to_str().unwrap();
    for (why, change) in changes {
        let it = Bench::new();
        it.repo.git(["submodule", "--quiet", "add", source, "sub"]);
        it.make(&it.release("one"));
        assert_eq!(it.read("sub/deep/file"), "of the submodule");
        // As it came it is no work.
        let second = it.release("two");
        assert_eq!(it.make(&second), Made::Of(second.release.clone()));
        change(&it);
        it.is_kept(why);
    }
}

#[test]
fn a_detached_head_without_commits_of_its_own_is_no_work() {
    let it = Bench::new();
    it.make(&it.release("one"));
    it.git(&["checkout", "--quiet", "--detach"]);
    let next = it.release("two");
    assert_eq!(it.make(&next), Made::Of(next.release.clone()));
    it.is_of(&next);
}

#[test]
fn a_broken_repository_is_never_taken_for_an_empty_one() {
    for damage in ["gitdir: /nowhere\n", "nonsense"] {
        let it = Bench::new();
        it.make(&it.release("one"));
        it.write("idea", "mine");
        it.write(".git", damage);
        it.is_kept("no work tree of");
        assert_eq!(it.read("idea"), "mine");
    }
    let it = Bench::new();
    it.make(&it.release("one"));
    let directory = PathBuf::from(it.git(&["rev-parse", "--absolute-git-dir"]));
    fs::write(directory.join("index"), "nonsense").unwrap();
    it.is_kept("git cannot say what is in it");
}

#[test]
fn what_a_crash_leaves_at_any_point_is_one_whole_staging() {
    let it = Bench::new();
    let (first, second, third) = (it.release("one"), it.release("two"), it.release("three"));
    it.make(&first);
    let new = it.directory().join("staging.new");
    // Half copied: it has no notes yet.
    it.begin(&first);
    fs::write(new.join("half"), "copied").unwrap();
    it.make(&second);
    it.is_of(&second);
    // Right after the exchange: the old one is under the new name, and neither the repository nor the branch knows.
    let exchange = |of: &Promoted| {
        let admin = it.begin(of);
        git_in(&new, ["reset", "--quiet", "--hard"]);
        let before = it.git(&["rev-parse", "machine"]);
        let notes = format!("{}\n{}\n{before}\n", of.release, of.commit);
        fs::write(admin.join("slot-staging"), notes).unwrap();
        let aside = it.directory().join("aside");
        fs::rename(it.tree(), &aside).unwrap();
        fs::rename(&new, it.tree()).unwrap();
        fs::rename(&aside, &new).unwrap();
        assert_eq!(it.git(&["rev-parse", "HEAD"]), of.commit.as_str());
    };
    exchange(&first);
    it.make(&third);
    it.is_of(&third);
    exchange(&second);
    it.make(&second);
    assert_eq!(it.git(&["branch", "--show-current"]), "machine");
    // The same, and the one in place is of a commit that was made in the one before.
    it.git(&["commit", "--quiet", "--allow-empty", "--message", "mine"]);
    let own = it.deploy(&it.tree());
    exchange(&own);
    assert_eq!(it.make(&own), Made::Of(own.release.clone()));
    assert_eq!(it.git(&["branch", "--show-current"]), "machine");
    // The same, and somebody has written to the old one since.
    exchange(&third);
    fs::write(new.join("idea"), "mine").unwrap();
    let Made::Kept(why) = it.make(&first) else {
        panic!("what was written to it is gone");
    };
    assert!(
        why.starts_with("staging.new stays as it is") && why.contains("idea"),
        "{why}"
    );
    assert_eq!(fs::read_to_string(new.join("idea")).unwrap(), "mine");
}

#[test]
fn what_is_written_to_the_old_one_while_the_new_one_is_made_is_not_lost() {
    let it = Bench::new();
    it.make(&it.release("one"));
    let next = it.release("two");
    let made = it.staging().make(&next, |have| {
        it.write("idea", "late");
        it.pack(&next, have)
    });
    let Made::Kept(why) = made.unwrap() else {
        panic!("it was replaced");
    };
    assert!(why.contains("idea"), "{why}");
    assert_eq!(
        (it.read("idea"), it.read("version")),
        ("late".to_owned(), "one".to_owned())
    );
    assert!(!it.directory().join("staging.new").exists());
}

#[test]
fn a_process_that_is_in_the_old_one_does_not_hold_it_up() {
    let it = Bench::new();
    it.make(&it.release("one"));
    let mut shell = std::process::Command::new("cat")
        .current_dir(it.tree())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let next = it.release("two");
    assert_eq!(it.make(&next), Made::Of(next.release.clone()));
    it.is_of(&next);
    drop(shell.stdin.take());
    shell.wait().unwrap();
}

#[test]
fn the_data_of_what_serves_are_not_stagings() {
    let it = Bench::new();
    it.repo.write("uploads/seed", "committed");
    let mut of = it.release("one");
    // As a release is made: the directory is a symlink, and what it had is beside.
    let data = it.directory().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("customer"), "theirs").unwrap();
    fs::create_dir(of.home.join(".slot-seed")).unwrap();
    fs::rename(of.home.join("uploads"), of.home.join(".slot-seed/uploads")).unwrap();
    symlink(&data, of.home.join("uploads")).unwrap();
    of.shared_dirs = vec!["uploads".to_owned()];
    it.make(&of);
    it.is_of(&of);
    assert_eq!(it.read("uploads/seed"), "committed");
    assert!(!it.tree().join("uploads/customer").exists());
    assert!(!it.tree().join(".slot-seed").exists());
    assert_eq!(fs::read_to_string(data.join("customer")).unwrap(), "theirs");
}

#[test]
fn a_tracked_file_that_a_setup_changed_is_as_it_was_committed() {
    let it = Bench::new();
    let of = it.release("one");
    fs::write(of.home.join("version"), "changed by npm").unwrap();
    it.make(&of);
    it.is_of(&of);
    assert_eq!(it.read("version"), "one");
}

#[test]
fn names_with_line_breaks_and_bytes_that_are_no_text_are_names() {
    use std::os::unix::ffi::OsStrExt;
    let it = Bench::new();
    let of = it.release("one");
    let odd = std::ffi::OsStr::from_bytes(b"two\nlines\t \xff");
    fs::write(of.home.join(odd), "made").unwrap();
    it.make(&of);
    let next = it.release("two");
    assert_eq!(it.make(&next), Made::Of(next.release.clone()));
    it.is_of(&next);
}

#[test]
fn a_release_with_a_repository_of_its_own_brings_none_into_staging() {
    let it = Bench::new();
    let first = it.release("one");
    it.make(&first);
    let second = it.release("two");
    fs::create_dir(second.home.join(".git")).unwrap();
    let refused = it
        .staging()
        .make(&second, |have| it.pack(&second, have))
        .unwrap_err();
    assert!(refused.to_string().contains(".git of its own"), "{refused}");
    it.is_of(&first);
}

/// A repository in which git runs a program that leaves a file.
fn trap(at: &Path, sprung: &Path) {
    let made = git_in(at, ["init", "--quiet"]);
    assert!(made.status.success(), "{made:?}");
    let monitor = format!("touch {}; false", sprung.display());
    git_in(at, ["config", "core.fsmonitor", &monitor]);
    let commit = ["commit", "--quiet", "--allow-empty", "--message", "trap"];
    assert!(git_in(at, commit).status.success());
    git_in(at, ["status"]);
    assert!(sprung.exists(), "git does not run what is configured there");
    fs::remove_file(sprung).unwrap();
}

#[test]
fn what_a_build_left_where_a_submodule_is_runs_nothing_as_stagings_user() {
    let it = Bench::new();
    let sprung = it.directory().join("sprung");
    for name in ["module", "shut/module", "elsewhere"] {
        let words = format!("160000,{},{name}", "1".repeat(40));
        it.repo
            .git(["update-index", "--add", "--cacheinfo", &words]);
    }
    it.repo.git(["commit", "--quiet", "--message", "modules"]);
    let commit = it.repo.git(["rev-parse", "HEAD"]);
    let home = it.directory().join("releases").join(&commit[..8]);
    for name in ["module", "shut/module", "node_modules/dep"] {
        fs::create_dir_all(home.join(name)).unwrap();
        trap(&home.join(name), &sprung);
    }
    let outside = it.directory().join("outside");
    fs::create_dir(&outside).unwrap();
    trap(&outside, &sprung);
    symlink(&outside, home.join("elsewhere")).unwrap();
    // Nothing can be removed from it.
    let shut = home.join("shut");
    fs::set_permissions(&shut, Permissions::from_mode(0o555)).unwrap();
    let of = Promoted {
        release: commit[..8].parse().unwrap(),
        commit: commit.parse().unwrap(),
        home,
        shared_dirs: Vec::new(),
    };
    let users = Staging::of_users(it.tree(), it.repo.path.clone());
    let made = users.make(&of, |_| Ok(io::empty())).unwrap();
    assert_eq!(made, Made::Of(of.release.clone()));
    it.git(&["status"]);
    assert!(!sprung.exists(), "what the release has was run");
    for name in ["module", "shut/module", "node_modules/dep"] {
        assert!(it.tree().join(name).is_dir() && !it.tree().join(name).join(".git").exists());
    }
    assert!(outside.join(".git").exists());
    fs::set_permissions(&shut, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(it.tree().join("shut"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn many_promotions_bring_what_is_new_alone_and_leave_few_packs() {
    let it = Bench::new();
    // Nothing that could be packed smaller.
    let large: Vec<u8> = std::iter::successors(Some(1_u64), |last| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
    .map(|number| number.to_be_bytes()[0])
    .take(1 << 20)
    .collect();
    it.repo.write("large", &large);
    for number in 0..12 {
        let of = it.release(&number.to_string());
        assert_eq!(it.make(&of), Made::Of(of.release.clone()));
        it.is_of(&of);
    }
    let packs = fs::read_dir(it.directory().join("staging.git/objects/pack")).unwrap();
    let packs: Vec<u64> = packs
        .map(Result::unwrap)
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "pack"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    let bytes: u64 = packs.iter().sum();
    assert!(packs.len() < 12 && bytes < 2 << 20, "{packs:?}");
}

/// The hint for one that cannot be read says that it may be removed.
#[test]
fn a_tree_that_somebody_has_removed_is_made_anew_and_its_commits_have_a_branch() {
    let it = Bench::new();
    let first = it.release("one");
    it.make(&first);
    fs::remove_dir_all(it.tree()).unwrap();
    assert_eq!(it.make(&first), Made::Of(first.release.clone()));
    it.is_of(&first);
    let commit = |version: &str| {
        it.write("version", version);
        it.git(&["commit", "--quiet", "--all", "--message", version]);
        it.git(&["rev-parse", "HEAD"])
    };
    let on_branch = commit("idea");
    it.git(&["checkout", "--quiet", "--detach"]);
    let detached = commit("other idea");
    fs::remove_dir_all(it.tree()).unwrap();
    let second = it.release("two");
    assert_eq!(it.make(&second), Made::Of(second.release.clone()));
    it.is_of(&second);
    assert_eq!(it.read("version"), "two");
    for lost in [on_branch, detached] {
        assert_ne!(it.git(&["branch", "--contains", &lost]), "", "{lost}");
    }
    let third = it.release("three");
    assert_eq!(it.make(&third), Made::Of(third.release.clone()));
    it.is_of(&third);
}
