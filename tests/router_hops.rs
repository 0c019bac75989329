//! What passes from one side to the other (strictness items 7, 9, 11 and 15), and what others' advisories were about.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::net::Shutdown;
use std::time::Duration;

use router_support::{End, GOOD, OK, Rig, Upstream, app, block_on, quick, slot, table};
use slot::router::{Limits, Source};

/// Sends `request` in two parts cut at every place, byte by byte, and behind a good one, to an upstream that answers `answer`;
/// returns what the upstream got each time but the last, and what the client got.
fn passed(request: &str, answer: &'static str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let bytes = request.as_bytes();
    let cuts = (0..bytes.len()).map(|cut| vec![&bytes[..cut], &bytes[cut..]]);
    let ways = cuts.chain([bytes.chunks(1).collect()]);
    let upstream = Upstream::start(move |raw, _| {
        while let Some(request) = raw.message() {
            let good = request.head.starts_with("GET /good ");
            raw.send(if good { OK } else { answer.as_bytes() });
        }
    });
    for parts in ways {
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        _ = parts.into_iter().all(|part| client.send(part));
        client.shut();
        let (got, _) = client.end();
        drop(rig);
        let got = String::from_utf8(got).unwrap();
        all.push((upstream.seen().pop().unwrap(), got));
    }
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send([GOOD, request].concat());
    assert_eq!(client.message().unwrap().text(), "ok");
    client.shut();
    let (got, _) = client.end();
    drop(rig);
    let last = upstream.finish().pop().unwrap();
    let (_, behind) = last.split_once("\r\n\r\n").unwrap();
    all.push((behind.to_owned(), String::from_utf8(got).unwrap()));
    all
}

/// The fields of a head without those that the router adds.
fn fields(head: &str) -> Vec<&str> {
    const OWN: [&str; 3] = ["X-Forwarded-", "X-Request-Id: ", "Via: 1.1 slot-"];
    let lines = head.split("\r\n\r\n").next().unwrap_or_default().lines();
    lines
        .skip(1)
        .filter(|line| !OWN.iter().any(|own| line.starts_with(own)))
        .collect()
}

#[test]
fn item_7_what_is_of_one_hop_does_not_pass_to_the_upstream_and_the_rest_keeps_case_and_order() {
    let request = "POST /x HTTP/1.1\r\nhOST: a\r\nConnection: keep-alive, X-Mine, close\r\nB-Field: 2\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Connection: keep-alive\r\nTE: gzip, trailers;q=0.5, trailers\r\nx-mine: 1\r\nUpgrade: h2c, foo\r\nHTTP2-Settings: AAMAAABk\r\n\
        a-field: 1\r\nContent-Length: 2\r\nServer: mine\r\n\r\nhi";
    for (upstream, client) in passed(request, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") {
        assert_eq!(
            fields(&upstream),
            [
                "hOST: a",
                "B-Field: 2",
                "a-field: 1",
                "Content-Length: 2",
                "Server: mine",
                "Connection: TE",
                "TE: trailers"
            ]
        );
        assert!(upstream.ends_with("\r\n\r\nhi"), "{upstream:?}");
        assert!(client.starts_with("HTTP/1.1 200 "), "{client:?}");
    }
}

#[test]
fn item_7_what_is_of_one_hop_does_not_pass_to_the_client_and_the_rest_is_left_alone() {
    let answer = "HTTP/1.1 200 Fine\r\nserver: app/1\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=60\r\n\
        Proxy-Connection: x\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nDATE: then\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok";
    let request = "GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    for (_, client) in passed(request, answer) {
        let first = client.split_inclusive("\r\n\r\nok").next().unwrap();
        assert_eq!(
            fields(first),
            [
                "server: app/1",
                "Proxy-Authenticate: Basic",
                "DATE: then",
                "Set-Cookie: a=1",
                "Set-Cookie: b=2",
                "Content-Length: 2"
            ]
        );
        assert!(first.starts_with("HTTP/1.1 200 Fine\r\n"), "{first:?}");
        assert_eq!(client.matches("HTTP/1.1 200").count(), 2, "{client:?}");
    }
}

#[test]
fn item_7_connection_never_strips_what_frames_or_routes_a_message() {
    let request = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, Via, close\r\nVia: 1.0 other\r\nContent-Length: 2\r\n\r\nhi";
    let answer = "HTTP/1.1 200 OK\r\nConnection: content-length, transfer-encoding\r\nContent-Length: 2\r\n\r\nok";
    for (upstream, client) in passed(request, answer) {
        assert_eq!(
            fields(&upstream),
            ["Host: a", "Via: 1.0 other", "Content-Length: 2"]
        );
        assert!(upstream.contains("\r\nVia: 1.1 slot-"), "{upstream:?}");
        assert!(client.ends_with("\r\n\r\nok"), "{client:?}");
        assert!(client.contains("\r\nContent-Length: 2\r\n"), "{client:?}");
    }
    let chunked = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding, close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for (upstream, _) in passed(chunked, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") {
        assert_eq!(fields(&upstream), ["Host: a", "Transfer-Encoding: chunked"]);
        assert!(
            upstream.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
            "{upstream:?}"
        );
    }
}

