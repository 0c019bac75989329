//! The routers, as slotd sees them: one control socket per instance (see [`wire::control`](crate::wire::control)).
//!
//! **Invariant:** a control socket that nothing listens on is an instance that does not run: it has nothing in flight, and it will read the
//! table on disk when it starts. Every other failure is one.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::wire::control::{Applied, InFlight, Listing, Problem, Stats};
use crate::wire::table::Table;

/// How long an instance may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The most that an answer may be, in bytes: a router reads what strangers write, and is not to be believed without a bound.
const LARGEST: usize = 4 << 20;

/// The most of one that is a table, or a list of connections with their paths: what a router takes itself.
const LARGEST_TABLE: usize = 64 << 20;

/// How long one question about a drain stays open; an instance that ends meanwhile is noticed by the connection.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// What went wrong with a router instance.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The directory of the control sockets cannot be read.
    #[error("cannot list the router instances in {path:?}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The instance did not answer.
    #[error(
        "router instance {instance} did not answer {request}: {why}; `journalctl -u slot-router@{instance}` may say why"
    )]
    NoAnswer {
        /// Its number.
        instance: String,
        /// `PUT /table`, …
        request: &'static str,
        /// What happened.
        why: String,
    },
    /// The instance has a newer table.
    #[error("router instance {instance} has a table of revision {revision}, newer than ours")]
    Stale {
        /// Its number.
        instance: String,
        /// Its revision.
        revision: u64,
    },
    /// The instance refused.
    #[error("router instance {instance} refused {request}: {why}")]
    Refused {
        /// Its number.
        instance: String,
        /// `PUT /table`, …
        request: &'static str,
        /// Its reason.
        why: String,
    },
}

/// All router instances of the machine.
#[derive(Clone, Debug)]
pub struct Routers {
    directory: PathBuf,
}

/// One instance that listens.
struct Instance {
    name: String,
    connection: UnixStream,
}

impl Routers {
    /// The instances that keep their sockets at `<directory>/<instance>/control.sock`.
    #[must_use]
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Gives every instance a table, all at once, so that one that hangs keeps none of the others from it; returns when all of their
    /// threads have it, with how many instances there are.
    ///
    /// # Errors
    /// The first failure, when every other instance has answered.
    pub async fn put(&self, table: &Table) -> Result<usize, TrafficError> {
        let body = Bytes::from(serde_json::to_vec(table).expect("a table is strings and numbers"));
        let instances = self.running().await?;
        let count = instances.len();
        let put = instances
            .into_iter()
            .map(|instance| instance.put(body.clone()));
        join_all(put).await.into_iter().collect::<Result<(), _>>()?;
        Ok(count)
    }

    /// What each instance holds, or why it does not say, by its name.
    ///
    /// # Errors
    /// The instances cannot be found.
    pub async fn stats(&self) -> Result<Vec<(String, Result<Stats, TrafficError>)>, TrafficError> {
        self.all_stats("/stats").await
    }

    /// As [`Self::stats`], with an app's slots alone and the latencies of their answers. Counts begin anew with each process of an
    /// instance, which [`Stats::since_ms`] tells apart.
    ///
    /// # Errors
    /// The instances cannot be found.
    pub async fn figures(
        &self,
        app: &str,
    ) -> Result<Vec<(String, Result<Stats, TrafficError>)>, TrafficError> {
        let mut all = self.all_stats(&format!("/stats?app={app}")).await?;
        for stats in all.iter_mut().filter_map(|(_, told)| told.as_mut().ok()) {
            // One that knows no such question yet tells of every app.
            stats.slots.retain(|slot| slot.app == app);
        }
        Ok(all)
    }

    async fn all_stats(
        &self,
        path: &str,
    ) -> Result<Vec<(String, Result<Stats, TrafficError>)>, TrafficError> {
        let asked = self.running().await?.into_iter().map(async |instance| {
            let name = instance.name.clone();
            (
                name,
                instance.get(path, "GET /stats", ANSWER, LARGEST).await,
            )
        });
        Ok(join_all(asked).await)
    }

    /// Has an instance stop accepting: it drains, for no longer than a limit if there is one, and ends.
    ///
    /// # Errors
    /// It does not answer. One that does not run has nothing to stop.
    pub async fn stop_accepting(
        &self,
        name: &str,
        limit: Option<Duration>,
    ) -> Result<(), TrafficError> {
        let limit = limit.map_or_else(String::new, |it| format!("?limit_ms={}", it.as_millis()));
        let (path, request) = (format!("/stop-accepting{limit}"), "POST /stop-accepting");
        for instance in self.running().await? {
            if instance.name != name {
                continue;
            }
            return instance.post(&path, request).await;
        }
        Ok(())
    }

