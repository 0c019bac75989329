//! The contents of files of Git LFS beside a commit, where git-lfs keeps them (git-lfs-config(5), `lfs.storage`): in a user's own repository
//! or in the fetcher's mirror.
//!
//! **Invariant:** only `git lfs fetch` writes there, and it is run for what is missing alone.
//! **Invariant:** a server that a fetched commit names is held to the rules of a URL in slot.toml, and to the remote's own kind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::command::{Git, words};
use super::elsewhere::hint;
use super::large::{Large, Oid};
use super::{Commit, GitError};
use crate::config::url_problem;

/// No argument is longer, in bytes, with room to spare (execve(2), "Limits on size of arguments and environment").
const LONGEST_ARGUMENT: usize = 100_000;

/// Where one repository's are.
#[derive(Debug)]
pub struct Shelf {
    git: Git,
    commit: Commit,
    objects: PathBuf,
    source: Source,
}

/// Where git-lfs has them from.
#[derive(Debug)]
enum Source {
    /// What it finds for the user himself.
    Users,
    /// Where the commit was fetched from, or what the commit names in its place.
    Remote(Remote),
}

/// The remote of a mirror, or that of a submodule.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    /// Where the repository is in the tree that is deployed: a submodule's path.
    pub(super) inside: PathBuf,
}

impl Shelf {
    /// For a commit of a user's repository.
    pub(super) fn users(git: &Git, commit: &Commit) -> Result<Self, GitError> {
        let configured = ["config", "--type=path", "--get", "lfs.storage"];
        let configured = git.answer(FIND, &configured)?;
        let storage = configured.filter(|path| !path.is_empty());
        let storage = common_directory(git)?.join(storage.as_deref().unwrap_or("lfs"));
        Ok(Self {
            git: git.clone(),
            commit: commit.clone(),
            objects: storage.join("objects"),
            source: Source::Users,
        })
    }

    /// For a commit of the fetcher's mirror.
    pub(super) fn mirrored(git: &Git, commit: &Commit, remote: Remote) -> Result<Self, GitError> {
        Ok(Self {
            git: git.clone(),
            commit: commit.clone(),
            objects: common_directory(git)?.join("lfs/objects"),
            source: Source::Remote(remote),
        })
    }

