//! What a thread knows of each run of a slot: how to reach it, what it has under way there, and the
//! connections it has left over.
//!
//! **Invariant:** a connection is reused only if nothing came on it since its last answer ended.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::alarm::Millis;
use super::counts::{Class, Counts, RunName};
use super::limits::Limits;
use super::ramp::Ramp;
use super::stream::{Stream, Unread};
use super::table::sticky::By;
use super::table::{self, Bounds, Table, Upstream};
use super::whose::{Aside, Whose};

/// A connection used within this many milliseconds may get a request that cannot be sent twice:
/// servers close idle ones after seconds (gunicorn 2, Node 5).
const FRESH: Millis = 1000;

/// An upstream connection that waits for its next request.
#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Millis,
    until: Millis,
}

/// One run of a slot, as one thread sees it.
#[derive(Debug)]
pub struct Run {
    /// Where it listens.
    pub upstream: Upstream,
    /// What its requests may be and take.
    pub bounds: Bounds,
    counts: Arc<Counts>,
    thread: usize,
    idle: RefCell<Vec<Idle>>,
    /// How those are let go that have waited for it.
    pub ramp: Ramp,
    /// No table names it any more: its connections are not kept.
    retired: Cell<bool>,
}

impl Run {
    /// Its name.
    pub fn name(&self) -> &RunName {
        &self.counts.name
    }

    /// The last connection that was given back, if it is still good for such a request. For one that
    /// could not be sent again, the kernel is asked whether the upstream has closed meanwhile.
    pub fn take(&self, now: Millis, may_repeat: bool) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.pop() {
            if now > last.until || !last.stream.is_quiet() {
                continue;
            }
            if !may_repeat && now - last.since > FRESH {
                // The others have waited longer still.
                idle.push(last);
                return None;
            }
            if may_repeat || last.stream.unread() == Unread::Nothing {
                return Some(last.stream);
            }
        }
        None
    }

    /// Keeps a connection whose answer has ended. `seconds` is how long the upstream said it would.
    pub fn give_back(&self, stream: Stream, now: Millis, seconds: Option<u64>, limits: &Limits) {
        let most = limits.upstream_idle.as_millis() as u64;
        // A second less, so that a request is not on its way while the upstream closes.
        let keep = seconds.map_or(most, |s| s.saturating_sub(1).saturating_mul(1000).min(most));
        let mut idle = self.idle.borrow_mut();
        if keep > 0 && !self.retired.get() && idle.len() < limits.upstream_idle_count {
            idle.push(Idle {
                stream,
                since: now,
                until: now + keep,
            });
        }
    }

    /// Closes connections that have waited too long or were closed by the upstream; false if none is left.
    fn tidy(&self, now: Millis) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|i| now <= i.until && i.stream.is_quiet());
        idle.shrink_to(8);
        !idle.is_empty()
    }
}

/// A request that is counted at a run, from the choice of the slot to the end of the answer.
#[derive(Debug)]
pub struct Lease {
    run: Rc<Run>,
    class: Class,
    /// Since when the answer is the run's to give.
    since: Instant,
    /// Its answer is one of those that the run is judged by. Who names a run has chosen it: that says nothing of its share.
    counts: bool,
    /// It is counted as one that its client gave up.
    given_up: Cell<bool>,
}

impl Lease {
    fn new(run: &Rc<Run>, counts: bool) -> Self {
        let lease = Self {
            run: Rc::clone(run),
            class: Class::Request,
            since: Instant::now(),
            counts,
            given_up: Cell::new(false),
        };
        lease
            .run
            .counts
            .share(run.thread)
            .under_way(Class::Request, 1);
        lease
    }

    /// One of a run that an earlier process knew: no table names it here, and it has no address.
    pub fn adopted(counts: Arc<Counts>, thread: usize, class: Class) -> Self {
        counts.share(thread).under_way(class, 1);
        let run = Run {
            upstream: Upstream::Unix(Default::default()),
            // Of requests; it gets none.
            bounds: Limits::default().of(&crate::wire::table::Limits::default()),
            counts,
            thread,
            idle: RefCell::default(),
            ramp: Ramp::default(),
            retired: Cell::new(true),
        };
        Self {
            run: Rc::new(run),
            class,
            since: Instant::now(),
            counts: true,
            given_up: Cell::new(false),
        }
    }

    /// The run.
    pub fn run(&self) -> &Rc<Run> {
        &self.run
    }

