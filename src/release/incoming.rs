//! From a directory that somebody fills to a release.
//!
//! ```text
//! begin ─► Incoming ─ unpack, or laid out by others ─► settle ─► Unfinished ─ (built) ─► finish ─► release
//!          incoming/<n>/                                         releases/<id>/                    and its record
//! ```
//! Where nothing is built, [`Incoming::finish`] is both steps. Whatever is dropped on the way is removed.
//!
//! **Invariant:** a directory in `releases` without a record is no release: it is somebody's [`Unfinished`], or what a crash left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::built::Site;
use super::links::all_named;
use super::order::{Turn, alone};
use super::record::{self, About, Identity, Record};
use super::tree::stays_inside;
use super::{ReleaseError, Root, adopt, remove_tree};
use crate::deploy::ReleaseId;

/// Up to so many entries are synced one by one; more of them with the whole file system, at the price of what others wrote.
const SYNCED_SINGLY: usize = 32;

/// Where the symlinks of a release may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// To somewhere in it.
    Inside,
    /// Anywhere: a build made them, for the machine that it ran on.
    Any,
}

/// A directory of one deployment's own, in which a release is laid out.
#[derive(Debug)]
pub struct Incoming {
    pub(super) root: Root,
    pub(super) path: PathBuf,
}

/// Makes a directory that no other deployment has had: one that has ended may still write to its own.
///
/// # Errors
/// The disk refuses.
pub fn begin(root: impl Into<Root>) -> Result<Incoming, ReleaseError> {
    let root = &root.into();
    alone(root, |_| {
        make_directory(&root.join("incoming"))?;
        loop {
            let path = root.join(format!("incoming/{}", Turn::next().number()));
            match DirBuilder::new().mode(0o755).create(&path) {
                // Left of a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(ReleaseError::disk("make the directory", &path))?;
                    let root = root.clone();
                    return Ok(Incoming { root, path });
                }
            }
        }
    })
}

/// What came of giving a directory its place.
#[derive(Debug)]
pub enum Settled {
    /// The release was there already; the new directory is gone.
    Known(ReleaseId),
    /// It has its place, and no record yet.
    New(Unfinished),
}

impl Incoming {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses what a release may not have in it, and makes the modes those of a release.
    ///
    /// # Errors
    /// It holds what is neither a file, a directory nor a symlink, or a symlink that leads where it may not; or the disk refuses.
    pub fn check(&self, links: Links) -> Result<(), ReleaseError> {
        survey(&self.path, links).map(drop)
    }

    /// Moves the directory to `releases/<id>`, in place of what a crash left there.
    ///
    /// # Errors
    /// Another release has that id, nobody waits for it any more, or the disk refuses.
    pub fn settle(
        self,
        identity: Identity,
        wanted: impl Fn() -> bool,
    ) -> Result<Settled, ReleaseError> {
        let root = self.root.clone();
        let (settled, left) = alone(&root, |ledger| {
            if !wanted() {
                return Err(ReleaseError::Unwanted);
            }
            let id = identity.id().ok_or(ReleaseError::Nameless)?;
            // What a symlink names is not put aside, whatever became of its record.
            if Record::read(&root, &id).is_none() && all_named(&root)?.contains(&id) {
                adopt(&root, &id, true)?;
            }
            if let Some(id) = known(&root, &identity, None)? {
                ledger.uploaded = Some(id.clone());
                return Ok((Settled::Known(id), None));
            }
            let home = root.home(&id);
            make_directory(&root.homes())?;
            make_directory(&root.records())?;
            // Of a directory that is not there any more: it would make a release of this one before it is complete.
            record::remove(&root, &id)?;
            let left = set_aside(&root, &id)?;
            fs::rename(&self.path, &home).map_err(ReleaseError::disk("name the release", &home))?;
            let turn = Turn::next();
            ledger.unfinished.insert(id.clone(), turn);
            let unfinished = Unfinished {
                root: root.clone(),
                id,
                identity: identity.clone(),
                turn,
            };
            Ok((Settled::New(unfinished), left))
        })?;
        if let Some(left) = left {
            remove_tree(&left).map_err(ReleaseError::disk("remove", &left))?;
        }
        Ok(settled)
    }

