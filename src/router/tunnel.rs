//! An upgraded connection: bytes both ways, unread, until both sides have ended.
//!
//! **Invariant:** it begins with the upstream's 101. What the client sent before that waited in its buffer.
//!
//! **Invariant:** a silent tunnel owns no buffer and has no deadline.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::buffer::Buffer;
use super::connection::Client;
use super::h1::body::Body;
use super::relay::Relay;
use super::stream::Stream;

/// Sends `head`, the 101, to the client and relays until the end: then how many bytes the client
/// got. `None` if a side was lost.
pub async fn run(
    client: &mut Client,
    upstream: &mut Stream,
    buffer: &mut Buffer,
    head: Vec<u8>,
) -> Option<u64> {
    let worker = Rc::clone(&client.worker);
    let mut down = Relay::new(head, Body::UntilClose);
    let mut up = Relay::new(Vec::new(), Body::UntilClose);
    let (mut down_ended, mut up_ended) = (false, client.ended && client.buffer.is_empty());
    client.alarm.clear();
    client.stream.keep_alive();
    upstream.keep_alive();
    let whole = poll_fn(|cx| {
        if !down_ended {
            match down.poll(cx, upstream, buffer, &mut client.stream, &worker.spare) {
                Poll::Ready(Ok(())) => {
                    down_ended = true;
                    client.stream.end_writing();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
        }
        if !up_ended {
            match up.poll(
                cx,
                &mut client.stream,
                &mut client.buffer,
                upstream,
                &worker.spare,
            ) {
                Poll::Ready(Ok(())) => {
                    up_ended = true;
                    upstream.end_writing();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => {}
            }
        }
        if down_ended && up_ended {
            return Poll::Ready(true);
        }
        let progress = down.take_progress() | up.take_progress();
        if (down_ended || up_ended) && (progress || client.alarm.at() == u64::MAX) {
            client
                .alarm
                .set(worker.alarms.now(), worker.limits().half_closed);
        }
        if client.alarm.is_over() {
            Poll::Ready(true)
        } else {
            Poll::Pending
        }
    })
    .await;
    worker.spare.give_head(down.take_head());
    whole.then_some(down.moved)
}
