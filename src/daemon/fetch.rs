//! Commits that slotd has fetched for it: by a unit, or a child, that has the key and asks the remote, which slotd does not.
//!
//! What the fetcher sends is taken the way that an upload is, and looked over as one.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::Arc;

use super::app::Managed;
use super::commits::{CHECKOUT, lacked, lay_out_taken};
use super::errand::{Broken, Call};
use super::live::blocking;
use super::prepare::{Preparation, Unready};
use super::tell;
use super::units::{Unbuilt, Units};
use crate::config::{App, Remote, is_ref_name};
use crate::deploy::{Generation, Label, ReleaseId, UnitFailure, UnitResult};
use crate::git::{Commit, GitError, Held, Oid, Store};
use crate::preflight;
use crate::release::{self, About, Identity, ReleaseError, Root};
use crate::telemetry::{bytes, chain};
use crate::wire::fetch::{FromPieces, Order, Word, write_line};
use crate::wire::release::{Content, Lacking, Origin};

/// The step in which a commit is fetched.
pub(super) const FETCH: &str = "fetch";

/// The result of a fetch that did not end well by itself: what there is to say of it is a sentence.
const TOLD: &str = "fetch-failed";

/// A fetcher may name so many files of Git LFS, as a caller may in his list.
const MOST_CONTENTS: usize = 150_000;

/// What a fetcher had.
#[derive(Debug)]
struct Came {
    commit: Commit,
    reference: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A commit whose release is on disk.
    Known(ReleaseId),
    /// The commit, in the store.
    Taken(Held),
}

impl<U: Units> Managed<U> {
    /// Why nothing can be fetched for the app, if that can be told beforehand.
    #[must_use]
    pub fn no_remote(&self) -> Option<String> {
        let app = self.app();
        match &app.remote {
            None => Some(format!(
                "{} has no remote to fetch from; write `[git]` and `remote = \"git@example.org:me/shop.git\"` into its slot.toml, then \
                 `slotctl app add`; or deploy out of a repository here",
                app.name
            )),
            Some(remote) => remote
                .key_problem()
                .map(|problem| format!("deploy_key: {problem}")),
        }
    }

    /// Puts a deployment on its way with a commit that is fetched from the app's remote: that of a branch, a tag or its whole name;
    /// without one of the app's `branch`, or what the remote's HEAD names. With `check`, there has to be room for what Git LFS keeps of
    /// it. Returns at once.
    pub fn fetch(
        &self,
        generation: Generation,
        reference: Option<String>,
        label: Option<Label>,
        check: bool,
    ) {
        let origin = Origin::Unknown;
        let preparation = self.preparation(generation, About { origin, label });
        let world = Arc::clone(&preparation.world);
        tokio::spawn(async move {
            let Some(remote) = world.app.remote.clone() else {
                // Who asks has asked for that.
                return preparation.go_on(Err(ReleaseError::Unwanted.into())).await;
            };
            let reference = reference.or_else(|| remote.branch.clone());
            let what = reference.as_deref().unwrap_or("HEAD");
            let text = format!("asks {} for {what}", remote.url);
            world.tell_step(generation, FETCH, text);
            preparation.fetched(&remote, reference, check).await
        });
    }
}

