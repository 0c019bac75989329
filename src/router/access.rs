//! The access log: one line of JSON per request on standard output, which journald keeps.
//!
//! **Invariant:** a slow reader of the log never slows a request: lines that find the queue full are
//! counted and left out.

use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;

use super::answer::Answer;
use super::connection::Client;
use super::exchange::Asked;
use super::label::Label;
use super::runs::Run;

/// Lines under way to the writer.
const QUEUE: usize = 8192;

/// What became of a request.
#[derive(Debug, Default)]
pub struct Entry {
    /// The status that the client got; 0 if none.
    pub status: u16,
    /// Bytes of the answer's body, with its framing.
    pub bytes: u64,
    /// Who answered, or failed to.
    pub run: Option<Rc<Run>>,
    /// Milliseconds from the whole head to the end of the answer.
    pub duration: u64,
}

#[derive(Default, Serialize)]
struct Line<'a> {
    client: &'a str,
    listener: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'a str,
    status: u16,
    bytes: u64,
    ms: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_id: Option<&'a str>,
    /// It is of what the process before this one has left: `bytes` are those since then, and `target` is what was kept of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    picked_up: bool,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A queue to the thread that writes.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Vec<u8>>,
    left_out: AtomicU64,
}

impl AccessLog {
    /// Starts the writer; it ends with the log.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn to_stdout() -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&lines))?;
        Ok(Self {
            queue,
            left_out: AtomicU64::new(0),
        })
    }

    /// Records a request whose head went upstream as `head`.
    pub fn record(&self, entry: &Entry, asked: &Asked, head: &[u8], client: &Client) {
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        let run = entry.run.as_ref().map(|run| run.name());
        let line = Line {
            client: &client.ip(),
            listener: client.came_by(),
            method: text(asked.written.method.of(head)),
            host: text(asked.written.authority.of(head)),
            target: text(asked.written.target.of(head)),
            status: entry.status,
            bytes: entry.bytes,
            ms: entry.duration,
            request_id: text(asked.written.request_id.of(head)),
            app: run.map(|r| r.app.as_str()),
            slot: run.map(|r| r.slot.as_str()),
            boot_id: run.and_then(|r| r.boot_id.as_deref()),
            picked_up: false,
            error: None,
        };
        self.write(&line);
    }

    /// Records what is no request that could be passed on.
    pub fn refused(&self, answer: Answer, client: &Client) {
        self.write(&Line {
            client: &client.ip(),
            listener: client.came_by(),
            status: answer.status,
            error: Some(answer.reason),
            ..Line::default()
        });
    }

    /// Records a stream or tunnel that was picked up, and of which the client at `ip` got this many bytes since.
    pub fn record_left(&self, label: &Label, bytes: u64, ms: u64) {
        let path = label.route.find('/').unwrap_or(label.route.len());
        let (host, target) = label.route.split_at(path);
        self.write(&Line {
            client: &label.client,
            listener: None,
            method: &label.method,
            host,
            target,
            status: label.status,
            bytes,
            ms,
            request_id: &label.id,
            app: Some(&label.run.app),
            slot: Some(&label.run.slot),
            boot_id: label.run.boot_id.as_deref(),
            picked_up: true,
            error: None,
        });
    }

    fn write(&self, line: &Line<'_>) {
        let Ok(mut line) = serde_json::to_vec(line) else {
            return;
        };
        line.push(b'\n');
        if self.queue.try_send(line).is_err()
            && self
                .left_out
                .fetch_add(1, Ordering::Relaxed)
                .is_power_of_two()
        {
            tracing::warn!(
                left_out = self.left_out.load(Ordering::Relaxed),
                "the access log is read too slowly"
            );
        }
    }
}

/// Writes lines as they come, several at once while there are more.
fn write(lines: &Receiver<Vec<u8>>) {
    let mut out = std::io::stdout().lock();
    while let Ok(mut batch) = lines.recv() {
        while batch.len() < 64 * 1024
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        // Whoever closed our standard output does not want the log.
        if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
