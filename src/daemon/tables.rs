//! The machine's table, made of every app's part.
//!
//! **Invariant:** a table is on disk before any router is given it, so a router that starts meanwhile reads it there.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::store::{FileError, replace_volatile};
use crate::traffic::{Routers, TrafficError, table_on_disk};
use crate::wire::table::{App, Table};

/// How often the routers are compared with the table, for what no event tells.
const COMPARE: Duration = Duration::from_secs(2);

/// Why a table is not everywhere yet.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It is not on disk.
    #[error(transparent)]
    Disk(#[from] FileError),
    /// It is not at every router.
    #[error(transparent)]
    Traffic(#[from] TrafficError),
}

/// The table and the routers that are to have it.
#[derive(Debug)]
pub struct Tables {
    path: PathBuf,
    routers: Routers,
    current: Mutex<Table>,
}

impl Tables {
    /// Goes on from the table that is on disk, which is also what the routers have.
    #[must_use]
    pub fn open(path: PathBuf, routers: Routers) -> Self {
        let current = Mutex::new(table_on_disk(&path).unwrap_or_default());
        Self {
            path,
            routers,
            current,
        }
    }

    /// The routers.
    #[must_use]
    pub fn routers(&self) -> &Routers {
        &self.routers
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

    /// Puts an app's part into the table; returns when every thread of every router has it.
    ///
    /// # Errors
    /// Publish again: the table may be on disk, or at some of the routers.
    pub async fn publish(&self, part: App) -> Result<(), PublishError> {
        let mut current = self.current.lock().await;
        let mut next = current.clone();
        next.apps.retain(|app| app.name != part.name);
        next.apps.push(part);
        next.apps.sort_by(|one, other| one.name.cmp(&other.name));
        self.swap(&mut current, next).await
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

    /// Gives the table again to routers that do not have it; never returns.
    pub async fn keep_everywhere(&self) {
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
                .any(|(_, stats)| stats.revision != Some(current.revision))
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
            next.revision = current.revision + 1;
        }
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