#[test]
fn item_7_via_is_added_and_a_request_that_comes_round_is_508() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    rig.ask("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 front\r\n\r\n");
    let seen = upstream.seen().concat();
    let via = seen.lines().filter_map(|l| l.strip_prefix("Via: "));
    let via: Vec<&str> = via.collect();
    assert_eq!((via.len(), via[0]), (2, "1.1 front"));
    let own = via[1].strip_prefix("1.1 ").unwrap();
    for round in [
        format!("Via: 1.1 front, 1.1 {own}\r\n"),
        format!("via: 1.1 front\r\nVIA: 1.0\t{own} (comment)\r\n"),
        format!("Via: 1.1 {own}\r\nConnection: Via\r\n"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{round}\r\n");
        rig.in_every_way(request, |mut client, way| {
            assert_eq!(client.message().unwrap().status(), 508, "{round:?} {way}");
        });
    }
    drop(rig);
    assert_eq!(upstream.finish().concat().matches("GET / ").count(), 1);
}

#[test]
fn item_7_date_is_on_our_own_answers_and_server_on_none() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let own = rig.ask("GET /\0 HTTP/1.1\r\n\r\n");
    assert!(own.field("date").is_some_and(|d| d.ends_with(" GMT")));
    assert_eq!((own.field("server"), own.field("via")), (None, None));
    let theirs = rig.ask(GOOD);
    assert_eq!((theirs.field("date"), theirs.field("server")), (None, None));
}

#[test]
fn item_9_only_100_continue_can_be_expected() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    for expect in [
        "cake",
        "100-continue, cake",
        "",
        "100-continue\r\nExpect: 100-continue",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\nhi"
        );
        rig.in_every_way(request, |mut client, way| {
            let answer = client.message().unwrap();
            assert_eq!(
                (answer.status(), answer.field("connection")),
                (417, Some("close")),
                "{expect:?} {way}"
            );
        });
    }
    drop(rig);
    assert!(!upstream.finish().concat().contains("POST"));
}

#[test]
fn item_9_an_old_client_expects_nothing_and_gets_no_interim_answer() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.head() {
            if request.head.starts_with("POST") {
                assert_eq!(request.field("expect"), None);
                raw.send(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
                );
                assert_eq!(raw.exactly(2).unwrap(), b"hi");
            }
            raw.send(OK);
        }
    });
    let rig = Rig::to(&upstream);
    let request = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi";
    rig.in_every_way(request, |mut client, way| {
        let (got, _) = client.end();
        let got = String::from_utf8(got).unwrap();
        let whole = got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nok");
        assert!(whole, "{way}: {got:?}");
    });
    drop(rig);
    upstream.finish();
}

#[test]
fn item_9_after_a_final_answer_before_the_body_was_read_neither_side_is_used_again() {
    // It says that it would go on, and does not close. Each time it comes in other parts.
    const NO: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
    let upstream = Upstream::start(|raw, number| {
        while let Some(request) = raw.head() {
            if request.head.starts_with("GET /good ") {
                raw.send(OK);
                continue;
            }
            let (first, rest) = NO.split_at(number % NO.len());
            raw.send(first);
            raw.send(rest);
            raw.end();
            return;
        }
    });
    let rig = Rig::to(&upstream);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n";
    let mut ways = 0;
    rig.in_every_way(request, |mut client, way| {
        let answer = client.message().unwrap();
        assert_eq!(
            (
                answer.status(),
                answer.text().as_str(),
                answer.field("connection")
            ),
            (401, "no", Some("close")),
            "{way}"
        );
        // What it still sends is taken for a while, and is no request.
        client.send(GOOD.repeat(2));
        client.shut();
        assert_eq!(client.end(), (Vec::new(), End::Fin), "{way}");
        ways += 1;
    });
    assert!(ways > NO.len(), "the answer was not cut at every place");
    drop(rig);
    let seen = upstream.finish();
    let asked: Vec<_> = seen.iter().filter_map(|s| s.split_once("POST /")).collect();
    assert_eq!(asked.len(), ways, "a connection was used again: {seen:?}");
    let behind = |what| asked.iter().any(|(_, rest)| rest.contains(what));
    assert!(!behind("POST /") && !behind("/good"), "{seen:?}");
}

