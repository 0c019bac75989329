//! From a table as it is sent and stored to one that requests can use.

use std::path::{Path, PathBuf};

use super::table::{Builder, Route, Table, TableError};
use crate::wire;

/// Why a table's file gave no table.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read the table {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not the JSON of a table.
    #[error("the table {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the table in `path`; `None` if there is no such file.
///
/// # Errors
/// The file is there but cannot be read, or is not a table.
pub fn read(path: &Path) -> Result<Option<wire::table::Table>, LoadError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(LoadError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| LoadError::Parse {
            path: path.to_owned(),
            source,
        })
}

/// Checks `table` for a router with these listeners.
///
/// # Errors
/// It makes no sense.
pub fn compile(table: &wire::table::Table, listeners: &[String]) -> Result<Table, TableError> {
    let mut builder = Builder::new(listeners);
    for app in &table.apps {
        builder.app(&app.name, app.hold_ms)?;
        for slot in &app.slots {
            builder.slot(
                &slot.name,
                slot.weight,
                &slot.upstream,
                slot.boot_id.as_deref(),
                slot.ready,
            )?;
        }
        for route in &app.routes {
            builder.route(Route {
                listener: route.listener.as_deref(),
                host: &route.host,
                path: &route.path,
            })?;
        }
    }
    builder.build()
}
