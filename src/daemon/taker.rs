//! slotd's side of the conversation with a fetcher.
//!
//! **Invariant:** what a fetcher sends is what slotd has asked for, and no more than it has said beforehand; a stranger's server speaks to
//! it.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::str::FromStr;

use super::commits;
use super::errand::Broken;
use crate::config::is_ref_name;
use crate::deploy::{ReleaseId, UnitFailure};
use crate::git::{Commit, GitError, Held, Oid};
use crate::preflight;
use crate::release::{self, Identity, ReleaseError, Root};
use crate::telemetry::{bytes, chain};
use crate::wire::fetch::{FromPieces, Order, Word, write_line};
use crate::wire::release::{Content, Lacking};

/// The result of a fetch that did not end well by itself: what there is to say of it is a sentence.
pub(super) const TOLD: &str = "fetch-failed";

/// A fetcher may name so many files of Git LFS, as a caller may in his list.
const MOST_CONTENTS: usize = 150_000;

/// What a fetcher had.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) commit: Commit,
    pub(super) reference: Option<String>,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A commit whose release is on disk.
    Known(ReleaseId),
    /// The commit, in the store.
    Taken(Held),
}

/// Tells a fetcher what is wanted, and takes it.
pub(super) struct Taker<'r, W, T> {
    pub(super) root: &'r Root,
    /// How its release is made; one that was made otherwise is made anew.
    pub(super) made_with: Option<&'r str>,
    pub(super) held: Held,
    /// Whether there has to be room for what comes.
    pub(super) check: bool,
    pub(super) wanted: W,
    /// Is told how far it has come.
    pub(super) tell: T,
}

impl<W: Fn() -> bool, T: Fn(String)> Taker<'_, W, T> {
    pub(super) fn take(self, stream: &UnixStream, order: &Order) -> Result<Came, Broken> {
        let mut to = stream;
        let mut from = BufReader::with_capacity(1 << 16, stream);
        let (commit, reference) = ask(stream, &mut from, order)?;
        let meant = match reference.as_deref().filter(|it| *it != commit.as_str()) {
            Some(name) => format!("{name} is {}", commit.short()),
            None => format!("commit {}", commit.short()),
        };
        (self.tell)(meant.clone());
        let identity = Identity::Commit(commit.to_string());
        let id = identity.id().ok_or(ReleaseError::Nameless);
        let id = id.map_err(|error| not_taken(&error))?;
        let known = release::known(self.root, &identity, self.made_with);
        let known = known.map_err(|error| not_taken(&error))?;
        if let Some(known) = known {
            return Ok(Came {
                commit,
                reference,
                what: What::Known(known),
            });
        }
        let mut expected = Expected::default();
        loop {
            match next(&mut from)? {
                Word::Needed { contents, is_last } => {
                    let lacking = self.needed(contents, &mut expected)?;
                    if is_last && !expected.lacked.is_empty() {
                        let size = bytes(expected.to_come);
                        (self.tell)(format!("{meant}, with {size} of Git LFS"));
                    }
                    write_line(&mut to, &Lacking { lacking }).map_err(|error| broke_off(&error))?;
                }
                Word::Content(Content { oid, .. }) => {
                    let oid: Oid = read(&oid)?;
                    let size = expected.lacked.remove(&oid).ok_or_else(no_sense)?;
                    expected.to_come = expected.to_come.saturating_sub(size);
                    let content = FromPieces::of(&mut from);
                    let taken = self.held.take_content(&oid, size, content, &self.wanted);
                    taken.map_err(refused)?;
                }
                Word::Part { commit: part } => {
                    let part: Commit = read(&part)?;
                    let pack = FromPieces::of(&mut from);
                    if part == commit {
                        let taken = self.held.take(&part, &id, pack, &self.wanted);
                        taken.map_err(refused)?;
                        return Ok(Came {
                            commit,
                            reference,
                            what: What::Taken(self.held),
                        });
                    }
                    let taken = self.held.take_module(&part, pack, &self.wanted);
                    taken.map_err(refused)?;
                }
                Word::Named { .. } | Word::Failed { .. } => return Err(no_sense()),
            }
        }
    }

    /// Which of these contents are to be sent.
    fn needed(
        &self,
        contents: Vec<Content>,
        expected: &mut Expected,
    ) -> Result<Vec<String>, Broken> {
        let contents = contents.into_iter().map(|it| Ok((read(&it.oid)?, it.size)));
        let contents: Vec<(Oid, u64)> = contents.collect::<Result<_, Broken>>()?;
        expected.named += contents.len();
        if expected.named > MOST_CONTENTS {
            return Err(told(format!(
                "the commit has more than {MOST_CONTENTS} files of Git LFS"
            )));
        }
        let mut lacked = commits::lacked(self.root, &contents);
        lacked.retain(|oid, _| !expected.lacked.contains_key(oid));
        let sum = |sum: u64, size: &u64| sum.saturating_add(*size);
        expected.to_come = lacked.values().fold(expected.to_come, sum);
        let sizes = contents.iter().map(|(_, size)| size);
        expected.laid_out = sizes.fold(expected.laid_out, sum);
        let needed = expected.to_come.saturating_add(expected.laid_out);
        if self.check
            && !lacked.is_empty()
            && let Some(why) = preflight::short_of_disk(self.root, Some(needed))
        {
            return Err(told(why));
        }
        let lacking = lacked.keys().map(ToString::to_string).collect();
        expected.lacked.append(&mut lacked);
        Ok(lacking)
    }
}

