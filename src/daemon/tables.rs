//! The machine's table, made of every app's part.
//!
//! **Invariant:** a table is on disk before any router is given it, so a router that starts meanwhile reads it there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::instances::Instances;
use super::route::at_rest;
use crate::config;
use crate::router::load;
use crate::router::table::TableError;
use crate::store::{FileError, replace_volatile};
use crate::traffic::{Routers, TrafficError, table_on_disk};
use crate::wire::control::InFlight;
use crate::wire::table::{App, Preview, Table};

/// How often the routers are compared with the table, for what no event tells.
const COMPARE: Duration = Duration::from_secs(2);

/// How long it takes until it is looked again whether a router that was away is back.
const AWAY: Duration = Duration::from_millis(100);

/// Why a table is not everywhere yet.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is not on disk.
    #[error(transparent)]
    Disk(#[from] FileError),
    /// It is not at every router.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
    /// No router would take it.
    #[error("the routers cannot have this table")]
    Invalid(#[from] TableError),
}

/// The table and the routers that are to have it.
#[derive(Debug)]
pub struct Tables {
    path: PathBuf,
    routers: Routers,
    /// The routers as units, where they are.
    instances: Option<Arc<Instances>>,
    current: Mutex<Table>,
    /// False while the apps are taken up one by one: a table without the others would send their requests nowhere.
    whole: watch::Sender<bool>,
}

impl Tables {
    /// Goes on from the table that is on disk, which is also what the routers have; should it be damaged, from theirs. Nothing is
    /// published before [`Tables::is_whole`].
    pub async fn open(path: PathBuf, routers: Routers, instances: Option<Arc<Instances>>) -> Self {
        let current = match table_on_disk(&path) {
            Some(table) => table,
            None => routers.table().await.unwrap_or_default(),
        };
        Self {
            path,
            routers,
            instances,
            current: Mutex::new(current),
            whole: watch::Sender::new(false),
        }
    }

    /// Adds an app's part to a table that is not whole yet; afterwards does nothing.
    pub async fn gather(&self, part: App) {
        if !*self.whole.borrow() {
            let mut current = self.current.lock().await;
            let next = with(&current, part);
            if check(&next).is_ok() {
                *current = next;
            }
        }
    }

    /// Every app has been taken up: the table is published, from now on whenever it changes.
    ///
    /// # Errors
    /// As for [`Tables::publish`]; what is to be published later is tried all the same.
    pub async fn is_whole(&self) -> Result<(), PublishError> {
        let mut current = self.current.lock().await;
        let mut next = current.clone();
        // What was gathered is new, whatever is said of it.
        next.revision += 1;
        let published = self.swap(&mut current, next).await;
        self.whole.send_replace(true);
        published
    }

    /// Returns when every app has been taken up.
    pub async fn gathered(&self) {
        // The sender is ours, so it does not end.
        let _ = self.whole.subscribe().wait_for(|whole| *whole).await;
    }

    /// Whether a part fits with those of the other apps.
    ///
    /// # Errors
    /// What is wrong with it, or whose route it has.
    pub async fn accepts(&self, part: App) -> Result<(), TableError> {
        check(&with(&*self.current.lock().await, part))
    }

    /// The routers.
    #[must_use]
    pub fn routers(&self) -> &Routers {
        &self.routers
    }

    /// The routers as units; none where the router is part of this process.
    #[must_use]
    pub fn instances(&self) -> Option<&Arc<Instances>> {
        self.instances.as_ref()
    }

    /// Returns when nothing is in flight at a run of a slot.
    ///
    /// # Errors
    /// A router does not answer; ask again.
    pub async fn drained(
        &self,
        app: &str,
        slot: &str,
        boot: Option<&str>,
    ) -> Result<(), TrafficError> {
        loop {
            self.routers.drained(app, slot, boot).await?;
            match self.in_flight(app, slot, boot).await? {
                Some(held) if held.total() == 0 => return Ok(()),
                Some(_) => {}
                None => tokio::time::sleep(AWAY).await,
            }
        }
    }

    /// What is in flight at a run of a slot. A router that is away for a moment has left its streams with PID 1: what the others say is
    /// not all then, and counts only if each router that runs was there all the time; else this is `None`.
    ///
    /// # Errors
    /// A router does not answer; ask again.
    pub async fn in_flight(
        &self,
        app: &str,
        slot: &str,
        boot: Option<&str>,
    ) -> Result<Option<InFlight>, TrafficError> {
        let ask = || self.routers.in_flight(app, slot, boot, Duration::ZERO);
        let Some(instances) = &self.instances else {
            return Ok(Some(ask().await?.into_iter().sum()));
        };
        let before = instances.runs().await;
        let told = ask().await?;
        // PID 1 may not have seen yet that one has ended; that one has said nothing.
        let is_all = before.as_ref().is_some_and(|runs| runs.len() == told.len());
        let is_all = is_all && before == instances.runs().await;
        Ok(is_all.then(|| told.into_iter().sum()))
    }

    /// An app's part, as last published.
    pub async fn part(&self, app: &str) -> Option<App> {
        self.current
            .lock()
            .await
            .apps
            .iter()
            .find(|part| part.name == app)
            .cloned()
    }

    /// Puts an app's parts into the table; returns when every thread of every router has it.
    ///
    /// # Errors
    /// Publish again: the table may be on disk, or at some of the routers.
    pub async fn publish(&self, parts: Vec<App>) -> Result<(), PublishError> {
        self.gathered().await;
        let mut current = self.current.lock().await;
        let next = parts
            .into_iter()
            .fold(current.clone(), |table, part| with(&table, part));
        self.swap(&mut current, next).await
    }

    /// Says what of an app can be previewed; returns when every thread of every router has it. False if the app has no part yet.
    ///
    /// # Errors
    /// As for [`Tables::publish`].
    pub async fn show(&self, app: &str, preview: Option<Preview>) -> Result<bool, PublishError> {
        self.gathered().await;
        let mut current = self.current.lock().await;
        let mut next = current.clone();
        let Some(part) = next.apps.iter_mut().find(|part| part.name == app) else {
            return Ok(false);
        };
        if part.preview != preview {
            part.preview = preview;
            self.swap(&mut current, next).await?;
        }
        Ok(true)
    }

    /// Returns when no name leads to a run any more, so that nothing new comes to it when it has no weight either.
    pub async fn unnamed(&self, app: &str, boot: &str) {
        let leads = |table: &Table| {
            let part = table.apps.iter().find(|part| part.name == app);
            let mut runs = part.iter().filter_map(|it| it.preview.as_ref());
            runs.any(|it| {
                it.runs
                    .iter()
                    .any(|run| run.boot_id.as_deref() == Some(boot))
            })
        };
        while leads(&*self.current.lock().await) {
            tokio::time::sleep(AWAY).await;
        }
    }

    /// Takes an app out of the table.
    ///
    /// # Errors
    /// As for [`Tables::publish`].
    pub async fn withdraw(&self, app: &str) -> Result<(), PublishError> {
        let mut current = self.current.lock().await;
        let mut next = current.clone();
        next.apps.retain(|part| part.name != app);
        self.swap(&mut current, next).await
    }

    /// Gives the table again to routers that do not have it, and sees to it that one of them accepts; never returns.
    pub async fn keep_everywhere(&self) {
        let accepting = async {
            if let Some(instances) = &self.instances {
                instances.keep().await;
            }
        };
        tokio::join!(self.keep_equal(), accepting);
    }

    async fn keep_equal(&self) {
        loop {
            tokio::time::sleep(COMPARE).await;
            let mut current = self.current.lock().await;
            if current.revision == 0 {
                continue;
            }
            let Ok(stats) = self.routers.stats().await else {
                continue;
            };
            if stats
                .iter()
                .filter_map(|(_, stats)| stats.as_ref().ok())
                .any(|stats| stats.revision != Some(current.revision))
            {
                let next = current.clone();
                if let Err(error) = self.swap(&mut current, next).await {
                    tracing::warn!(
                        "a router does not have the table: {}",
                        crate::telemetry::chain(&error)
                    );
                }
            }
        }
    }

    async fn swap(&self, current: &mut Table, mut next: Table) -> Result<(), PublishError> {
        if next != *current || current.revision == 0 {
            next.revision = next.revision.max(current.revision + 1);
        }
        check(&next)?;
        loop {
            let bytes = serde_json::to_vec_pretty(&next).expect("a table is strings and numbers");
            // Made of the apps' states again when the machine starts.
            replace_volatile(&self.path, &bytes, 0o644)?;
            *current = next.clone();
            match self.routers.put(&next).await {
                Ok(_) => return Ok(()),
                Err(TrafficError::Stale { revision, .. }) => next.revision = revision + 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether these apps can be had beside each other.
///
/// # Errors
/// What is wrong with one, or whose route another has too.
pub fn fit(apps: &[config::App]) -> Result<(), TableError> {
    check(&Table {
        revision: 0,
        apps: apps.iter().map(at_rest).collect(),
    })
}

/// A table in which an app has this part, with what can be previewed of it as it is.
fn with(table: &Table, mut part: App) -> Table {
    let mut next = table.clone();
    let before = next.apps.iter().find(|app| app.name == part.name);
    part.preview = before.and_then(|app| app.preview.clone());
    next.apps.retain(|app| app.name != part.name);
    next.apps.push(part);
    next.apps.sort_by(|one, other| one.name.cmp(&other.name));
    next
}

/// Whether a router that has every listener would take a table.
fn check(table: &Table) -> Result<(), TableError> {
    load::check(table)
}
