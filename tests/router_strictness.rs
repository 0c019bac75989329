//! What the router refuses, judged by what the upstream received and what the client got.
//!
//! Every defect is sent at once, in two parts cut at every place, one byte at a time, and behind a
//! good request: the verdict is the same, and nothing of the bad request is passed on.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::time::Duration;

use router_support::{End, GOOD, Message, OK, Raw, Rig, Upstream, block_on, quick};
use slot::router::Limits;

/// Sends `parts` one after the other and returns the statuses of all final answers until the end.
fn statuses(mut client: Raw, parts: &[&[u8]]) -> Vec<u16> {
    for part in parts {
        // The router may have refused the request before it got all of it.
        if !client.send(part) {
            break;
        }
    }
    client.shut();
    let (bytes, _) = client.end();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.match_indices("HTTP/1.1 ")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// Sends each request in every way and expects `status` and nothing upstream but the good one.
fn refused(status: u16, requests: &[&str]) {
    for request in requests {
        let upstream = Upstream::answering(OK);
        let rig = Rig::to(&upstream);
        let bytes = request.as_bytes();
        assert_eq!(
            statuses(rig.client(), &[bytes]),
            [status],
            "at once: {request:?}"
        );
        for cut in 1..bytes.len() {
            assert_eq!(
                statuses(rig.client(), &[&bytes[..cut], &bytes[cut..]]),
                [status],
                "cut at {cut}: {request:?}"
            );
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(
            statuses(rig.client(), &bytewise),
            [status],
            "bytewise: {request:?}"
        );
        let behind = [GOOD.as_bytes(), bytes].concat();
        assert_eq!(
            statuses(rig.client(), &[&behind]),
            [200, status],
            "behind a good one: {request:?}"
        );
        drop(rig);
        let seen = upstream.finish();
        assert_eq!(seen.len(), 1, "{request:?} reached the upstream: {seen:?}");
        assert!(
            seen[0].starts_with("GET /good ") && seen[0].matches("HTTP/1.1").count() == 1,
            "{request:?}: {seen:?}"
        );
    }
}

/// A request with these fields besides Host, and a body that a lenient reader could see.
fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
}

fn all_refused(status: u16, fields: &[&str]) {
    let requests: Vec<String> = fields.iter().map(|f| with(f)).collect();
    refused(
        status,
        &requests.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn item_1_content_length_with_transfer_encoding_is_refused() {
    all_refused(
        400,
        &[
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "transfer-encoding: CHUNKED\r\nX: y\r\ncontent-length: 0",
        ],
    );
}

#[test]
fn item_1_transfer_encoding_on_http_1_0_is_refused() {
    refused(
        400,
        &["POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    );
}

#[test]
fn item_2_content_lengths_that_could_be_read_differently_are_refused() {
    all_refused(
        400,
        &[
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: 5,6",
            "Content-Length:",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length: 5_0",
            "Content-Length: \"5\"",
            "Content-Length: 18446744073709551616",
            "Content-Length: 9223372036854775808",
        ],
    );
}

#[test]
fn item_3_unknown_transfer_codings_are_501() {
    all_refused(
        501,
        &[
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
        ],
    );
}

#[test]
fn item_3_obfuscated_transfer_codings_are_400() {
    all_refused(
        400,
        &[
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: chunked\0",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding:",
            "Transfer-Encoding: , chunked",
            "Transfer-Encoding : chunked",
        ],
    );
}

/// Chunks that are wrong from the start: with the head or after it, no success and nothing whole upstream.
fn bad_chunks(bodies: &[&str]) {
    for body in bodies {
        let head = "POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = format!("{head}{body}");
        // With its head, nothing of it is sent.
        let upstream = Upstream::answering(OK);
        let rig = Rig::to(&upstream);
        assert_eq!(
            statuses(rig.client(), &[request.as_bytes()]),
            [400],
            "{body:?}"
        );
        assert_eq!(
            statuses(rig.client(), &[[GOOD, &request].concat().as_bytes()]),
            [200, 400],
            "{body:?}"
        );
        drop(rig);
        let seen = upstream.finish();
        assert!(
            seen.iter().all(|s| !s.contains("/bad")),
            "{body:?}: {seen:?}"
        );
        // Later, the upstream sees an unfinished message, and the client no success.
        let upstream = Upstream::answering(OK);
        let rig = Rig::to(&upstream);
        for cut in 1..body.len() {
            let mut client = rig.client();
            client.send(&request.as_bytes()[..head.len()]);
            client.send(&body.as_bytes()[..cut]);
            client.send(&body.as_bytes()[cut..]);
            let (answer, _) = client.end();
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{body:?} cut at {cut}");
        }
        rig.in_every_way(&request, |mut client, way| {
            let (answer, _) = client.end();
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{body:?} {way}");
        });
        drop(rig);
        for seen in upstream.finish() {
            assert!(
                !seen.ends_with("\r\n0\r\n\r\n"),
                "{body:?} went whole: {seen:?}"
            );
        }
    }
}

#[test]
fn item_4_malformed_chunk_sizes_are_refused() {
    bad_chunks(&[
        "\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "0_5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ]);
}

#[test]
fn item_4_chunk_data_ends_with_cr_lf() {
    bad_chunks(&[
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
    ]);
}

#[test]
fn item_4_line_ends_in_chunk_extensions_are_refused() {
    bad_chunks(&[
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0;\n\r\n\r\n",
    ]);
}

#[test]
fn item_4_chunk_extensions_are_capped_in_total() {
    let body = format!(
        "{}0\r\n\r\n",
        format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(20)
    );
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let bytes = request.as_bytes();
    let pieces = [1, 7, 1000, bytes.len()].map(|size| bytes.chunks(size).collect::<Vec<_>>());
    for parts in pieces {
        let mut client = rig.client();
        _ = parts.iter().all(|part| client.send(part));
        assert!(!client.end().0.starts_with(b"HTTP/1.1 2"));
    }
    let mut client = rig.client();
    client.send([GOOD, &request].concat());
    assert_eq!(client.message().unwrap().text(), "ok");
    assert!(!client.end().0.starts_with(b"HTTP/1.1 2"));
    drop(rig);
    assert!(
        upstream
            .finish()
            .iter()
            .all(|s| !s.ends_with("\r\n0\r\n\r\n"))
    );
}

#[test]
fn item_4_well_formed_chunks_arrive_without_their_extensions() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
    let mut ways = 0;
    rig.in_every_way(request, |mut client, way| {
        assert_eq!(client.message().unwrap().status(), 200, "{way}");
        ways += 1;
    });
    drop(rig);
    let seen = upstream.finish().concat();
    assert_eq!(
        seen.matches("\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX: y\r\n\r\n")
            .count(),
        ways
    );
}

#[test]
fn item_5_bare_line_ends_are_refused() {
    refused(
        400,
        &[
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn item_5_nul_and_control_characters_in_a_head_are_refused() {
    let requests: Vec<String> = ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{c}", "\u{1b}", "\u{7f}"]
        .iter()
        .flat_map(|c| {
            [
                format!("GET /{c} HTTP/1.1\r\nHost: a\r\n\r\n"),
                format!("GET / HTTP/1.1\r\nHost: a\r\nX: y{c}z\r\n\r\n"),
                format!("GET / HTTP/1.1\r\nHost: a\r\nX{c}: y\r\n\r\n"),
            ]
        })
        .collect();
    refused(
        400,
        &requests.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn item_5_folding_and_misplaced_white_space_are_refused() {
    refused(
        400,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        ],
    );
}

#[test]
fn item_5_field_names_are_tokens() {
    refused(
        400,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n(X): y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\"X\": y\r\n\r\n",
        ],
    );
}

#[test]
fn item_6_host_is_there_exactly_once_and_valid() {
    refused(
        400,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
        ],
    );
}

#[test]
fn item_6_targets_have_their_form() {
    refused(
        400,
        &[
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a,b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    refused(501, &["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"]);
    refused(
        505,
        &[
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
}

#[test]
fn item_6_absolute_form_overrides_host_and_the_raw_path_is_forwarded() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    for (request, passed) in [
        (
            "GET http://b:81/x%41/./y?q=/../ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x%41/./y?q=/../ HTTP/1.1\r\nHost: b:81\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        ),
    ] {
        let mut ways = 0;
        rig.in_every_way(request, |mut client, way| {
            assert_eq!(client.message().unwrap().status(), 200, "{request:?} {way}");
            ways += 1;
        });
        let seen = upstream.seen().concat();
        assert_eq!(seen.matches(passed).count(), ways, "{seen:?}");
    }
    drop(rig);
    let seen = upstream.finish().concat();
    let absolute = seen.matches("GET /x%41").count();
    assert_eq!(seen.matches("X-Forwarded-Host: b:81\r\n").count(), absolute);
}

#[test]
fn item_6_a_path_that_changes_apps_when_normalised_is_refused() {
    let (web, admin) = (Upstream::answering(OK), Upstream::answering(OK));
    let slots = |u: &Upstream| vec![router_support::slot("blue", 100, u.address)];
    let apps = vec![
        router_support::app("web", "*", "/", slots(&web)),
        router_support::app("admin", "*", "/admin", slots(&admin)),
    ];
    let table = slot::wire::table::Table { revision: 1, apps };
    let rig = Rig::with(slot::router::Source::Given(table), quick());
    for path in [
        "/x/../admin",
        "/%2e%2e/admin",
        "//admin",
        "/./admin",
        "/%61dmin",
        "/admin/../x",
        "/admin/%2E%2e/x",
        "/x%2f..%2fadmin",
        "/x\\..\\admin",
        "/admin%2fx",
        "/admi%6e/x",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        rig.in_every_way(request, |mut client, way| {
            assert_eq!(client.message().unwrap().status(), 400, "{path} {way}");
        });
    }
    assert_eq!(
        rig.ask("GET /admin/./x HTTP/1.1\r\nHost: a\r\n\r\n")
            .status(),
        200
    );
    assert_eq!(
        rig.ask("GET /administrator HTTP/1.1\r\nHost: a\r\n\r\n")
            .status(),
        200
    );
    drop(rig);
    let seen = web.finish().concat();
    let asked = seen.matches("GET ").count();
    assert_eq!(seen.matches("GET /good ").count(), asked - 1, "{seen:?}");
    assert_eq!(seen.matches("GET /administrator ").count(), 1, "{seen:?}");
    let seen = admin.finish().concat();
    assert!(seen.starts_with("GET /admin/./x "), "{seen:?}");
    assert_eq!(seen.matches("GET ").count(), 1, "{seen:?}");
}

const ASK_UPGRADE: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn item_8_a_tunnel_begins_only_after_the_upstreams_101() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let upstream = Upstream::start(move |raw, _| {
        while let Some(request) = raw.head() {
            if request.head.starts_with("GET /good ") {
                raw.send(OK);
                continue;
            }
            raw.send("HTTP/1.1 103 Early Hints\r\n\r\n");
            // The client has sent all that it has to say, and has this: the router has had every occasion to pass on what is early.
            told.lock().unwrap().recv().unwrap();
            raw.stream.set_nonblocking(true).unwrap();
            let early = raw.stream.peek(&mut [0]);
            raw.stream.set_nonblocking(false).unwrap();
            assert!(raw.rest.is_empty() && early.is_err(), "{early:?}");
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nserver");
            assert_eq!(raw.until(b"early").unwrap(), b"early");
            return;
        }
    });
    let rig = Rig::to(&upstream);
    rig.in_every_way(format!("{ASK_UPGRADE}early"), |mut client, way| {
        assert_eq!(client.head().unwrap().status(), 103, "{way}");
        // Two turns of its event loop later the router has also seen what came behind the head.
        for _ in 0..2 {
            assert!(block_on(rig.control().is_alive()));
        }
        tell.send(()).unwrap();
        assert_eq!(client.head().unwrap().status(), 101, "{way}");
        assert_eq!(client.exactly(6).unwrap(), b"server", "{way}");
    });
    drop(rig);
    upstream.finish();
}

#[test]
fn item_8_what_was_pipelined_behind_a_refused_upgrade_is_a_request() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    for (behind, status) in [(GOOD, 200), ("\0\r\n\r\n", 400)] {
        rig.in_every_way([ASK_UPGRADE, behind].concat(), |mut client, way| {
            for status in [200, status] {
                assert_eq!(client.message().unwrap().status(), status, "{way}");
            }
        });
    }
    drop(rig);
    assert!(upstream.finish().iter().all(|s| !s.contains('\0')));
}

#[test]
fn item_8_an_upgrade_with_a_body_is_refused() {
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    refused(
        400,
        &[
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 5\r\n\r\nhello"),
            &format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
        ],
    );
}

#[test]
fn item_8_a_101_that_nobody_asked_for_is_a_502_and_closes() {
    const SWITCH: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.message() {
            let good = request.head.starts_with("GET /good ");
            raw.send(if good { OK } else { SWITCH });
        }
    });
    let rig = Rig::to(&upstream);
    let mut ways = 0;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        rig.in_every_way(request, |mut client, way| {
            let answer = client.message().unwrap();
            assert_eq!(answer.status(), 502, "{request:?} {way}");
            assert!(answer.text().contains("without being asked"), "{answer:?}");
            ways += 1;
        });
    }
    drop(rig);
    let seen = upstream.finish();
    // Each ended its connection.
    let asked = seen.iter().filter(|s| s.contains("GET / ")).count();
    assert_eq!(asked, ways, "a connection was used again: {seen:?}");
    assert!(
        seen.iter().all(|s| !s.to_lowercase().contains("upgrade")),
        "{seen:?}"
    );
}

#[test]
fn item_8_a_101_to_another_protocol_is_a_502() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    let rig = Rig::to(&upstream);
    assert_eq!(rig.ask(ASK_UPGRADE).status(), 502);
}

#[test]
fn item_8_pipelined_bytes_are_not_forwarded_into_a_stream() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n");
        // Nothing more comes until the router has seen the client go.
        assert!(raw.more().is_err() && raw.rest.is_empty());
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(format!(
        "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n{GOOD}"
    ));
    assert_eq!(client.head().unwrap().field("connection"), Some("close"));
    assert_eq!(client.until(b"\n\n").unwrap(), b"data: 1\n\n");
    client.send(GOOD);
    client.reset();
    drop(rig);
    let seen = upstream.finish();
    assert!(seen.len() == 1 && !seen[0].contains("/good"), "{seen:?}");
}

#[test]
fn item_10_answers_to_head_and_204_and_304_have_no_body() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.message() {
            let answer = match request.head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            };
            raw.send(answer);
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for (request, status, length) in [
        ("HEAD /", 200, Some("5")),
        ("GET /204", 204, None),
        ("GET /304", 304, Some("5")),
        ("HEAD /chunked", 200, None),
        ("HEAD /", 200, Some("5")),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.head().unwrap();
        assert_eq!(
            (answer.status(), answer.field("content-length")),
            (status, length),
            "{request}"
        );
    }
    drop(client);
    drop(rig);
    assert_eq!(upstream.finish().len(), 1, "all on one upstream connection");
}

#[test]
fn item_10_bytes_behind_an_answer_throw_the_connection_away() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        "HTTP/1.1 204 No Content\r\n\r\npoison",
        "HTTP/1.1 304 Not Modified\r\n\r\npoison",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
    ] {
        let upstream = Upstream::start(move |raw, _| {
            raw.message();
            raw.send(answer);
            raw.end();
        });
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        for _ in 0..3 {
            client.send(GOOD);
            let answer = client.message().unwrap();
            assert!(
                answer.status() < 400 && !answer.text().contains("poison"),
                "{answer:?}"
            );
        }
        drop(client);
        drop(rig);
        assert_eq!(
            upstream.finish().len(),
            3,
            "{answer:?}: a connection was used again"
        );
    }
}

