//! The repository whose commits are deployed: the user's own, read as that user; and staging, which is a work tree of it.
//!
//! **Invariant:** nothing of the work tree, the index or a branch of the user's is changed; staging is a work tree of its own, on a branch
//! of its own.
//! **Invariant:** what is in staging and nowhere else is never removed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::api::machine::{Commits, STAGING};
use crate::deploy::ReleaseId;
use crate::git::{self, Commit, GitError, Held, Part, Store};
use crate::release::{self, Layout, Root};
use crate::telemetry::chain;

/// The branch that staging is on.
const BRANCH: &str = "machine";

/// Where it is noted which release staging was made of.
const MADE_OF: &str = ".releases/staging";

/// A repository, and the data directory of the app that is deployed from it.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    path: PathBuf,
    data: PathBuf,
}

impl Repository {
    pub(super) fn new(path: &Path, data: &Path) -> Self {
        Self {
            path: path.to_owned(),
            data: data.to_owned(),
        }
    }

    fn staging(&self) -> PathBuf {
        self.data.join(STAGING)
    }

    async fn make_staging(&self, release: &ReleaseId, commit: &str) -> Result<(), String> {
        let staging = self.staging();
        if staging.symlink_metadata().is_ok() {
            if let Some(kept) = self.work_in(&staging, commit).await {
                return Err(format!("{STAGING} stays as it is: {kept}"));
            }
            run(git_in(&self.path)
                .args(["worktree", "remove", "--force", "--force"])
                .arg(&staging))
            .await?;
        }
        run(git_in(&self.path).args(["worktree", "prune"])).await?;
        run(git_in(&self.path)
            .args(["worktree", "add", "--quiet", "--no-checkout", "-B", BRANCH])
            .arg(&staging)
            .arg(commit))
        .await?;
        // A copy that costs nothing where the file system can make one, and waits for everybody else's reads and writes where not.
        let home = Root::new(self.data.clone(), Layout::SlotMachine).home(release);
        run(Command::new("ionice")
            .args(["-c", "3", "cp", "-a", "--reflink=auto", "--"])
            .arg(home.join("."))
            .arg(&staging))
        .await?;
        run(git_in(&staging).args(["reset", "--quiet"])).await?;
        std::fs::write(self.data.join(MADE_OF), release.as_str())
            .map_err(|error| format!("cannot write {MADE_OF}: {error}"))
    }

    /// Why staging is not to be replaced: what is in it and nowhere else.
    async fn work_in(&self, staging: &Path, commit: &str) -> Option<String> {
        let unheld = output(
            git_in(staging)
                .args(["rev-list", "--max-count=1", "HEAD", "--not", commit])
                .arg(format!("--exclude={BRANCH}"))
                .args(["--branches", "--tags", "--remotes"]),
        )
        .await;
        match unheld {
            Ok(commit) if commit.stdout.is_empty() => {}
            Ok(_) => {
                return Some(format!(
                    "it has commits that no branch but {BRANCH} holds; merge them, or deploy from there"
                ));
            }
            Err(why) => return Some(why),
        }
        let changed = output(git_in(staging).args(["status", "--porcelain", "-z", "-uall"])).await;
        let changed = match changed {
            Ok(changed) => changed.stdout,
            Err(why) => return Some(why),
        };
        let made_of = std::fs::read_to_string(self.data.join(MADE_OF)).unwrap_or_default();
        let made_of = made_of.trim().parse().ok();
        let made_of = made_of
            .map(|id: ReleaseId| Root::new(self.data.clone(), Layout::SlotMachine).home(&id));
        // What a setup command has made is untracked too, and came with the release.
        let came_along = |entry: &[u8]| {
            let path = entry.strip_prefix(b"?? ").map(OsStr::from_bytes);
            path.zip(made_of.as_ref())
                .is_some_and(|(path, of)| of.join(path).symlink_metadata().is_ok())
        };
        let work = changed
            .split(|byte| *byte == 0)
            .find(|entry| !entry.is_empty() && !came_along(entry))?;
        let shown = String::from_utf8_lossy(work.get(3..).unwrap_or_default()).into_owned();
        Some(format!(
            "it has work that is not committed ({}); commit it, or remove it",
            super::super::term::harmless(&shown)
        ))
    }
}