    /// Has every instance end what is under way at a run of a slot, all of it or that of one class (`requests`, `streams`, `tunnels`), each
    /// at its own moment within `spread` after `after`.
    ///
    /// # Errors
    /// The first failure, when every instance was asked.
    pub async fn cut(
        &self,
        app: &str,
        slot: &str,
        boot: Option<&str>,
        class: Option<&str>,
        after: Duration,
        spread: Duration,
    ) -> Result<(), TrafficError> {
        let optional = |key: &str, value: Option<&str>| {
            value.map_or_else(String::new, |value| format!("&{key}={value}"))
        };
        let path = format!(
            "/cut?app={app}&slot={slot}{}{}&after_ms={}&spread_ms={}",
            optional("boot_id", boot),
            optional("class", class),
            after.as_millis(),
            spread.as_millis()
        );
        let instances = self.running().await?.into_iter();
        let cut = instances.map(|instance| instance.post(&path, "POST /cut"));
        join_all(cut).await.into_iter().collect()
    }

    /// What is under way at a slot, at every instance that says, and why the others do not.
    ///
    /// # Errors
    /// The instances cannot be found.
    pub async fn connections(
        &self,
        app: &str,
        slot: &str,
    ) -> Result<(Listing, Vec<TrafficError>), TrafficError> {
        let path = format!("/connections?app={app}&slot={slot}");
        let asked = self.running().await?.into_iter();
        let asked =
            asked.map(|instance| instance.get(&path, "GET /connections", ANSWER, LARGEST_TABLE));
        let (mut all, mut silent) = (Listing::default(), Vec::new());
        for told in join_all(asked).await {
            match told {
                Ok(own) => all.add(own),
                Err(error) => silent.push(error),
            }
        }
        Ok((all, silent))
    }

    /// The table of some instance that has one.
    pub async fn table(&self) -> Option<Table> {
        let instances = self.running().await.ok()?;
        let asked = instances
            .into_iter()
            .map(|instance| instance.get::<Table>("/table", "GET /table", ANSWER, LARGEST_TABLE));
        join_all(asked)
            .await
            .into_iter()
            .filter_map(Result::ok)
            .max_by_key(|table| table.revision)
    }

    /// Returns when nothing is in flight at a run of a slot, at any instance that listens.
    ///
    /// # Errors
    /// The first failure; ask again.
    pub async fn drained(
        &self,
        app: &str,
        slot: &str,
        boot: Option<&str>,
    ) -> Result<(), TrafficError> {
        loop {
            let held = self.in_flight(app, slot, boot, DRAIN_WAIT).await?;
            if held.into_iter().sum::<InFlight>().total() == 0 {
                return Ok(());
            }
        }
    }

    /// What each instance that listens has in flight at a run of a slot, as soon as that is nothing, or after `wait`.
    ///
    /// # Errors
    /// The first failure, when every instance was asked.
    pub async fn in_flight(
        &self,
        app: &str,
        slot: &str,
        boot: Option<&str>,
        wait: Duration,
    ) -> Result<Vec<InFlight>, TrafficError> {
        let boot = boot
            .map(|boot| format!("&boot_id={boot}"))
            .unwrap_or_default();
        let path = format!(
            "/drained?app={app}&slot={slot}{boot}&wait_ms={}",
            wait.as_millis()
        );
        let asked = self.running().await?.into_iter();
        let asked =
            asked.map(|instance| instance.get(&path, "GET /drained", wait + ANSWER, LARGEST));
        join_all(asked).await.into_iter().collect()
    }

    /// The instances that listen.
    async fn running(&self) -> Result<Vec<Instance>, TrafficError> {
        let failed = |source| TrafficError::List {
            path: self.directory.clone(),
            source,
        };
        let mut listed = match tokio::fs::read_dir(&self.directory).await {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut running = Vec::new();
        while let Some(entry) = listed.next_entry().await.map_err(failed)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let socket = entry.path().join("control.sock");
            match UnixStream::connect(&socket).await {
                Ok(connection) => running.push(Instance { name, connection }),
                Err(error) if gone(&error) => {}
                Err(error) => {
                    return Err(TrafficError::NoAnswer {
                        instance: name,
                        request: "a connection",
                        why: error.to_string(),
                    });
                }
            }
        }
        running.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(running)
    }
}

/// The last table, as it is on disk; `None` if there is none or it cannot be read.
#[must_use]
pub fn table_on_disk(path: &Path) -> Option<Table> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Nothing listens there: the instance does not run (any more).
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
    )
}