/// Tells a fetcher what is wanted, and hears which commit that is.
fn ask(
    mut to: &UnixStream,
    from: &mut BufReader<&UnixStream>,
    order: &Order,
) -> Result<(Commit, Option<String>), Broken> {
    write_line(&mut to, order).map_err(|error| broke_off(&error))?;
    let Word::Named { commit, reference } = next(from)? else {
        return Err(no_sense());
    };
    // It becomes a part of what is remembered.
    let known = |name: &String| is_ref_name(name) || name.parse::<Commit>().is_ok();
    Ok((read(&commit)?, reference.filter(known)))
}

/// The same, and no more: the fetcher ends with the connection.
pub(super) fn look(stream: &UnixStream, order: &Order) -> Result<(Commit, Option<String>), Broken> {
    ask(stream, &mut BufReader::new(stream), order)
}

/// The contents of Git LFS that a fetcher has told of.
#[derive(Default)]
struct Expected {
    /// So many files.
    named: usize,
    /// What they take in the release, in bytes.
    laid_out: u64,
    /// What is to come, in bytes.
    to_come: u64,
    /// Each of that.
    lacked: BTreeMap<Oid, u64>,
}

/// What a fetcher says next, unless that is why there is no more.
fn next(from: &mut BufReader<&UnixStream>) -> Result<Word, Broken> {
    match Word::read(from) {
        Ok(Word::Failed { said }) => Err(told(said)),
        word => word.map_err(|error| broke_off(&error)),
    }
}

/// The commit or the content that a fetcher names.
fn read<N: FromStr>(digits: &str) -> Result<N, Broken>
where
    GitError: From<N::Err>,
{
    let read = digits.parse();
    read.map_err(|error| refused(GitError::from(error)))
}

fn no_sense() -> Broken {
    broke_off(&io::ErrorKind::InvalidData.into())
}

fn broke_off(error: &io::Error) -> Broken {
    Broken::There(format!("broke off: {error}"))
}

pub(super) fn refused(error: GitError) -> Broken {
    match error {
        GitError::Torn { source, .. } | GitError::TornContent { source, .. } => broke_off(&source),
        error => not_taken(&error),
    }
}

fn not_taken(error: &dyn std::error::Error) -> Broken {
    told(chain(error))
}

