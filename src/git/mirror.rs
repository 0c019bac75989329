//! The fetcher's half: a bare repository that mirrors of a remote what was deployed of it, so that the next fetch is small.
//!
//! ```text
//! mirror.git/refs/fetched/<40 hex>  a commit, or one of a submodule, without its history
//!            lfs/                   what git-lfs has fetched for it, until slotd has it
//! ```
//!
//! Submodules are fetched into the same repository, each from its own URL. It is a cache: a mirror that is lost costs one larger fetch.
//!
//! **Invariant:** what is asked of a remote is a commit by its whole name: a branch that moves meanwhile changes nothing.
//! **Invariant:** a URL out of a `.gitmodules` is held to the rules of one in slot.toml, and to the remote's own kind: a repository from
//! elsewhere does not make git read this machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::command::{Git, words};
use super::elsewhere::{Keys, beside, failed, ssh};
use super::modules::{modules, url_of};
use super::repository::{Part, Resolved};
use super::{Commit, GitError, clear_locks};
use crate::config::{closest, is_ref_name, url_problem};

/// From so many packs on they are made one.
const MOST_PACKS: usize = 10;

/// Where what was fetched is named.
const FETCHED: &str = "refs/fetched";

/// Where for a moment all is named that a remote has.
const ALL: &str = "refs/all";

/// The mirror of one app's remote. One process uses it at a time.
#[derive(Debug)]
pub struct Mirror {
    git: Git,
    path: PathBuf,
    remote: String,
}

