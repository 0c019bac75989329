//! Bytes between our own processes, as JSON: what slotd tells the router, what slotctl asks slotd. And the way to an app's socket, which
//! slotd's probes and the router both take.
//!
//! **Invariant:** types, their encoding and their addresses only; nothing here decides anything.

pub mod api;
pub mod apps_socket;
pub mod auto;
pub mod control;
pub(crate) mod date;
pub mod fetch;
pub mod histogram;
pub mod hook;
pub mod listener;
pub mod machine;
pub mod notice;
pub mod release;
pub mod setup;
pub mod staging;
mod standing;
pub mod table;
pub mod token;

use std::io::{self, BufRead, Read};

use serde::de::DeserializeOwned;

/// No line of another user's process is longer, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// Bytes as hexadecimal digits, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what is one line of JSON. An end before the line's, or too long a line, is an [`io::ErrorKind::UnexpectedEof`].
fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads what has a sentence of another user's process in it, if it has, which is cut after so many characters.
fn read_said<T: DeserializeOwned>(
    from: &mut impl BufRead,
    longest: usize,
    sentence: impl FnOnce(&mut T) -> Option<&mut String>,
) -> io::Result<T> {
    let mut said = read_line(from)?;
    if let Some(text) = sentence(&mut said) {
        *text = text.chars().take(longest).collect();
    }
    Ok(said)
}
