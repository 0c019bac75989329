//! What kept connections are, written in a file in memory that the service manager keeps beside them.
//!
//! systemd passes the names of all that it keeps in one string of the environment (`$LISTEN_FDNAMES`), and Linux
//! starts no program with such a string of more than 128 KiB (execve(2), `E2BIG`): a router that has left much under
//! long names could never be started again. So a name is a line's number, and what it stands for is in that line.
//!
//! **Invariant:** a line is written before anything is kept by its name, and is written anew only after that is kept
//! no more.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// What the file is kept as.
pub const NAME: &str = "kept.book";

/// How the names begin that stand for a line.
const MARK: char = '~';

/// Bytes of a line, with zeros behind its text.
const LINE: usize = 256;

/// The lines of one instance.
#[derive(Debug)]
pub struct Book {
    file: File,
    /// The service manager has said that it has the file.
    is_kept: AtomicBool,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// All lines from here on are unused.
    next: u64,
    /// Lines before that which are unused.
    free: Vec<u64>,
}

impl Book {
    /// One without lines, which nobody keeps yet.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn new() -> io::Result<Self> {
        let file = memfd_create("slot-router-book", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self {
            file: file.into(),
            is_kept: AtomicBool::new(false),
            places: Mutex::default(),
        })
    }

    /// The one that the process before this one has left.
    #[must_use]
    pub fn left(file: OwnedFd) -> Self {
        Self {
            file: file.into(),
            is_kept: AtomicBool::new(true),
            places: Mutex::default(),
        }
    }

    /// Whether a name stands for a line.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        name.starts_with(MARK)
    }

    /// What a name stands for.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<String> {
        let mut line = [0; LINE];
        let at = place(name)?.checked_mul(LINE as u64)?;
        self.file.read_exact_at(&mut line, at).ok()?;
        let end = line.iter().position(|b| *b == 0)?;
        String::from_utf8(line[..end].to_vec()).ok()
    }

    /// Leaves to those names the lines that they stand for. Before anything else is entered.
    pub fn go_on<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut used: Vec<u64> = names.filter_map(place).collect();
        used.sort_unstable();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.next = used.last().map_or(0, |last| last + 1);
        places.free = (0..places.next)
            .filter(|place| used.binary_search(place).is_err())
            .collect();
    }

    /// Writes a line; returns the name that stands for it, which has four characters for each of the first 4096.
    ///
    /// # Errors
    /// There is no memory, or it does not fit into a line.
    pub fn enter(&self, text: &str) -> io::Result<String> {
        let mut line = [0; LINE];
        let room = &mut line[..LINE - 1];
        let room = room.get_mut(..text.len());
        room.ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(text.as_bytes());
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.free.pop().unwrap_or_else(|| {
                places.next += 1;
                places.next - 1
            })
        };
        let name = format!("{MARK}{place:x}");
        let written = self.file.write_all_at(&line, place * LINE as u64);
        match written {
            Ok(()) => Ok(name),
            Err(error) => {
                self.leave(&name);
                Err(error)
            }
        }
    }

    /// Nothing is kept by this name any more.
    pub fn leave(&self, name: &str) {
        if let Some(place) = place(name) {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.free.push(place);
        }
    }

    /// The file, if it is not known that it is kept.
    pub fn unkept(&self) -> Option<BorrowedFd<'_>> {
        let is_kept = self.is_kept.load(Ordering::Relaxed);
        (!is_kept).then(|| self.file.as_fd())
    }

    /// The service manager has said that it has it.
    pub fn confirm(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }
}

fn place(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(MARK)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_by_its_name_also_by_the_next_process() {
        let book = Book::new().expect("memory");
        let names: Vec<_> = (0..4096)
            .map(|n| book.enter(&format!("line {n}")).expect("memory"))
            .collect();
        assert!(names.iter().all(|name| name.len() <= 4));
        book.leave(&names[7]);
        let next = Book::left(book.file.try_clone().expect("a copy").into());
        next.go_on(names[..9].iter().map(String::as_str).filter(|n| *n != "~7"));
        assert_eq!(next.read("~8").as_deref(), Some("line 8"));
        assert_eq!(next.enter("new").expect("memory"), "~7");
        assert_eq!(next.enter("more").expect("memory"), "~9");
        assert_eq!(book.read("~7").as_deref(), Some("new"));
    }

    #[test]
    fn what_is_no_name_or_stands_for_nothing_is_nothing() {
        let book = Book::new().expect("memory");
        book.enter(&"x".repeat(LINE - 1)).expect("it fits");
        assert!(book.enter(&"x".repeat(LINE)).is_err());
        for name in ["~1", "~", "0", "~-1", "~ffffffffffffffff", "http"] {
            assert_eq!(book.read(name), None, "{name}");
        }
    }
}
