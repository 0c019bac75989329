//! slotd's half: a bare repository of an app's own, `/var/lib/slot/<app>/repo.git`.
//!
//! ```text
//! repo.git/refs/slot/<id>        the commit of a release, for as long as the release is on disk
//!          refs/modules/<40 hex> a commit of a submodule that such a one has
//!          shallow               all of these: none has its history here
//!          incoming/<random>/    what is being taken, until it is found good
//! ```
//!
//! There is nothing in it that a caller does not have: a store that is lost, or removed, costs one larger upload.
//!
//! **Invariant:** what a ref names is there with its whole tree.
//! **Invariant:** no object is removed while somebody takes a commit or lays one out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::unistd::geteuid;

use super::command::{Git, check_out, words};
use super::modules::modules;
use super::{Commit, GitError, clear_locks, large};
use crate::deploy::ReleaseId;

/// What git holds against objects, and what they may have all the same: oddities of old or home-made tools in commits, which harm
/// nobody who lays their trees out (git-fsck(1), "FSCK MESSAGES"). Whatever it has against trees but one old mode stays.
const STRICT: &str = "--strict=zeroPaddedFilemode=ignore,badTimezone=ignore,badDate=ignore,badDateOverflow=ignore,\
                      zeroPaddedDate=ignore,badEmail=ignore,missingEmail=ignore,missingNameBeforeEmail=ignore,\
                      missingSpaceBeforeDate=ignore,missingSpaceBeforeEmail=ignore,multipleAuthors=ignore";

/// Each deployment brings a pack; from so many on, those that are still needed are made one.
const MOST_PACKS: usize = 10;

/// How long a submodule's commit may wait for the one that has it.
const RECENT: Duration = Duration::from_secs(3600);

/// Where the commits of an app are kept.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    ledger: Arc<Mutex<Ledger>>,
}

/// What is remembered of a store while this process lives.
#[derive(Debug, Default)]
struct Ledger {
    /// How many take a commit or lay one out.
    holders: usize,
    /// Its packs are being made one.
    repacking: bool,
}