#[test]
fn item_10_bytes_on_an_idle_upstream_connection_throw_it_away() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (tell_back, sent) = std::sync::mpsc::channel::<()>();
    let both = std::sync::Mutex::new((told, tell_back));
    let upstream = Upstream::start(move |raw, number| {
        raw.message();
        raw.send(OK);
        if number == 0 {
            let both = both.lock().unwrap();
            both.0.recv().unwrap();
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            both.1.send(()).unwrap();
        }
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().text(), "ok");
    tell.send(()).unwrap();
    sent.recv().unwrap();
    // The router closes the connection when it sees the bytes, at its next look at the latest.
    let first = &upstream;
    rig.eventually("nothing open upstream", |_| {
        let mut probe = rig.client();
        probe.send(GOOD);
        let answer = probe.message().unwrap();
        assert_eq!(answer.text(), "ok");
        first.seen().len() > 1
    });
    drop(client);
    drop(rig);
    upstream.finish();
}

#[test]
fn item_10_an_answer_cut_short_reaches_the_client_as_a_reset() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nbad\r\n",
    ] {
        let upstream = Upstream::start(move |raw, _| {
            raw.message();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            raw.send(format!("{head}\r\n\r\n"));
            raw.send(body);
        });
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
        let (bytes, end) = client.end();
        // If all of it came in one read the router can still say so; else only a reset can.
        assert!(
            end == End::Reset || bytes.starts_with(b"HTTP/1.1 502"),
            "{answer:?}: {end:?} after {:?}",
            String::from_utf8_lossy(&bytes)
        );
        drop(rig);
        upstream.finish();
    }
}