impl Commits for Repository {
    async fn resolve(&self, name: &str) -> Result<String, String> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let found = move || git::Repository::find(&path)?.resolve(&name);
        let resolved = blocking(found).await?;
        Ok(resolved.commit.to_string())
    }

    async fn lay_out(self, commit: String, directory: PathBuf) -> Result<(), String> {
        let lay_out = move || {
            let commit: Commit = commit.parse().map_err(|_| GitError::Unknown {
                name: commit.clone(),
                directory: self.path.clone(),
                hint: String::new(),
            })?;
            let repository = git::Repository::find(&self.path)?;
            let store = Store::of(&self.data);
            let held = store.hold()?;
            for part in repository.parts(&commit)? {
                take_contents(&store, &held, &part)?;
                let have: Vec<Commit> = store.have()?.into_iter().collect();
                let pack = part.pack(&have)?;
                if part.commit == commit {
                    let release = commit.short().parse().expect("eight digits are an id");
                    held.take(&commit, &release, pack, || true)?;
                } else {
                    held.take_module(&part.commit, pack, || true)?;
                }
            }
            held.lay_out(&commit, &directory)
        };
        blocking(lay_out).await
    }

    async fn stage(self, release: ReleaseId, commit: String) -> Result<(), String> {
        let data = self.data.clone();
        let let_go = move || {
            let root = Root::new(data, Layout::SlotMachine);
            let kept = release::list(&root).into_iter().map(|(id, _)| id);
            Store::of(&root).prune(&kept.collect())
        };
        if let Err(why) = blocking(let_go).await {
            tracing::warn!("commits that no release is of are kept: {why}");
        }
        self.make_staging(&release, &commit).await
    }
}

/// Takes what the files of a part have in them that Git LFS keeps.
fn take_contents(store: &Store, held: &Held, part: &Part) -> Result<(), GitError> {
    let files = part.large()?;
    let mut lacked = store.lacks(files.iter().map(|file| (&file.oid, file.size)));
    // Each with the first file that has it.
    let wanted: Vec<_> = files.iter().filter(|it| lacked.remove(&it.oid)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let shelf = part.shelf()?;
    let absent: Vec<_> = wanted
        .iter()
        .copied()
        .filter(|it| shelf.lacks(it))
        .collect();
    if !absent.is_empty() {
        tracing::info!("{} files of Git LFS are fetched", absent.len());
        shelf.fetch(&absent)?;
    }
    for file in wanted {
        held.take_content(&file.oid, file.size, shelf.open(file)?, || true)?;
    }
    Ok(())
}

/// Runs what blocks away from the threads that must not.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GitError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
        .map_err(|error| chain(&error))
}

/// git in a directory, which asks nobody anything and runs no hook.
fn git_in(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(directory)
        .args(["-c", "core.hooksPath=/dev/null"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // Whoever starts the daemon from a hook has these, and they mean another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command
}

async fn output(command: &mut Command) -> Result<Output, String> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let output = command
        .output()
        .await
        .map_err(|error| format!("cannot run {program}: {error}; install it"))?;
    if output.status.success() {
        return Ok(output);
    }
    let arguments: Vec<_> = command
        .as_std()
        .get_args()
        .map(OsStr::to_string_lossy)
        .collect();
    Err(format!(
        "`{program} {}` {}: {}",
        arguments.join(" "),
        output.status,
        said(&output)
    ))
}

async fn run(command: &mut Command) -> Result<(), String> {
    output(command).await.map(drop)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