/// That there is no more, in a sentence.
fn told(text: String) -> Broken {
    Broken::Here(UnitFailure {
        result: TOLD.into(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::git::Store;
    use crate::wire::fetch::{LIST, end_pieces, read_answer, send_pieces};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn content(bytes: &[u8]) -> Content {
        Content {
            oid: crate::wire::hex(&Sha256::digest(bytes)),
            size: bytes.len() as u64,
        }
    }

    /// What is said of a fetcher that does this once it has named its commit, in a store that is empty.
    fn said(fetcher: impl FnOnce(&mut BufReader<UnixStream>) + Send + 'static) -> String {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::from(directory.path());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fetching = thread::spawn(move || {
            let mut slotd = BufReader::new(theirs);
            let mut order = String::new();
            io::BufRead::read_line(&mut slotd, &mut order).unwrap();
            let named = Word::Named {
                commit: COMMIT.to_owned(),
                reference: None,
            };
            named.write(slotd.get_mut()).unwrap();
            fetcher(&mut slotd);
        });
        let order = Order {
            remote: "file:///shop".to_owned(),
            reference: None,
            have: Vec::new(),
        };
        let taker = Taker {
            root: &root,
            made_with: None,
            held: Store::of(&root).hold().unwrap(),
            check: true,
            wanted: || true,
            tell: |_| (),
        };
        let broken = taker.take(&ours, &order).unwrap_err();
        drop(ours);
        fetching.join().unwrap();
        // Whatever it was, nothing of it is kept.
        assert!(!directory.path().join("repo.git/large").exists());
        match broken {
            Broken::Here(failure) => failure.text.to_string(),
            Broken::There(text) => text,
        }
    }

    fn need(slotd: &mut BufReader<UnixStream>, contents: Vec<Content>) -> Vec<String> {
        let needed = Word::Needed {
            contents,
            is_last: true,
        };
        needed.write(slotd.get_mut()).unwrap();
        read_answer(slotd).unwrap().lacking
    }

    fn send(slotd: &mut BufReader<UnixStream>, content: Content, bytes: &[u8]) {
        let mut to = slotd.get_ref();
        // Who is refused in the midst of it may be gone.
        let _ = Word::Content(content)
            .write(&mut to)
            .and_then(|()| send_pieces(bytes, &mut to))
            .and_then(|()| end_pieces(&mut to));
    }

    #[test]
    fn a_content_that_was_not_asked_for_is_not_taken() {
        let text = said(|slotd| send(slotd, content(b"unasked"), b"unasked"));
        assert!(text.contains("broke off"), "{text}");
        let text = said(|slotd| {
            assert_eq!(need(slotd, vec![content(b"asked")]).len(), 1);
            send(slotd, content(b"other"), b"other");
        });
        assert!(text.contains("broke off"), "{text}");
    }

    #[test]
    fn a_content_that_is_not_what_its_pointer_says_is_not_taken() {
        for (sent, wanted) in [
            (&b"wrong"[..], "its SHA-256 is"),
            (b"asked and more", "goes on"),
            (b"as", "it ends after 2 of 5"),
        ] {
            let text = said(move |slotd| {
                need(slotd, vec![content(b"asked")]);
                send(slotd, content(b"asked"), sent);
            });
            assert!(text.contains(wanted), "{text}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_refused_before_it_comes() {
        let text = said(|slotd| {
            let vast = Content {
                size: u64::MAX / 4,
                ..content(b"vast")
            };
            let contents = vec![vast];
            let needed = Word::Needed {
                contents,
                is_last: true,
            };
            needed.write(slotd.get_mut()).unwrap();
            assert!(read_answer(slotd).is_err());
        });
        assert!(text.contains("the release takes"), "{text}");
    }

    #[test]
    fn a_fetcher_that_names_contents_for_ever_is_given_up() {
        let text = said(|slotd| {
            let one = content(b"");
            for _ in 0..=MOST_CONTENTS / LIST {
                let contents = vec![one.clone(); LIST];
                let needed = Word::Needed {
                    contents,
                    is_last: true,
                };
                if needed.write(slotd.get_mut()).is_err() || read_answer(slotd).is_err() {
                    return;
                }
            }
            panic!("it was never given up");
        });
        assert!(text.contains("more than 150000 files"), "{text}");
    }
}
