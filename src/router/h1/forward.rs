//! Heads as the other side gets them: the same fields in the same order, less those of one hop, and
//! with what the router says about the client.
//!
//! **Invariant:** what is written has one framing, the one that the body was judged by.

use super::fields::{Field, Fields, Known, stays_here};
use super::framing::Framing;
use super::request::Request;
use super::response::Response;
use super::tokens::{members, push_decimal};
use super::{Refusal, Span, forwarded};

/// What the router adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// Our pseudonym in `Via`, by which a loop is known.
    pub via: &'a str,
    /// The client's address without its port.
    pub client: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a str,
    /// What this request is called in logs, unless a trusted client names it.
    pub request_id: &'a [u8],
    /// The client is believed what it says of those it asks for.
    pub trusted: bool,
}

/// Where things are in a head that [`request`] wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// The method.
    pub method: Span,
    /// The path without its query.
    pub path: Span,
    /// Path and query.
    pub target: Span,
    /// The authority; empty if there was none.
    pub authority: Span,
    /// What this request is called in logs.
    pub request_id: Span,
}

/// Lines that are passed on as they came: neighbours are copied at once.
struct AsTheyCame<'a> {
    buffer: &'a [u8],
    lines: Span,
}

impl<'a> AsTheyCame<'a> {
    fn new(buffer: &'a [u8]) -> Self {
        Self {
            buffer,
            lines: Span::default(),
        }
    }

    /// Passes on `line`; returns where it begins in `out`.
    fn push(&mut self, out: &mut Vec<u8>, line: Span) -> usize {
        if line.start != self.lines.end {
            self.write(out);
            self.lines.start = line.start;
        }
        let begin = out.len() + (line.start - self.lines.start) as usize;
        self.lines.end = line.end;
        begin
    }

    /// Passes on a field, by its line if that reads as it is to be written.
    fn push_field(&mut self, out: &mut Vec<u8>, field: &Field) {
        if field.is_plain(self.buffer) {
            self.push(out, field.line);
        } else {
            self.write(out);
            let (name, value) = (field.name.of(self.buffer), field.value.of(self.buffer));
            push_field(out, name, value);
        }
    }

    /// Writes what was pushed; must come before anything else is written.
    fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.lines.of(self.buffer));
        self.lines = Span::default();
    }
}

