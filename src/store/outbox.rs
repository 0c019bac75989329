//! What is to be sent elsewhere, a file each, until it has been.
//!
//! ```text
//! /var/lib/slot/<app>/notices/<box>/<number>.json     the body, as it is sent
//! ```
//! A box is for one receiver; what is in it is sent in the order of its numbers.
//!
//! **Invariant:** a file is there whole or not at all, and goes only when it was sent, or given up, or a newer one needs its place.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{FileError, replace, sync_directory};

/// How many a box holds.
pub const MOST_KEPT: usize = 1000;

/// An app's boxes.
#[derive(Clone, Debug)]
pub struct Outbox {
    path: PathBuf,
}

impl Outbox {
    /// Those below a directory, which is made when something is put there.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Puts something into a box; again, it is the same as once. Gives how many had to go for it, the oldest first.
    ///
    /// # Errors
    /// It is not there.
    pub fn put(&self, to: &str, number: u64, body: &[u8]) -> Result<usize, FileError> {
        let directory = self.path.join(to);
        if !directory.is_dir() {
            fs::create_dir_all(&directory).map_err(FileError::of("make", &directory))?;
            sync_directory(&directory)?;
            sync_directory(&self.path)?;
        }
        let held = self.numbers(to)?;
        let others = held.iter().filter(|it| **it != number);
        let surplus = (others.clone().count() + 1).saturating_sub(MOST_KEPT);
        for number in others.take(surplus) {
            self.remove(to, *number)?;
        }
        replace(&self.file(to, number), body, 0o600)?;
        Ok(surplus)
    }

    /// The numbers of what is in a box, oldest first.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn numbers(&self, to: &str) -> Result<BTreeSet<u64>, FileError> {
        let directory = self.path.join(to);
        let listed = match fs::read_dir(&directory) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(FileError::of("list", &directory)(error)),
        };
        let number = |name: &Path| name.to_str()?.strip_suffix(".json")?.parse().ok();
        let names = listed.filter_map(|entry| number(Path::new(&entry.ok()?.file_name())));
        Ok(names.collect())
    }

    /// What is in a box under a number; nothing, if it is gone.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, to: &str, number: u64) -> Result<Option<String>, FileError> {
        let path = self.file(to, number);
        match fs::read_to_string(&path) {
            Ok(body) => Ok(Some(body)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("read", &path)(error)),
        }
    }

    /// Takes something out. It may come back where the machine loses power at once.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, to: &str, number: u64) -> Result<(), FileError> {
        let path = self.file(to, number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FileError::of("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes every box but these.
    ///
    /// # Errors
    /// One is still there.
    pub fn retain(&self, boxes: &BTreeSet<String>) -> Result<(), FileError> {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let known = (entry.file_name().to_str()).is_some_and(|name| boxes.contains(name));
            if !known {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(FileError::of("remove", &path))?;
            }
        }
        Ok(())
    }

    fn file(&self, to: &str, number: u64) -> PathBuf {
        self.path.join(to).join(format!("{number:020}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (tempfile::TempDir, Outbox) {
        let directory = tempfile::tempdir().unwrap();
        let outbox = Outbox::at(directory.path().join("notices"));
        (directory, outbox)
    }

    #[test]
    fn what_is_put_is_there_once_and_in_order_until_it_is_removed() {
        let (_directory, outbox) = outbox();
        for number in [9, 100, 10, 10] {
            outbox
                .put("a", number, number.to_string().as_bytes())
                .unwrap();
        }
        assert_eq!(outbox.numbers("a").unwrap(), BTreeSet::from([9, 10, 100]));
        assert_eq!(outbox.read("a", 10).unwrap().unwrap(), "10");
        outbox.remove("a", 10).unwrap();
        outbox.remove("a", 10).unwrap();
        assert_eq!(outbox.read("a", 10).unwrap(), None);
        assert_eq!(outbox.numbers("b").unwrap(), BTreeSet::new());
        outbox.retain(&BTreeSet::from(["b".to_owned()])).unwrap();
        assert_eq!(outbox.numbers("a").unwrap(), BTreeSet::new());
    }

    #[test]
    fn of_a_full_box_the_oldest_goes_and_what_is_put_again_takes_no_other_place() {
        let (_directory, outbox) = outbox();
        fs::create_dir_all(outbox.path.join("a")).unwrap();
        for number in 1..=MOST_KEPT as u64 {
            fs::write(outbox.file("a", number), "").unwrap();
        }
        assert_eq!(outbox.put("a", 7, b"").unwrap(), 0);
        assert_eq!(outbox.put("a", 5000, b"").unwrap(), 1);
        let held = outbox.numbers("a").unwrap();
        assert_eq!((held.len(), held.first()), (MOST_KEPT, Some(&2)));
    }
}