#[test]
fn item_10_malformed_answers_are_502_and_say_so() {
    for answer in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let upstream = Upstream::start(move |raw, _| {
            raw.message();
            raw.send(answer);
        });
        let rig = Rig::to(&upstream);
        let got = rig.ask(GOOD);
        assert_eq!(got.status(), 502, "{answer:?}");
        drop(rig);
        upstream.finish();
    }
}

#[test]
fn item_14_an_idempotent_request_is_sent_again_once_when_a_used_connection_ended() {
    let upstream = Upstream::start(|raw, number| {
        raw.message();
        if number == 0 {
            raw.send(OK);
            raw.message();
            return;
        }
        raw.send(OK);
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.message().unwrap().text(), "ok");
    }
    drop(client);
    drop(rig);
    let seen = upstream.finish();
    assert_eq!(
        seen.iter()
            .map(|s| s.matches("PUT / ").count())
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(seen.concat().matches("hello").count(), 3);
}

#[test]
fn item_14_a_request_that_is_not_idempotent_is_never_sent_again() {
    let upstream = Upstream::start(|raw, number| {
        raw.message();
        if number == 0 {
            raw.send(OK);
            raw.message();
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    client.send(post);
    assert_eq!(client.message().unwrap().text(), "ok");
    client.send(post);
    let answer = client.message().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.text().contains("before it answered")
        ),
        (502, true)
    );
    drop(client);
    drop(rig);
    assert_eq!(upstream.finish().concat().matches("POST / ").count(), 2);
}

/// What a client gets for `request`, sent in every way behind a good one on a connection of its own, while the upstream ends each connection at
/// its second request after saying `last`; and how often the upstream got it.
fn at_a_connection_that_ends(request: &str, last: &'static str) -> Vec<(Message, usize)> {
    let bytes = request.as_bytes();
    let cuts = (0..bytes.len()).map(|cut| vec![&bytes[..cut], &bytes[cut..]]);
    let ways = cuts.chain([bytes.chunks(1).collect()]);
    let all = ways.map(|parts| {
        let upstream = Upstream::start(move |raw, number| {
            raw.message();
            raw.send(OK);
            if number == 0 {
                raw.message();
                raw.send(last);
            } else {
                raw.end();
            }
        });
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        client.send(GOOD);
        assert_eq!(client.message().unwrap().text(), "ok");
        parts.into_iter().for_each(|part| _ = client.send(part));
        let answer = client.message().unwrap();
        drop(client);
        drop(rig);
        let seen = upstream.finish().concat();
        (answer, seen.matches(" /again ").count())
    });
    all.collect()
}

#[test]
fn item_14_what_may_be_sent_again_does_not_depend_on_how_it_came() {
    let idempotent = "GET /again HTTP/1.1\r\nHost: a\r\n\r\n";
    for (answer, times) in at_a_connection_that_ends(idempotent, "") {
        assert_eq!((answer.text().as_str(), times), ("ok", 2));
    }
    let other = "POST /again HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for (answer, times) in at_a_connection_that_ends(other, "") {
        assert_eq!((answer.status(), times), (502, 1), "{answer:?}");
    }
    for last in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 Early Hints\r\n"] {
        for (answer, times) in at_a_connection_that_ends(idempotent, last) {
            assert_eq!((answer.status(), times), (502, 1), "{last:?}: {answer:?}");
        }
    }
}