#[test]
fn item_9_an_answer_that_closes_is_not_lost_to_a_reset() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
    });
    let limits = Limits {
        linger: Duration::from_secs(10),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    for _ in 0..20 {
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        // Not read before all is written, as many clients do; a reset on the way would take the answer with it.
        assert!(client.send(vec![b'x'; 500_000]));
        assert_eq!(client.message().unwrap().text(), "big");
    }
    // So is an answer of the router's own.
    let mut client = rig.client();
    client.send("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.send(vec![b'x'; 500_000]));
    assert_eq!(client.message().unwrap().status(), 400);
    drop(client);
    drop(rig);
    upstream.finish();
}

/// Trailers that a message may not bring, one that it may, and an alias.
const TRAILERS: &str = "Content-Length: 3\r\ntransfer-encoding: chunked\r\nHOST: evil\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
    X_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: evil\r\nConnection: close\r\nVia: 1.1 evil\r\nUpgrade: evil\r\nX-Sum: 1\r\n";

#[test]
fn item_11_trailers_frame_and_route_nothing_in_either_direction() {
    let chunks = format!("2\r\nhi\r\n0\r\n{TRAILERS}\r\n");
    let answer: &'static str = Box::leak(
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").into_boxed_str(),
    );
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    );
    for (upstream, client) in passed(&request, answer) {
        for side in [&upstream, &client] {
            assert!(
                side.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"),
                "{side:?}"
            );
            assert!(
                !side.contains("6.6.6.6") && !side.contains("evil"),
                "{side:?}"
            );
        }
    }
}

#[test]
fn item_11_trailers_are_few_and_small_in_either_direction() {
    for trailers in [
        "X: y\r\n".repeat(33),
        format!("X: {}\r\n", "y".repeat(8200)),
        "X: y\r\n z\r\n".to_owned(),
        ": y\r\n".to_owned(),
    ] {
        let end = format!("0\r\n{trailers}\r\n");
        let upstream = Upstream::start({
            let end = end.clone();
            move |raw, _| {
                let request = raw.head().unwrap();
                if request.head.starts_with("GET") {
                    raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
                    raw.send(&end);
                }
                raw.end();
            }
        });
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
        client.send(&end);
        let (got, _) = client.end();
        assert!(!got.starts_with(b"HTTP/1.1 2"), "{trailers:?}");
        let mut client = rig.client();
        client.send(GOOD);
        client.shut();
        let (got, how) = client.end();
        assert!(
            how == End::Reset || got.starts_with(b"HTTP/1.1 502"),
            "{trailers:?}"
        );
        drop(rig);
        let seen = upstream.finish().concat();
        assert!(!seen.contains("\r\n0\r\n"), "{seen:?}");
    }
}

#[test]
fn item_15_in_whatever_parts_a_request_comes_no_100_is_sent_while_it_is_held() {
    let upstream = Upstream::answering(OK);
    let mut down = slot("blue", 100, "127.0.0.1:1");
    down.ready = false;
    let mut routes = table(1, vec![slot("blue", 100, upstream.address)]);
    routes.apps.push(app("down", "*", "/down", vec![down]));
    let rig = Rig::with(Source::Given(routes), quick());
    let request =
        "POST /down HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    rig.in_every_way(request, |client, way| {
        rig.eventually("held", |s| s.held == 1);
        client.stream.set_nonblocking(true).unwrap();
        let heard = client.stream.peek(&mut [0]);
        assert!(client.rest.is_empty() && heard.is_err(), "{way}: {heard:?}");
        client.reset();
        rig.eventually("let go", |s| s.held == 0);
    });
    drop(rig);
    assert!(!upstream.finish().concat().contains("/down"));
}

#[test]
fn item_15_of_a_held_request_the_body_stays_where_it_is_and_no_100_is_sent() {
    let mut blue = slot("blue", 100, "127.0.0.1:1");
    blue.ready = false;
    let rig = Rig::with(Source::Given(table(1, vec![blue])), quick());
    let length = 50_000_000;
    let mut client = rig.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ));
    rig.eventually("held", |s| s.held == 1);
    let mut other = rig.client();
    other.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    rig.eventually("held", |s| s.held == 2);
    // The kernel takes what it takes; the router reads none of it, so this comes to an end.
    other.stream.set_nonblocking(true).unwrap();
    let (chunk, mut taken) = (vec![b'x'; 1 << 16], 0);
    let mut stalls = 0;
    while stalls < 200 {
        match std::io::Write::write(&mut other.stream, &chunk) {
            Ok(count) => (taken, stalls) = (taken + count, 0),
            Err(_) => {
                stalls += 1;
                std::thread::yield_now();
            }
        }
    }
    assert!(taken < length / 2, "{taken} bytes were taken");
    other.stream.set_nonblocking(false).unwrap();
    // The first one has heard nothing until its slot came, and then it is the app that says 100.
    client.stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    assert!(client.stream.peek(&mut byte).is_err());
    client.stream.set_nonblocking(false).unwrap();
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
        raw.end();
    });
    rig.put(table(2, vec![slot("blue", 100, upstream.address)]));
    assert_eq!(client.message().unwrap().status(), 417);
    drop((client, other));
    drop(rig);
    upstream.finish();
}