impl Store {
    /// That of an app, by the app's directory. It is made when the first commit comes.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        // One entry for each app that ever was, as whoever opens it again must meet those who have it still.
        static LEDGERS: Mutex<BTreeMap<PathBuf, Arc<Mutex<Ledger>>>> = Mutex::new(BTreeMap::new());
        let path = root.join("repo.git");
        let mut ledgers = LEDGERS.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = Arc::clone(ledgers.entry(path.clone()).or_default());
        Self { path, ledger }
    }

    /// Holds everything that is in the store and comes to it, until what is given is dropped.
    ///
    /// # Errors
    /// The store is not there and cannot be made.
    pub fn hold(&self) -> Result<Held, GitError> {
        // One at a time makes it.
        let ledger = self.alone();
        self.make()?;
        drop(ledger);
        Ok(self.keep())
    }

    /// The same for what is there already, if anything is: so that it is still there when somebody who relies on it comes to send the rest.
    #[must_use]
    pub fn keep(&self) -> Held {
        self.alone().holders += 1;
        Held {
            store: self.clone(),
        }
    }

    /// Which commits are here with their whole trees.
    ///
    /// # Errors
    /// git fails.
    pub fn have(&self) -> Result<BTreeSet<Commit>, GitError> {
        if !self.is_made()? {
            return Ok(BTreeSet::new());
        }
        Ok(self.refs()?.into_values().collect())
    }

    /// Clears what a crash left behind.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn tidy(&self) -> Result<(), GitError> {
        let _alone = self.alone();
        for left in [self.half_made(), self.path.join("incoming")] {
            match fs::remove_dir_all(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(GitError::disk("remove", &left)(error));
                }
                _ => {}
            }
        }
        clear_locks(&self.path, &["refs/slot", "refs/modules"]);
        Ok(())
    }

    /// Lets go of the commits of all releases but these, and of what only they had. Does nothing while somebody holds the store: the next
    /// one does it.
    ///
    /// # Errors
    /// git fails; what is kept is there all the same.
    pub fn prune(&self, keep: &BTreeSet<ReleaseId>) -> Result<(), GitError> {
        let mut ledger = self.alone();
        if ledger.holders > 0 || !self.is_made()? {
            return Ok(());
        }
        let (mut kept, mut doomed, mut parts) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        for (name, commit) in self.refs()? {
            match name.strip_prefix("refs/slot/").map(str::parse::<ReleaseId>) {
                Some(Ok(id)) if keep.contains(&id) => {
                    kept.insert(commit);
                }
                Some(_) => doomed.push(name),
                None => drop(parts.insert(name, commit)),
            }
        }
        if doomed.is_empty() {
            return Ok(());
        }
        self.with_modules(&mut kept)?;
        doomed.extend(
            parts
                .into_iter()
                .filter(|(name, commit)| !kept.contains(commit) && !self.is_recent(name))
                .map(|(name, _)| name),
        );
        let orders: String = doomed
            .iter()
            .map(|name| format!("delete {name}\n"))
            .collect();
        self.git().run(
            "let commits go",
            &["update-ref", "--stdin"],
            orders.as_bytes(),
        )?;
        self.note_shallow(&kept)?;
        if ledger.repacking {
            return Ok(());
        }
        ledger.repacking = true;
        // It may take minutes, and nobody waits for it: what a ref names stays, and so does a pack that comes meanwhile.
        drop(ledger);
        let repacked = self.repack();
        self.alone().repacking = false;
        repacked
    }

    /// Whether a ref was made a short time ago: a submodule's commit comes before the one that has it.
    fn is_recent(&self, name: &str) -> bool {
        let made = fs::metadata(self.path.join(name)).and_then(|about| about.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < RECENT))
    }

    /// Makes many packs one, without what no ref needs any more; with little memory and on one core, as others have use for both.
    fn repack(&self) -> Result<(), GitError> {
        let packs = fs::read_dir(self.path.join("objects/pack"))
            .map(|listed| {
                let names = listed.flatten().map(|entry| entry.path());
                names
                    .filter(|path| path.extension().is_some_and(|it| it == "pack"))
                    .count()
            })
            .unwrap_or(0);
        if packs < MOST_PACKS {
            return Ok(());
        }
        let limits = ["-c", "pack.threads=1", "-c", "pack.windowMemory=64m"];
        let repack = ["repack", "-a", "-d", "-q"];
        self.git()
            .run("pack what is kept", &[&limits[..], &repack].concat(), b"")
            .map(drop)
    }

    /// The submodules' commits that these have, added to them.
    fn with_modules(&self, commits: &mut BTreeSet<Commit>) -> Result<(), GitError> {
        let mut ahead: Vec<Commit> = commits.iter().cloned().collect();
        while let Some(commit) = ahead.pop() {
            for module in modules(&self.git(), &commit)? {
                let is_here = self
                    .path
                    .join("refs/modules")
                    .join(module.commit.as_str())
                    .exists();
                if is_here && commits.insert(module.commit.clone()) {
                    ahead.push(module.commit);
                }
            }
        }
        Ok(())
    }

    /// What names a commit, and which.
    fn refs(&self) -> Result<BTreeMap<String, Commit>, GitError> {
        let told = self.git().run(
            "list commits",
            &[
                "for-each-ref",
                "--format=%(objectname) %(refname)",
                "refs/slot",
                "refs/modules",
            ],
            b"",
        )?;
        let told = String::from_utf8_lossy(&told);
        let named = told.lines().filter_map(|line| {
            let (commit, name) = line.split_once(' ')?;
            Some((name.to_owned(), commit.parse().ok()?))
        });
        Ok(named.collect())
    }

    fn git(&self) -> Git {
        Git::own(&self.path)
    }

    fn half_made(&self) -> PathBuf {
        self.path.with_extension("git.new")
    }

    fn alone(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is there.
    fn is_made(&self) -> Result<bool, GitError> {
        match self.path.symlink_metadata() {
            // Its configuration is obeyed, others may write in the app's directory, and git takes whom it runs as for the owner.
            Ok(about) if !about.is_dir() || about.uid() != geteuid().as_raw() => {
                Err(GitError::NotOurs(self.path.clone()))
            }
            there => Ok(there.is_ok()),
        }
    }

    fn make(&self) -> Result<(), GitError> {
        if self.is_made()? {
            return Ok(());
        }
        // One that a crash left half made would be taken for whole.
        let new = self.half_made();
        let _ = fs::remove_dir_all(&new);
        DirBuilder::new()
            .mode(0o700)
            .create(&new)
            .map_err(GitError::disk("make the directory", &new))?;
        let init = ["init", "--quiet", "--bare", "--template="];
        Git::own(&new).run("make a repository", &init, b"")?;
        fs::rename(&new, &self.path).map_err(GitError::disk("name", &self.path))
    }

    /// The commits that git is told to take for ones without parents, as theirs are not here.
    fn shallow(&self) -> Result<BTreeSet<Commit>, GitError> {
        let path = self.path.join("shallow");
        let noted = match fs::read_to_string(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(GitError::disk("read", &path)(error));
            }
            noted => noted.unwrap_or_default(),
        };
        Ok(noted.lines().filter_map(|it| it.parse().ok()).collect())
    }

    fn note_shallow(&self, commits: &BTreeSet<Commit>) -> Result<(), GitError> {
        let new = self.path.join("shallow.new");
        write_shallow(&new, commits)?;
        let path = self.path.join("shallow");
        fs::rename(&new, &path).map_err(GitError::disk("write", &path))
    }
}

