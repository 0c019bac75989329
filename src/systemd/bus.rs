//! The connection to PID 1, by way of the system bus.
//!
//! One task per process makes it, makes it again when it is lost, and always reads what comes: a stream of messages that nobody reads would
//! stop every call on the connection.
//!
//! **Invariant:** PID 1 is told that somebody listens (`Subscribe`) after each connect and after each time that PID 1 itself comes back to
//! the bus, or it sends no signals.
//! **Invariant:** only signals that PID 1 sent are passed on; anybody on the bus could send others.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use zbus::names::{BusName, OwnedUniqueName};

use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, fdo, message};

use super::call::{MANAGER, PATH, SYSTEMD};
use super::watch::Bell;

/// How long PID 1 may take for an answer. It answers nobody while it reloads, which on a large machine takes seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// Between attempts to reach a bus that is gone; doubled up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(2);

/// How many ended jobs are kept for those who wait; who falls behind looks for himself.
const JOBS: usize = 256;

/// The system bus cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the system bus: it takes a machine where systemd and D-Bus run (`systemctl status dbus.socket`); without them, use `slotctl start`"
)]
pub struct ConnectError(#[source] pub zbus::Error);

/// A job that PID 1 has ended (org.freedesktop.systemd1(5), `JobRemoved`).
#[derive(Clone, Debug)]
pub(super) struct JobEnd {
    pub(super) job: OwnedObjectPath,
    /// `done`, `canceled`, `timeout`, `failed`, `dependency`, `skipped`, `invalid`, `assert`, …
    pub(super) result: String,
}

/// PID 1, as slot reaches it.
#[derive(Debug)]
pub struct Bus {
    shared: Arc<Shared>,
    link: watch::Receiver<Option<Connection>>,
    keeper: JoinHandle<()>,
}

/// What the keeping task and the callers have in common.
#[derive(Debug)]
pub(super) struct Shared {
    jobs: broadcast::Sender<JobEnd>,
    bells: Mutex<Vec<Weak<Bell>>>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Bus {
    /// Connects to the system bus, and stays connected.
    ///
    /// # Errors
    /// When there is no bus now. Later losses are waited out by the calls themselves.
    pub async fn connect() -> Result<Arc<Self>, ConnectError> {
        let shared = Arc::new(Shared {
            jobs: broadcast::Sender::new(JOBS),
            bells: Mutex::new(Vec::new()),
        });
        let first = Linked::new().await.map_err(ConnectError)?;
        let (published, link) = watch::channel(Some(first.connection.clone()));
        let keeper = tokio::spawn(keep(first, published, Arc::clone(&shared)));
        Ok(Arc::new(Self {
            shared,
            link,
            keeper,
        }))
    }

    /// The connection, as soon as there is one.
    pub(super) async fn link(&self) -> Connection {
        let mut link = self.link.clone();
        loop {
            if let Some(connection) = link.borrow_and_update().clone() {
                return connection;
            }
            if link.changed().await.is_err() {
                // The keeping task ends with the process only.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The ends of jobs from now on.
    pub(super) fn job_ends(&self) -> broadcast::Receiver<JobEnd> {
        self.shared.jobs.subscribe()
    }

    /// Rings a bell at each change of its units for as long as somebody keeps it.
    pub(super) fn hang(&self, bell: &Arc<Bell>) {
        let mut bells = self
            .shared
            .bells
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }
}

impl Shared {
    /// Rings every bell that hangs for the unit of this path, or all of them.
    fn ring(&self, path: Option<&str>) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.iter().filter_map(Weak::upgrade) {
            bell.ring(path);
        }
    }
}

/// A connection that is subscribed to what is needed.
struct Linked {
    connection: Connection,
    stream: MessageStream,
    /// PID 1's own name on this bus, by which its signals are told from others.
    systemd: Option<OwnedUniqueName>,
}

impl Linked {
    async fn new() -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::system()
            .method_timeout(ANSWER)
            .build()
            .await?;
        // Before anything is asked for, so that nothing is missed. It is drained by `serve` within the few calls below.
        let stream = MessageStream::from(&connection);
        let dbus = fdo::DBusProxy::new(&connection).await?;
        for rule in rules()? {
            dbus.add_match_rule(rule).await?;
        }
        let systemd = dbus.get_name_owner(BusName::try_from(SYSTEMD)?).await.ok();
        subscribe(&connection).await;
        Ok(Self {
            connection,
            stream,
            systemd,
        })
    }
}

/// What is read. Nothing is asked of `UnitNew` and `UnitRemoved`: a unit that is loaded or unloaded does not run, before and after.
fn rules() -> zbus::Result<[MatchRule<'static>; 4]> {
    let signal = || MatchRule::builder().msg_type(message::Type::Signal);
    let manager = |member| {
        let rule = signal().sender(SYSTEMD).path(PATH).interface(MANAGER);
        rule.member(member).build()
    };
    Ok([
        manager("JobRemoved")?,
        manager("Reloading")?,
        signal()
            .sender(SYSTEMD)
            .path_namespace("/org/freedesktop/systemd1/unit")
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            // Each change of state is told of the unit and of the service. Of the service alone, what changes is its status text.
            .arg(0, "org.freedesktop.systemd1.Unit")
            .build()?,
        signal()
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, SYSTEMD)
            .build()?,
    ])
}

/// Asks PID 1 for signals. That it fails is not an error of any call: everything is also looked at from time to time.
async fn subscribe(connection: &Connection) {
    let asked = connection
        .call_method(Some(SYSTEMD), PATH, Some(MANAGER), "Subscribe", &())
        .await;
    if let Err(reason) = asked {
        tracing::debug!(%reason, "PID 1 did not take the subscription to its signals");
    }
}

/// Keeps a connection for as long as the process runs.
async fn keep(first: Linked, published: watch::Sender<Option<Connection>>, shared: Arc<Shared>) {
    let mut next = Some(first);
    let mut pause = FASTEST;
    loop {
        match next.take() {
            Some(linked) => {
                published.send_replace(Some(linked.connection.clone()));
                // Whatever happened while nobody was connected is seen now.
                shared.ring(None);
                pause = FASTEST;
                serve(linked, &shared).await;
                published.send_replace(None);
                tracing::warn!("the connection to the system bus is lost; connecting again");
            }
            None => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SLOWEST);
            }
        }
        match Linked::new().await {
            Ok(linked) => next = Some(linked),
            Err(reason) => tracing::debug!(%reason, "the system bus cannot be reached"),
        }
    }
}

