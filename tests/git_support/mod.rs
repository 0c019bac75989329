//! Repositories to deploy from, made by git itself.

#![allow(dead_code)] // Each test file uses its part.
// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A repository in a directory of its own.
pub struct Repo {
    _folder: Option<tempfile::TempDir>,
    pub path: PathBuf,
}

impl Repo {
    /// One on the branch `main`, without a commit.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let mut repo = Self::at(&path);
        repo._folder = Some(folder);
        repo
    }

    /// As [`Self::new`], in a directory that is somebody else's.
    pub fn at(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let repo = Self {
            _folder: None,
            path: path.to_owned(),
        };
        repo.git(["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    /// Runs git; its answer without the end of the line.
    pub fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.try_git(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    pub fn try_git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        git_in(&self.path, arguments)
    }

    /// Writes a file of the work tree.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn executable(&self, path: impl AsRef<Path>) -> &Self {
        fs::set_permissions(self.path.join(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// Commits all that is in the work tree; gives the commit.
    pub fn commit(&self, message: &str) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "--message", message]);
        self.git(["rev-parse", "HEAD"])
    }
}

/// A directory for `PATH` in which is no git-lfs, or one that is these lines of a shell.
pub fn programs(git_lfs: Option<&str>) -> tempfile::TempDir {
    let programs = tempfile::tempdir().unwrap();
    for name in ["git", "sh", "cp", "mkdir", "dirname", "sed"] {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|it| it.join(name));
        let found = found.into_iter().find(|it| it.exists()).unwrap();
        std::os::unix::fs::symlink(found, programs.path().join(name)).unwrap();
    }
    if let Some(lines) = git_lfs {
        let path = programs.path().join("git-lfs");
        fs::write(&path, format!("#!/bin/sh\nset -e\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    programs
}

pub fn git_in<S: AsRef<OsStr>>(path: &Path, arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("git")
        .current_dir(path)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("LC_ALL", "C")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .output()
        .unwrap()
}
