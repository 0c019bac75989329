//! Taking clients' connections out of the listeners' queues, and sharing them among the threads.
//!
//! The kernel wakes every thread that waits, and whoever comes first takes what there is: left to that,
//! one thread gets most of the connections, and keeps them for as long as they live.
//!
//! **Invariant:** a connection is counted at the thread that serves it before that thread knows of it, and
//! none is counted at a thread that has drained: so none ends before it came, and until it ends it hears
//! every command.

use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

use super::connection::Client;
use super::counts::{Counts, Gauges};
use super::keep::Left;
use super::runs::Lease;
use super::serving::Serving;
use super::stream::{self, Kind, Stream};
use super::told::Limit;
use super::tunnel;
use super::worker::{Command, Worker};

/// A client's connection that no thread serves yet.
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    peer: SocketAddr,
    listener: u16,
}

/// Accepts on listener number `listener` for ever.
pub async fn run(worker: Rc<Worker>, listener: u16, socket: AsyncFd<OwnedFd>) {
    let most = worker.part(worker.limits().connections) as u64;
    if most == 0 {
        // There are more threads than connections may be: others accept.
        return;
    }
    loop {
        while worker.gauges().connections() >= most {
            let what = "there are as many connections as may be, and others wait until one ends";
            let now = worker.alarms.now();
            worker.told.tell(Limit::Connections, what, "", now);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match socket.async_io(Interest::READABLE, stream::accept).await {
            Ok((socket, peer)) => share(
                &worker,
                Accepted {
                    socket,
                    peer,
                    listener,
                },
            ),
            // The client was faster than we were.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                // Out of descriptors or memory: others wait in the socket's queue until some are free.
                tracing::warn!("cannot accept a connection, others wait meanwhile: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Has `accepted` served by the thread whose turn it is.
fn share(worker: &Rc<Worker>, accepted: Accepted) {
    if let Err(accepted) = hand_over(worker, accepted) {
        worker.gauges().connection(1);
        serve(worker, accepted);
    }
}

/// Gives `accepted` to another thread; back if it is our turn, or that thread has ended.
fn hand_over(worker: &Rc<Worker>, accepted: Accepted) -> Result<(), Accepted> {
    let shared = &worker.shared;
    let thread = turn(worker.thread, &shared.gauges);
    if thread == worker.thread || !shared.gauges[thread].hand_over() {
        return Err(accepted);
    }
    let command = Command::Serve(accepted);
    let sent = match shared.threads[thread].upgrade() {
        Some(other) => other.send(command).map_err(|e| e.0),
        None => Err(command),
    };
    let Err(Command::Serve(accepted)) = sent else {
        return Ok(());
    };
    // It was told to end at once, with connections.
    shared.gauges[thread].connection(-1);
    Err(accepted)
}

/// The thread that takes the next connection: `own`, unless it has an eighth more than the one with
/// the fewest. To hand one over costs about what a request does.
fn turn(own: usize, gauges: &[Gauges]) -> usize {
    let count = gauges[own].connections();
    let other = (0..gauges.len()).min_by_key(|thread| gauges[*thread].connections());
    other
        .filter(|other| count.saturating_sub(gauges[*other].connections()) > count / 8)
        .unwrap_or(own)
}

/// Serves a connection that was counted here.
pub fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let counted = Counted(Rc::clone(worker));
    let Accepted {
        socket,
        peer,
        listener,
    } = accepted;
    match Stream::new(socket, Kind::Tcp) {
        Ok(stream) => {
            spawn_local(Serving::new(Client::new(
                counted,
                stream,
                peer.ip(),
                listener,
            )));
        }
        Err(e) => tracing::warn!("cannot watch a connection, which is closed: {e}"),
    }
}

/// Goes on with what the process before this one has left.
pub fn adopt(worker: &Rc<Worker>, left: Left, counts: Arc<Counts>) {
    worker.gauges().connection(1);
    let counted = Counted(Rc::clone(worker));
    let lease = Lease::adopted(counts, worker.thread, left.label.class);
    // Before anybody else comes.
    let place = left
        .address()
        .and_then(|address| worker.shared.peers.go_on(address));
    let worker = Rc::clone(worker);
    spawn_local(async move {
        if let Err(error) = tunnel::resume(worker, left, lease).await {
            tracing::warn!("a stream that was left cannot go on: {error}");
        }
        drop((counted, place));
    });
}

/// The thread that a client connection is on, where it is counted for as long as this lives.
#[derive(Debug)]
pub struct Counted(Rc<Worker>);

impl Deref for Counted {
    type Target = Rc<Worker>;

    fn deref(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.gauges().connection(-1);
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(own: usize, counts: &[i64]) -> usize {
        let gauges = counts.iter().map(|count| {
            let gauges = Gauges::default();
            gauges.connection(*count);
            gauges
        });
        turn(own, &gauges.collect::<Vec<_>>())
    }

    #[test]
    fn no_thread_has_much_more_than_another() {
        assert_eq!(turns(1, &[0, 0]), 1);
        assert_eq!(turns(1, &[0, 1]), 0);
        assert_eq!(turns(0, &[34, 30, 31]), 0);
        assert_eq!(turns(0, &[35, 30, 31]), 1);
        assert_eq!(turns(2, &[9000, 9000, 3]), 2);
    }

    #[test]
    fn a_thread_that_has_drained_is_handed_nothing_and_one_that_is_handed_something_has_not() {
        let gauges = Gauges::default();
        assert!(gauges.hand_over() && !gauges.end());
        gauges.connection(-1);
        assert!(gauges.end() && !gauges.hand_over());
        assert_eq!(gauges.connections(), 0);
    }

    #[test]
    fn a_burst_that_one_thread_takes_is_served_by_all() {
        let gauges: Vec<_> = (0..4).map(|_| Gauges::default()).collect();
        for _ in 0..1000 {
            gauges[turn(2, &gauges)].connection(1);
        }
        for gauge in &gauges {
            assert!((218..=282).contains(&gauge.connections()));
        }
    }
}