/// Writes the head of `request` for the upstream at the end of `out`, which is empty.
///
/// # Errors
/// 508 if the request has been here before.
pub fn request(
    out: &mut Vec<u8>,
    buffer: &[u8],
    fields: &Fields,
    request: &Request,
    hop: &Hop<'_>,
) -> Result<Written, Refusal> {
    if fields
        .values(buffer, Known::Via)
        .flat_map(members)
        .any(|m| is_from(m, hop.via))
    {
        return Err(Refusal {
            status: 508,
            reason: "the request has been through this router before",
        });
    }
    let method = push(out, request.method.of(buffer));
    let mut written = Written {
        method,
        ..Written::default()
    };
    out.push(b' ');
    let start = out.len();
    out.extend_from_slice(empty_path(request, buffer));
    out.extend_from_slice(request.target.origin.of(buffer));
    written.target = Span::new(start, out.len());
    let query = request.target.origin.end - request.target.path.end;
    written.path = Span::new(start, out.len() - query as usize);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let (mut lengths, mut as_is) = (0, AsTheyCame::new(buffer));
    for field in fields.iter() {
        match field.known {
            Known::Host if field.is_plain(buffer) && request.authority == Some(field.value) => {
                let start = as_is.push(out, field.line) + field.name.len() + 2;
                written.authority = Span::new(start, start + field.value.len());
            }
            Known::Host => {
                as_is.write(out);
                out.extend_from_slice(field.name.of(buffer));
                out.extend_from_slice(b": ");
                written.authority = push(out, request.authority.unwrap_or(field.value).of(buffer));
                out.extend_from_slice(b"\r\n");
            }
            Known::ContentLength => {
                lengths += 1;
                if lengths == 1 {
                    as_is.write(out);
                    out.extend_from_slice(field.name.of(buffer));
                    out.extend_from_slice(b": ");
                    push_decimal(
                        out,
                        if let Framing::Length(n) = request.framing {
                            n
                        } else {
                            0
                        },
                    );
                    out.extend_from_slice(b"\r\n");
                }
            }
            Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedProto
            | Known::XRequestId
            | Known::SlotPreview => {}
            Known::XForwardedOther if !hop.trusted => {}
            Known::Expect if !request.expects_continue => {}
            _ if stays_here(field, fields, buffer, request.connection) => {}
            _ => as_is.push_field(out, field),
        }
    }
    as_is.write(out);
    if written.authority.is_empty() {
        // HTTP/1.0 may come without a host, HTTP/1.1 may not go without one.
        out.extend_from_slice(b"Host: ");
        let host = request
            .authority
            .map_or(&b"localhost"[..], |a| a.of(buffer));
        written.authority = push(out, host);
        out.extend_from_slice(b"\r\n");
    }
    if request.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(list) = connection(request) {
        out.extend_from_slice(list);
    }
    written.request_id = forwarded::write(out, buffer, fields, request, hop);
    out.extend_from_slice(if request.version == 1 {
        b"\r\nVia: 1.1 "
    } else {
        b"\r\nVia: 1.0 "
    });
    out.extend_from_slice(hop.via.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(written)
}

/// An absolute target without a path stands for `/`, or for `*` if it is asked for OPTIONS.
fn empty_path(request: &Request, buffer: &[u8]) -> &'static [u8] {
    if !request.target.path.is_empty() {
        b""
    } else if request.method.of(buffer) == b"OPTIONS" && request.target.origin.is_empty() {
        b"*"
    } else {
        b"/"
    }
}

/// The fields of our connection to the upstream, and the line that says so.
fn connection(request: &Request) -> Option<&'static [u8]> {
    match (
        request.upgrades,
        request.wants_stream,
        request.takes_trailers,
    ) {
        (true, _, _) => Some(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        (_, true, true) => Some(b"Connection: close, TE\r\nTE: trailers\r\n"),
        (_, true, false) => Some(b"Connection: close\r\n"),
        (_, false, true) => Some(b"Connection: TE\r\nTE: trailers\r\n"),
        (_, false, false) => None,
    }
}

/// What the cookie is called by which a client keeps to a slot.
pub const COOKIE: &str = "slot";

/// That cookie, for a client that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Letters and digits.
    pub value: [u8; 16],
    /// It is sent over https alone, as the request was.
    pub secure: bool,
}

/// What the router adds to a response that is not interim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// For a client that has none.
    pub cookie: Option<Cookie>,
    /// What answers, where the request has named it.
    pub release: Option<&'a str>,
}

impl Added<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        if let Some(cookie) = &self.cookie {
            for part in [&b"Set-Cookie: "[..], COOKIE.as_bytes(), b"=", &cookie.value] {
                out.extend_from_slice(part);
            }
            out.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax");
            out.extend_from_slice(if cookie.secure {
                b"; Secure\r\n"
            } else {
                b"\r\n"
            });
        }
        if let Some(release) = self.release {
            push_field(out, b"Slot-Release", release.as_bytes());
        }
    }
}

/// How a response is passed to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toward {
    /// The client's minor version.
    pub version: u8,
    /// The connection ends after this response.
    pub close: bool,
}

