//! The head of a request: parsed and judged.

use super::fields::{Connection, Fields, Known};
use super::framing::{self, Framing};
use super::target::{self, Target};
use super::tokens::{find, is_token};
use super::{Limits, Refusal, Span};

/// A request head that was accepted, as spans of the buffer that it is in.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The method.
    pub method: Span,
    /// The target.
    pub target: Target,
    /// The authority in force: of an absolute target, else of `Host`; `None` only in HTTP/1.0.
    pub authority: Option<Span>,
    /// The minor version: 0 or 1.
    pub version: u8,
    /// Where the body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// What `Connection` says.
    pub connection: Connection,
    /// True if the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// True if it asks for a WebSocket.
    pub upgrades: bool,
    /// True if it takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
    /// True if it asks for an event stream, whose connection will be used for nothing else.
    pub wants_stream: bool,
}

impl Request {
    /// Reads the head in `head`, a span that a [`Scan`](super::scan::Scan) found in `buffer`; its
    /// fields are left in `fields`.
    ///
    /// # Errors
    /// Everything that RFC 9112 calls malformed, and what it allows to repair.
    pub fn parse(
        buffer: &[u8],
        head: Span,
        fields: &mut Fields,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let (method, at, version, after) = request_line(buffer, head)?;
        let target = target::parse(buffer, at, method.of(buffer), limits.target_bytes)?;
        fields.parse(buffer, after, head.end as usize, limits.fields)?;
        let framing = framing::declared(fields, buffer, version)?.unwrap_or(Framing::Empty);
        let framing = if framing == Framing::Length(0) {
            Framing::Empty
        } else {
            framing
        };
        let connection = Connection::of(fields, buffer);
        let upgrades =
            version == 1 && connection.upgrade && fields.lists(buffer, Known::Upgrade, "websocket");
        if upgrades && framing != Framing::Empty {
            return Err(Refusal::bad("an upgrade with a body"));
        }
        if upgrades && method.of(buffer) != b"GET" {
            return Err(Refusal::bad("a WebSocket upgrade is a GET"));
        }
        Ok(Self {
            method,
            target,
            authority: authority(fields, buffer, target, version)?,
            version,
            framing,
            connection,
            expects_continue: expectation(fields, buffer)? && version == 1,
            upgrades,
            takes_trailers: fields.lists(buffer, Known::Te, "trailers"),
            wants_stream: !upgrades && fields.lists(buffer, Known::Accept, "text/event-stream"),
        })
    }

    /// True if the client expects another answer on this connection.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self.connection.close && (self.version == 1 || self.connection.keep_alive)
    }
}

/// Method, target, minor version, and the offset after the line.
fn request_line(buffer: &[u8], head: Span) -> Result<(Span, Span, u8, usize), Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the request line is malformed");
    let from = head.start as usize;
    let end = find(b'\r', head.of(buffer)).ok_or(MALFORMED)? + from;
    // Whatever version it is, it takes eight bytes.
    let (asked, version) = buffer[from..end].split_last_chunk::<8>().ok_or(MALFORMED)?;
    let asked = asked.strip_suffix(b" ").ok_or(MALFORMED)?;
    let first = find(b' ', asked).ok_or(MALFORMED)?;
    if !is_token(&asked[..first]) {
        return Err(MALFORMED);
    }
    let version = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Refusal {
                status: 505,
                reason: "only HTTP/1.0 and HTTP/1.1 are served",
            });
        }
        _ => return Err(MALFORMED),
    };
    // A space inside the target makes it invalid; that is found there.
    Ok((
        Span::new(from, from + first),
        Span::new(from + first + 1, from + asked.len()),
        version,
        end + 2,
    ))
}

fn authority(
    fields: &Fields,
    buffer: &[u8],
    target: Target,
    version: u8,
) -> Result<Option<Span>, Refusal> {
    let mut hosts = fields.iter().filter(|f| f.known == Known::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad("Host is given twice"));
    }
    match host {
        // An empty Host is for targets without an authority, and http always has one.
        Some(field) if target::host(field.value.of(buffer))?.is_empty() => {
            Err(Refusal::bad("Host is empty"))
        }
        Some(field) => Ok(Some(target.authority.unwrap_or(field.value))),
        None if version == 0 => Ok(target.authority),
        None => Err(Refusal::bad("Host is missing")),
    }
}

fn expectation(fields: &Fields, buffer: &[u8]) -> Result<bool, Refusal> {
    let mut expects = false;
    for value in fields.values(buffer, Known::Expect) {
        if expects || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal {
                status: 417,
                reason: "only 100-continue can be expected",
            });
        }
        expects = true;
    }
    Ok(expects)
}

#[cfg(test)]
mod tests {
    use super::super::scan::{Scan, Scanned};
    use super::*;

    fn read(text: &str) -> Result<Request, u16> {
        let limits = Limits::default();
        match Scan::default()
            .advance(text.as_bytes(), &limits, true)
            .map_err(|r| r.status)?
        {
            Scanned::Partial => panic!("{text:?} is not whole"),
            Scanned::Whole(head) => {
                Request::parse(text.as_bytes(), head, &mut Fields::default(), &limits)
                    .map_err(|r| r.status)
            }
        }
    }

    #[test]
    fn an_ordinary_request_is_understood() {
        let text = "POST /a?b HTTP/1.1\r\nHost: x.org:80\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let request = read(text).unwrap();
        assert_eq!(request.method.of(text.as_bytes()), b"POST");
        assert_eq!(request.target.path.of(text.as_bytes()), b"/a");
        assert_eq!(request.authority.unwrap().of(text.as_bytes()), b"x.org:80");
        assert_eq!(request.framing, Framing::Length(3));
        assert!(request.keeps_alive() && request.expects_continue && !request.upgrades);
    }

    #[test]
    fn a_malformed_request_line_is_refused() {
        for bad in [
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(read(bad).map(|_| ()), Err(400), "{bad:?}");
        }
        assert_eq!(read("PRI * HTTP/2.0\r\n\r\n").map(|_| ()), Err(505));
    }

    #[test]
    fn host_is_there_once_and_valid() {
        for bad in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host:\r\n",
            "Host: a, b\r\n",
            "Host: u@a\r\n",
            "Host: a b\r\n",
        ] {
            assert_eq!(
                read(&format!("GET / HTTP/1.1\r\n{bad}\r\n")).map(|_| ()),
                Err(400),
                "{bad:?}"
            );
        }
        assert!(read("GET / HTTP/1.0\r\n\r\n").unwrap().authority.is_none());
        let text = "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(
            read(text).unwrap().authority.unwrap().of(text.as_bytes()),
            b"b"
        );
    }

    #[test]
    fn upgrades_are_websockets_without_a_body() {
        let ask = |extra: &str| read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n"));
        assert!(
            ask("Connection: Upgrade\r\nUpgrade: h2c, WebSocket\r\n")
                .unwrap()
                .upgrades
        );
        assert!(!ask("Upgrade: websocket\r\n").unwrap().upgrades);
        assert!(
            !ask("Connection: upgrade\r\nUpgrade: h2c\r\n")
                .unwrap()
                .upgrades
        );
        assert!(ask("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n").is_err());
    }

    #[test]
    fn other_expectations_are_417() {
        assert_eq!(
            read("GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n").map(|_| ()),
            Err(417)
        );
    }
}
