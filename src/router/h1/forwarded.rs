//! What an upstream is told of the client: `X-Forwarded-*`, `Forwarded` (RFC 7239) and the request's id.
//!
//! **Invariant:** a peer that is not trusted has no say in any of it; its own fields of these names are not passed on.

use super::Span;
use super::fields::{Fields, Known};
use super::forward::Hop;
use super::request::Request;
use super::target;
use super::tokens::members;

/// An id from a trusted peer is at most this long: it stands in logs.
const LONGEST_ID: usize = 128;

/// Writes the fields at the end of `out` and returns where the request's id is.
pub fn write(
    out: &mut Vec<u8>,
    buffer: &[u8],
    fields: &Fields,
    request: &Request,
    hop: &Hop<'_>,
) -> Span {
    let authority = request.authority.map(|a| a.of(buffer));
    if hop.trusted {
        return beside_those_of_the_peer(out, buffer, fields, authority, hop);
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    out.extend_from_slice(hop.client);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(hop.scheme.as_bytes());
    if let Some(authority) = authority {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(authority);
    }
    id(out, hop.request_id)
}

/// The peer's lists are appended to. Scheme and host stay as the peer says: apps read one value, and the first proxy knows.
fn beside_those_of_the_peer(
    out: &mut Vec<u8>,
    buffer: &[u8],
    fields: &Fields,
    authority: Option<&[u8]>,
    hop: &Hop<'_>,
) -> Span {
    let only = |known| {
        let mut values = fields.values(buffer, known);
        values.next().filter(|_| values.next().is_none())
    };
    list(
        out,
        b"X-Forwarded-For: ",
        fields,
        buffer,
        Known::XForwardedFor,
    );
    out.extend_from_slice(hop.client);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    // Where every proxy has added its own, the first is what the client used.
    let first = |known| {
        let value = fields.values(buffer, known).next();
        value.and_then(|value| members(value).next())
    };
    let scheme = first(Known::XForwardedProto)
        .filter(|s| s.eq_ignore_ascii_case(b"https") || s.eq_ignore_ascii_case(b"http"));
    out.extend_from_slice(scheme.unwrap_or(hop.scheme.as_bytes()));
    let host = first(Known::XForwardedHost)
        .filter(|h| target::host(h).is_ok_and(|name| !name.is_empty()))
        .or(authority);
    if let Some(host) = host {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(host);
    }
    if fields.values(buffer, Known::Forwarded).next().is_some() {
        out.extend_from_slice(b"\r\n");
        list(out, b"Forwarded: ", fields, buffer, Known::Forwarded);
        // A colon is no character of a token (RFC 7239 section 6).
        let (open, close) = match hop.client.contains(&b':') {
            true => (&b"for=\"["[..], &b"]\""[..]),
            false => (&b"for="[..], &b""[..]),
        };
        for part in [open, hop.client, close, b";proto=", hop.scheme.as_bytes()] {
            out.extend_from_slice(part);
        }
        if let Some(authority) = authority {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(authority);
            out.push(b'"');
        }
    }
    id(
        out,
        only(Known::XRequestId)
            .filter(|v| is_id(v))
            .unwrap_or(hop.request_id),
    )
}

/// Begins a list with the members that the peer has sent, in one field or several.
fn list(out: &mut Vec<u8>, name: &[u8], fields: &Fields, buffer: &[u8], known: Known) {
    out.extend_from_slice(name);
    for value in fields.values(buffer, known).filter(|v| !v.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

fn is_id(value: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

fn id(out: &mut Vec<u8>, id: &[u8]) -> Span {
    out.extend_from_slice(b"\r\nX-Request-Id: ");
    let start = out.len();
    out.extend_from_slice(id);
    Span::new(start, out.len())
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::forward;
    use super::super::scan::{Scan, Scanned};
    use super::*;

    /// What is said of a client at `address` that sends these fields.
    fn told(sent: &str, trusted: bool, address: &str) -> Vec<String> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n");
        let (bytes, limits) = (text.as_bytes(), Limits::default());
        let Ok(Scanned::Whole(head)) = Scan::default().advance(bytes, &limits, true) else {
            panic!("{text:?} is no head");
        };
        let mut fields = Fields::default();
        let request = Request::parse(bytes, head, &mut fields, &limits).unwrap();
        let hop = Hop {
            via: "slot-1",
            client: address.as_bytes(),
            scheme: "http",
            request_id: b"own",
            trusted,
        };
        let mut out = Vec::new();
        let written = forward::request(&mut out, bytes, &fields, &request, &hop).unwrap();
        let text = String::from_utf8(out).unwrap();
        let id = written.request_id.of(text.as_bytes());
        assert!(text.contains(&format!(
            "\r\nX-Request-Id: {}\r\n",
            String::from_utf8_lossy(id)
        )));
        let lines = text
            .lines()
            .skip(2)
            .filter(|l| !l.is_empty() && !l.starts_with("Via"));
        lines.map(str::to_owned).collect()
    }

    const SENT: &str = "X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 198.51.100.2\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 203.0.113.1\r\nX-Request-Id: theirs\r\n\
        Forwarded: for=203.0.113.1;proto=https\r\n";

    #[test]
    fn of_several_proxies_the_first_knows_what_the_client_used() {
        let sent = "X-Forwarded-Proto: https, http\r\nX-Forwarded-Host: shop.example, inner\r\n";
        assert_eq!(
            told(sent, true, "192.0.2.7"),
            [
                "X-Forwarded-For: 192.0.2.7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: shop.example",
                "X-Request-Id: own"
            ]
        );
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_described_and_not_quoted() {
        assert_eq!(
            told(SENT, false, "192.0.2.7"),
            [
                "X-Forwarded-For: 192.0.2.7",
                "X-Forwarded-Proto: http",
                "X-Forwarded-Host: a",
                "X-Request-Id: own"
            ]
        );
    }

    #[test]
    fn a_trusted_peer_is_appended_to_what_it_says() {
        assert_eq!(
            told(SENT, true, "2001:db8::7"),
            [
                "X-Forwarded-Port: 443",
                "X-Real-IP: 203.0.113.1",
                "X-Forwarded-For: 203.0.113.1, 198.51.100.2, 2001:db8::7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: shop.example",
                "Forwarded: for=203.0.113.1;proto=https, for=\"[2001:db8::7]\";proto=http;host=\"a\"",
                "X-Request-Id: theirs"
            ]
        );
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_usable_is_described() {
        let long = "x".repeat(LONGEST_ID + 1);
        let sent = format!(
            "X-Forwarded-For:\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a, b\r\nX-Request-Id: {long}\r\n"
        );
        let own = [
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: a",
            "X-Request-Id: own",
        ];
        assert_eq!(told(&sent, true, "192.0.2.7"), own);
        let twice = "X-Request-Id: 1\r\nX-Request-Id: 2\r\n";
        assert_eq!(told(twice, true, "192.0.2.7"), own);
        assert_eq!(told("X-Request-Id: a b\r\n", true, "192.0.2.7"), own);
    }
}