    /// Makes a release of the directory, in which nothing is to be built any more.
    ///
    /// # Errors
    /// As for [`Self::check`] and [`Self::settle`]; nothing is left on disk then.
    pub fn finish(
        self,
        identity: Identity,
        about: &About,
        links: Links,
        wanted: impl Fn() -> bool,
    ) -> Result<ReleaseId, ReleaseError> {
        let root = self.root.clone();
        match self.settle(identity, &wanted)? {
            Settled::Known(id) => take(&root, &id, about, wanted),
            Settled::New(unfinished) => unfinished.finish(about, links, wanted),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // What cannot be removed now is when slotd starts again.
        let _ = remove_tree(&self.path);
        // The last one out removes the directory of them all; another one's makes this fail.
        alone(&self.root, |_| fs::remove_dir(self.root.join("incoming"))).ok();
    }
}

/// A directory that has its place in `releases`, and is no release yet: it may be built in.
#[derive(Debug)]
pub struct Unfinished {
    root: Root,
    id: ReleaseId,
    identity: Identity,
    turn: Turn,
}

impl Unfinished {
    /// The id that it will have.
    #[must_use]
    pub fn id(&self) -> &ReleaseId {
        &self.id
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.site().path()
    }

    /// The directory, for whoever builds in it.
    #[must_use]
    pub fn site(&self) -> Site {
        Site {
            root: self.root.clone(),
            id: self.id.clone(),
            turn: self.turn,
        }
    }