    /// It turned out to be of another class.
    pub fn becomes(&mut self, class: Class) {
        let share = self.run.counts.share(self.run.thread);
        share.under_way(class, 1);
        share.under_way(self.class, -1);
        self.class = class;
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its answer is none that the run is judged by.
    pub fn is_left_out(&mut self) {
        self.counts = false;
    }

    /// Its client has left, and the head of an answer has not come. It may still.
    pub fn is_given_up(&self) {
        if self.counts && !self.given_up.replace(true) {
            self.run.counts.share(self.run.thread).given_up(1);
        }
    }

    /// Its answer comes all the same, or it is counted as something else.
    pub fn is_not_given_up(&self) {
        if self.given_up.take() {
            self.run.counts.share(self.run.thread).given_up(-1);
        }
    }

    /// The run had to wait for the client until now: that is no time of its own.
    pub fn has_all(&mut self) {
        self.since = Instant::now();
    }

    /// The head of its answer is here.
    pub fn head_came(&self) {
        if self.counts {
            let micros = self.since.elapsed().as_micros() as u64;
            self.run.counts.share(self.run.thread).took(micros);
        }
    }

    /// The slot answered.
    pub fn answered(&self, status: u16) {
        if self.counts {
            self.run.counts.share(self.run.thread).answered(status);
        }
    }

    /// The slot gave no answer.
    pub fn failed(&self) {
        if self.counts {
            self.run.counts.share(self.run.thread).failed();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.run
            .counts
            .share(self.run.thread)
            .under_way(self.class, -1);
    }
}

/// What became of a request that looked for a slot.
#[derive(Debug)]
pub enum Picked {
    /// It goes there, and is counted.
    Slot(Lease),
    /// Its slot is not ready; the app holds requests for this many milliseconds.
    NotReady(u64),
    /// All weights of the app are 0.
    NoWeight,
    /// No app has such requests.
    NoApp,
    /// It names a run that there is not.
    NoPreview,
    /// It names a run, and does not know what one has to know for that.
    Forbidden,
    /// Normalising the path leads to another app than reading it as it is.
    Ambiguous,
}

/// A table as one thread uses it.
#[derive(Debug)]
pub struct Routing {
    table: Arc<Table>,
    /// Per app, per slot.
    runs: Vec<Vec<Rc<Run>>>,
    /// Per app, how many requests have been given out.
    tickets: Vec<Cell<u32>>,
}

impl Routing {
    /// Takes up `table`, whose counts are in the order of its slots. Runs that `before` had too keep
    /// their connections.
    pub fn new(
        table: Arc<Table>,
        counts: &[Vec<Arc<Counts>>],
        thread: usize,
        before: Option<&Self>,
    ) -> Self {
        let mut known: HashMap<(&RunName, &Upstream), &Rc<Run>> = HashMap::new();
        for run in before.iter().flat_map(|b| b.runs.iter().flatten()) {
            run.retired.set(true);
            known.insert((run.name(), &run.upstream), run);
        }
        let runs = table.apps().iter().zip(counts).map(|(app, counts)| {
            let slots = app.slots.iter().zip(counts);
            slots
                .map(
                    |(slot, counts)| match known.get(&(&counts.name, &slot.upstream)) {
                        Some(run)
                            if Arc::ptr_eq(&run.counts, counts) && run.bounds == app.bounds =>
                        {
                            run.retired.set(false);
                            Rc::clone(run)
                        }
                        _ => Rc::new(Run {
                            upstream: slot.upstream.clone(),
                            bounds: app.bounds,
                            counts: Arc::clone(counts),
                            thread,
                            idle: RefCell::default(),
                            ramp: Ramp::default(),
                            retired: Cell::new(false),
                        }),
                    },
                )
                .collect()
        });
        let runs = runs.collect();
        for run in before
            .iter()
            .flat_map(|b| b.runs.iter().flatten())
            .filter(|r| r.retired.get())
        {
            run.idle.borrow_mut().clear();
        }
        // An app goes on where it was: tables may come so often that those who begin anew each time would give the same slot the first
        // ones, and another none. Threads start at different tickets, so that a few requests on each don't all go one way.
        let last = |name: &str| {
            let before = before?;
            let index = before.table.apps().iter().position(|it| it.name == name)?;
            Some(before.tickets[index].get())
        };
        let tickets = table
            .apps()
            .iter()
            .map(|app| Cell::new(last(&app.name).unwrap_or(thread as u32 * 29)))
            .collect();
        Self {
            table,
            runs,
            tickets,
        }
    }

    /// Chooses app and slot and counts the request there, in one step: a thread that has taken a newer
    /// table has nothing left that could still be counted by an older one.
    ///
    /// `whose` is asked only where clients are to keep to a slot.
    pub fn pick(
        &self,
        listener: usize,
        host: &[u8],
        raw: &[u8],
        normal: &[u8],
        aside: &Aside,
        whose: impl FnOnce(&By) -> Whose,
    ) -> Picked {
        if let Some((index, name)) = self.table.preview(listener, host) {
            return self.named(index, name, aside);
        }
        let Some(index) = self.table.find(listener, host, normal) else {
            return Picked::NoApp;
        };
        if raw != normal && self.table.find(listener, host, raw) != Some(index) {
            return Picked::Ambiguous;
        }
        let app = &self.table.apps()[index];
        if let Some(wish) = aside.wished() {
            let preview = app.preview.as_ref();
            return match preview.and_then(|preview| preview.wished(wish)) {
                Some(name) => self.named(index, name, aside),
                None => Picked::Forbidden,
            };
        }
        let ticket = &self.tickets[index];
        let take_ticket = || ticket.set(ticket.get().wrapping_add(1));
        let kept = app.sticky.as_ref().and_then(|sticky| {
            let key = match whose(&sticky.by) {
                Whose::Known(key) => key,
                Whose::New(random) => {
                    let key = sticky.mint(table::place(ticket.get()), random);
                    take_ticket();
                    aside.mint(key);
                    key
                }
                Whose::Unknown => return None,
            };
            Some(sticky.slot(key))
        });
        let Some(slot) = kept.or_else(|| app.pick(ticket.get())) else {
            return Picked::NoWeight;
        };
        if !app.slots[slot].ready {
            return Picked::NotReady(app.hold_ms);
        }
        if kept.is_none() {
            take_ticket();
        }
        Picked::Slot(Lease::new(&self.runs[index][slot], true))
    }

    /// The run of an app that a request names, whatever its weight.
    fn named(&self, index: usize, name: &str, aside: &Aside) -> Picked {
        let preview = self.table.apps()[index].preview.as_ref();
        let Some(run) = preview.and_then(|preview| preview.find(name)) else {
            return Picked::NoPreview;
        };
        aside.previews(&run.release);
        Picked::Slot(Lease::new(&self.runs[index][run.slot], false))
    }

    /// How long the app of a run holds requests, in milliseconds.
    pub fn hold_ms(&self, name: &RunName) -> Option<u64> {
        self.table
            .apps()
            .iter()
            .find(|a| a.name == name.app)
            .map(|a| a.hold_ms)
    }

    /// Looks after idle connections; false if there is none.
    pub fn tidy(&self, now: Millis) -> bool {
        self.runs
            .iter()
            .flatten()
            .fold(false, |left, run| run.tidy(now) | left)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::wire;

    fn run() -> Run {
        let name = RunName {
            app: "web".into(),
            slot: "blue".into(),
            boot_id: None,
        };
        Run {
            upstream: Upstream::Unix("/nowhere".into()),
            bounds: Limits::default().of(&wire::table::Limits::default()),
            counts: Counts::new(name, 1),
            thread: 0,
            idle: RefCell::default(),
            ramp: Ramp::default(),
            retired: Cell::new(false),
        }
    }

    /// What becomes of a request `later` milliseconds after its connection was given back, by an upstream that said it would keep it
    /// for so many seconds.
    fn is_reused(seconds: Option<u64>, later: Millis, may_repeat: bool) -> bool {
        let (run, (ours, _theirs)) = (run(), UnixStream::pair().expect("a pair of sockets"));
        run.give_back(
            Stream::adopt(ours.into()).expect("a socket"),
            10_000,
            seconds,
            &Limits::default(),
        );
        run.take(10_000 + later, may_repeat).is_some()
    }

    #[tokio::test]
    async fn item_14_a_request_that_cannot_be_sent_twice_takes_a_connection_of_the_last_second_or_a_fresh_one()
     {
        for (later, reused) in [
            (0, true),
            (FRESH, true),
            (FRESH + 1, false),
            (30_000, false),
        ] {
            assert_eq!(is_reused(None, later, false), reused, "{later} ms");
        }
        assert!(is_reused(None, 30_000, true));
    }

    #[tokio::test]
    async fn item_14_an_upstream_keeps_a_connection_for_a_second_less_than_it_says() {
        for (seconds, later, reused) in [
            (5, 4000, true),
            (5, 4001, false),
            (2, 1000, true),
            (2, 1001, false),
            (1, 0, false),
            (0, 0, false),
        ] {
            assert_eq!(
                is_reused(Some(seconds), later, true),
                reused,
                "{seconds} s, {later} ms"
            );
        }
        // Ours is the bound of those that promise more.
        let most = Limits::default().upstream_idle.as_millis() as u64;
        assert!(
            is_reused(Some(u64::MAX), most, true) && !is_reused(Some(u64::MAX), most + 1, true)
        );
    }
}