/// Reads what comes until the connection ends.
async fn serve(mut linked: Linked, shared: &Shared) {
    let mut resubscribing = tokio::task::JoinSet::new();
    while let Some(message) = linked.stream.next().await {
        let Ok(message) = message else { return };
        if message.message_type() != message::Type::Signal {
            continue;
        }
        let header = message.header();
        let from = header.sender();
        if from.is_some_and(|from| from.as_str() == "org.freedesktop.DBus") {
            if let Some(owner) = new_owner(&message) {
                linked.systemd = Some(owner);
                shared.ring(None);
                // Beside this loop, which has to go on reading for the answer to arrive.
                let connection = linked.connection.clone();
                resubscribing.spawn(async move { subscribe(&connection).await });
            }
        } else if from.is_some()
            && from.map(|from| from.as_str()) == linked.systemd.as_ref().map(|name| name.as_str())
        {
            heard(&message, shared);
        }
        while resubscribing.try_join_next().is_some() {}
    }
}

/// PID 1's new name on the bus: it comes back after `systemctl daemon-reexec`, and after a restart of the bus.
fn new_owner(message: &Message) -> Option<OwnedUniqueName> {
    if message.header().member()?.as_str() != "NameOwnerChanged" {
        return None;
    }
    let body = message.body();
    let (name, _old, new): (&str, &str, &str) = body.deserialize().ok()?;
    (name == SYSTEMD)
        .then(|| OwnedUniqueName::try_from(new).ok())
        .flatten()
}

fn heard(message: &Message, shared: &Shared) {
    let header = message.header();
    let member = header.member().map_or("", |member| member.as_str());
    match member {
        "PropertiesChanged" => shared.ring(header.path().map(|path| path.as_str())),
        "JobRemoved" => {
            let body = message.body();
            let end: zbus::Result<(u32, OwnedObjectPath, &str, &str)> = body.deserialize();
            if let Ok((_id, job, _unit, result)) = end {
                // Nobody may be waiting.
                let _ = shared.jobs.send(JobEnd {
                    job,
                    result: result.to_owned(),
                });
            }
        }
        // Told at the beginning and at the end; signals between may be lost.
        "Reloading" => shared.ring(None),
        _ => {}
    }
}
