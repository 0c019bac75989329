//! Answers that are passed on unread: tunnels, and streams that end with their connection.
//!
//! **Invariant:** once it has begun, not a byte of either side is looked at, or is in this process's memory.

use std::io;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::counts::Class;
use super::super::h1::Span;
use super::super::h1::forward::Toward;
use super::super::h1::framing::Framing;
use super::super::h1::response::Response;
use super::super::label::Label;
use super::super::splice::Way;
use super::super::tunnel::{self, Passage};
use super::{Attempt, End, Failed};

impl Attempt<'_> {
    /// Whether an answer is passed on to the end of the connection without its framing being looked at: both sides were told
    /// that it is the last one on theirs.
    pub(super) fn is_unread(&self, response: &Response) -> bool {
        let whole = self.uploaded && !self.refused;
        whole
            && match response.framing {
                Framing::UntilClose => true,
                Framing::Chunked => {
                    response.is_stream && self.asked.wants_stream && self.asked.version == 1
                }
                Framing::Empty | Framing::Length(_) => false,
            }
    }

    pub(super) fn request_id(&self) -> String {
        let id = self.asked.written.request_id.of(self.upload.head());
        String::from_utf8_lossy(id).into_owned()
    }

    /// What this is, for who keeps it and for people.
    pub(super) fn label(&self) -> Label {
        let age = self.client.worker.alarms.now() - self.asked.since;
        let since = SystemTime::now() - Duration::from_millis(age);
        let (head, written) = (self.upload.head(), &self.asked.written);
        let text = |span: Span| String::from_utf8_lossy(span.of(head)).into_owned();
        Label {
            id: self.request_id(),
            class: self.lease.class(),
            run: self.lease.run().name().clone(),
            since_ms: since
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis() as u64,
            route: text(written.authority) + &text(written.path),
            method: text(written.method),
            status: 0,
            client: self.client.ip().to_string(),
        }
    }

    /// Passes on unread what comes, behind `head`, which says `status`: how it ended, and how many bytes the client got of it.
    async fn pass(
        &mut self,
        class: Class,
        status: u16,
        head: Vec<u8>,
    ) -> io::Result<(tunnel::End, u64)> {
        let worker = Rc::clone(&self.client.worker);
        self.stream.tell_room()?;
        let down = Way::new(&[&head, self.buffer.bytes()])?;
        let up = match class {
            Class::Tunnel => Some(Way::new(&[self.client.buffer.bytes()])?),
            // What the client may have sent is for nobody: its connection ends with this.
            Class::Request | Class::Stream => None,
        };
        let length = head.len() as u64;
        worker.spare.give_head(head);
        for buffer in [&mut self.buffer, &mut self.client.buffer] {
            buffer.consume(buffer.len());
            buffer.release(&worker.spare);
        }
        self.lease.becomes(class);
        let passage = Passage {
            worker: &worker,
            label: Label {
                status,
                ..self.label()
            },
            write_stall: self.lease.run().bounds.write_stall,
            client: &mut self.client.stream,
            alarm: &self.client.alarm,
            // As what it is now it was not asked before.
            called: self.began,
            upstream: &mut self.stream,
            down,
            up,
        };
        let (end, moved) = passage.run(None).await;
        Ok((end, moved.saturating_sub(length)))
    }

    /// Passes an answer back up to the end of its connection.
    pub(super) async fn stream(
        &mut self,
        response: Response,
        head: Vec<u8>,
        toward: Toward,
    ) -> End {
        match self.pass(Class::Stream, response.status, head).await {
            Ok((tunnel::End::Whole, moved)) => End::Whole(response, toward, moved),
            Ok((tunnel::End::Client | tunnel::End::Cut, moved)) => {
                End::Part(response.status, moved)
            }
            Ok((tunnel::End::Upstream(error), moved)) => {
                self.cut_short(response.status, moved, None, Some(&error))
            }
            Err(error) => End::Failed(Failed::NoPipe, Some(error)),
        }
    }

    /// The upstream said 101: from here on both sides talk as they like.
    pub(super) async fn switch(&mut self, head: Vec<u8>) -> End {
        self.lease.answered(101);
        match self.pass(Class::Tunnel, 101, head).await {
            Ok((end, moved)) => End::Switched {
                whole: matches!(end, tunnel::End::Whole),
                moved,
            },
            Err(error) => End::Failed(Failed::NoPipe, Some(error)),
        }
    }
}
