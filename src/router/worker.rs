//! One thread of the router: its own event loop, connections, memory and view of the table.
//!
//! **Invariant:** nothing that a request touches is shared with another thread except the table,
//! which does not change, and counters that only one thread writes.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::io::Interest;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use super::accept::{self, Accepted};
use super::access::AccessLog;
use super::alarm::Alarms;
use super::answer::Date;
use super::buffer::Spare;
use super::counts::{Counts, Gauges};
use super::h1::fields::Fields;
use super::ids::Ids;
use super::keep::{Count, Keeper, Left};
use super::limits::Limits;
use super::peers::Peers;
use super::place::Places;
use super::roll::{Cut, Roll, Whose};
use super::runs::Routing;
use super::stream;
use super::table::Table;
use super::told::Told;
use crate::wire::control::{Listener, Listing};

/// What all threads have in common.
#[derive(Debug)]
pub struct Shared {
    /// Every bound.
    pub limits: Limits,
    /// Who connects.
    pub peers: Arc<Peers>,
    /// What we are called in `Via`.
    pub via: String,
    /// The names of the listeners.
    pub listeners: Vec<String>,
    /// Where they are, in the same order.
    pub addresses: Vec<SocketAddr>,
    /// Why the settings are not those of the machine's file.
    pub problem: Option<String>,
    /// One per thread.
    pub gauges: Vec<Gauges>,
    /// The way to each thread, for as long as whoever steers the router keeps it open.
    pub threads: Vec<mpsc::WeakUnboundedSender<Command>>,
    /// Where requests are recorded, if they are.
    pub access: Option<AccessLog>,
    /// Streams and tunnels are to outlive the process.
    pub keeps: bool,
    /// How many the service manager keeps.
    pub kept: Arc<Count>,
    /// How many it does not.
    pub unkept: AtomicU64,
}

impl Shared {
    /// The listeners, for people.
    pub(super) fn addresses(&self) -> Vec<Listener> {
        let named = self.listeners.iter().zip(&self.addresses);
        named
            .enumerate()
            .map(|(number, (name, address))| Listener {
                name: name.clone(),
                address: address.to_string(),
                proxied: self.peers.is_proxied(number),
            })
            .collect()
    }
}

/// What a thread is told.
#[derive(Debug)]
pub enum Command {
    /// Take this table, then say so.
    Swap(Arc<Table>, Arc<Vec<Vec<Arc<Counts>>>>, oneshot::Sender<()>),
    /// Stop accepting, end when the last connection does.
    Drain,
    /// End now, whatever is open.
    End,
    /// Say what is under way at a slot.
    List(Whose, oneshot::Sender<Listing>),
    /// Have something that is under way end.
    Cut(Cut),
    /// Serve a connection that another thread has accepted.
    Serve(Accepted),
    /// Say that you are alive.
    Ping(oneshot::Sender<()>),
}

/// A thread's state.
#[derive(Debug)]
pub struct Worker {
    /// Which one it is.
    pub thread: usize,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// The table, while there is one.
    pub routing: RefCell<Option<Rc<Routing>>>,
    /// Grows with each table that was taken.
    pub swaps: Cell<u64>,
    /// What everyone who is under way is called for.
    pub roll: Roll,
    /// Deadlines.
    pub alarms: Rc<Alarms>,
    /// Unused memory.
    pub spare: Spare,
    /// Where requests are served.
    pub places: Places,
    /// A list to parse a head into; used between two awaits only.
    pub fields: RefCell<Fields>,
    /// Request ids.
    pub ids: Ids,
    /// The `Date` of our own answers.
    pub date: Date,
    /// What was told of limits.
    pub told: Told,
    /// Bytes of the heads of held requests.
    pub held_bytes: Cell<usize>,
    /// True once it was told to drain.
    pub draining: Cell<bool>,
    /// Who keeps streams and tunnels, if they are to outlive the process.
    pub keeper: Option<Keeper>,
    /// A connection ended.
    pub ended: Notify,
}

