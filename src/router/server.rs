//! Starting a router: its threads, its control socket, its first table.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::access::AccessLog;
use super::book::Book;
use super::control::Control;
use super::counts::{Counts, Gauges};
use super::ids::Ids;
use super::keep::{Count, Left};
use super::label::Draining;
use super::limits::Limits;
use super::peers::Peers;
use super::worker::{self, Shared};
use super::{control_socket, load, unit};
use crate::config::{Machine, Network};
use crate::telemetry::chain;
use crate::wire;

/// Where the first table comes from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// It will be put over the control socket; requests wait for it.
    #[default]
    None,
    /// This file. If it is missing or no good, requests wait as for [`Source::None`].
    File(PathBuf),
    /// This one.
    Given(wire::table::Table),
}

/// What a router is started with.
#[derive(Debug)]
pub struct Config {
    /// Bound listeners and their names.
    pub listeners: Vec<(String, TcpListener)>,
    /// The first table.
    pub table: Source,
    /// Where to make a control socket.
    pub control: Option<PathBuf>,
    /// How many threads serve; 0 for one per processor.
    pub threads: usize,
    /// Record every request.
    pub access_log: bool,
    /// Speak to the service manager and obey SIGTERM: for a process that is a router and nothing else.
    pub attend: bool,
    /// The process before this one was told to stop accepting: so does this one, from the start.
    pub draining: Option<Draining>,
    /// Streams and tunnels that it has left.
    pub left: Vec<Left>,
    /// What they are, and where it is written of further ones.
    pub book: Option<Book>,
    /// Every bound.
    pub limits: Limits,
    /// Who may say on whose behalf they ask.
    pub trusted_peers: Vec<Network>,
    /// The listeners whose connections begin with a header of the PROXY protocol, by name. One that there is not has no effect.
    pub proxy_protocol: Vec<String>,
    /// Why these settings are not those of the machine's file.
    pub problem: Option<String>,
}

impl Config {
    /// No table and no control socket, one thread per processor, the documented limits, and no one is trusted.
    #[must_use]
    pub fn new(listeners: Vec<(String, TcpListener)>) -> Self {
        Self {
            listeners,
            table: Source::None,
            control: None,
            threads: 0,
            access_log: false,
            attend: false,
            draining: None,
            left: Vec::new(),
            book: None,
            limits: Limits::default(),
            trusted_peers: Vec::new(),
            proxy_protocol: Vec::new(),
            problem: None,
        }
    }

    /// This, with what the machine's settings say of limits and of who is believed.
    #[must_use]
    pub fn of(self, machine: Machine) -> Self {
        Self {
            limits: Limits::default().with(&machine.limits),
            trusted_peers: machine.trusted_peers,
            proxy_protocol: machine.proxy_protocol,
            ..self
        }
    }
}

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to listen on.
    #[error("no listener: pass sockets (LISTEN_FDS) or --listen")]
    NoListener,
    /// A listener cannot be used.
    #[error("cannot use the listener {name}")]
    Listener {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The control socket cannot be made.
    #[error("cannot make the control socket {path}")]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or its event loop cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The table that was given makes no sense.
    #[error("the table is not valid")]
    Table(#[source] super::PutError),
}

/// A router that runs.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    control: Control,
    threads: Vec<JoinHandle<()>>,
    side: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

impl Server {
    /// Starts it; it accepts when this returns.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub fn start(config: Config) -> Result<Self, StartError> {
        if config.listeners.is_empty() {
            return Err(StartError::NoListener);
        }
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.threads == 0 {
            processors()
        } else {
            config.threads
        };
        let book = config.book.map_or_else(Book::new, Ok);
        let book = book.map_err(StartError::Thread)?;
        let (names, listeners): (Vec<_>, Vec<_>) = config.listeners.into_iter().unzip();
        let mut addresses = Vec::with_capacity(names.len());
        for (name, listener) in names.iter().zip(&listeners) {
            addresses.push(prepare(listener).map_err(|source| StartError::Listener {
                name: name.clone(),
                source,
            })?);
        }
        let access = config
            .access_log
            .then(AccessLog::to_stdout)
            .transpose()
            .map_err(StartError::Thread)?;
        let proxied = names.iter().map(|n| config.proxy_protocol.contains(n));
        let peers = Peers::new(
            config.trusted_peers,
            proxied.collect(),
            config.limits.connections_per_address,
        );
        let (commands, told): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared {
            threads: commands.iter().map(|c| c.downgrade()).collect(),
            limits: config.limits,
            peers,
            // Unlike any other's, so that two routers in a row are not taken for a loop.
            via: format!(
                "slot-{}",
                String::from_utf8_lossy(&Ids::default().next()[..8])
            ),
            addresses: addresses.clone(),
            listeners: names,
            problem: config.problem,
            gauges: (0..count).map(|_| Gauges::default()).collect(),
            keeps: config.attend,
            kept: Arc::new(Count::of_unit(book)),
            unkept: AtomicU64::new(0),
            access,
        });
        let mut adopted: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let mut counts = HashMap::new();
        for (number, left) in config.left.into_iter().enumerate() {
            let run = &left.label.run;
            let its = counts
                .entry(run.clone())
                .or_insert_with(|| Counts::new(run.clone(), count));
            adopted[number % count].push((left, Arc::clone(its)));
        }
        let mut threads = Vec::with_capacity(count);
        for (thread, (told, adopted)) in told.into_iter().zip(adopted).enumerate() {
            // A thread without a listener accepts nothing.
            let own = listeners
                .iter()
                .filter(|_| config.draining.is_none())
                .map(TcpListener::try_clone)
                .collect::<io::Result<_>>()
                .map_err(StartError::Thread)?;
            let handle = spawn(format!("router-{thread}"), {
                let shared = Arc::clone(&shared);
                move |ready| worker::run(thread, shared, own, adopted, told, ready)
            });
            threads.push(handle.map_err(StartError::Thread)?);
        }
        let control = Control::new(shared, commands, counts, config.draining);
        let side = Side {
            control: control.clone(),
            table: config.table,
            socket: config.control,
            attend: config.attend,
        };
        let (end, ended) = oneshot::channel();
        let (result, started) = std::sync::mpsc::channel();
        let handle = spawn("control".to_owned(), move |ready| async move {
            _ = ready.send(Ok(()));
            side.run(&result, ended).await;
        });
        let handle = handle.map_err(StartError::Thread)?;
        let gone = || StartError::Thread(io::ErrorKind::BrokenPipe.into());
        started.recv().map_err(|_| gone())??;
        if let Some(Draining { until }) = config.draining {
            tracing::info!("draining, as the process before this one was");
            // Not before it has its table: a thread that has nothing left ends with that.
            control.drain_until(until);
        }
        Ok(Self {
            addresses,
            control,
            threads,
            side: Some((handle, end)),
        })
    }

    /// Where the listeners are, in the order in which they were given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How to steer it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Stops accepting; the router ends when its last connection has.
    pub fn drain(&self) {
        self.control.drain();
    }

    /// Waits until it has drained.
    pub fn wait(mut self) {
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; with `panic = "abort"` nobody gets here.
            _ = thread.join();
        }
        if let Some((side, end)) = self.side.take() {
            drop(end);
            _ = side.join();
        }
    }
}

