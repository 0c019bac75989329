//! From a table as it is sent and stored to one that requests can use.

use std::path::{Path, PathBuf};

use super::limits::Limits;
use super::table::preview::Named;
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

/// Checks `table` as every router will that it is put to, whatever its listeners: those only choose
/// among routes, all of which are checked. No I/O.
///
/// # Errors
/// It makes no sense; a router would refuse all of it.
pub fn check(table: &wire::table::Table) -> Result<(), TableError> {
    compile(table, &[], &Limits::default()).map(drop)
}

/// Checks `table` for a router with these listeners and limits.
///
/// # Errors
/// It makes no sense.
pub fn compile(
    table: &wire::table::Table,
    listeners: &[String],
    limits: &Limits,
) -> Result<Table, TableError> {
    let mut builder = Builder::new(listeners);
    for app in &table.apps {
        let hold_ms = app.hold_ms.unwrap_or(limits.hold.as_millis() as u64);
        builder.app(&app.name, hold_ms, limits.of(&app.limits))?;
        for slot in &app.slots {
            builder.slot(
                &slot.name,
                slot.weight,
                &slot.upstream,
                slot.boot_id.as_deref(),
                slot.ready,
            )?;
        }
        if let Some(sticky) = &app.sticky {
            builder.sticky(&sticky.by, sticky.salt, &sticky.places)?;
        }
        if let Some(preview) = &app.preview {
            let named = preview.runs.iter().map(|run| Named {
                slot: &run.slot,
                boot_id: run.boot_id.as_deref(),
                release: &run.release,
                names: &run.names,
            });
            builder.preview(preview.domain.as_deref(), preview.token.as_deref(), named)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_router_would_refuse_is_refused_without_one() {
        let table = |weight: u8, listener: &str, others: &str| -> wire::table::Table {
            let app = |name: &str, host: &str| {
                serde_json::json!({
                    "name": name, "generation": 1,
                    "routes": [{"listener": listener, "host": host, "path": "/"}],
                    "slots": [{"name": "blue", "weight": weight, "upstream": "127.0.0.1:9001"}],
                })
            };
            let apps = [app("web", "a.example"), app("shop", others)];
            serde_json::from_value(serde_json::json!({"revision": 1, "apps": apps}))
                .expect("a table's JSON")
        };
        assert_eq!(check(&table(100, "http", "b.example")), Ok(()));
        for refused in [
            table(100, "unheard-of", "a.example"),
            table(100, "unheard-of", "B.example"),
            table(99, "http", "b.example"),
        ] {
            let error = check(&refused).expect_err("it makes no sense");
            let listeners = ["http".to_owned(), "unheard-of".to_owned()];
            let by_a_router =
                compile(&refused, &listeners, &Limits::default()).expect_err("nor there");
            assert_eq!(error, by_a_router);
        }
    }
}
