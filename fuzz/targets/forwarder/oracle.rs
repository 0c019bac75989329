//! What should come of each side's bytes, by the router's own parser when it has all of them at once.

use slot::router::Limits;
use slot::router::h1::body::{Body, Pieces};
use slot::router::h1::fields::Fields;
use slot::router::h1::framing::Framing;
use slot::router::h1::path;
use slot::router::h1::request::Request;
use slot::router::h1::response::Response;
use slot::router::h1::scan::{Scan, Scanned};

use super::super::reader::Asked;

/// A request that the parser accepts.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub asked: Asked,
    /// Where it ends in the client's bytes.
    pub end: usize,
    pub upgrades: bool,
    pub wants_stream: bool,
    /// It is in HTTP/1.0.
    pub is_old: bool,
    /// The client has said that none comes after it.
    pub is_last: bool,
}

impl Accepted {
    pub fn is_to_head(&self) -> bool {
        self.asked.method == "HEAD"
    }

    /// Doing it twice is doing it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        let method = self.asked.method.as_str();
        !self.upgrades
            && matches!(
                method,
                "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
            )
    }
}

/// What is behind the requests that are whole and sound.
#[derive(Clone, Debug)]
pub enum Rest {
    /// Nothing, or nothing that will be looked at.
    Nothing,
    /// No request; to a HEAD or not.
    Refused(bool),
    /// A request whose body is not whole or not sound.
    Begun(Box<Accepted>),
}

/// What the parser accepts of a client's bytes.
pub fn requests(bytes: &[u8]) -> (Vec<Accepted>, Rest) {
    let (mut whole, mut fields, limits) = (Vec::new(), Fields::default(), Limits::default().heads);
    let mut used = 0;
    while used < bytes.len() {
        if matches!(&bytes[used..], b"\r" | b"\r\n") {
            // An empty line that nothing follows begins no request.
            return (whole, Rest::Nothing);
        }
        let Ok(Scanned::Whole(head)) = Scan::default().advance(&bytes[used..], &limits, true)
        else {
            return (whole, Rest::Refused(false));
        };
        let rest = &bytes[used..];
        let Ok(request) = Request::parse(rest, head, &mut fields, &limits) else {
            return (whole, Rest::Refused(head.of(rest).starts_with(b"HEAD ")));
        };
        let text =
            |span: slot::router::h1::Span| String::from_utf8_lossy(span.of(rest)).into_owned();
        let (method, origin) = (text(request.method), text(request.target.origin));
        let path = request.target.path.of(rest);
        let prefix = match path.is_empty() {
            true if method == "OPTIONS" && origin.is_empty() => "*",
            true => "/",
            false => "",
        };
        let mut accepted = Accepted {
            asked: Asked {
                target: format!("{prefix}{origin}"),
                method,
                host: request.authority.map_or("localhost".to_owned(), text),
                body: Vec::new(),
            },
            end: 0,
            upgrades: request.upgrades,
            wants_stream: request.wants_stream,
            is_old: request.version == 0,
            is_last: !request.keeps_alive(),
        };
        // No route can have it.
        let is_lost = path != b"*" && path::normalise(path).is_err();
        used += head.end as usize;
        let (body, length, is_whole) = body(&bytes[used..], request.framing);
        if is_lost {
            // It is refused for its body or for its path, whatever was there first.
            return (whole, Rest::Refused(accepted.is_to_head()));
        }
        accepted.asked.body = body;
        used += length;
        accepted.end = used;
        if !is_whole {
            return (whole, Rest::Begun(Box::new(accepted)));
        }
        let is_last = accepted.is_last;
        whole.push(accepted);
        if is_last {
            break;
        }
    }
    (whole, Rest::Nothing)
}

/// The data of the body at the start of `bytes`, how many of them it is, and whether it is whole and sound.
fn body(bytes: &[u8], framing: Framing) -> (Vec<u8>, usize, bool) {
    let (mut data, mut used) = (Vec::new(), 0);
    let mut body = Body::new(framing, framing == Framing::Chunked);
    while !body.is_done() {
        let mut pieces = Pieces::default();
        let step = body.advance(&bytes[used..], used, &mut pieces);
        let pieces = pieces.as_slice().iter();
        pieces.for_each(|piece| data.extend_from_slice(piece.of(bytes)));
        match step {
            Ok(step @ 1..) => used += step,
            Ok(0) if body.end_of_input().is_ok() => {}
            _ => return (data, used, false),
        }
    }
    (data, used, true)
}

/// What the parser makes of an upstream's bytes.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The statuses of what came before the answer.
    pub interims: Vec<u16>,
    pub status: u16,
    pub kind: Kind,
    /// Where its head ends.
    pub head: usize,
    /// Where it ends.
    pub end: usize,
    /// It is an event stream.
    pub is_stream: bool,
    /// It is one in chunks.
    pub is_stream_in_chunks: bool,
    /// The upstream may be asked again on this connection.
    pub keeps_alive: bool,
}

/// What kind of answer it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// None.
    #[default]
    Nothing,
    /// The end of HTTP on this connection.
    Tunnel,
    /// One that is whole.
    Whole(Vec<u8>),
    /// One whose body is what comes until the connection ends.
    AtEnd(Vec<u8>),
    /// One that is not whole, or not sound behind these data.
    Part(Vec<u8>),
}

/// What the parser makes of `bytes` as the answer to such a request.
pub fn outcome(bytes: &[u8], to_head: bool, upgrades: bool) -> Outcome {
    let (mut outcome, mut fields, limits) =
        (Outcome::default(), Fields::default(), Limits::default());
    loop {
        let rest = &bytes[outcome.end..];
        let Ok(Scanned::Whole(head)) = Scan::default().advance(rest, &limits.heads, false) else {
            return outcome;
        };
        let Ok(response) = Response::parse(rest, head, to_head, &mut fields, &limits.heads) else {
            return outcome;
        };
        let is_switch = response.status == 101;
        if is_switch && !(upgrades && response.upgrades) {
            return outcome;
        }
        outcome.end += head.end as usize;
        outcome.head = outcome.end;
        if response.is_interim() && !is_switch {
            if outcome.interims.len() == limits.interim {
                return outcome;
            }
            outcome.interims.push(response.status);
            continue;
        }
        let (data, length, is_whole) = body(&bytes[outcome.end..], response.framing);
        outcome.kind = match response.framing {
            _ if is_switch => Kind::Tunnel,
            Framing::UntilClose => Kind::AtEnd(data),
            _ if is_whole => Kind::Whole(data),
            _ => Kind::Part(data),
        };
        if !is_switch {
            outcome.end += length;
        }
        outcome.status = response.status;
        outcome.is_stream = response.is_stream;
        outcome.is_stream_in_chunks = response.is_stream && response.framing == Framing::Chunked;
        outcome.keeps_alive = response.keeps_alive();
        return outcome;
    }
}
