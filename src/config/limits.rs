//! The bounds of the router: `[limits]` of the machine, and of an app.

use std::time::Duration;

use super::error::ConfigError;
use super::section::{Section, Value};

/// What an app's `[limits]` set for its own requests; absent: the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppLimits {
    /// `body_bytes = "10M"`: a larger request body is answered 413.
    pub body_bytes: Option<u64>,
    /// `body_stall = "60s"`: a request body without progress is answered 408.
    pub body_stall: Option<Duration>,
    /// `write_stall = "60s"`: a client that takes nothing of its answer is reset.
    pub write_stall: Option<Duration>,
    /// `response_timeout = "60s"`: from a whole request to the head of its answer; then 504.
    pub response_timeout: Option<Duration>,
    /// `response_stall = "300s"`: an answer without progress is cut by reset.
    pub response_stall: Option<Duration>,
    /// `hold_timeout = "10s"`: a request that waits for longer until its app is back is answered 503.
    pub hold_timeout: Option<Duration>,
}

impl AppLimits {
    pub(super) fn take(keys: &mut Section<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            body_bytes: keys.take("body_bytes").map(|v| size(&v)).transpose()?,
            body_stall: time(keys.take("body_stall"))?,
            write_stall: time(keys.take("write_stall"))?,
            response_timeout: time(keys.take("response_timeout"))?,
            response_stall: time(keys.take("response_stall"))?,
            hold_timeout: time(keys.take("hold_timeout"))?,
        })
    }
}

/// What the machine's `[limits]` set; absent: what the router does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For every app that does not set its own.
    pub apps: AppLimits,
    /// `head_bytes = "64K"`: a larger head is answered 431.
    pub head_bytes: Option<u32>,
    /// `head_fields = 100`: more of them are answered 431.
    pub head_fields: Option<u32>,
    /// `target_bytes = "8K"`: a longer one is answered 414.
    pub target_bytes: Option<u32>,
    /// `head_timeout = "30s"`: from a head's first byte to its last; then 408.
    pub head_timeout: Option<Duration>,
    /// `idle_timeout = "75s"`: a connection without a request is closed.
    pub idle_timeout: Option<Duration>,
    /// `connect_timeout = "5s"`: for the app to take a connection; then 504.
    pub connect_timeout: Option<Duration>,
    /// `connections = 100000`: more wait in the socket's queue.
    pub connections: Option<u32>,
    /// `connections_per_address = 1000`: more are answered 429; 0 for any number.
    pub connections_per_address: Option<u32>,
    /// `held_requests = 10000`: more are answered 503.
    pub held_requests: Option<u32>,
    /// `held_bytes = "16M"`: with more in their heads, all together, further ones are answered 503.
    pub held_bytes: Option<u64>,
    /// `table_timeout = "90s"`: a request that waits for longer until the router has any table is answered 503.
    pub table_timeout: Option<Duration>,
    /// `proxy_header_timeout = "5s"`: a connection whose PROXY header comes later is reset.
    pub proxy_header_timeout: Option<Duration>,
    /// `half_closed_timeout = "60s"`: a tunnel of which one side has ended and the other is silent is closed.
    pub half_closed_timeout: Option<Duration>,
    /// `interim_answers = 16`: more (1xx) to one request are answered 502.
    pub interim_answers: Option<u32>,
    /// `linger_timeout = "30s"`: a client that goes on sending for longer after an answer that closes is cut off.
    pub linger_timeout: Option<Duration>,
}

impl Limits {
    pub(super) fn take(keys: &mut Section<'_>) -> Result<Self, ConfigError> {
        let mut count = |key, from, to| {
            let value = keys.take(key);
            value.map(|value| value.number(from, to)).transpose()
        };
        let connections = count("connections", 1, 10_000_000)?;
        let connections_per_address = count("connections_per_address", 0, 10_000_000)?;
        let held_requests = count("held_requests", 0, 10_000_000)?;
        let head_fields = count("head_fields", 10, 10_000)?;
        let interim_answers = count("interim_answers", 0, 10_000)?;
        Ok(Self {
            apps: AppLimits::take(keys)?,
            head_bytes: small(keys.take("head_bytes"), 1024)?,
            head_fields,
            target_bytes: small(keys.take("target_bytes"), 256)?,
            head_timeout: time(keys.take("head_timeout"))?,
            idle_timeout: time(keys.take("idle_timeout"))?,
            connect_timeout: time(keys.take("connect_timeout"))?,
            connections,
            connections_per_address,
            held_requests,
            held_bytes: keys.take("held_bytes").map(|v| size(&v)).transpose()?,
            table_timeout: time(keys.take("table_timeout"))?,
            proxy_header_timeout: time(keys.take("proxy_header_timeout"))?,
            half_closed_timeout: time(keys.take("half_closed_timeout"))?,
            interim_answers,
            linger_timeout: time(keys.take("linger_timeout"))?,
        })
    }
}

fn time(value: Option<Value<'_>>) -> Result<Option<Duration>, ConfigError> {
    value.map(|value| value.lasting("60s")).transpose()
}

/// Bytes that are kept in memory: not too few for an ordinary request, at most 1 MiB.
fn small(value: Option<Value<'_>>, from: u32) -> Result<Option<u32>, ConfigError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match u32::try_from(size(&value)?) {
        Ok(bytes) if (from..=1 << 20).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(value.error(
            "it is out of range",
            format!("write a number of bytes from {from} to \"1M\""),
        )),
    }
}

/// A number of bytes, or a string with `K`, `M` or `G` for powers of 1024.
fn size(value: &Value<'_>) -> Result<u64, ConfigError> {
    const REMEDY: &str = "write a whole number of bytes, or one with K, M or G for powers of 1024 in quotes: \"10M\"";
    if !value.is_text() {
        let wrong = || value.error("it is no number of bytes", REMEDY);
        return value.bytes().ok_or_else(wrong);
    }
    let text = value.text("\"10M\"")?;
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text.as_str(), 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| digits.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| value.error(format!("{text:?} is not a number of bytes"), REMEDY))
}
