//! For every way to cut the same bytes the verdict and the decoded requests are the same.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use proptest::prelude::*;
use slot::router::h1::body::{Body, Pieces};
use slot::router::h1::fields::Fields;
use slot::router::h1::forward::{self, Added, Hop, Toward};
use slot::router::h1::request::Request;
use slot::router::h1::response::Response;
use slot::router::h1::scan::{Scan, Scanned};
use slot::router::h1::{Limits, Span};

/// Small, so that limits are met too.
const LIMITS: Limits = Limits {
    head_bytes: 400,
    fields: 8,
    target_bytes: 60,
};

/// What came out of a connection: the bytes for the other side, per message, and how it ended.
#[derive(Debug, PartialEq, Eq, Default)]
struct Decoded {
    messages: Vec<(String, bool)>,
    end: Option<u16>,
}

/// Which side sends.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Upstream,
}

/// Feeds `input` in parts that end at `cuts`, as the router does.
fn decode(input: &[u8], cuts: &[usize], side: Side) -> Decoded {
    let mut decoded = Decoded::default();
    let (mut used, mut scan, mut body) = (0, Scan::default(), None::<Body>);
    for end in cuts.iter().copied().chain([input.len()]) {
        loop {
            let bytes = &input[used..end];
            if let Some(rest) = &mut body {
                let mut pieces = Pieces::default();
                let Ok(step) = rest.advance(bytes, used, &mut pieces) else {
                    // How much of an unfinished message got through before its defect was seen is the only
                    // thing that depends on the cuts.
                    if let Some((text, false)) = decoded.messages.last_mut() {
                        text.truncate(text.find("\r\n\r\n").unwrap());
                    }
                    decoded.end = Some(400);
                    return decoded;
                };
                let message = decoded.messages.last_mut().unwrap();
                for piece in pieces.as_slice() {
                    message
                        .0
                        .push_str(&String::from_utf8_lossy(piece.of(input)));
                }
                used += step;
                if rest.is_done() {
                    message.1 = true;
                    body = None;
                } else if step == 0 {
                    break;
                }
                continue;
            }
            match scan.advance(bytes, &LIMITS, matches!(side, Side::Client)) {
                Ok(Scanned::Partial) => break,
                Ok(Scanned::Whole(head)) => match understand(bytes, head, side) {
                    Ok((text, rest)) => {
                        decoded.messages.push((text, false));
                        used += head.end as usize;
                        (scan, body) = (Scan::default(), Some(rest));
                    }
                    Err(status) => {
                        decoded.end = Some(status);
                        return decoded;
                    }
                },
                Err(refusal) => {
                    decoded.end = Some(refusal.status);
                    return decoded;
                }
            }
        }
    }
    decoded
}

fn understand(bytes: &[u8], head: Span, side: Side) -> Result<(String, Body), u16> {
    let (mut fields, mut out) = (Fields::default(), Vec::new());
    let body = match side {
        Side::Client => {
            let request =
                Request::parse(bytes, head, &mut fields, &LIMITS).map_err(|r| r.status)?;
            let hop = Hop {
                via: "v",
                client: b"c",
                scheme: "http",
                request_id: b"i",
                trusted: false,
            };
            forward::request(&mut out, bytes, &fields, &request, &hop).map_err(|r| r.status)?;
            Body::new(request.framing, false)
        }
        Side::Upstream => {
            let response =
                Response::parse(bytes, head, false, &mut fields, &LIMITS).map_err(|r| r.status)?;
            forward::response(
                &mut out,
                bytes,
                &fields,
                &response,
                Toward {
                    version: 1,
                    close: false,
                },
                &Added::default(),
            );
            Body::new(response.framing, false)
        }
    };
    Ok((String::from_utf8_lossy(&out).into_owned(), body))
}

/// Pieces of messages, right and wrong, that make something interesting when put in a row.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "GET / HTTP/1.1\r\n",
        "Host: a\r\n",
        "X: y\r\n",
        "Connection: close, x\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "5\r\nhello\r\n",
        "3;ext\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nTrailer: x\r\n\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "hello",
        ":",
        "\0",
        "ffffffffffffffff\r\n",
        "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]);
    prop_oneof![9 => known.prop_map(|s| s.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..6)]
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(fragment(), 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cuts_decode_to_the_same_messages_and_verdict(input in input(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let bytewise: Vec<usize> = (0..=input.len()).collect();
        for side in [Side::Client, Side::Upstream] {
            let whole = decode(&input, &[], side);
            prop_assert_eq!(&decode(&input, &cuts, side), &whole);
            prop_assert_eq!(&decode(&input, &bytewise, side), &whole);
        }
    }

    #[test]
    fn what_is_forwarded_is_accepted_again_and_forwarded_alike(input in input()) {
        let first = decode(&input, &[], Side::Client);
        for (message, whole) in first.messages {
            if !whole {
                continue;
            }
            // Our own pseudonym is in it now; the next router has another.
            let again = decode(message.replace("Via: 1.1 v", "Via: 1.1 w").as_bytes(), &[], Side::Client);
            // Longer by what the router added, it may meet the small limits of this test.
            if !matches!(again.end, Some(414 | 431)) {
                prop_assert_eq!((again.end, again.messages.len()), (None, 1));
                prop_assert!(again.messages[0].1);
            }
        }
    }
}
