//! A client's connection as a task: one request after the other, until somebody closes.
//!
//! Most connections wait for a request, and there are thousands of them. As an `async` function each would be as large as what it has
//! at any of its waits; so what it may wait for is spelled out here, and what only few of them have is boxed, or in a [`Place`].
//!
//! **Invariant:** a connection is the router's, not a slot's: each request on it is routed anew.

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::connection::{After, Client, Heard};
use super::h1::scan::Scan;
use super::place::Place;

/// A connection, served from its first step to its end.
#[derive(Debug)]
pub struct Serving(State);

enum State {
    /// It waits for a request. If a part of its head has come: how much of that was looked at.
    Waits(Box<Client>, Option<Box<Scan>>),
    /// Its request is served.
    Asks(Place),
    /// It arrives, or is refused.
    Aside(Pin<Box<dyn Future<Output = (Box<Client>, After)>>>),
    /// It was told all that it will be told.
    Leaves(Pin<Box<dyn Future<Output = ()>>>),
    /// It is gone.
    Gone,
}

impl Serving {
    /// Begins with one that has just come.
    #[must_use]
    pub fn new(mut client: Box<Client>) -> Self {
        Self(State::Aside(Box::pin(async move {
            poll_fn(|cx| client.alarm.poll_claim(cx)).await;
            let after = client.arrive().await.err().unwrap_or(After::Keep);
            (client, after)
        })))
    }
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let state = mem::replace(&mut self.0, State::Gone);
            match state.step(cx) {
                Step::On(State::Gone) => return Poll::Ready(()),
                Step::On(state) => self.0 = state,
                Step::Waits(state) => {
                    self.0 = state;
                    return Poll::Pending;
                }
            }
        }
    }
}

/// What became of a state.
enum Step {
    /// It is this one now.
    On(State),
    /// It is what it was, until somebody wakes it.
    Waits(State),
}

impl State {
    fn step(self, cx: &mut Context<'_>) -> Step {
        let done = match self {
            Self::Waits(mut client, mut begun) => match client.poll_head(cx, &mut begun) {
                Poll::Pending => return Step::Waits(Self::Waits(client, begun)),
                Poll::Ready(Heard::Head(head)) => {
                    let place = client.worker.places.take();
                    place.begin(client, head);
                    return Step::On(Self::Asks(place));
                }
                Poll::Ready(Heard::Nothing) => (client, After::Close),
                Poll::Ready(Heard::Refused(answer)) => {
                    return Step::On(Self::Aside(Box::pin(async move {
                        let after = client.refuse(answer, false).await;
                        (client, after)
                    })));
                }
            },
            Self::Asks(mut place) => match place.poll(cx) {
                Poll::Pending => return Step::Waits(Self::Asks(place)),
                Poll::Ready(done) => {
                    done.0.worker.places.give(place);
                    done
                }
            },
            Self::Aside(mut work) => match work.as_mut().poll(cx) {
                Poll::Pending => return Step::Waits(Self::Aside(work)),
                Poll::Ready(done) => done,
            },
            Self::Leaves(mut work) => match work.as_mut().poll(cx) {
                Poll::Pending => return Step::Waits(Self::Leaves(work)),
                Poll::Ready(()) => return Step::On(Self::Gone),
            },
            Self::Gone => return Step::On(Self::Gone),
        };
        Step::On(Self::after(done))
    }

    /// What comes after an answer, or after the arrival.
    fn after((mut client, after): (Box<Client>, After)) -> Self {
        // One that has ended may have pipelined more before.
        if after == After::Keep && !client.has_left() {
            client.rest();
            Self::Waits(client, None)
        } else {
            Self::Leaves(Box::pin(client.leave(after)))
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waits(..) => "Waits",
            Self::Asks(_) => "Asks",
            Self::Aside(_) => "Aside",
            Self::Leaves(_) => "Leaves",
            Self::Gone => "Gone",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task of tokio's has 104 bytes beside its future, and all of it takes a multiple of 128.
    #[test]
    fn a_connection_is_a_task_of_128_bytes() {
        assert!(size_of::<Serving>() <= 24, "{}", size_of::<Serving>());
    }
}