    /// Those of the files whose contents are not here.
    #[must_use]
    pub fn absent<'l>(&self, files: &[&'l Large]) -> Vec<&'l Large> {
        let files = files.iter().copied();
        files.filter(|file| self.lacks(file)).collect()
    }

    fn lacks(&self, file: &Large) -> bool {
        let found = self.place(&file.oid).metadata();
        !found.is_ok_and(|about| about.is_file() && about.len() == file.size)
    }

    /// The content of a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(&self, file: &Large) -> Result<File, GitError> {
        let place = self.place(&file.oid);
        File::open(&place).map_err(GitError::disk("open", &place))
    }

    /// Removes the content of a file, from a mirror: slotd has it, or it is damaged.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, file: &Large) -> Result<(), GitError> {
        let place = self.place(&file.oid);
        fs::remove_file(&place).map_err(GitError::disk("remove", &place))
    }

    /// Has git-lfs fetch the contents of these files; `whole`: they are all that the commit has, or the rest may come along.
    ///
    /// # Errors
    /// There is no git-lfs or no remote, or not all of them come.
    pub fn fetch(&self, files: &[&Large], whole: bool) -> Result<(), GitError> {
        let runs = match whole {
            true => vec![String::new()],
            false => self.patterns(files),
        };
        let mut why = String::new();
        for patterns in runs {
            match self.run(&patterns)? {
                Ran::Well(said) => why = said,
                Ran::Badly(said) => {
                    why = said;
                    break;
                }
            }
        }
        let absent = self.absent(files);
        let Some(first) = absent.first() else {
            return Ok(());
        };
        Err(GitError::NoContent {
            path: first.path.clone(),
            size: first.size,
            others: absent.len() - 1,
            place: match self.source {
                Source::Users => Some(self.objects.clone()),
                Source::Remote(_) => None,
            },
            why,
        })
    }

    /// The files as git-lfs is told (git-lfs-fetch(1), "INCLUDE AND EXCLUDE"), in as many lists as it takes. What has a meaning in a
    /// pattern, or might have, is any number of characters instead: a file more does no harm.
    fn patterns(&self, files: &[&Large]) -> Vec<String> {
        let is_plain = |c: char| c.is_alphanumeric() || "/._-+@=".contains(c);
        let mut lists = vec![String::new()];
        for file in files {
            let path = match &self.source {
                Source::Users => &file.path,
                Source::Remote(remote) => {
                    file.path.strip_prefix(&remote.inside).unwrap_or(&file.path)
                }
            };
            let mut pattern = String::new();
            for c in path.to_string_lossy().chars() {
                if is_plain(c) {
                    pattern.push(c);
                } else if !pattern.ends_with('*') {
                    pattern.push('*');
                }
            }
            let is_full = |list: &String| list.len() + pattern.len() >= LONGEST_ARGUMENT;
            match lists.last_mut().filter(|list| !is_full(list)) {
                Some(list) if list.is_empty() => *list = pattern,
                Some(list) => {
                    list.push(',');
                    list.push_str(&pattern);
                }
                None => lists.push(pattern),
            }
        }
        lists
    }

    /// Fetches what matches the patterns; without any, all that the commit has.
    fn run(&self, patterns: &str) -> Result<Ran, GitError> {
        const OPERATION: &str = "fetch files of Git LFS";
        let mut asked = None;
        let (remote, options) = match &self.source {
            Source::Users => (self.users_remote()?, Vec::new()),
            Source::Remote(remote) => {
                let server = self.server(&remote.url)?;
                let storage = self.objects.parent().unwrap_or(&self.objects);
                let mut options = vec![
                    // git-lfs knows not all that git does as a URL, unless it is a remote's.
                    format!("remote.{FETCHED}.url={}", remote.url),
                    format!("lfs.storage={}", storage.display()),
                ];
                options.extend(server.iter().map(|url| format!("lfs.url={url}")));
                asked = Some(server.unwrap_or_else(|| remote.url.clone()));
                (Some(FETCHED.to_owned()), options)
            }
        };
        if self.git.answer(OPERATION, &["lfs", "version"])?.is_none() {
            let from = match &self.source {
                Source::Users => String::new(),
                Source::Remote(remote) => format!(" from {}", remote.url),
            };
            return Ok(Ran::Badly(format!(
                "git-lfs, which could fetch it{from}, is not installed; `apt install git-lfs`, then deploy again"
            )));
        }
        let Some(remote) = remote else {
            return Ok(Ran::Badly(
                "the repository has no remote to fetch it from; `git lfs fetch` has to find it first"
                    .to_owned(),
            ));
        };
        let include = format!("--include={patterns}");
        let fetch = [
            "lfs",
            "fetch",
            // Whatever the user wants of it in his work tree.
            &include,
            "--exclude=",
            &remote,
            self.commit.as_str(),
        ];
        let options = options.iter().flat_map(|option| ["-c", option]);
        let fetch: Vec<&str> = options.chain(fetch).collect();
        let fetched = self.git.ask(OPERATION, &fetch, b"")?;
        let said = words(&fetched.stderr);
        let why = match asked {
            None => format!(
                "`git lfs fetch {remote} {}` {}: {said}; when that brings it, deploy again",
                self.commit, fetched.status
            ),
            Some(asked) => {
                let hint = hint(&asked, &said);
                format!("git-lfs cannot fetch it from {asked}: {said}{hint}")
            }
        };
        Ok(match fetched.status.success() {
            true => Ran::Well(why),
            false => Ran::Badly(why),
        })
    }

    /// The server that a fetched commit itself names, in place of the one that belongs to its remote (git-lfs-config(5), "LFSCONFIG"): of
    /// a repository that is checked out, git-lfs reads that by itself.
    fn server(&self, remote: &str) -> Result<Option<String>, GitError> {
        const OPERATION: &str = "read .lfsconfig";
        let blob = format!("{}:.lfsconfig", self.commit);
        let there = self.git.answer(OPERATION, &["cat-file", "-e", &blob])?;
        if there.is_none() {
            return Ok(None);
        }
        let asked = ["config", "--no-includes", "--blob", &blob];
        let asked = [&asked[..], &["--get", "lfs.url"]].concat();
        let answer = self.git.ask(OPERATION, &asked, b"")?;
        let url = String::from_utf8_lossy(&answer.stdout);
        let url = url.trim_end();
        let problem = match url.is_empty() {
            // A key that is not there is no fault, and nothing is said of it.
            true if answer.stderr.is_empty() => return Ok(None),
            true => Some(words(&answer.stderr)),
            false => server_problem(url, remote),
        };
        match problem {
            None => Ok(Some(url.to_owned())),
            Some(problem) => Err(GitError::Server {
                commit: self.commit.clone(),
                remote: remote.to_owned(),
                problem,
            }),
        }
    }

    /// Where git-lfs fetches from: as it does it itself, if nothing else is said (git-lfs-config(5), `remote.lfsdefault`).
    fn users_remote(&self) -> Result<Option<String>, GitError> {
        const OPERATION: &str = "list remotes";
        let chosen = ["config", "--get", "remote.lfsdefault"];
        if let Some(chosen) = self.git.answer(OPERATION, &chosen)? {
            return Ok(Some(chosen));
        }
        let listed = self.git.run(OPERATION, &["remote"], b"")?;
        let listed = String::from_utf8_lossy(&listed);
        let origin = listed.lines().find(|name| *name == "origin");
        Ok(origin.or(listed.lines().next()).map(str::to_owned))
    }

    fn place(&self, oid: &Oid) -> PathBuf {
        let (digits, objects): (_, &Path) = (oid.as_str(), &self.objects);
        objects.join(&digits[..2]).join(&digits[2..4]).join(digits)
    }
}