impl<U: Units> Preparation<U> {
    async fn fetched(
        mut self,
        remote: &Remote,
        reference: Option<String>,
        check: bool,
    ) -> Option<String> {
        let (root, wanted) = (self.world.root.clone(), self.wanted());
        let (url, tell) = (remote.url.clone(), self.tell());
        let exchange = move |call: &Call| {
            // What the fetcher leaves out, because it is here now, stays.
            let held = Store::of(&root).hold().map_err(refused)?;
            let have = Store::of(&root).have().map_err(refused)?;
            let order = Order {
                remote: url,
                reference,
                have: have.iter().map(ToString::to_string).collect(),
            };
            let wanted = || call.is_wanted() && wanted();
            let taker = Taker {
                root: &root,
                held,
                check,
                wanted,
                tell,
            };
            taker.take(&call.stream, &order)
        };
        let came = tokio::select! {
            came = self.world.units.fetch(exchange) => came,
            () = self.ended() => {
                self.world.units.end_fetch().await;
                return self.go_on(Err(ReleaseError::Unwanted.into())).await;
            }
        };
        let came = match came {
            Ok(came) => came,
            Err(unfetched) => {
                let why = why(&self.world.app, remote, &unfetched);
                let report = Box::new(unfetched.report);
                return self.go_on(Err(Unready::Unfetched { why, report })).await;
            }
        };
        self.about.origin = Origin::Git {
            commit: came.commit.to_string(),
            reference: came.reference,
        };
        let held = match came.what {
            What::Known(id) => return self.again(id).await,
            What::Taken(held) => held,
        };
        self.world.enter_step(self.generation, CHECKOUT);
        let (root, wanted) = (self.world.root.clone(), self.wanted());
        let laid_out = blocking(move || {
            let laid_out = lay_out_taken(&root, &held, &came.commit, wanted);
            laid_out.map(|laid_out| (laid_out, held))
        });
        let laid_out = laid_out.await.map(|(laid_out, held)| {
            self.held = Some(held);
            laid_out
        });
        self.go_on(laid_out).await
    }

    /// Tells how far it has come.
    fn tell(&self) -> impl Fn(String) + Send + 'static {
        let (world, generation) = (Arc::clone(&self.world), self.generation);
        move |text| world.tell_step(generation, FETCH, text)
    }
}

/// Tells a fetcher what is wanted, and takes it.
struct Taker<'r, W, T> {
    root: &'r Root,
    held: Held,
    /// Whether there has to be room for what comes.
    check: bool,
    wanted: W,
    tell: T,
}

