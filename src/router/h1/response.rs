//! The head of an upstream's response: parsed and judged.

use super::fields::{Connection, Fields, Known};
use super::framing::{self, Framing};
use super::tokens::{decimal, find, trim};
use super::{Limits, Refusal, Span};

/// A response head that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// 100 to 599 (and up to 999, which RFC 9110 section 15 has clients take for 5xx).
    pub status: u16,
    /// The reason phrase, perhaps empty.
    pub reason: Span,
    /// The status line, if it can be passed on as it is: in version 1.1, with the space before the reason.
    pub line: Option<Span>,
    /// The minor version: 0 or 1.
    pub version: u8,
    /// Where the body ends.
    pub framing: Framing,
    /// What `Connection` says.
    pub connection: Connection,
    /// Seconds for which the upstream keeps an idle connection, if it says so (`Keep-Alive: timeout=5`).
    pub idle_seconds: Option<u64>,
    /// True for `text/event-stream`.
    pub is_stream: bool,
    /// True if it switches to WebSocket.
    pub upgrades: bool,
}

impl Response {
    /// Reads the head in `head`, a span that a [`Scan`](super::scan::Scan) found in `buffer`, of the
    /// response to a HEAD request or another; its fields are left in `fields`.
    ///
    /// # Errors
    /// Everything that is malformed. The status in the refusal has no meaning here: a client is told 502.
    pub fn parse(
        buffer: &[u8],
        head: Span,
        to_head: bool,
        fields: &mut Fields,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let (status, reason, version, after) = status_line(buffer, head)?;
        let line = Span::new(head.start as usize, after);
        // "HTTP/1.1 200 " is what comes before the reason, and CR LF behind it.
        let is_plain = version == 1 && line.len() == 13 + reason.len() + 2;
        fields.parse(buffer, after, head.end as usize, limits.fields)?;
        let declared = framing::declared(fields, buffer, version)?;
        let framing = if to_head || matches!(status, 100..=199 | 204 | 304) {
            Framing::Empty
        } else {
            match declared {
                None => Framing::UntilClose,
                Some(Framing::Length(0)) => Framing::Empty,
                Some(framing) => framing,
            }
        };
        let connection = Connection::of(fields, buffer);
        Ok(Self {
            status,
            reason,
            line: is_plain.then_some(line),
            version,
            framing,
            connection,
            idle_seconds: fields
                .values(buffer, Known::KeepAlive)
                .find_map(idle_seconds),
            is_stream: framing != Framing::Empty
                && fields
                    .values(buffer, Known::ContentType)
                    .any(is_event_stream),
            upgrades: connection.upgrade && fields.lists(buffer, Known::Upgrade, "websocket"),
        })
    }

    /// True if the upstream will answer another request on this connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self.connection.close
            && (self.version == 1 || self.connection.keep_alive)
            && self.framing != Framing::UntilClose
    }

    /// True for 100 to 199, after which the real answer comes.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Status, reason, minor version, and the offset after the line.
fn status_line(buffer: &[u8], head: Span) -> Result<(u16, Span, u8, usize), Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the status line is malformed");
    let from = head.start as usize;
    let end = find(b'\r', head.of(buffer)).ok_or(MALFORMED)? + from;
    let line = &buffer[from..end];
    let (version, rest) = match line {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'1',
            b' ',
            rest @ ..,
        ] => (1, rest),
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0',
            b' ',
            rest @ ..,
        ] => (0, rest),
        _ => return Err(MALFORMED),
    };
    let status = match rest {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(MALFORMED),
    };
    // "HTTP/1.1 " and three digits are twelve bytes; the space before an empty reason may be missing.
    Ok((
        status,
        Span::new((from + 13).min(end), end),
        version,
        end + 2,
    ))
}

fn idle_seconds(value: &[u8]) -> Option<u64> {
    value
        .split(|b| *b == b',' || *b == b';')
        .map(trim)
        .find_map(|part| {
            let (name, number) = part.split_at_checked(8)?;
            name.eq_ignore_ascii_case(b"timeout=")
                .then(|| decimal(number))?
        })
}

fn is_event_stream(value: &[u8]) -> bool {
    let kind = value.split(|b| *b == b';').next().unwrap_or_default();
    trim(kind).eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::super::scan::{Scan, Scanned};
    use super::*;

    fn read(text: &str, to_head: bool) -> Result<Response, Refusal> {
        let limits = Limits::default();
        match Scan::default().advance(text.as_bytes(), &limits, false)? {
            Scanned::Partial => panic!("{text:?} is not whole"),
            Scanned::Whole(head) => Response::parse(
                text.as_bytes(),
                head,
                to_head,
                &mut Fields::default(),
                &limits,
            ),
        }
    }

    #[test]
    fn the_framing_follows_from_status_and_method() {
        let framing = |text: &str, to_head| read(text, to_head).unwrap().framing;
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
            Framing::Length(5)
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true),
            Framing::Empty
        );
        assert_eq!(
            framing(
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                false
            ),
            Framing::Empty
        );
        assert_eq!(
            framing("HTTP/1.1 204 No Content\r\n\r\n", false),
            Framing::Empty
        );
        assert_eq!(
            framing(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false
            ),
            Framing::Chunked
        );
        assert_eq!(framing("HTTP/1.1 200\r\n\r\n", false), Framing::UntilClose);
    }

    #[test]
    fn malformed_responses_are_refused() {
        for bad in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
        ] {
            assert!(read(bad, false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_connection_may_be_used_for_is_read_from_its_head() {
        let response = read(
            "HTTP/1.1 200 OK\r\nKeep-Alive: max=9, timeout=5\r\nContent-Length: 0\r\n\r\n",
            false,
        )
        .unwrap();
        assert_eq!(
            (response.idle_seconds, response.keeps_alive()),
            (Some(5), true)
        );
        assert!(
            !read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false)
                .unwrap()
                .keeps_alive()
        );
        assert!(
            !read(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                false
            )
            .unwrap()
            .keeps_alive()
        );
        assert!(
            read(
                "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n",
                false
            )
            .unwrap()
            .is_stream
        );
    }
}