fn write_shallow(path: &Path, commits: &BTreeSet<Commit>) -> Result<(), GitError> {
    let text: String = commits.iter().map(|commit| format!("{commit}\n")).collect();
    File::create(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .map_err(GitError::disk("write", path))
}

/// A store from which nothing is removed.
#[derive(Debug)]
pub struct Held {
    store: Store,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.alone().holders -= 1;
    }
}

impl Held {
    /// Takes the commit of a release, with its tree, from a pack; from nothing, if it is here already. `wanted` is asked while the pack
    /// comes: once it says no, the taking ends.
    ///
    /// # Errors
    /// The pack is torn, corrupt or not all of the commit, or holds what git refuses; nothing of it is in the store then.
    pub fn take(
        &self,
        commit: &Commit,
        release: &ReleaseId,
        pack: impl Read,
        wanted: impl Fn() -> bool,
    ) -> Result<(), GitError> {
        self.take_as(&format!("refs/slot/{release}"), commit, pack, wanted)
    }

    /// Takes a commit of a submodule, before the commit that has the submodule.
    ///
    /// # Errors
    /// As for [`Self::take`].
    pub fn take_module(
        &self,
        commit: &Commit,
        pack: impl Read,
        wanted: impl Fn() -> bool,
    ) -> Result<(), GitError> {
        self.take_as(&format!("refs/modules/{commit}"), commit, pack, wanted)
    }

    fn take_as(
        &self,
        name: &str,
        commit: &Commit,
        pack: impl Read,
        wanted: impl Fn() -> bool,
    ) -> Result<(), GitError> {
        let store = &self.store;
        let incoming = self.room()?;
        let quarantine = incoming.path().join("objects");
        fs::create_dir_all(quarantine.join("pack"))
            .map_err(GitError::disk("make the directory", &quarantine))?;
        // What the store's would be with it, for these runs alone.
        let expected = incoming.path().join("shallow");
        let mut shallow = store.shallow()?;
        shallow.insert(commit.clone());
        write_shallow(&expected, &shallow)?;
        let git = store
            .git()
            .with("GIT_SHALLOW_FILE", &expected)
            .with("GIT_OBJECT_DIRECTORY", &quarantine)
            .with(
                "GIT_ALTERNATE_OBJECT_DIRECTORIES",
                store.path.join("objects"),
            );
        index(&git, commit, pack, &wanted)?;
        check(&git, commit)?;
        if !wanted() {
            return Err(GitError::Unwanted);
        }
        let _alone = store.alone();
        settle(&quarantine.join("pack"), &store.path.join("objects/pack"))?;
        // Read again: others may have come in the meantime.
        let mut shallow = store.shallow()?;
        if shallow.insert(commit.clone()) {
            store.note_shallow(&shallow)?;
        }
        store
            .git()
            .run(
                "name a commit",
                &["update-ref", "--end-of-options", name, commit.as_str()],
                b"",
            )
            .map(drop)
    }