impl Worker {
    /// Its gauges.
    pub fn gauges(&self) -> &Gauges {
        &self.shared.gauges[self.thread]
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// This thread's part of a bound for all of them; the parts are equal but for one, and their sum is the bound.
    pub fn part(&self, of_all: usize) -> usize {
        let threads = self.shared.gauges.len();
        of_all / threads + usize::from(self.thread < of_all % threads)
    }

    fn swap(&self, table: Arc<Table>, counts: &[Vec<Arc<Counts>>]) {
        let routing = Routing::new(table, counts, self.thread, self.routing.borrow().as_deref());
        *self.routing.borrow_mut() = Some(Rc::new(routing));
        self.swaps.set(self.swaps.get() + 1);
        self.alarms.table_came();
    }

    /// Upstream connections are looked at this often while there are any, in milliseconds.
    const TIDY: u64 = 2000;

    fn chores(&self, now: u64) -> Option<u64> {
        let routing = self.routing.borrow().clone();
        routing
            .is_some_and(|r| r.tidy(now))
            .then_some(now + Self::TIDY)
    }

    /// An upstream connection is idle now and will have to be looked at.
    pub fn has_idle(&self, now: u64) {
        self.alarms.plan(now + Self::TIDY);
    }
}

/// Runs thread number `thread` until it has drained, or until its commands end.
///
/// # Errors
/// The event loop or a listener could not be set up.
pub async fn run(
    thread: usize,
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
    adopted: Vec<(Left, Arc<Counts>)>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    ready: oneshot::Sender<std::io::Result<()>>,
) {
    shared.gauges[thread].owned.is_of_this_thread();
    let keeper = match shared
        .keeps
        .then(|| Keeper::connect(&shared.kept))
        .transpose()
    {
        Ok(keeper) => keeper.flatten(),
        Err(e) => {
            _ = ready.send(Err(e));
            return;
        }
    };
    let worker = Rc::new(Worker {
        thread,
        shared,
        keeper,
        routing: RefCell::default(),
        swaps: Cell::new(0),
        roll: Roll::default(),
        alarms: Rc::default(),
        spare: Spare::default(),
        places: Places::default(),
        fields: RefCell::default(),
        ids: Ids::default(),
        date: Date::default(),
        told: Told::default(),
        held_bytes: Cell::new(0),
        draining: Cell::new(false),
        ended: Notify::new(),
    });
    for (left, counts) in adopted {
        accept::adopt(&worker, left, counts);
    }
    let mut accepting: Vec<JoinHandle<()>> = Vec::new();
    for (number, listener) in (0..).zip(listeners) {
        match stream::watch(listener.into(), Interest::READABLE) {
            Ok(listener) => accepting.push(spawn_local(accept::run(
                Rc::clone(&worker),
                number,
                listener,
            ))),
            Err(e) => {
                _ = ready.send(Err(e));
                return;
            }
        }
    }
    let sweeping = Rc::clone(&worker);
    spawn_local(async move { sweeping.alarms.sweep(|now| sweeping.chores(now)).await });
    _ = ready.send(Ok(()));
    while !(worker.draining.get() && worker.gauges().end()) {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Swap(table, counts, done)) => {
                    worker.swap(table, &counts);
                    _ = done.send(());
                }
                Some(Command::Serve(accepted)) => accept::serve(&worker, accepted),
                Some(Command::Ping(alive)) => _ = alive.send(()),
                Some(Command::Drain) => {
                    worker.draining.set(true);
                    accepting.drain(..).for_each(|task| task.abort());
                }
                Some(Command::List(whose, listed)) => {
                    let call = worker.roll.ask(whose);
                    worker.alarms.call();
                    let worker = Rc::clone(&worker);
                    spawn_local(async move {
                        // Behind everyone who was woken just now.
                        tokio::task::yield_now().await;
                        _ = listed.send(worker.roll.answers(call));
                    });
                }
                Some(Command::Cut(cut)) => {
                    if worker.roll.cut(cut, worker.alarms.now()) {
                        worker.alarms.call();
                    }
                }
                Some(Command::End) | None => return,
            },
            () = worker.ended.notified() => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::runtime::{Builder, LocalOptions};

    use super::super::book::Book;

    use super::*;

    /// What the threads of a router share that has one and nothing else.
    pub fn shared(thread: &mpsc::UnboundedSender<Command>) -> Arc<Shared> {
        Arc::new(Shared {
            limits: Limits::default(),
            peers: Peers::new(Vec::new(), Vec::new(), 0),
            via: String::new(),
            listeners: Vec::new(),
            addresses: Vec::new(),
            problem: None,
            gauges: vec![Gauges::default()],
            threads: vec![thread.downgrade()],
            access: None,
            keeps: false,
            kept: Arc::new(Count::of_unit(Book::new().expect("memory"))),
            unkept: AtomicU64::new(0),
        })
    }

    /// A thread that has these commands before it begins; a message comes when it has ended.
    fn thread(commands: Vec<Command>) -> std::sync::mpsc::Receiver<()> {
        let (tell, told) = mpsc::unbounded_channel();
        let shared = shared(&tell);
        for command in commands {
            tell.send(command).expect("the other end is here");
        }
        let (end, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("an event loop");
            let (ready, _started) = oneshot::channel();
            runtime.block_on(run(0, shared, Vec::new(), Vec::new(), told, ready));
            _ = end.send(());
            drop(tell);
        });
        ended
    }

    #[test]
    fn a_thread_that_is_told_more_when_it_has_drained_ends_all_the_same() {
        let late = std::time::Duration::from_secs(20);
        for more in [Command::Drain, Command::Ping(oneshot::channel().0)] {
            let ended = thread(vec![Command::Drain, more]);
            ended.recv_timeout(late).expect("it ends");
        }
    }
}
