//! `slotctl fetch`: the `ExecStart=` of `slot-fetch@`, and a child of `slotctl start`. It fetches a commit where slotd does not:
//! from outside of the machine, with the deploy key.
//!
//! slotd says what is wanted and what it has; what it lacks is fetched into a mirror and packed for it, and what Git LFS keeps of it sent
//! before. What git, git-lfs and ssh say is told to slotd when they fail, and is in the journal.
//!
//! **Invariant:** it fetches from the remote that its own command line names, whatever slotd says, and from those that a commit of it names
//! as its submodules' and its server of Git LFS, which may tell git-lfs of others by http; ssh believes no host but the known ones.
//! **Invariant:** it ends when slotd's side is closed, with all that it has started: a fetch that nobody waits for does not go on.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::build::called;
use super::large::content;
use super::launch::Failure;
use super::term::note;
use crate::git::{Commit, Keys, Large, Mirror, Part};
use crate::telemetry::{bytes, chain};
use crate::wire::fetch::{LIST, Order, Word, end_pieces, read_answer, send_pieces};
use crate::wire::release::Lacking;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--socket`: where slotd waits.
    pub socket: PathBuf,
    /// `--mirror`.
    pub mirror: PathBuf,
    /// `--deploy-key`.
    pub deploy_key: Option<PathBuf>,
    /// `--known-hosts`.
    pub known_hosts: Option<PathBuf>,
    /// What follows `--`.
    pub remote: String,
}

/// Nothing more particular is known.
const FAILED: u8 = 1;
/// `CONFIG` (systemd.exec(5), "Process exit codes"): the unit is not of the app's file.
const BAD_CONFIG: u8 = 78;

/// So much of a reason is told to slotd, in characters, whatever a server has said: a line has a limit.
const LONGEST_REASON: usize = 4000;

/// Fetches one commit.
///
/// # Errors
/// It cannot be had, or slotd is gone.
pub fn fetch(request: &Request) -> Result<(), Failure> {
    let (stream, order) = called::<Order>(&request.socket, "fetch").map_err(failed(FAILED))?;
    let watched = stream.try_clone().context("cannot answer slotd");
    let watched = watched.map_err(failed(FAILED))?;
    let handed_over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&handed_over);
    let (answers, answered) = sync_channel(1);
    std::thread::spawn(move || listen(watched, &answers, &done));
    let mut to = BufWriter::with_capacity(1 << 17, &stream);
    if order.remote != request.remote {
        let error = anyhow!(
            "slotd says that the remote is {:?}, and the unit {:?}; `systemctl daemon-reload` makes the unit anew, then deploy again",
            order.remote,
            request.remote
        );
        return Err(told(&mut to, BAD_CONFIG, error));
    }
    match send(request, &order, &mut to, &answered, &handed_over) {
        Ok(()) => {
            // slotd closes its side when it has read the end.
            let _ = stream.shutdown(Shutdown::Write);
            Ok(())
        }
        Err(error) => Err(told(&mut to, FAILED, error)),
    }
}

/// Sends all that slotd lacks of the commit.
fn send(
    request: &Request,
    order: &Order,
    to: &mut impl Write,
    answered: &Receiver<Lacking>,
    handed_over: &AtomicBool,
) -> anyhow::Result<()> {
    let keys = Keys {
        deploy_key: request.deploy_key.as_deref(),
        known_hosts: request.known_hosts.as_deref(),
    };
    let mirror = Mirror::open(&request.mirror, &request.remote, keys)?;
    let meant = mirror.resolve(order.reference.as_deref())?;
    note(&format!(
        "slotctl: {} is {} at {}\n",
        meant.reference.as_deref().unwrap_or("HEAD"),
        meant.commit,
        request.remote
    ));
    let named = Word::Named {
        commit: meant.commit.to_string(),
        reference: meant.reference,
    };
    named.write(to).and_then(|()| to.flush())?;
    let parts = mirror.fetch(&meant.commit)?;
    let mut have: Vec<Commit> = order.have.iter().filter_map(|it| it.parse().ok()).collect();
    let mut keep: BTreeSet<Commit> = have.iter().cloned().collect();
    for part in parts {
        send_contents(&part, to, answered)?;
        let word = Word::Part {
            commit: part.commit.to_string(),
        };
        word.write(to)?;
        if !have.contains(&part.commit) {
            send_pieces(part.pack(&have)?, to)?;
            have.push(part.commit.clone());
        }
        if part.commit == meant.commit {
            // slotd wants nothing more from here on.
            handed_over.store(true, Ordering::SeqCst);
        }
        end_pieces(to)?;
        keep.insert(part.commit);
    }
    if let Err(error) = mirror.keep(&keep) {
        // It takes room, and goes with the next.
        note(&format!("slotctl: {}\n", chain(&error)));
    }
    Ok(())
}

/// Sends what slotd lacks of what Git LFS keeps of a commit, each content once.
fn send_contents(
    part: &Part,
    to: &mut impl Write,
    answered: &Receiver<Lacking>,
) -> anyhow::Result<()> {
    let files = part.large()?;
    let mut lacking = BTreeSet::new();
    let mut lists = files.chunks(LIST).peekable();
    while let Some(list) = lists.next() {
        let needed = Word::Needed {
            contents: list.iter().map(content).collect(),
            is_last: lists.peek().is_none(),
        };
        needed.write(to)?;
        to.flush()?;
        lacking.extend(answered.recv().context("slotd is gone")?.lacking);
    }
    // Each with the first file that has it.
    let lacked: Vec<&Large> = files
        .iter()
        .filter(|file| lacking.remove(file.oid.as_str()))
        .collect();
    if lacked.is_empty() {
        return Ok(());
    }
    let shelf = part.shelf()?;
    let absent = shelf.absent(&lacked);
    if let Some(first) = absent.first() {
        let sizes = absent.iter().map(|file| file.size);
        note(&format!(
            "slotctl: {} of Git LFS to be fetched, the first for {:?}\n",
            bytes(sizes.fold(0, u64::saturating_add)),
            first.path
        ));
        let all: BTreeSet<&str> = files.iter().map(|file| file.oid.as_str()).collect();
        shelf.fetch(&absent, absent.len() == all.len())?;
    }
    for file in lacked {
        let opened = shelf.open(file)?;
        Word::Content(content(file)).write(to)?;
        send_pieces(opened, to)?;
        // slotd has it then, or refuses it because it was damaged here: the next fetch gets it anew.
        shelf.remove(file)?;
        end_pieces(to)?;
    }
    Ok(())
}

fn failed(code: u8) -> impl Fn(anyhow::Error) -> Failure {
    move |error| Failure { code, error }
}

/// Tells slotd too. In the midst of a pack it cannot be told; it sees the end of the connection then, and the journal has the rest.
fn told(to: &mut impl Write, code: u8, error: anyhow::Error) -> Failure {
    let said = chain(error.as_ref()).chars().take(LONGEST_REASON).collect();
    let word = Word::Failed { said };
    let _ = word.write(to).and_then(|()| to.flush());
    failed(code)(error)
}

/// Passes on what slotd answers. When its side is closed, nobody waits any more.
fn listen(slotd: UnixStream, answers: &SyncSender<Lacking>, handed_over: &AtomicBool) {
    let mut slotd = BufReader::new(slotd);
    while let Ok(answer) = read_answer(&mut slotd) {
        if answers.send(answer).is_err() {
            break;
        }
    }
    if handed_over.load(Ordering::SeqCst) {
        return;
    }
    note("slotctl: slotd wants nothing more, and so this ends\n");
    // git and ssh are of this process's group, which has nobody else in it.
    if nix::unistd::getpgrp() == Pid::this() {
        let _ = kill(Pid::from_raw(0), Signal::SIGTERM);
    }
    std::process::exit(FAILED.into());
}