impl<W: Fn() -> bool, T: Fn(String)> Taker<'_, W, T> {
    fn take(self, stream: &UnixStream, order: &Order) -> Result<Came, Broken> {
        let mut to = stream;
        write_line(&mut to, order).map_err(|error| broke_off(&error))?;
        let mut from = BufReader::with_capacity(1 << 16, stream);
        let Word::Named { commit, reference } = next(&mut from)? else {
            return Err(no_sense());
        };
        let commit: Commit = named(&commit)?;
        // It becomes a part of what is remembered, and comes from a unit that a stranger's server speaks to.
        let reference =
            reference.filter(|name| is_ref_name(name) || name.parse::<Commit>().is_ok());
        let meant = match reference.as_deref().filter(|it| *it != commit.as_str()) {
            Some(name) => format!("{name} is {}", commit.short()),
            None => format!("commit {}", commit.short()),
        };
        (self.tell)(meant.clone());
        let identity = Identity::Commit(commit.to_string());
        let id = identity.id().ok_or(ReleaseError::Nameless);
        let id = id.map_err(|error| not_taken(&error))?;
        let known = release::known(self.root, &identity).map_err(|error| not_taken(&error))?;
        if let Some(known) = known {
            return Ok(Came {
                commit,
                reference,
                what: What::Known(known),
            });
        }
        let mut large = Expected::default();
        loop {
            match next(&mut from)? {
                Word::Needed { contents } => {
                    let lacking = self.needed(contents, &mut large)?;
                    if !lacking.is_empty() {
                        let size = bytes(large.size());
                        (self.tell)(format!("{meant}, with {size} of Git LFS"));
                    }
                    write_line(&mut to, &Lacking { lacking }).map_err(|error| broke_off(&error))?;
                }
                Word::Content(Content { oid, .. }) => {
                    let oid: Oid = named(&oid)?;
                    let size = large.lacked.remove(&oid).ok_or_else(no_sense)?;
                    let content = FromPieces::of(&mut from);
                    let taken = self.held.take_content(&oid, size, content, &self.wanted);
                    taken.map_err(refused)?;
                }
                Word::Part { commit: part } => {
                    let part: Commit = named(&part)?;
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
    fn needed(&self, contents: Vec<Content>, large: &mut Expected) -> Result<Vec<String>, Broken> {
        let contents = contents
            .into_iter()
            .map(|it| Ok((named(&it.oid)?, it.size)));
        let contents: Vec<(Oid, u64)> = contents.collect::<Result<_, Broken>>()?;
        large.named += contents.len();
        if large.named > MOST_CONTENTS {
            return Err(told(format!(
                "the commit has more than {MOST_CONTENTS} files of Git LFS"
            )));
        }
        let (mut lacked, needed) = lacked(self.root, &contents);
        lacked.retain(|oid, _| !large.lacked.contains_key(oid));
        large.needed = large.needed.saturating_add(needed);
        if self.check
            && !lacked.is_empty()
            && let Some(why) = preflight::short_of_disk(self.root, Some(large.needed))
        {
            return Err(told(why));
        }
        let lacking = lacked.keys().map(ToString::to_string).collect();
        large.lacked.append(&mut lacked);
        Ok(lacking)
    }
}

/// The contents of Git LFS that a fetcher is to send.
#[derive(Default)]
struct Expected {
    /// Of so many files it has told.
    named: usize,
    /// How much disk they take, in bytes.
    needed: u64,
    /// Those that are to come, with their bytes.
    lacked: BTreeMap<Oid, u64>,
}

impl Expected {
    fn size(&self) -> u64 {
        let sizes = self.lacked.values();
        sizes.fold(0, |sum, size| sum.saturating_add(*size))
    }
}

/// What a fetcher says next, unless that is why there is no more.
fn next(from: &mut BufReader<&UnixStream>) -> Result<Word, Broken> {
    match Word::read(from) {
        Ok(Word::Failed { said }) => Err(told(said)),
        word => word.map_err(|error| broke_off(&error)),
    }
}

/// What a fetcher names.
fn named<N: FromStr>(digits: &str) -> Result<N, Broken>
where
    GitError: From<N::Err>,
{
    digits
        .parse()
        .map_err(|error| refused(GitError::from(error)))
}

fn no_sense() -> Broken {
    broke_off(&io::ErrorKind::InvalidData.into())
}

fn broke_off(error: &io::Error) -> Broken {
    Broken::There(format!("broke off: {error}"))
}

fn refused(error: GitError) -> Broken {
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

/// The sentence for a fetch that did not end well.
fn why(app: &App, remote: &Remote, unfetched: &Unbuilt) -> String {
    let failure = &unfetched.failure;
    match &failure.result {
        UnitResult::Timeout => format!(
            "the fetch from {} did not end within fetch_timeout ({}): the remote does not answer, or there is much to fetch; if it is \
             that, write a longer one under [git] in the file of {}",
            remote.url,
            tell::span(remote.timeout),
            app.name
        ),
        UnitResult::Other(result) if result == TOLD => failure.text.clone(),
        UnitResult::Other(_) => format!("the fetch from {} failed: {}", remote.url, failure.text),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::wire::fetch::{LONGEST_LIST, end_pieces, read_answer, send_pieces};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn content(bytes: &[u8]) -> Content {
        let digits = Sha256::digest(bytes);
        Content {
            oid: digits.iter().map(|byte| format!("{byte:02x}")).collect(),
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
        let needed = Word::Needed { contents };
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
            let needed = Word::Needed { contents };
            needed.write(slotd.get_mut()).unwrap();
            assert!(read_answer(slotd).is_err());
        });
        assert!(text.contains("df -h") || text.contains("disk"), "{text}");
    }

    #[test]
    fn a_fetcher_that_names_contents_for_ever_is_given_up() {
        let text = said(|slotd| {
            let one = content(b"");
            for _ in 0..=MOST_CONTENTS / LONGEST_LIST {
                let contents = vec![one.clone(); LONGEST_LIST];
                let needed = Word::Needed { contents };
                if needed.write(slotd.get_mut()).is_err() || read_answer(slotd).is_err() {
                    return;
                }
            }
            panic!("it was never given up");
        });
        assert!(text.contains("more than 150000 files"), "{text}");
    }
}