/// What the remote of a mirror is called while git-lfs runs.
const FETCHED: &str = "slot";

const FIND: &str = "find what git-lfs keeps";

/// How git-lfs ended, and why something may not have come.
enum Ran {
    Well(String),
    Badly(String),
}

fn common_directory(git: &Git) -> Result<PathBuf, GitError> {
    let own = git.run(FIND, &["rev-parse", "--git-common-dir"], b"")?;
    let own = String::from_utf8_lossy(own.trim_ascii_end()).into_owned();
    Ok(git.directory().join(own))
}

/// Why a server must not be asked for what belongs to a remote.
fn server_problem(url: &str, remote: &str) -> Option<String> {
    // As git-lfs reads it, with one slash or three.
    let is_here = |url: &str| url.starts_with("file:");
    if is_here(url) && !is_here(remote) {
        return Some(format!("{url:?} is of this machine, and the remote is not"));
    }
    url_problem(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_url_and_of_this_machine_only_if_the_remote_is() {
        let (far, near) = ("git@example.org:shop.git", "file:///srv/shop.git");
        for (url, remote) in [
            ("file:///etc", far),
            ("file:/etc", far),
            ("file:///etc", "https://example.org/shop"),
            ("/etc", far),
            ("ext::sh -c x", near),
            ("--upload-pack=x", far),
            ("https://ada:secret@example.org/x", far),
            ("", far),
        ] {
            assert!(server_problem(url, remote).is_some(), "{url} {remote}");
        }
        for (url, remote) in [
            ("https://lfs.example.org/shop", far),
            ("git@lfs.example.org:shop", far),
            ("file:///srv/lfs", near),
        ] {
            assert_eq!(server_problem(url, remote), None);
        }
    }

    #[test]
    fn files_are_told_as_patterns_that_match_them_in_lists_that_are_no_longer_than_an_argument() {
        let here = tempfile::tempdir().unwrap();
        let remote = Remote {
            url: "file:///srv/lib".to_owned(),
            inside: PathBuf::from("vendor/lib"),
        };
        let shelf = Shelf {
            git: Git::own(here.path()),
            commit: "0".repeat(40).parse().unwrap(),
            objects: here.path().to_owned(),
            source: Source::Remote(remote),
        };
        let large = |path: &str| Large {
            path: PathBuf::from(path),
            oid: "0".repeat(64).parse().unwrap(),
            size: 1,
            runs: false,
        };
        let odd = [
            large("vendor/lib/art/Hero (2), [x]!.png"),
            large("plain.bin"),
        ];
        let odd: Vec<&Large> = odd.iter().collect();
        assert_eq!(shelf.patterns(&odd), ["art/Hero*2*x*.png,plain.bin"]);
        let many: Vec<Large> = (0..30_000).map(|n| large(&format!("{n}.bin"))).collect();
        let lists = shelf.patterns(&many.iter().collect::<Vec<_>>());
        assert!(lists.len() > 1 && lists.iter().all(|list| list.len() <= LONGEST_ARGUMENT));
        let told: usize = lists.iter().map(|list| list.split(',').count()).sum();
        assert_eq!(told, many.len());
    }
}