/// Pingora, CVE-2025-4366: the rest of a body that was not read became the next request on a connection that was used on.
#[test]
fn regression_a_body_that_was_not_drained_is_not_the_next_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let upstream = Upstream::start(move |raw, _| {
        while let Some(request) = raw.head() {
            raw.send(if request.head.starts_with("POST") {
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npost"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nget"
            });
        }
    });
    let rig = Rig::to(&upstream);
    // The answer comes after the head alone; the body comes with the next request, or never.
    let mut client = rig.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        smuggled.len()
    ));
    assert_eq!(client.message().unwrap().text(), "post");
    client.send(smuggled);
    client.send(GOOD);
    client.shut();
    assert_eq!(client.end().0, b"", "neither is answered");
    // An invalid request of the router's own refusal, with a body behind it.
    let mut client = rig.client();
    client.send(format!(
        "POST /\0 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    assert_eq!(client.message().unwrap().status(), 400);
    assert_eq!(client.end().0, b"");
    drop(rig);
    let seen = upstream.finish();
    assert!(!seen.concat().contains("smuggled"), "{seen:?}");
}

/// Pingora, CVE-2026-2835 and -2836: the body of an HTTP/1.0 request that ends at close.
#[test]
fn regression_an_http_1_0_request_without_a_length_has_no_body() {
    for keep in ["", "Connection: keep-alive\r\n"] {
        let upstream = Upstream::answering(OK);
        let rig = Rig::to(&upstream);
        let mut client = rig.client();
        client.send(format!(
            "POST /one HTTP/1.0\r\nHost: a\r\n{keep}\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        client.shut();
        let (got, _) = client.end();
        let answers = String::from_utf8_lossy(&got)
            .matches("HTTP/1.1 200")
            .count();
        drop(rig);
        let seen = upstream.finish().concat();
        let asked = seen.matches(" HTTP/1.1\r\n").count();
        // Either it is the next request, as its sender said, or it is nothing.
        assert_eq!(
            (answers, asked),
            if keep.is_empty() { (1, 1) } else { (2, 2) },
            "{seen:?}"
        );
        assert!(
            seen.starts_with("POST /one HTTP/1.1\r\nHost: a\r\n"),
            "{seen:?}"
        );
    }
}

/// nghttpx, CVE-2026-58055: an upgrade with a length on an upstream connection in use.
#[test]
fn regression_an_upgrade_with_a_length_reaches_no_connection_in_use() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 200);
    client.send(format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    ));
    assert_eq!(client.message().unwrap().status(), 400);
    assert_eq!(client.end().0, b"");
    drop(rig);
    assert_eq!(
        upstream.finish().concat().matches("HTTP/1.1\r\n").count(),
        1
    );
}

/// hyper 1.10.1: a busy loop when the client half-closes inside its body.
#[test]
fn regression_a_half_close_inside_a_body_ends_it() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut open = Vec::new();
    for body in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut client = rig.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
        client.stream.shutdown(Shutdown::Write).unwrap();
        open.push(client);
    }
    for client in &mut open {
        let (got, _) = client.end();
        assert!(!got.starts_with(b"HTTP/1.1 2"));
    }
    rig.eventually("over", |s| {
        s.connections == 0 && s.slots.iter().all(|s| s.in_flight.total() == 0)
    });
    drop(rig);
    upstream.finish();
}

/// The same while an answer is under way: the client has said its last, and waits.
#[test]
fn regression_a_half_close_behind_a_request_keeps_no_thread_busy() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
        wait.lock().unwrap().recv().unwrap();
        raw.send("ay");
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GOOD);
    client.until(b"ok").unwrap();
    client.shut();
    // A thread that spins on the closed side would answer none of these.
    for _ in 0..100 {
        assert!(block_on(rig.control().is_alive()));
    }
    go.send(()).unwrap();
    assert_eq!(client.end(), (b"ay".to_vec(), End::Fin));
    drop(rig);
    upstream.finish();
}