#[test]
fn item_14_it_is_sent_again_on_a_new_connection_and_on_no_other_used_one() {
    // Two connections are used once each; both end at their second request.
    let both = std::sync::Barrier::new(2);
    let upstream = Upstream::start(move |raw, number| {
        raw.message();
        if number < 2 {
            both.wait();
            raw.send(OK);
            raw.message();
            return;
        }
        raw.send(OK);
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut clients = [rig.client(), rig.client()];
    clients.iter_mut().for_each(|c| _ = c.send(GOOD));
    clients
        .iter_mut()
        .for_each(|c| assert_eq!(c.message().unwrap().status(), 200));
    assert_eq!(rig.ask(GOOD).status(), 200);
    drop((clients, rig));
    let mut counts: Vec<_> = upstream
        .finish()
        .iter()
        .map(|seen| seen.matches("GET /good ").count())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn item_14_a_body_that_was_not_whole_at_hand_is_not_sent_again() {
    let upstream = Upstream::start(|raw, number| {
        raw.message();
        if number == 0 {
            raw.send(OK);
            raw.head();
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 200);
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert_eq!(client.message().unwrap().status(), 502);
    drop((client, rig));
    assert_eq!(upstream.finish().concat().matches("PUT / ").count(), 1);
}

#[test]
fn item_14_nothing_is_sent_again_on_a_fresh_connection() {
    let upstream = Upstream::start(|raw, _| {
        raw.message();
    });
    let rig = Rig::to(&upstream);
    assert_eq!(rig.ask(GOOD).status(), 502);
    drop(rig);
    assert_eq!(upstream.finish().len(), 1);
}

#[test]
fn item_14_nothing_is_sent_again_after_one_byte_of_an_answer() {
    let upstream = Upstream::start(|raw, _| {
        raw.message();
        raw.send(OK);
        raw.message();
        raw.send("H");
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 200);
    client.send(GOOD);
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.status(), answer.text().contains("inside the head")),
        (502, true)
    );
    drop(client);
    drop(rig);
    assert_eq!(upstream.finish().len(), 1);
}

#[test]
fn item_14_the_upstreams_keep_alive_is_obeyed() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for _ in 0..3 {
        client.send(GOOD);
        assert_eq!(client.message().unwrap().field("keep-alive"), None);
    }
    drop(client);
    drop(rig);
    assert_eq!(
        upstream.finish().len(),
        3,
        "a connection for one second less a second is not kept"
    );
}

#[test]
fn heads_that_are_too_large_have_their_status() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::limited(
        &upstream,
        Limits {
            head: Duration::from_millis(100),
            ..quick()
        },
    );
    let long = |n| "a".repeat(n);
    assert_eq!(
        rig.ask(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9000)))
            .status(),
        414
    );
    assert_eq!(rig.ask(format!("GET /{}", long(70_000))).status(), 414);
    assert_eq!(
        rig.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(100)
        ))
        .status(),
        431
    );
    assert_eq!(
        rig.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            long(70_000)
        ))
        .status(),
        431
    );
    assert_eq!(
        rig.ask(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            long(60_000)
        ))
        .status(),
        200
    );
    assert_eq!(rig.ask("GET / HTTP/1.1\r\nHost: a\r\n").status(), 408);
    drop(rig);
    assert_eq!(upstream.finish().len(), 1);
}
