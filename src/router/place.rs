//! Memory for requests under way, used again by those that come after them on whichever connections.
//!
//! What a request remembers until it is answered is more than a connection that waits may own, and a busy thread has more of them
//! under way than malloc(3) keeps pieces of a size at hand.
//!
//! **Invariant:** a place that is not taken holds nothing of any connection.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::{After, Client};
use super::exchange;
use super::h1::Span;

/// As many are kept per thread.
const KEPT: usize = 128;

/// A place where one request after the other is served: a pointer, as whoever has it is to stay small.
pub struct Place(Box<Room>);

struct Room {
    work: Pin<Box<dyn Future<Output = Infallible>>>,
    desk: Rc<Desk>,
}

#[derive(Default)]
struct Desk {
    next: Cell<Option<(Box<Client>, Span)>>,
    done: Cell<Option<(Box<Client>, After)>>,
}

impl Desk {
    /// Serves what is next and leaves it as done; for ever, so that the memory for it stays.
    async fn work(self: Rc<Self>) -> Infallible {
        loop {
            let next = poll_fn(|_| self.next.take().map_or(Poll::Pending, Poll::Ready));
            let (mut client, head) = next.await;
            let after = exchange::run(&mut client, head).await;
            self.done.set(Some((client, after)));
        }
    }
}

impl Place {
    fn new() -> Self {
        let desk = Rc::<Desk>::default();
        let work = Box::pin(Rc::clone(&desk).work());
        Self(Box::new(Room { work, desk }))
    }

    /// Has the request served whose head is `head` in the client's buffer.
    pub fn begin(&self, client: Box<Client>, head: Span) {
        self.0.desk.next.set(Some((client, head)));
    }

    /// Ready when it has been.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Box<Client>, After)> {
        // It has no end, and without one it is never ready.
        _ = self.0.work.as_mut().poll(cx);
        self.0.desk.done.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// A thread's places that are not taken.
#[derive(Default)]
pub struct Places(RefCell<Vec<Place>>);

impl Places {
    /// A place that nothing was begun at.
    pub fn take(&self) -> Place {
        let kept = self.0.borrow_mut().pop();
        kept.unwrap_or_else(Place::new)
    }

    /// Gives it back, when what was begun there is done.
    pub fn give(&self, place: Place) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT {
            kept.push(place);
        }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.borrow().len();
        f.debug_struct("Places").field("kept", &kept).finish()
    }
}