/// Accepted sockets have these settings from their listener.
fn prepare(listener: &TcpListener) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    // Messages are written whole; nothing is gained by waiting for more.
    socket2::SockRef::from(listener).set_tcp_nodelay(true)?;
    listener.local_addr()
}

/// Runs `body` on a thread with an event loop of its own, and waits until it says that it is ready.
fn spawn<F, T>(name: String, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce(oneshot::Sender<io::Result<()>>) -> T + Send + 'static,
    T: Future<Output = ()> + 'static,
{
    let (ready, started) = oneshot::channel();
    let handle =
        std::thread::Builder::new().name(name).spawn(
            move || match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => runtime.block_on(body(ready)),
                Err(e) => _ = ready.send(Err(e)),
            },
        )?;
    started
        .blocking_recv()
        .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
    Ok(handle)
}

/// What runs beside the threads that serve.
struct Side {
    control: Control,
    table: Source,
    socket: Option<PathBuf>,
    attend: bool,
}

impl Side {
    async fn run(
        self,
        result: &std::sync::mpsc::Sender<Result<(), StartError>>,
        ended: oneshot::Receiver<()>,
    ) {
        let socket = match self.start().await {
            Ok(socket) => socket,
            Err(e) => {
                _ = result.send(Err(e));
                return;
            }
        };
        let signals = match self.attend.then(unit::ready).transpose() {
            Ok(signals) => signals,
            Err(e) => {
                _ = result.send(Err(StartError::Thread(e)));
                return;
            }
        };
        _ = result.send(Ok(()));
        let control = self.control.clone();
        let drained = control.clone();
        tokio::task::spawn_local(async move { drained.end_in_time().await });
        let _file = socket.map(|(listener, file)| {
            tokio::task::spawn_local(async move {
                if let Err(error) = control_socket::serve(listener, control).await {
                    tracing::error!("the control socket failed: {error}");
                }
            });
            file
        });
        if let Some(signals) = signals {
            tokio::task::spawn_local(unit::attend(self.control, signals));
        }
        // Ends with an error when the server drops its end, which is the signal.
        _ = ended.await;
    }

    async fn start(
        &self,
    ) -> Result<Option<(tokio::net::UnixListener, control_socket::SocketFile)>, StartError> {
        // Bound before the table is read: a table that is written after that is put here.
        let bound = self.bind()?;
        match &self.table {
            Source::None => {}
            Source::Given(table) => {
                self.control
                    .put(table.clone())
                    .await
                    .map_err(StartError::Table)?;
            }
            Source::File(path) => match load::read(path) {
                Ok(Some(table)) => {
                    if let Err(error) = self.control.put(table).await {
                        let (path, error) = (path.display(), chain(&error));
                        tracing::error!(
                            "the table {path} is not valid, and requests wait for another: {error}"
                        );
                    }
                }
                Ok(None) => {
                    tracing::warn!("no table {} yet; requests wait for one", path.display())
                }
                Err(error) => {
                    tracing::error!("requests wait for another table: {}", chain(&error));
                }
            },
        }
        Ok(bound)
    }

    fn bind(
        &self,
    ) -> Result<Option<(tokio::net::UnixListener, control_socket::SocketFile)>, StartError> {
        let Some(path) = &self.socket else {
            return Ok(None);
        };
        let bound = control_socket::bind(path).map_err(|source| StartError::Control {
            path: path.clone(),
            source,
        })?;
        Ok(Some(bound))
    }
}
