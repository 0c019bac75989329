//! slotd's half: a bare repository of an app's own, `/var/lib/slot/<app>/repo.git`.
//!
//! ```text
//! repo.git/refs/slot/<id>        the commit of a release, for as long as the release is on disk
//!          refs/modules/<40 hex> a commit of a submodule that such a one has
//!          shallow               all of these: none has its history here
//!          large/<aa>/<oid>      what a file has in it that Git LFS keeps
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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::geteuid;

use super::command::{Git, check_out};
use super::contents::{self, Contents, is_recent};
use super::intake::{check, index, settle};
use super::large::{self, Oid};
use super::modules::modules;
use super::{Commit, GitError, Pack, clear_locks};
use crate::deploy::ReleaseId;

/// Each deployment brings a pack; from so many on, those that are still needed are made one.
const MOST_PACKS: usize = 10;

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
    /// How many have, ever.
    held: u64,
    /// Somebody finds out what can go.
    pruning: bool,
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
        let mut ledger = self.alone();
        ledger.holders += 1;
        ledger.held += 1;
        drop(ledger);
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

    /// Of these contents, by their names and sizes, those that are not here. The others stay for long enough that a commit which needs
    /// them can be taken.
    #[must_use]
    pub fn lacks<'c>(&self, contents: impl IntoIterator<Item = (&'c Oid, u64)>) -> BTreeSet<Oid> {
        // Whoever removes some looks at their times first.
        let _alone = self.alone();
        let here = self.contents();
        let lacked = contents
            .into_iter()
            .filter(|(oid, size)| here.lack(oid, *size));
        lacked.map(|(oid, _)| oid.clone()).collect()
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
        if ledger.holders > 0 || ledger.pruning || !self.is_made()? {
            return Ok(());
        }
        ledger.pruning = true;
        let held = ledger.held;
        drop(ledger);
        let pruned = self.let_go(keep, held);
        self.alone().pruning = false;
        pruned
    }

    /// Finds out what nobody needs, which may take seconds and keeps nobody waiting; lets go of it if nobody has held the store since.
    fn let_go(&self, keep: &BTreeSet<ReleaseId>, held: u64) -> Result<(), GitError> {
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
        let contents = self.contents();
        let has_contents = contents.exist();
        if doomed.is_empty() && !has_contents {
            return Ok(());
        }
        self.with_modules(&mut kept)?;
        let needed = match has_contents {
            true => self.needed(&kept)?,
            false => BTreeSet::new(),
        };
        let orders: String = doomed
            .iter()
            .chain(parts.iter().filter_map(|(name, commit)| {
                let goes = !kept.contains(commit) && !is_recent(&self.path.join(name));
                goes.then_some(name)
            }))
            .map(|name| format!("delete {name}\n"))
            .collect();
        let ledger = self.alone();
        if ledger.held != held {
            return Ok(());
        }
        if has_contents {
            contents.keep(&needed)?;
        }
        if doomed.is_empty() {
            return Ok(());
        }
        self.git().run(
            "let commits go",
            &["update-ref", "--stdin"],
            orders.as_bytes(),
        )?;
        self.note_shallow(&kept)?;
        drop(ledger);
        // What a ref names stays, and so does a pack that comes meanwhile.
        self.repack()
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

    /// The contents that these commits need.
    fn needed(&self, commits: &BTreeSet<Commit>) -> Result<BTreeSet<Oid>, GitError> {
        let room = self.room()?;
        let mut needed = BTreeSet::new();
        for commit in commits {
            let files = large::files(&self.git(), commit, &room.path().join(commit.as_str()))?;
            needed.extend(files.into_iter().map(|file| file.oid));
        }
        Ok(needed)
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

    fn contents(&self) -> Contents {
        Contents::of(&self.path)
    }

    /// A directory for what goes when this is over.
    fn room(&self) -> Result<tempfile::TempDir, GitError> {
        let incoming = self.path.join("incoming");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&incoming)
            .and_then(|()| tempfile::tempdir_in(&incoming))
            .map_err(GitError::disk("make a directory in", &incoming))
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
    /// Packs what a repository lacks of a commit that is here, which has the trees of others.
    ///
    /// # Errors
    /// git fails.
    pub fn pack(&self, commit: &Commit, have: &[Commit]) -> Result<Pack, GitError> {
        let here = self.store.have()?;
        let common: Vec<Commit> = have
            .iter()
            .filter(|it| here.contains(*it))
            .cloned()
            .collect();
        Pack::of(&self.store.git(), commit, &common)
    }

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
        let incoming = store.room()?;
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

    /// Takes what a file has in it that Git LFS keeps, before the commit that has the file. `size` is that of its pointer, in bytes.
    ///
    /// # Errors
    /// It is torn, or not what it was said to be, or the disk is full; nothing of it is in the store then.
    pub fn take_content(
        &self,
        oid: &Oid,
        size: u64,
        content: impl Read,
        wanted: impl Fn() -> bool,
    ) -> Result<(), GitError> {
        let room = self.store.room()?;
        let received = room.path().join("content");
        contents::receive(oid, size, content, &received, wanted)?;
        let _alone = self.store.alone();
        self.store.contents().settle(oid, &received)
    }

    /// Lays out exactly the tree of a commit that has been taken, and those of its submodules, in an empty directory, with the contents
    /// of the files that Git LFS keeps.
    ///
    /// # Errors
    /// A submodule's commit or a content was not taken, git fails, or the disk is full; the directory may have a part of it in it then.
    pub fn lay_out(&self, commit: &Commit, into: &Path) -> Result<(), GitError> {
        let room = self.store.room()?;
        let git = self
            .store
            .git()
            .with("GIT_WORK_TREE", into)
            .with("GIT_INDEX_FILE", room.path().join("index"));
        check_out(&git, commit)?;
        for file in large::files_of_index(&git)? {
            self.store.contents().lay_out(&file, into)?;
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
}
