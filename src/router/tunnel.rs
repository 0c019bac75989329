//! Bytes that pass unread: an upgraded connection both ways, a stream without an end of its own one way.
//!
//! **Invariant:** it begins with the head of the upstream's answer. What the client sent before that
//! waited in its buffer.
//!
//! **Invariant:** it owns no buffer, and while it is silent no deadline.
//!
//! **Invariant:** the client sees a clean end only where the upstream made one. Whatever else ends it, this
//! process included, is a reset.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::alarm;
use super::control::since_epoch;
use super::counts::Class;
use super::keep::{Keeper, Kept, Left, PATIENCE};
use super::label::Label;
use super::relay::Broken;
use super::roll::{Call, Ending};
use super::runs::Lease;
use super::splice::{Pipe, Way};
use super::stream::Stream;
use super::told::Limit;
use super::worker::Worker;

/// Two connections and what passes between them.
#[derive(Debug)]
pub struct Passage<'a> {
    /// The thread it is on.
    pub worker: &'a Rc<Worker>,
    /// What it is, for who keeps it.
    pub label: Label,
    /// How long a client may take nothing of a stream.
    pub write_stall: Duration,
    /// The client's connection.
    pub client: &'a mut Stream,
    /// Its deadline, which wakes the task that this runs on.
    pub alarm: &'a alarm::Own,
    /// The last call that need not be answered.
    pub called: Call,
    /// The upstream's connection.
    pub upstream: &'a mut Stream,
    /// To the client.
    pub down: Way,
    /// To the upstream; of a stream nothing more goes there.
    pub up: Option<Way>,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// Each side that speaks has ended, and the other has all of it.
    Whole,
    /// The client was lost, or takes nothing.
    Client,
    /// The upstream was lost.
    Upstream(io::Error),
    /// It was told to end.
    Cut,
}

impl Passage<'_> {
    /// Passes bytes until the end: how that was, and how many bytes the client got. `kept` says that the service
    /// manager has it already.
    pub async fn run(mut self, mut kept: Option<Kept>) -> (End, u64) {
        self.alarm.clear();
        for side in [&*self.client, &*self.upstream] {
            side.keep_alive();
            side.close_is_reset(true);
        }
        let (worker, keeper) = (self.worker, self.worker.keeper.as_ref());
        let (mut ending, mut end) = (None, None);
        let mut is_kept = kept.is_some();
        // Says when it is, if that takes long.
        let mut storing = None;
        if let (Some(keeper), None) = (keeper, &kept) {
            if !self.is_outside() {
                // What comes first is more than its pipe holds. It can be kept once that has gone.
                let _unkept = Unkept::new(worker);
                let gone = poll_fn(|cx| match self.poll(cx, &mut ending) {
                    Poll::Pending if self.is_outside() => Poll::Ready(None),
                    end => end.map(Some),
                });
                end = gone.await;
            }
            if end.is_none() {
                let up = self.up.as_ref().map(|up| &up.pipe);
                let keeping =
                    keeper.keep(&self.label, self.client, self.upstream, &self.down.pipe, up);
                if let Some((entered, keeping)) = keeping {
                    kept = Some(entered);
                    let mut keeping = Box::pin(keeping);
                    // A client that has its first byte need not fear a kill of this process.
                    match timeout(PATIENCE, &mut keeping).await {
                        Ok(is_stored) => is_kept = is_stored,
                        Err(_) => storing = Some(keeping),
                    }
                }
            }
        }
        let end = match end {
            Some(end) => end,
            None => {
                let is_unkept = keeper.is_some() && !is_kept;
                let mut unkept = is_unkept.then(|| Unkept::new(worker));
                let passed = poll_fn(|cx| {
                    if let Some(keeping) = &mut storing
                        && let Poll::Ready(is_stored) = keeping.as_mut().poll(cx)
                    {
                        storing = None;
                        unkept.take_if(|_| is_stored);
                    }
                    self.poll(cx, &mut ending)
                });
                passed.await
            }
        };
        if let End::Whole = end {
            for side in [&*self.client, &*self.upstream] {
                side.close_is_reset(false);
            }
        }
        if let (Some(keeper), Some(kept)) = (keeper, kept) {
            keeper.forget(kept).await;
        }
        (end, self.down.moved)
    }

    /// True if none of it is in this process's memory.
    fn is_outside(&self) -> bool {
        self.down.is_outside() && self.up.iter().all(Way::is_outside)
    }

    /// Passes what there is; ready at the end. `ending` is when it is to end, if somebody has said so.
    fn poll(&mut self, cx: &mut Context<'_>, ending: &mut Option<Ending>) -> Poll<End> {
        let Self {
            worker,
            label,
            write_stall,
            client,
            alarm,
            called,
            upstream,
            down,
            up,
        } = self;
        let limits = worker.limits();
        if let Some(since) = worker.roll.called_since(called) {
            let told = worker
                .roll
                .answer(since, &label.run, label.class, || label.describe());
            *ending = told
                .into_iter()
                .chain(*ending)
                .min_by_key(|ending| ending.at);
            if let Some(ending) = *ending {
                alarm.set_at(ending.at);
            }
        }
        if let Some(ending) = *ending {
            if alarm.is_over() {
                return Poll::Ready(End::Cut);
            }
            // What comes of an app that was killed is not its last word.
            if worker.alarms.now() >= ending.from {
                return Poll::Pending;
            }
        }
        match down.poll(cx, upstream, client) {
            Poll::Ready(Err(Broken::Sink(_))) => return Poll::Ready(End::Client),
            Poll::Ready(Err(Broken::Source(error))) => {
                return Poll::Ready(End::Upstream(error));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        if let Some(up) = up {
            match up.poll(cx, client, upstream) {
                Poll::Ready(Err(Broken::Source(_))) => return Poll::Ready(End::Client),
                Poll::Ready(Err(Broken::Sink(error))) => {
                    return Poll::Ready(End::Upstream(error));
                }
                Poll::Ready(_) | Poll::Pending => {}
            }
        } else if !down.has_ended() && client.poll_gone(cx).is_ready() {
            return Poll::Ready(End::Client);
        }
        let ended = (down.has_ended(), up.as_ref().is_none_or(Way::has_ended));
        if ended == (true, true) {
            return Poll::Ready(End::Whole);
        }
        if ending.is_some() {
            return Poll::Pending;
        }
        let progress = down.take_progress() | up.as_mut().is_some_and(Way::take_progress);
        let now = worker.alarms.now();
        match label.class {
            Class::Tunnel if ended != (false, false) => {
                if progress || alarm.at() == u64::MAX {
                    alarm.set(now, limits.half_closed);
                }
            }
            // Also of what was in the pipe when this process took it up, or when it began.
            Class::Stream if down.is_writing() => {
                if progress || alarm.at() == u64::MAX {
                    alarm.set(now, *write_stall);
                }
            }
            Class::Stream if progress => alarm.clear(),
            Class::Request | Class::Stream | Class::Tunnel => {}
        }
        if !alarm.is_over() {
            return Poll::Pending;
        }
        let (limit, what) = match label.class {
            Class::Tunnel => (
                Limit::HalfClosed,
                "one side of its tunnel has ended, and nothing comes of the other",
            ),
            Class::Request | Class::Stream => (Limit::WriteStall, "it takes nothing of its stream"),
        };
        let what = format_args!("{what} ({})", label.route);
        worker.told.tell(limit, what, &label.client, now);
        // An end that the upstream did not make is none for the client either.
        Poll::Ready(match down.has_ended() {
            true => End::Whole,
            false => End::Client,
        })
    }
}

/// A passage that ends if this process is killed, though there is somebody who keeps others; counted for as long as it lives.
#[derive(Debug)]
struct Unkept<'a>(&'a Worker);

