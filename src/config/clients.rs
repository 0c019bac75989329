//! Keys of an app's file about who sees which version.

use super::app::host;
use super::error::ConfigError;
use super::section::Value;
use crate::router::table::sticky::By;

/// What a client is known by that keeps to a version.
pub(super) fn sticky(value: &Value<'_>) -> Result<By, ConfigError> {
    let by = value.text("\"cookie\"")?;
    by.parse().map_err(|_| {
        value.error(
            format!("{by:?} is nothing that a client could be known by"),
            "write \"cookie\" (one of slot's own), \"header:X-User\" (a field of its requests) or \"address\"",
        )
    })
}

/// Under which domain versions have names of their own.
pub(super) fn preview(value: &Value<'_>) -> Result<String, ConfigError> {
    let domain = host(value)?;
    if domain.starts_with('*') {
        return Err(value.error(
            format!("{domain:?} is no domain"),
            "write what follows the app's name: `preview = \"example.org\"` for green.web.example.org",
        ));
    }
    Ok(domain)
}

/// The SHA-256 of the token, which itself is nowhere on the machine.
pub(super) fn preview_token(value: &Value<'_>) -> Result<String, ConfigError> {
    let digest = value.text("\"2bb80d53…\"")?;
    if digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digest.to_ascii_lowercase());
    }
    // Not what was written: it may be the token itself.
    Err(value.error(
        "it is not the 64 hexadecimal digits of a SHA-256",
        "make a token that nobody guesses (`openssl rand -hex 24`), keep it, and write what `printf %s TOKEN | sha256sum` says of it",
    ))
}
