//! What a child prints: into the log of this process line by line, and into the record of its run.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};

use super::run::{LINE, Run};
use std::fmt::Display;

use crate::deploy::AppName;

/// Reads until every process that has the other end is gone.
pub(super) async fn follow(
    output: impl AsyncRead + Unpin,
    run: Run,
    app: AppName,
    slot: impl Display,
) {
    let mut output = BufReader::with_capacity(LINE, output);
    let mut line = Vec::new();
    // An error is an end: there is nothing more to read.
    while let Ok(true) = next_line(&mut output, &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        tracing::info!(target: "slot::app", slot_app = %app, slot_name = %slot, "{text}");
        run.logged(text);
    }
}

/// Appends a line without its end, at most [`LINE`] bytes; false at the end of the output.
async fn next_line(
    output: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<bool> {
    loop {
        let bytes = output.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(!line.is_empty());
        }
        let room = &bytes[..bytes.len().min(LINE - line.len())];
        let end = room.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&room[..end.unwrap_or(room.len())]);
        let taken = end.map_or(room.len(), |end| end + 1);
        output.consume(taken);
        if end.is_some() || line.len() == LINE {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut output: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut line = Vec::new();
        while next_line(&mut output, &mut line).await.unwrap() {
            found.push(std::mem::take(&mut line));
        }
        found
    }

    #[tokio::test]
    async fn lines_are_split_and_the_last_needs_no_end() {
        assert_eq!(
            lines(b"one\n\nthree").await,
            [&b"one"[..], b"", b"three"].map(<[u8]>::to_vec)
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_taken_in_pieces() {
        let found = lines(&[b'x'; 2 * LINE + 1]).await;
        assert_eq!(
            found.iter().map(Vec::len).collect::<Vec<_>>(),
            [LINE, LINE, 1]
        );
    }
}