    /// Makes a release of it, once all of it is on disk.
    ///
    /// # Errors
    /// As for [`Incoming::check`], or nobody waits for it any more; nothing is left on disk then.
    pub fn finish(
        self,
        about: &About,
        links: Links,
        wanted: impl Fn() -> bool,
    ) -> Result<ReleaseId, ReleaseError> {
        let home = self.path();
        let found = survey(&home, links)?;
        if !found.has_file {
            return Err(ReleaseError::Empty);
        }
        sync(&home, &found)?;
        let digest = match &self.identity {
            Identity::Content(digest) => Some(digest.clone()),
            Identity::Commit(_) => None,
        };
        let record = Record {
            digest,
            origin: about.origin.clone(),
            label: about.label.clone(),
            made_with: about.made_with.clone(),
            size: found.size,
            made_ms: millis(SystemTime::now()),
        };
        alone(&self.root, |ledger| {
            if ledger.unfinished.get(&self.id) != Some(&self.turn) || !wanted() {
                return Err(ReleaseError::Unwanted);
            }
            sync_one(&self.root.homes())?;
            record.write(&self.root, &self.id)?;
            ledger.unfinished.remove(&self.id);
            ledger.uploaded = Some(self.id.clone());
            Ok(self.id.clone())
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let left = alone(&self.root, |ledger| {
            // Finished, or another's by now.
            if ledger.unfinished.get(&self.id) != Some(&self.turn) {
                return None;
            }
            ledger.unfinished.remove(&self.id);
            set_aside(&self.root, &self.id).ok().flatten()
        });
        // What cannot be removed now is when slotd starts again.
        left.map(|left| remove_tree(&left));
    }
}

/// The release of this identity, if it is on disk. One whose record was lost is taken for the one that is asked for. One that was made in
/// another way than `made_with` says is removed, so that it is made anew, unless it is in use.
///
/// # Errors
/// Another release has that id, or the disk refuses.
pub fn known(
    root: impl Into<Root>,
    identity: &Identity,
    made_with: Option<&str>,
) -> Result<Option<ReleaseId>, ReleaseError> {
    let root = &root.into();
    let Some(id) = identity.id() else {
        return Ok(None);
    };
    let home = root.home(&id);
    let Some(record) = Record::read(root, &id).filter(|_| home.is_dir()) else {
        return Ok(None);
    };
    if record.identity().is_some_and(|other| other != *identity) {
        return Err(ReleaseError::Collision { id, path: home });
    }
    if !record.is_made_otherwise(made_with) {
        return Ok(Some(id));
    }
    let doomed = alone(root, |ledger| {
        let is_used = ledger.uploaded.as_ref() == Some(&id) || all_named(root)?.contains(&id);
        if is_used {
            return Ok(None);
        }
        record::remove(root, &id)?;
        set_aside(root, &id)
    })?;
    match doomed {
        None => Ok(Some(id)),
        Some(doomed) => {
            remove_tree(&doomed).map_err(ReleaseError::disk("remove", &doomed))?;
            Ok(None)
        }
    }
}

/// Takes a release that is on disk for a deployment: no removal takes it away before the deployment starts it. What the deployment
/// says of it is written down.
///
/// # Errors
/// It is not on disk, nobody waits for it any more, or the disk refuses.
pub fn take(
    root: impl Into<Root>,
    id: &ReleaseId,
    about: &About,
    wanted: impl Fn() -> bool,
) -> Result<ReleaseId, ReleaseError> {
    let root = &root.into();
    alone(root, |ledger| {
        if !wanted() {
            return Err(ReleaseError::Unwanted);
        }
        let mut record = on_disk(root, id).ok_or_else(|| ReleaseError::Absent(id.clone()))?;
        let before = record.clone();
        record.renew(about);
        if record != before {
            record.write(root, id)?;
        }
        ledger.uploaded = Some(id.clone());
        Ok(id.clone())
    })
}

/// Keeps a release that is on disk for a rollback to it: no removal takes it away before it is started.
///
/// # Errors
/// It is not on disk.
pub fn choose(root: impl Into<Root>, id: &ReleaseId) -> Result<(), ReleaseError> {
    let root = &root.into();
    alone(root, |ledger| {
        on_disk(root, id).ok_or_else(|| ReleaseError::Absent(id.clone()))?;
        ledger.chosen = Some(id.clone());
        Ok(())
    })
}

pub(super) fn on_disk(root: &Root, id: &ReleaseId) -> Option<Record> {
    let home = root.home(id);
    Record::read(root, id).filter(|_| home.is_dir())
}

/// Takes the name of a directory in `releases` away; gives where it is to be removed from, when the others may come again: that can
/// take long.
pub(super) fn set_aside(root: &Root, id: &ReleaseId) -> Result<Option<PathBuf>, ReleaseError> {
    let home = root.home(id);
    // One that was removed before may still be on its way out.
    let doomed = root
        .records()
        .join(format!("{id}.{}.removed", Turn::next().number()));
    match fs::rename(&home, &doomed) {
        Ok(()) => Ok(Some(doomed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReleaseError::disk("remove", &home)(error)),
    }
}

/// Milliseconds since the epoch.
pub(super) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What is in a directory that is to be a release.
#[derive(Default)]
pub(super) struct Found {
    /// Files and directories, which are synced.
    solid: Vec<PathBuf>,
    has_file: bool,
    /// The files' bytes together; one with two names counts once.
    pub(super) size: u64,
}

/// Looks a tree over: refuses what a release may not hold, and gives files and directories the modes that every release has, so that
/// whoever runs it can read it and nobody can write it.
pub(super) fn survey(home: &Path, links: Links) -> Result<Found, ReleaseError> {
    let (mut found, mut targets, mut counted) =
        (Found::default(), BTreeMap::new(), BTreeSet::new());
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = home.join(&folder);
        let listed = fs::read_dir(&at).map_err(ReleaseError::disk("list", &at))?;
        for entry in listed {
            let entry = entry.map_err(ReleaseError::disk("list", &at))?;
            let (path, inside) = (entry.path(), folder.join(entry.file_name()));
            let about = entry
                .metadata()
                .map_err(ReleaseError::disk("look at", &path))?;
            let kind = about.file_type();
            let runs = about.mode() & 0o111 != 0;
            if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(ReleaseError::disk("read", &path))?;
                targets.insert(inside, target);
                continue;
            }
            if kind.is_dir() {
                set_mode(&path, &about, 0o755)?;
                folders.push(inside);
            } else if kind.is_file() {
                set_mode(&path, &about, if runs { 0o755 } else { 0o644 })?;
                found.has_file = true;
                if about.nlink() == 1 || counted.insert((about.dev(), about.ino())) {
                    found.size += about.len();
                }
            } else {
                return Err(ReleaseError::Refused {
                    path: inside,
                    why: "is neither a file nor a directory nor a symlink",
                });
            }
            found.solid.push(path);
        }
    }
    if links == Links::Inside {
        let link_at = |path: &Path| targets.get(path).map(PathBuf::as_path);
        for (path, target) in &targets {
            if !stays_inside(link_at, path, target) {
                return Err(ReleaseError::Refused {
                    path: path.clone(),
                    why: "is a symlink that leaves the release",
                });
            }
        }
    }
    Ok(found)
}

fn set_mode(path: &Path, about: &fs::Metadata, mode: u32) -> Result<(), ReleaseError> {
    if about.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ReleaseError::disk("set the mode of", path))
}

pub(super) fn make_directory(path: &Path) -> Result<(), ReleaseError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(ReleaseError::disk("make the directory", path))
}

fn sync(home: &Path, found: &Found) -> Result<(), ReleaseError> {
    if found.solid.len() > SYNCED_SINGLY {
        let directory = File::open(home).map_err(ReleaseError::disk("open", home))?;
        return nix::unistd::syncfs(directory.as_fd())
            .map_err(|error| ReleaseError::disk("sync the file system of", home)(error.into()));
    }
    found.solid.iter().try_for_each(|path| sync_one(path))?;
    sync_one(home)
}

pub(super) fn sync_one(path: &Path) -> Result<(), ReleaseError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(ReleaseError::disk("sync", path))
}