impl Instance {
    async fn put(self, table: Bytes) -> Result<(), TrafficError> {
        let name = self.name.clone();
        match self
            .ask("PUT", "/table", "PUT /table", table, ANSWER, LARGEST)
            .await?
        {
            (200, _) => Ok(()),
            (409, answer) => {
                let applied: Applied = decode(&name, "PUT /table", &answer)?;
                Err(TrafficError::Stale {
                    instance: name,
                    revision: applied.revision,
                })
            }
            (_, answer) => Err(refused(name, "PUT /table", &answer)),
        }
    }

    async fn post(self, path: &str, request: &'static str) -> Result<(), TrafficError> {
        let (name, none) = (self.name.clone(), Bytes::new());
        match self
            .ask("POST", path, request, none, ANSWER, LARGEST)
            .await?
        {
            (200, _) => Ok(()),
            (_, answer) => Err(refused(name, request, &answer)),
        }
    }

    async fn get<T: DeserializeOwned>(
        self,
        path: &str,
        request: &'static str,
        limit: Duration,
        most: usize,
    ) -> Result<T, TrafficError> {
        let (name, none) = (self.name.clone(), Bytes::new());
        match self.ask("GET", path, request, none, limit, most).await? {
            (200, answer) => decode(&name, request, &answer),
            (_, answer) => Err(refused(name, request, &answer)),
        }
    }

    async fn ask(
        self,
        method: &str,
        path: &str,
        request: &'static str,
        body: Bytes,
        limit: Duration,
        most: usize,
    ) -> Result<(u16, Bytes), TrafficError> {
        let instance = self.name;
        let failed = |why: String| TrafficError::NoAnswer {
            instance: instance.clone(),
            request,
            why,
        };
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(self.connection)).await?;
            let message = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "slot-router")
                .header("content-type", "application/json")
                .body(Full::new(body))
                .expect("a request of constants");
            let answer = async {
                let answer = sender.send_request(message).await?;
                let status = answer.status().as_u16();
                let body = Limited::new(answer.into_body(), most).collect().await?;
                Ok((status, body.to_bytes()))
            };
            // The connection is driven here, not by a task of its own, so that giving up on the question closes it.
            tokio::pin!(answer, connection);
            tokio::select! {
                biased;
                answered = &mut answer => answered,
                closed = &mut connection => {
                    closed?;
                    answer.await
                }
            }
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(answered) => {
                answered.map_err(|error: Box<dyn Error + Send + Sync>| failed(error.to_string()))
            }
            Err(_) => Err(failed(format!("no answer within {} s", limit.as_secs()))),
        }
    }
}

fn decode<T: DeserializeOwned>(
    instance: &str,
    request: &'static str,
    body: &[u8],
) -> Result<T, TrafficError> {
    serde_json::from_slice(body).map_err(|error| TrafficError::NoAnswer {
        instance: instance.to_owned(),
        request,
        why: format!("its answer makes no sense: {error}"),
    })
}

fn refused(instance: String, request: &'static str, body: &[u8]) -> TrafficError {
    let why = serde_json::from_slice::<Problem>(body).map_or_else(
        |_| String::from_utf8_lossy(body).into_owned(),
        |problem| problem.error,
    );
    TrafficError::Refused {
        instance,
        request,
        why,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_instance_that_answers_without_end_is_an_error_and_not_all_our_memory() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = directory.path().join("1");
        std::fs::create_dir(&own).expect("a directory");
        let listener = UnixListener::bind(own.join("control.sock")).expect("a socket");
        let answering = tokio::spawn(async move {
            let (mut router, _) = listener.accept().await.expect("somebody asks");
            // So that the end is no reset before the answer is read.
            let mut request = [0; 4096];
            assert!(router.read(&mut request).await.expect("a request") > 0);
            router
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                .await
                .expect("a head");
            let (bytes, mut sent) = (vec![b' '; 1 << 16], 0);
            while sent < 2 * LARGEST && router.write_all(&bytes).await.is_ok() {
                sent += bytes.len();
            }
            sent
        });
        let routers = Routers::in_directory(directory.path().to_owned());
        let told = routers.stats().await.expect("they are found");
        let (name, Err(error)) = &told[0] else {
            panic!("it never ended: {told:?}");
        };
        assert_eq!(name, "1");
        let text = error.to_string();
        assert!(text.contains("GET /stats: length limit exceeded"), "{text}");
        let sent = answering.await.expect("it ends");
        assert!(sent < 2 * LARGEST, "it was read to its end: {sent}");
    }
}
