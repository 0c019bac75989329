//! Deadlines of thousands of connections with one timer per thread.
//!
//! Setting a deadline is a store: no timer is armed per request. One task sleeps until the earliest
//! deadline that it saw, looks at all of them, and wakes the tasks whose time has come.
//!
//! **Invariant:** a task is woken at most [`GRAIN`] after its deadline, and never polled for one that moved.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// Deadlines are looked at no more often than this, in milliseconds.
pub const GRAIN: u64 = 10;
const NEVER: u64 = u64::MAX;

/// Milliseconds since the machine started.
pub type Millis = u64;

/// The deadline of one connection. They lie side by side, so that thousands of them are looked at in little time.
#[derive(Debug)]
struct Alarm {
    at: Cell<Millis>,
    /// Of the task that it wakes, if there is one yet.
    waker: OnceCell<Waker>,
    /// True while it waits for another table.
    awaits_table: Cell<bool>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self {
            at: Cell::new(NEVER),
            waker: OnceCell::new(),
            awaits_table: Cell::new(false),
        }
    }
}

/// All alarms of a thread.
#[derive(Debug)]
pub struct Alarms {
    list: RefCell<Vec<Alarm>>,
    /// Those of the list that are nobody's.
    free: RefCell<Vec<u32>>,
    /// When the sweeper has looked last.
    seen: Cell<Millis>,
    /// When the sweeper looks next.
    planned: Cell<Millis>,
    earlier: Notify,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            list: RefCell::default(),
            free: RefCell::default(),
            seen: Cell::new(0),
            planned: Cell::new(NEVER),
            earlier: Notify::new(),
        }
    }
}

/// An alarm, given up when dropped.
#[derive(Debug)]
pub struct Own {
    alarms: Rc<Alarms>,
    place: u32,
}

impl Drop for Own {
    fn drop(&mut self) {
        let alarm = std::mem::take(&mut self.alarms.list.borrow_mut()[self.place as usize]);
        self.alarms.free.borrow_mut().push(self.place);
        // The last handle of a task may go with it, and with that whatever the task still has: the list is no longer borrowed.
        drop(alarm);
    }
}

impl Own {
    /// Makes it the alarm of the task that polls, for good; ready at once.
    pub fn poll_claim(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|alarm| _ = alarm.waker.get_or_init(|| cx.waker().clone()));
        Poll::Ready(())
    }

    /// The deadline; the largest number if there is none.
    pub fn at(&self) -> Millis {
        self.with(|alarm| alarm.at.get())
    }

    /// No deadline.
    pub fn clear(&self) {
        self.with(|alarm| alarm.at.set(NEVER));
    }

    /// Sets the deadline `after` from `now`.
    pub fn set(&self, now: Millis, after: Duration) {
        self.set_at(now.saturating_add(after.as_millis() as u64));
    }

    /// Sets the deadline.
    pub fn set_at(&self, at: Millis) {
        self.with(|alarm| alarm.at.set(at));
        if at < self.alarms.planned.get() {
            self.alarms.plan(at);
        }
    }

    /// Whether another table wakes the task too.
    pub fn await_table(&self, awaits: bool) {
        self.with(|alarm| alarm.awaits_table.set(awaits));
    }

    /// True if the sweeper has seen the deadline pass; it wakes the task then, so that a task that
    /// asks after every poll needs no clock.
    pub fn is_over(&self) -> bool {
        self.at() <= self.alarms.seen.get()
    }

    /// Waits until `poll` is ready, or until the deadline: then `None`.
    pub async fn until<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        poll_fn(|cx| match poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.is_over() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn with<T>(&self, act: impl FnOnce(&Alarm) -> T) -> T {
        act(&self.alarms.list.borrow()[self.place as usize])
    }
}

impl Alarms {
    /// The time as of the kernel's last tick: requests ask for it several times, and a tick is shorter
    /// than [`GRAIN`].
    pub fn now(&self) -> Millis {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
    }

    /// A new alarm. It wakes nobody before [`Own::poll_claim`].
    pub fn add(self: &Rc<Self>) -> Own {
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut list = self.list.borrow_mut();
            list.push(Alarm::default());
            // There are fewer descriptors than that.
            list.len() as u32 - 1
        });
        Own {
            alarms: Rc::clone(self),
            place,
        }
    }

    /// Has the sweeper look at `at` or before.
    pub fn plan(&self, at: Millis) {
        if at < self.planned.get() {
            self.planned.set(at);
            self.earlier.notify_one();
        }
    }

    /// Wakes everyone who waits for a table.
    pub fn table_came(&self) {
        self.wake_if(|alarm| alarm.awaits_table.get());
    }

    /// Wakes everyone.
    pub fn call(&self) {
        self.wake_if(|_| true);
    }

    fn wake_if(&self, wanted: impl Fn(&Alarm) -> bool) {
        for alarm in self.list.borrow().iter().filter(|a| wanted(a)) {
            if let Some(waker) = alarm.waker.get() {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes tasks at their deadlines, for ever. `chores` is called at each look and may ask for the next one.
    pub async fn sweep(&self, chores: impl Fn(Millis) -> Option<Millis>) {
        loop {
            let now = self.now();
            self.seen.set(now);
            self.wake_if(|alarm| alarm.at.get() <= now);
            let next = self
                .list
                .borrow()
                .iter()
                .map(|a| a.at.get())
                .filter(|at| *at > now)
                .min();
            let next = next.into_iter().chain(chores(now)).min().unwrap_or(NEVER);
            self.planned.set(next);
            let pause = Duration::from_millis(next.saturating_sub(now).max(GRAIN));
            if next == NEVER {
                self.earlier.notified().await;
            } else {
                _ = tokio::time::timeout(pause, self.earlier.notified()).await;
            }
            // Whoever sets one deadline after another must not have all of them looked at each time.
            let soonest = Duration::from_millis(
                self.planned
                    .get()
                    .saturating_sub(self.now())
                    .clamp(1, GRAIN),
            );
            tokio::time::sleep(soonest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_is_given_up_wakes_nobody_and_is_as_new_for_the_next() {
        let alarms = Rc::new(Alarms::default());
        let (one, two) = (alarms.add(), alarms.add());
        let cx = Context::from_waker(Waker::noop());
        _ = one.poll_claim(&cx);
        one.set_at(5);
        one.await_table(true);
        drop(one);
        let next = alarms.add();
        assert_eq!((next.place, alarms.list.borrow().len()), (0, 2));
        let list = alarms.list.borrow();
        assert!(list[0].waker.get().is_none() && !list[0].awaits_table.get());
        assert!(next.at() == NEVER && two.at() == NEVER && !next.is_over());
    }

    #[test]
    fn an_alarm_takes_half_of_a_cache_line() {
        assert_eq!(size_of::<Alarm>(), 32);
    }
}