impl Mirror {
    /// Opens it, or makes it; what an earlier fetch left that was killed is cleared.
    ///
    /// # Errors
    /// The disk refuses, or git fails.
    pub fn open(path: &Path, remote: &str, keys: Keys<'_>) -> Result<Self, GitError> {
        let mut kinds = "git:http:https:ssh".to_owned();
        if remote.starts_with("file:") {
            kinds.push_str(":file");
        }
        let parent = path.parent().unwrap_or(path);
        let mut git = Git::users(parent)
            // Nobody is there to be asked: not on a terminal either, which ssh would open by itself (ssh(1), SSH_ASKPASS_REQUIRE).
            .with("SSH_ASKPASS", "/bin/false")
            .with("SSH_ASKPASS_REQUIRE", "force")
            .with("GIT_ASKPASS", "/bin/false")
            .with("GIT_ALLOW_PROTOCOL", kinds);
        if let Some(ssh) = ssh(keys) {
            git = git.with("GIT_SSH_COMMAND", ssh);
        }
        if !path.is_dir() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(GitError::disk("make the directory", parent))?;
            let new = path.with_extension("new");
            let _ = fs::remove_dir_all(&new);
            let init = [
                "init",
                "--quiet",
                "--bare",
                "--template=",
                "--object-format=sha1",
            ];
            let made = git.clone().with("GIT_DIR", &new);
            made.run("make a repository", &init, b"")?;
            fs::rename(&new, path).map_err(GitError::disk("name", path))?;
        }
        clear_locks(path, &[FETCHED]);
        // Of a fetch that was killed: a branch that has become a directory of branches meanwhile would be in the way.
        let _ = fs::remove_dir_all(path.join(ALL));
        // git-lfs begins anew with what it had a part of, and leaves that.
        for unfinished in ["lfs/incomplete", "lfs/tmp", "lfs/logs"] {
            let _ = fs::remove_dir_all(path.join(unfinished));
        }
        Ok(Self {
            git: git.with("GIT_DIR", path),
            path: path.to_owned(),
            remote: remote.to_owned(),
        })
    }

    /// The commit that a name has at the remote: a branch, a tag or a whole commit; without a name what its HEAD names.
    ///
    /// # Errors
    /// It has no such name, or two of them; it does not answer.
    pub fn resolve(&self, name: Option<&str>) -> Result<Resolved, GitError> {
        let Some(name) = name.filter(|name| *name != "HEAD") else {
            return self.head();
        };
        if let Ok(commit) = name.parse() {
            return Ok(Resolved {
                commit,
                reference: Some(name.to_owned()),
            });
        }
        if !is_ref_name(name) {
            let hint = "; write a branch, a tag or all 40 digits of a commit".to_owned();
            return Err(self.unknown(name, hint));
        }
        let (branch, tag) = (format!("refs/heads/{name}"), format!("refs/tags/{name}"));
        let peeled = |name: &str| format!("{name}^{{}}");
        // A pattern also matches the end of a longer name (git-ls-remote(1)).
        let found = self.listed(&[name, &branch, &tag, &peeled(&tag), &peeled(name)])?;
        let commit = |full: &str| {
            found
                .get(&peeled(full))
                .or_else(|| found.get(full))
                .cloned()
        };
        let is_full = name.starts_with("refs/");
        let meanings: BTreeMap<Commit, String> = [branch, tag]
            .into_iter()
            .chain(is_full.then(|| name.to_owned()))
            .filter_map(|full| Some((commit(&full)?, full)))
            .collect();
        if meanings.len() > 1 {
            let mut meanings: Vec<String> = meanings.into_values().collect();
            meanings.sort();
            return Err(GitError::Ambiguous {
                name: name.to_owned(),
                meanings,
            });
        }
        match meanings.into_keys().next() {
            Some(commit) => Ok(Resolved {
                commit,
                reference: Some(name.to_owned()),
            }),
            None => {
                let all = self.listed(&["refs/heads/*", "refs/tags/*"])?;
                let short = |full: &String| {
                    let short = full.strip_prefix("refs/heads/");
                    let short = short.or_else(|| full.strip_prefix("refs/tags/"))?;
                    (!short.ends_with("^{}")).then(|| short.to_owned())
                };
                let names: Vec<String> = all.keys().filter_map(short).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let is_part = name.len() >= 4 && name.bytes().all(|it| it.is_ascii_hexdigit());
                let hint = match closest(name, &names) {
                    Some(near) => format!("; did you mean {near}?"),
                    None if is_part => "; of a commit write all 40 digits: a remote is not asked for a part of them".to_owned(),
                    None => format!("; `git ls-remote {}` lists what there is", self.remote),
                };
                Err(self.unknown(name, hint))
            }
        }
    }

    fn head(&self) -> Result<Resolved, GitError> {
        let told = self.ask(&[
            "ls-remote",
            "--symref",
            "--end-of-options",
            &self.remote,
            "HEAD",
        ])?;
        let (mut commit, mut reference) = (None, None);
        for line in told.lines() {
            let Some((said, "HEAD")) = line.split_once('\t') else {
                continue;
            };
            match said.strip_prefix("ref: ") {
                Some(full) => {
                    let branch = full.strip_prefix("refs/heads/").unwrap_or(full);
                    reference = Some(branch.to_owned()).filter(|name| is_ref_name(name));
                }
                None => commit = said.parse().ok(),
            }
        }
        match commit {
            Some(commit) => Ok(Resolved { commit, reference }),
            None => Err(self.unknown(
                "HEAD",
                "; write `branch` under [git], or name one: `slotctl deploy --remote BRANCH`"
                    .to_owned(),
            )),
        }
    }

    /// The names of the remote that match one of the patterns, and what they name.
    fn listed(&self, patterns: &[&str]) -> Result<BTreeMap<String, Commit>, GitError> {
        let asked = ["ls-remote", "--end-of-options", &self.remote];
        let told = self.ask(&[&asked[..], patterns].concat())?;
        let lines = told.lines().filter_map(|line| {
            let (digits, name) = line.split_once('\t')?;
            Some((name.to_owned(), digits.parse().ok()?))
        });
        Ok(lines.collect())
    }

    /// Fetches what is not here of a commit and, recursively, its submodules; gives what is to be packed: first theirs, then its own.
    ///
    /// # Errors
    /// The remote, or that of a submodule, does not answer, or has no such commit.
    pub fn fetch(&self, commit: &Commit) -> Result<Vec<Part>, GitError> {
        let (mut parts, mut seen) = (Vec::new(), BTreeSet::new());
        let inside = Path::new("");
        self.gather(&self.remote, commit, inside, &mut parts, &mut seen)?;
        Ok(parts)
    }

    fn gather(
        &self,
        remote: &str,
        commit: &Commit,
        inside: &Path,
        parts: &mut Vec<Part>,
        seen: &mut BTreeSet<Commit>,
    ) -> Result<(), GitError> {
        if !seen.insert(commit.clone()) {
            return Ok(());
        }
        self.bring(remote, commit)?;
        for module in modules(&self.git, commit)? {
            let bad = |problem: String| GitError::ModuleUrl {
                path: module.path.clone(),
                problem,
            };
            let Some(url) = url_of(&self.git, commit, &module.name)? else {
                return Err(bad("it has none".to_owned()));
            };
            let url = beside(remote, &url);
            if let Some(problem) = url_problem(&url) {
                return Err(bad(problem));
            }
            let inside = inside.join(&module.path);
            self.gather(&url, &module.commit, &inside, parts, seen)?;
        }
        let part = Part::fetched(self.git.clone(), commit.clone(), remote, inside);
        parts.push(part);
        Ok(())
    }

    /// One commit with its tree.
    fn bring(&self, remote: &str, commit: &Commit) -> Result<(), GitError> {
        let name = format!("{FETCHED}/{commit}");
        let known = ["show-ref", "--verify", "--quiet", "--", &name];
        if self.git.answer("look for a commit", &known)?.is_some() {
            return Ok(());
        }
        match self.get(remote, "--depth=1", &[&format!("{commit}:{name}")]) {
            // One that speaks an old protocol gives away by its hash only what a branch or a tag names (gitprotocol-v2(5)).
            Err(GitError::Remote { said, .. }) if said.contains("unadvertised object") => {
                self.bring_with_all(remote, commit, &name)?;
            }
            brought => brought?,
        }
        let kind = ["cat-file", "-t", commit.as_str()];
        match self.git.answer("look for a commit", &kind)?.as_deref() {
            Some("commit") => Ok(()),
            kind => {
                let said = format!("{commit} is a {} there, no commit", kind.unwrap_or("thing"));
                self.git
                    .run("let a name go", &["update-ref", "-d", &name], b"")?;
                Err(failed(remote, said))
            }
        }
    }

    /// The same with all that the remote's branches and tags ever named, as there is no other way.
    fn bring_with_all(&self, remote: &str, commit: &Commit, name: &str) -> Result<(), GitError> {
        // All there is: to git-fetch(1) the greatest number means that.
        let all = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:{ALL}/{kind}/*"));
        self.get(remote, "--depth=2147483647", &[&all[0], &all[1]])?;
        let wanted = format!("{commit}^{{commit}}");
        let found = self
            .git
            .answer("look for a commit", &["cat-file", "-e", &wanted])?;
        let list = ["for-each-ref", "--format=delete %(refname)", ALL];
        let mut orders = self.git.run("list commits", &list, b"")?;
        if found.is_some() {
            orders.extend(format!("update {name} {commit}\n").into_bytes());
        }
        let update = ["update-ref", "--stdin"];
        self.git.run("name a commit", &update, &orders)?;
        match found {
            Some(_) => Ok(()),
            None => Err(failed(
                remote,
                format!("no branch and no tag there has commit {commit}"),
            )),
        }
    }

    fn get(&self, remote: &str, depth: &str, wanted: &[&str]) -> Result<(), GitError> {
        let fetch = [
            "-c",
            "maintenance.auto=false",
            // Always a pack, so that packs tell how much there is to tidy.
            "-c",
            "fetch.unpackLimit=1",
            "fetch",
            "--quiet",
            depth,
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--end-of-options",
            remote,
        ];
        self.ask_of(remote, &[&fetch[..], wanted].concat())
            .map(drop)
    }

    /// Lets go of all commits but these, and of what Git LFS keeps: slotd has it.
    ///
    /// # Errors
    /// git fails; what is kept is there all the same.
    pub fn keep(&self, commits: &BTreeSet<Commit>) -> Result<(), GitError> {
        let large = self.path.join("lfs");
        let removed = match fs::remove_dir_all(&large) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(GitError::disk("remove", &large)),
        };
        self.let_go(commits).and(removed)
    }

    fn let_go(&self, commits: &BTreeSet<Commit>) -> Result<(), GitError> {
        let list = ["for-each-ref", "--format=%(refname)", FETCHED];
        let names = self.git.run("list commits", &list, b"")?;
        let names = String::from_utf8_lossy(&names);
        let is_kept = |name: &str| {
            let digits = name.rsplit('/').next().and_then(|it| it.parse().ok());
            digits.is_some_and(|commit| commits.contains(&commit))
        };
        let doomed = names.lines().filter(|name| !is_kept(name));
        let orders: String = doomed.map(|name| format!("delete {name}\n")).collect();
        let update = ["update-ref", "--stdin"];
        self.git.run("let commits go", &update, orders.as_bytes())?;
        let listed = fs::read_dir(self.path.join("objects/pack"));
        let packs = listed.into_iter().flatten().flatten();
        let packs = packs.filter(|it| it.path().extension().is_some_and(|it| it == "pack"));
        if packs.count() < MOST_PACKS {
            return Ok(());
        }
        let limits = ["-c", "pack.threads=1", "-c", "pack.windowMemory=64m"];
        let repack = ["repack", "-a", "-d", "-q"];
        self.git
            .run("pack what is kept", &[&limits[..], &repack].concat(), b"")
            .map(drop)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, GitError> {
        self.ask_of(&self.remote, arguments)
    }

    /// What git answers that has asked a remote.
    fn ask_of(&self, remote: &str, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.git.ask("ask a remote", arguments, b"")?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(failed(remote, words(&output.stderr))),
        }
    }

    fn unknown(&self, name: &str, hint: String) -> GitError {
        GitError::UnknownThere {
            name: name.to_owned(),
            remote: self.remote.clone(),
            hint,
        }
    }
}