impl<'a> Unkept<'a> {
    fn new(worker: &'a Worker) -> Self {
        if worker.keeper.as_ref().is_some_and(Keeper::is_full) {
            let what = "the service manager keeps as many streams as it may, so that further ones end if this router is killed";
            worker.told.tell(Limit::Kept, what, "", worker.alarms.now());
        }
        worker.shared.unkept.fetch_add(1, Ordering::Relaxed);
        Self(worker)
    }
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        self.0.shared.unkept.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Goes on with a passage that the process before this one has left.
///
/// # Errors
/// What was left cannot be used; then it is closed, by reset.
pub async fn resume(worker: Rc<Worker>, left: Left, lease: Lease) -> io::Result<()> {
    if let Some(tried) = &left.tried {
        tried.begin();
    }
    let alarm = worker.alarms.add();
    poll_fn(|cx| alarm.poll_claim(cx)).await;
    let Some(keeper) = &worker.keeper else {
        return Ok(());
    };
    let kept = keeper.adopt(left.name);
    let taken = || {
        let way = |(read, write)| Ok::<_, io::Error>(Way::through(Pipe::adopt(read, write)?));
        Ok::<_, io::Error>((
            Stream::adopt(left.client)?,
            Stream::adopt(left.upstream)?,
            way(left.down)?,
            left.up.map(way).transpose()?,
        ))
    };
    let (mut client, mut upstream, down, up) = match taken() {
        Ok(taken) => taken,
        Err(error) => {
            keeper.forget(kept).await;
            return Err(error);
        }
    };
    let mut label = left.label;
    if label.client.is_empty() {
        // What is gone at its end has no address any more.
        label.client = client.peer().unwrap_or_default();
    }
    let log = worker.shared.access.as_ref();
    let record = log.map(|log| (log, label.clone()));
    let passage = Passage {
        worker: &worker,
        label,
        // Its app's bound is not kept with it, and its run may be in no table any more: the machine's.
        write_stall: worker.limits().write_stall,
        client: &mut client,
        alarm: &alarm,
        // It was under way before this process was.
        called: 0,
        upstream: &mut upstream,
        down,
        up,
    };
    let mut run = pin!(passage.run(Some(kept)));
    let first = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx))).await;
    if let Some(tried) = left.tried {
        tried.is_over();
    }
    let (_, bytes) = match first {
        Poll::Ready(end) => end,
        Poll::Pending => run.await,
    };
    drop(lease);
    if let Some((log, label)) = record {
        let now = since_epoch(SystemTime::now()).as_millis() as u64;
        log.record_left(&label, bytes, now.saturating_sub(label.since_ms));
    }
    Ok(())
}
