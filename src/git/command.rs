//! One run of git's command line.
//!
//! **Invariant:** git's environment is made here and nowhere else; nothing of slot's own gets into it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use super::{Commit, GitError};

/// Of a user's environment: where his configuration is, who he is to git's check of owners (git-config(1), `safe.directory`), and what
/// a repository that fetches objects when they are needed, or git-lfs, fetches them with (curl(1), "ENVIRONMENT").
const KEPT: [&str; 17] = [
    "HOME",
    "PATH",
    "XDG_CONFIG_HOME",
    "USER",
    "LOGNAME",
    "SUDO_UID",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_GLOBAL",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// How much is kept of what git says when it fails, in bytes.
const SAID: usize = 16 << 10;

/// git in one directory.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl Git {
    /// As the user has it, in whatever repository the directory belongs to.
    pub(crate) fn users(directory: &Path) -> Self {
        let kept = KEPT
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        Self {
            directory: directory.to_owned(),
            environment: kept.collect(),
        }
    }

    /// In a repository of slot's own, with no configuration but the repository's: a filter that is configured nowhere does not run.
    pub(super) fn own(repository: &Path) -> Self {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        Self {
            directory: repository.to_owned(),
            environment: vec![("PATH".into(), path)],
        }
        .with("GIT_DIR", repository)
        .with("GIT_CONFIG_NOSYSTEM", "1")
        .with("GIT_CONFIG_GLOBAL", "/dev/null")
        .with("GIT_ATTR_NOSYSTEM", "1")
        // Of one that is made: what its names and files are read as, whatever git takes for granted by then.
        .with("GIT_DEFAULT_HASH", "sha1")
        .with("GIT_DEFAULT_REF_FORMAT", "files")
    }

    /// With one more variable in its environment.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // What is read of its words is read in English.
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_LITERAL_PATHSPECS", "1")
            // What a commit's name stands for is that commit (git-replace(1)).
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            // It reads commits as if they had their whole history.
            .args(["-c", "core.commitGraph=false"])
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "gc.auto=0"])
            // Files beyond it are neither compared with others nor read into memory whole.
            .args(["-c", "core.bigFileThreshold=32m"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it, with a pipe to its standard input if there is to be one.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        arguments: &[S],
        stdin: Stdio,
    ) -> Result<Run, GitError> {
        let mut command = self.command(arguments);
        let mut child = command.stdin(stdin).spawn().map_err(|source| {
            // A directory that is not there is told the same way as a program.
            if source.kind() == io::ErrorKind::NotFound && self.directory.is_dir() {
                GitError::NotInstalled
            } else {
                GitError::Start { operation, source }
            }
        })?;
        let said = child.stderr.take().map(|mut stderr| {
            thread::spawn(move || {
                let mut said = Vec::new();
                let _ = stderr.by_ref().take(SAID as u64).read_to_end(&mut said);
                let _ = io::copy(&mut stderr, &mut io::sink());
                said
            })
        });
        Ok(Run { child, said })
    }

    /// What it answers, whether that is a success or not. `input` is all that it is told.
    pub(crate) fn ask<S: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        arguments: &[S],
        input: &[u8],
    ) -> Result<Output, GitError> {
        let mut run = self.start(operation, arguments, Stdio::piped())?;
        let stdin = run.child.stdin.take();
        let mut stdout = Vec::new();
        let read = thread::scope(|scope| {
            scope.spawn(|| {
                // It may end without having read everything.
                stdin.map(|mut stdin| stdin.write_all(input))
            });
            run.child
                .stdout
                .take()
                .map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout))
        });
        read.and_then(|_| run.end())
            .map(|(status, stderr)| Output {
                status,
                stdout,
                stderr,
            })
            .map_err(|source| GitError::Start { operation, source })
    }

    /// What it answers to something that cannot fail but by a fault.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        arguments: &[S],
        input: &[u8],
    ) -> Result<Vec<u8>, GitError> {
        let output = self.ask(operation, arguments, input)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(GitError::Failed {
            operation,
            directory: self.directory.clone(),
            said: words(&output.stderr),
        })
    }

    /// Its answer, if it has one.
    pub(crate) fn answer<S: AsRef<OsStr>>(
        &self,
        operation: &'static str,
        arguments: &[S],
    ) -> Result<Option<String>, GitError> {
        let output = self.ask(operation, arguments, b"")?;
        Ok(output.status.success().then(|| {
            String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned()
        }))
    }
}

/// git while it runs. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) child: Child,
    said: Option<JoinHandle<Vec<u8>>>,
}

impl Run {
    /// Waits for its end, and gives what it said on its standard error.
    pub(crate) fn end(&mut self) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        let said = self.said.take().and_then(|reader| reader.join().ok());
        Ok((status, said.unwrap_or_default()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Of one that has been waited for, nothing is left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts the tree of a commit into the index and the work tree of a run's environment.
pub(super) fn check_out(git: &Git, commit: &Commit) -> Result<(), GitError> {
    // Whatever part of the tree a user has in his work tree, it is the whole that is wanted.
    let read = ["read-tree", "--no-sparse-checkout", commit.as_str()];
    git.run("read the tree of a commit", &read, b"")?;
    let check_out = ["checkout-index", "--all", "--quiet"];
    git.run("lay a commit out", &check_out, b"").map(drop)
}

/// What git said, in one line, without its prefixes and hints.
pub(crate) fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("hint:") && !line.trim().is_empty())
        .map(|line| {
            ["fatal: ", "error: ", "warning: "]
                .iter()
                .find_map(|prefix| line.strip_prefix(prefix))
                .unwrap_or(line)
                .trim()
        })
        .collect();
    let kept = lines.len().saturating_sub(6);
    if lines.is_empty() {
        "it says nothing about it".to_owned()
    } else {
        lines[kept..].join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_told_in_one_line() {
        let said = b"error: object 12: hasDotgit\nhint: nothing\nfatal: fsck error\n";
        assert_eq!(words(said), "object 12: hasDotgit; fsck error");
        assert_eq!(words(b""), "it says nothing about it");
    }

    #[test]
    fn a_missing_git_is_told_with_what_to_install() {
        let here = tempfile::tempdir().unwrap();
        let mut git = Git::own(here.path());
        git.environment.retain(|(name, _)| name != "PATH");
        let git = git.with("PATH", here.path());
        let error = git.run("say its version", &["version"], b"").unwrap_err();
        assert!(error.to_string().contains("apt install git"), "{error}");
    }
}