    /// Lays out exactly the tree of a commit that has been taken, and those of its submodules, in an empty directory.
    ///
    /// # Errors
    /// A submodule's commit was not taken, git fails, or the disk is full; the directory may have a part of it in it then.
    pub fn lay_out(&self, commit: &Commit, into: &Path) -> Result<(), GitError> {
        let room = self.room()?;
        let git = self
            .store
            .git()
            .with("GIT_WORK_TREE", into)
            .with("GIT_INDEX_FILE", room.path().join("index"));
        check_out(&git, commit)?;
        if let Some(path) = large::pointer(&git, into)? {
            return Err(GitError::Pointer(path));
        }
        for module in modules(&self.store.git(), commit)? {
            let folder = into.join(&module.path);
            if !self.store.have()?.contains(&module.commit) {
                return Err(GitError::NoModule {
                    path: module.path,
                    commit: module.commit,
                });
            }
            self.lay_out(&module.commit, &folder)?;
        }
        Ok(())
    }

    /// A directory for what goes when this is over.
    fn room(&self) -> Result<tempfile::TempDir, GitError> {
        let incoming = self.store.path.join("incoming");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&incoming)
            .and_then(|()| tempfile::tempdir_in(&incoming))
            .map_err(GitError::disk("make a directory in", &incoming))
    }
}

/// Reads a pack into the quarantine; git looks at each object of it, and that those which they name are there.
fn index(
    git: &Git,
    commit: &Commit,
    mut pack: impl Read,
    wanted: impl Fn() -> bool,
) -> Result<(), GitError> {
    let torn = |source| GitError::Torn {
        commit: commit.clone(),
        source,
    };
    let mut buffer = vec![0; 1 << 16];
    let mut count = read(&mut pack, &mut buffer).map_err(torn)?;
    if count == 0 {
        // Nothing is missing, says who sends; whether that is so is looked at next.
        return Ok(());
    }
    let mut run = git.start(
        "take a pack",
        &["index-pack", "--stdin", "--fix-thin", STRICT],
        Stdio::piped(),
    )?;
    let mut stdin = run.child.stdin.take();
    while count > 0 {
        if !wanted() {
            return Err(GitError::Unwanted);
        }
        let Some(pipe) = &mut stdin else { break };
        if pipe.write_all(&buffer[..count]).is_err() {
            // It has seen enough, and says why.
            break;
        }
        count = read(&mut pack, &mut buffer).map_err(torn)?;
    }
    drop(stdin);
    let (status, said) = run.end().map_err(|source| GitError::Start {
        operation: "take a pack",
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    let said = words(&said);
    if said.contains("No space left on device") {
        return Err(GitError::disk("write", git.directory())(
            io::ErrorKind::StorageFull.into(),
        ));
    }
    Err(GitError::Refused {
        commit: commit.clone(),
        said,
    })
}

/// That the commit is there, and all of its tree.
fn check(git: &Git, commit: &Commit) -> Result<(), GitError> {
    let refused = |said| GitError::Refused {
        commit: commit.clone(),
        said,
    };
    let kind = git.answer("look for a commit", &["cat-file", "-t", commit.as_str()])?;
    if kind.as_deref() != Some("commit") {
        return Err(refused(
            "the commit is not in it, nor was it here".to_owned(),
        ));
    }
    let walk = [
        "rev-list",
        "--objects",
        "--quiet",
        commit.as_str(),
        "--not",
        "--all",
    ];
    let walked = git.ask("look for the objects of a commit", &walk, b"")?;
    if walked.status.success() {
        return Ok(());
    }
    Err(refused(words(&walked.stderr)))
}

/// Moves good packs to where the store looks; the index comes last, as it is what makes git see a pack.
fn settle(from: &Path, to: &Path) -> Result<(), GitError> {
    let listed = fs::read_dir(from).map_err(GitError::disk("list", from))?;
    let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "idx"));
    for path in paths {
        let new = to.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &new).map_err(GitError::disk("move to its place", &path))?;
    }
    File::open(to)
        .and_then(|directory| directory.sync_all())
        .map_err(GitError::disk("sync", to))
}

/// As much as comes at once.
fn read(pack: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match pack.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => return count,
        }
    }
}