/// Writes the head of `response` for the client at the end of `out`.
pub fn response(
    out: &mut Vec<u8>,
    buffer: &[u8],
    fields: &Fields,
    response: &Response,
    toward: Toward,
    added: &Added<'_>,
) {
    let mut as_is = AsTheyCame::new(buffer);
    match response.line {
        Some(line) => _ = as_is.push(out, line),
        None => {
            out.extend_from_slice(b"HTTP/1.1 ");
            push_decimal(out, u64::from(response.status));
            out.push(b' ');
            out.extend_from_slice(response.reason.of(buffer));
            out.extend_from_slice(b"\r\n");
        }
    }
    let has_no_length = response.status < 200 || response.status == 204;
    let mut lengths = 0;
    for field in fields.iter() {
        match field.known {
            Known::ContentLength => {
                lengths += 1;
                if lengths == 1 && !has_no_length {
                    as_is.push_field(out, field);
                }
            }
            // Also says what the body of a GET would be, in the answer to HEAD and in a 304.
            Known::TransferEncoding if toward.version == 1 && !has_no_length => {
                as_is.write(out);
                push_field(out, field.name.of(buffer), b"chunked");
            }
            _ if stays_here(field, fields, buffer, response.connection) => {}
            _ => as_is.push_field(out, field),
        }
    }
    as_is.write(out);
    if response.status >= 200 || response.status == 101 {
        added.write(out);
    }
    if response.status == 101 {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if response.is_interim() {
    } else if response.status == 426 && response.upgrades && toward.version == 1 {
        // The one protocol that can be switched to through here has to be named (RFC 9110 section 15.5.22).
        out.extend_from_slice(match toward.close {
            true => b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n",
            false => b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        });
    } else if toward.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if toward.version == 0 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// True if `member` of a `Via` field (`1.1 name (comment)`) names `pseudonym` as the receiver.
fn is_from(member: &[u8], pseudonym: &str) -> bool {
    member
        .split(|b| matches!(b, b' ' | b'\t'))
        .filter(|w| !w.is_empty())
        .nth(1)
        == Some(pseudonym.as_bytes())
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) -> Span {
    let start = out.len();
    out.extend_from_slice(bytes);
    Span::new(start, out.len())
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::super::scan::{Scan, Scanned};
    use super::*;

    const HOP: Hop<'_> = Hop {
        via: "slot-1",
        client: b"10.0.0.9",
        scheme: "http",
        request_id: b"abc",
        trusted: false,
    };
    const TAIL: &str = "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nX-Request-Id: abc\r\nVia: 1.1 slot-1\r\n\r\n";

    fn head(text: &str) -> Span {
        match Scan::default().advance(text.as_bytes(), &Limits::default(), true) {
            Ok(Scanned::Whole(head)) => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn asked(text: &str) -> Result<String, u16> {
        let (bytes, mut fields, mut out) = (text.as_bytes(), Fields::default(), Vec::new());
        let parsed = Request::parse(bytes, head(text), &mut fields, &Limits::default())
            .map_err(|r| r.status)?;
        request(&mut out, bytes, &fields, &parsed, &HOP).map_err(|r| r.status)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn answered(text: &str, toward: Toward) -> String {
        answered_with(text, toward, &Added::default())
    }

    fn answered_with(text: &str, toward: Toward, added: &Added<'_>) -> String {
        let (bytes, mut fields, mut out) = (text.as_bytes(), Fields::default(), Vec::new());
        let parsed =
            Response::parse(bytes, head(text), false, &mut fields, &Limits::default()).unwrap();
        response(&mut out, bytes, &fields, &parsed, toward, added);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn case_and_order_stay_and_the_client_is_described() {
        let got = asked(
            "GET /a?b HTTP/1.1\r\nhOsT:a\r\nB:  c \r\nX-FORWARDED-FOR: 1.2.3.4\r\nx_forwarded_for: 1\r\nX-Request-Id: mine\r\nA: b\r\n\r\n",
        );
        assert_eq!(
            got.unwrap(),
            format!("GET /a?b HTTP/1.1\r\nhOsT: a\r\nB: c\r\nA: b\r\n{TAIL}")
        );
    }

    #[test]
    fn what_is_of_one_hop_stays_here() {
        let got = asked(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, Host, X-Forwarded-For, Content-Length\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\n\
             TE: trailers, gzip\r\nX-Mine: 1\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nContent-Length: 0\r\nX-Yours: 2\r\n\r\n",
        );
        assert_eq!(
            got.unwrap(),
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-Yours: 2\r\nConnection: TE\r\nTE: trailers\r\n{TAIL}"
            )
        );
    }

    #[test]
    fn only_a_websocket_is_asked_for() {
        let got = asked(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: x\r\n\r\n",
        );
        assert_eq!(
            got.unwrap(),
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{TAIL}"
            )
        );
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_a_host() {
        assert_eq!(
            asked("GET http://a HTTP/1.1\r\nHost: b\r\n\r\n").unwrap(),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{TAIL}")
        );
        assert_eq!(
            asked("GET http://a?q HTTP/1.1\r\nHost: b\r\n\r\n").unwrap(),
            format!("GET /?q HTTP/1.1\r\nHost: a\r\n{TAIL}")
        );
        assert_eq!(
            asked("OPTIONS http://a HTTP/1.1\r\nHost: b\r\n\r\n").unwrap(),
            format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{TAIL}")
        );
    }

    #[test]
    fn a_loop_is_known_by_its_via() {
        assert_eq!(
            asked("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 x, 1.1 slot-1 (c)\r\n\r\n"),
            Err(508)
        );
        assert!(asked("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 slot-12\r\n\r\n").is_ok());
    }

    #[test]
    fn a_response_keeps_everything_but_its_hop() {
        let text = "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
        let plain = "HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 3\r\n";
        assert_eq!(
            answered(
                text,
                Toward {
                    version: 1,
                    close: false,
                }
            ),
            format!("{plain}\r\n")
        );
        assert_eq!(
            answered(
                text,
                Toward {
                    version: 1,
                    close: true,
                }
            ),
            format!("{plain}Connection: close\r\n\r\n")
        );
        assert_eq!(
            answered(
                text,
                Toward {
                    version: 0,
                    close: false,
                }
            ),
            format!("{plain}Connection: keep-alive\r\n\r\n")
        );
    }

    #[test]
    fn an_upgrade_that_is_required_is_still_named() {
        let text = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n";
        let [go_on, last] = [false, true].map(|close| answered(text, Toward { version: 1, close }));
        assert!(go_on.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
        assert!(last.ends_with("\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    }

    #[test]
    fn what_is_added_stands_beside_what_the_app_says_and_not_with_what_is_interim() {
        let toward = Toward {
            version: 1,
            close: true,
        };
        let added = |secure, release| Added {
            cookie: Some(Cookie {
                value: *b"0123456789abcdef",
                secure,
            }),
            release,
        };
        let own = "Set-Cookie: slot=0123456789abcdef; Path=/; HttpOnly; SameSite=Lax";
        let text = "HTTP/1.1 304 Not Modified\r\nSet-Cookie: slot=theirs\r\n\r\n";
        let plain = text.strip_suffix("\r\n").unwrap();
        for (secure, release, end) in [
            (false, None, "\r\n"),
            (
                true,
                Some("1a2b3c4d"),
                "; Secure\r\nSlot-Release: 1a2b3c4d\r\n",
            ),
        ] {
            assert_eq!(
                answered_with(text, toward, &added(secure, release)),
                format!("{plain}{own}{end}Connection: close\r\n\r\n")
            );
        }
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        assert_eq!(
            answered_with(interim, toward, &added(true, Some("1"))),
            interim
        );
    }

    #[test]
    fn who_is_to_preview_what_is_not_for_the_app() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nSlot-Preview: secret green\r\nslot_preview: x\r\nConnection: Slot-Preview\r\n\r\n";
        assert_eq!(
            asked(text).unwrap(),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{TAIL}")
        );
    }

    #[test]
    fn chunks_are_not_announced_to_an_old_client() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            answered(
                text,
                Toward {
                    version: 0,
                    close: true,
                }
            ),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            answered(
                text,
                Toward {
                    version: 1,
                    close: false,
                }
            ),
            text
        );
    }
}
