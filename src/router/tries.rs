//! How often each connection that was left was tried to be picked up, written where the end of a process does not reach it: one that
//! makes every process crash that touches it is given up, and not tried for ever.
//!
//! **Invariant:** a try is written before anything of the connection is touched, and taken back once its bytes have begun to flow.
//!
//! **Invariant:** the service manager keeps what is written, and only for as long as something is still to be picked up.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::keep::{self, Left};

/// What the file is kept as.
pub const NAME: &str = "kept.tries";

/// What has been tried so often, and each time the process ended, is tried no more.
const MOST: u8 = 2;

/// `1 00000000000000123456`: the tries, a digit, and the inode of the client's socket, which is no other's while something has it open.
const LINE: u64 = 23;

/// A file in memory with a line for each connection.
#[derive(Debug)]
struct Written(File);

impl Drop for Written {
    fn drop(&mut self) {
        if let Err(error) = keep::forget(NAME) {
            tracing::warn!(
                "the service manager still keeps how often streams were picked up: {error}"
            );
        }
    }
}

/// A connection's place there.
#[derive(Debug)]
pub struct Try {
    written: Arc<Written>,
    line: u64,
    before: u8,
}

impl Try {
    /// The connection is about to be touched.
    pub fn begin(&self) {
        self.write(self.before + 1);
    }

    /// Its bytes flow.
    pub fn is_over(self) {
        self.write(0);
    }

    fn write(&self, tries: u8) {
        let file = &self.written.0;
        if let Err(error) = file.write_all_at(&[b'0' + tries], self.line * LINE) {
            tracing::warn!("cannot note that a stream is picked up: {error}");
        }
    }
}

/// Gives each its place in `file`, a new one if there is none, and gives up what has ended as many processes as it may.
pub fn admit(file: Option<OwnedFd>, left: Vec<Left>) -> Vec<Left> {
    if left.is_empty() {
        // Then there is nothing to be said of it either.
        drop(file.map(|file| Written(file.into())));
        return left;
    }
    let (known, file) = match file {
        Some(file) => (true, Ok(file.into())),
        None => (false, new()),
    };
    let admitted = file.and_then(|mut file: File| {
        let before = read(&mut file)?;
        Ok((file, before))
    });
    let (file, before) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => {
            tracing::warn!(
                "cannot note which streams are picked up: one that ends this process would end the next one too: {error}"
            );
            return left;
        }
    };
    let written = Arc::new(Written(file));
    let mut admitted = Vec::with_capacity(left.len());
    let mut lines = String::with_capacity(left.len() * LINE as usize);
    for mut left in left {
        let before = before.get(&left.inode).copied().unwrap_or(0);
        if before >= MOST {
            let label = &left.label;
            tracing::error!(
                slot_app = label.run.app,
                slot_name = label.run.slot,
                request_id = label.id,
                "a {} was being picked up when the router crashed, {before} times; it is cut now, so that the router does not crash again: {}@{}, {}",
                label.class.name(),
                label.run.app,
                label.run.slot,
                label.route
            );
            give_up(&left.name);
            continue;
        }
        left.tried = Some(Try {
            written: Arc::clone(&written),
            line: admitted.len() as u64,
            before,
        });
        lines.push_str(&format!("{before} {:020}\n", left.inode));
        admitted.push(left);
    }
    let all = written.0.set_len(0);
    let all = all.and_then(|()| written.0.write_all_at(lines.as_bytes(), 0));
    // It has to be kept before anything is touched.
    let all = all.and_then(|()| match known {
        true => Ok(()),
        false => keep::store(NAME, written.0.as_fd()),
    });
    if let Err(error) = all {
        tracing::warn!("it is not noted which streams are picked up: {error}");
    }
    admitted
}

/// Has nobody keep it any more. With the last descriptor, which is closed by the caller, the connection ends by a reset.
pub fn give_up(name: &str) {
    if let Err(error) = keep::forget(name) {
        tracing::warn!("the service manager still keeps a stream that was given up: {error}");
    }
}

fn new() -> io::Result<File> {
    Ok(memfd_create("slot-router-tries", MFdFlags::MFD_CLOEXEC)?.into())
}

/// The tries by the inodes. A line that makes no sense is none.
fn read(file: &mut File) -> io::Result<HashMap<u64, u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| {
        let (tries, inode) = line.split_once(' ')?;
        Some((inode.parse().ok()?, tries.parse().ok()?))
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::super::counts::{Class, RunName};
    use super::super::label::Label;
    use super::*;

    fn left(inode: u64) -> Left {
        let fd = || -> OwnedFd { new().expect("memory").into() };
        Left {
            name: format!("kept.{inode}"),
            label: Label {
                id: String::new(),
                class: Class::Tunnel,
                run: RunName {
                    app: "web".to_owned(),
                    slot: "blue".to_owned(),
                    boot_id: None,
                },
                since_ms: 0,
                route: String::new(),
                method: String::new(),
                status: 101,
                client: String::new(),
            },
            client: fd(),
            upstream: fd(),
            down: (fd(), fd()),
            up: None,
            inode,
            tried: None,
        }
    }

    /// What a process goes on with, of these; it ends in the middle of `last`, with all before it under way.
    fn crashes(file: &File, inodes: &[u64], last: u64) -> Vec<u64> {
        let file = file.try_clone().expect("a copy");
        let admitted = admit(
            Some(file.into()),
            inodes.iter().copied().map(left).collect(),
        );
        let all = admitted.iter().map(|left| left.inode).collect();
        for left in admitted {
            let tried = left.tried.expect("it has a place");
            tried.begin();
            if left.inode == last {
                break;
            }
            tried.is_over();
        }
        all
    }

    #[test]
    fn only_what_two_processes_ended_on_is_given_up_however_many_ended_before_they_came_to_it() {
        let file = new().expect("memory");
        assert_eq!(crashes(&file, &[1, 2, 3, 4], 3), [1, 2, 3, 4]);
        assert_eq!(crashes(&file, &[1, 2, 3, 4], 2), [1, 2, 3, 4]);
        assert_eq!(crashes(&file, &[1, 2, 3, 4], 3), [1, 2, 3, 4]);
        assert_eq!(crashes(&file, &[1, 2, 3, 4], 4), [1, 2, 4]);
        assert_eq!(crashes(&file, &[1, 2, 4], 0), [1, 2, 4]);
        assert_eq!(
            crashes(&file, &[1, 2, 4], 4),
            [1, 2, 4],
            "it went well between"
        );
    }
}
