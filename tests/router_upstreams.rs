//! Hostile and honest upstreams: what the client gets of answers that come at once, in two parts cut at every place, byte by byte,
//! and behind a good answer on the same connection.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::sync::atomic::{AtomicUsize, Ordering};

use router_support::{End, GOOD, OK, Rig, Upstream};

/// How an answer is sent: cut at some place, or byte by byte.
fn parts(answer: &[u8], way: usize) -> Vec<&[u8]> {
    match way {
        _ if way < answer.len() => vec![&answer[..way], &answer[way..]],
        _ => answer.chunks(1).collect(),
    }
}

/// What clients get when the upstream sends `answer` to `request` in every way, alone or `behind` a good answer, then closes. The
/// good request is on the same connections of both sides.
fn got(request: &'static str, answer: &str, behind: bool) -> Vec<(String, End)> {
    let bytes = answer.as_bytes().to_vec();
    let ways = bytes.len() + 1;
    let way = std::sync::Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let way = std::sync::Arc::clone(&way);
        move |raw, _| {
            while let Some(asked) = raw.head() {
                if asked.head.starts_with("GET /good ") {
                    raw.send(OK);
                    continue;
                }
                for part in parts(&bytes, way.load(Ordering::SeqCst)) {
                    raw.send(part);
                }
                return;
            }
        }
    });
    let rig = Rig::to(&upstream);
    let all = (0..ways).map(|number| {
        way.store(number, Ordering::SeqCst);
        let mut client = rig.client();
        if behind {
            client.send(GOOD);
            assert_eq!(client.message().unwrap().text(), "ok");
        }
        client.send(request);
        if !request.contains("Connection: close") {
            client.shut();
        }
        let (got, end) = client.end();
        (String::from_utf8_lossy(&got).into_owned(), end)
    });
    let all = all.collect();
    drop(rig);
    drop(upstream.finish());
    all
}

/// A request that gets a bad answer.
const BAD: &str = "GET /bad HTTP/1.1\r\nHost: a\r\n\r\n";

const BAD_HEADS: &[&str] = &[
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 O\u{b}K\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 -20 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1\t200 OK\r\n\r\n",
    " HTTP/1.1 200 OK\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "http/1.1 200 OK\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nX : y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "HTTP/1.1 200",
    "\0",
];

#[test]
fn a_defect_in_the_head_of_an_answer_is_a_502_for_every_split_and_behind_a_good_answer() {
    for answer in BAD_HEADS {
        for behind in [false, true] {
            for (got, _) in got(
                "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                answer,
                behind,
            ) {
                // One that is 100 and sound may have passed before the defect came.
                let last = got
                    .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
                    .unwrap_or(&got);
                assert!(last.starts_with("HTTP/1.1 502 "), "{answer:?}: {got:?}");
                assert!(
                    !got.contains("HTTP/1.1 200") && !got.contains("\r\n\r\nok"),
                    "{answer:?}: {got:?}"
                );
            }
        }
    }
}

#[test]
fn a_defect_in_the_body_of_an_answer_is_never_a_whole_answer() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "2\nok\r\n0\r\n\r\n",
        "2 \r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "2_0\r\nok\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nokk\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nX : y\r\n\r\n",
        "2\r\nok\r\n0\r\n x\r\n\r\n",
        "2\r\nok\r\n0\r\n\n",
        "2\r\nok\r\n0\r\n",
        "2\r\nok\r\n",
        "2\r\no",
    ] {
        let answer = format!("{HEAD}{body}");
        let ways = [false, true].map(|behind| got(BAD, &answer, behind));
        for (got, end) in ways.into_iter().flatten() {
            let refused = got.starts_with("HTTP/1.1 502 ");
            assert!(
                refused || end == End::Reset,
                "{body:?}: {end:?} after {got:?}"
            );
            assert!(
                !got.ends_with("\r\n0\r\n\r\n"),
                "{body:?} went whole: {got:?}"
            );
        }
    }
}

/// What a client gets of an upstream that ends at each place of its answer, cleanly or by reset.
fn ended(answer: &'static str, by_reset: bool) -> Vec<(String, End)> {
    let at = std::sync::Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let at = std::sync::Arc::clone(&at);
        move |raw, _| {
            raw.head();
            raw.send(&answer[..at.load(Ordering::SeqCst)]);
            if by_reset {
                let socket = socket2::SockRef::from(&raw.stream);
                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
        }
    });
    let rig = Rig::to(&upstream);
    let all = (0..=answer.len()).map(|place| {
        at.store(place, Ordering::SeqCst);
        let mut client = rig.client();
        client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (got, end) = client.end();
        (String::from_utf8_lossy(&got).into_owned(), end)
    });
    let all = all.collect();
    drop(rig);
    drop(upstream.finish());
    all
}

#[test]
fn an_answer_that_is_cut_at_any_place_is_never_a_whole_one() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
    ] {
        for by_reset in [false, true] {
            let mut ended = ended(answer, by_reset);
            let (whole, end) = ended.pop().unwrap();
            if !by_reset {
                assert!(
                    end == End::Fin && whole.contains("HTTP/1.1 200"),
                    "{whole:?}"
                );
            }
            for (at, (got, end)) in ended.into_iter().enumerate() {
                let last = got.strip_prefix("HTTP/1.1 103 Early Hints\r\n\r\n");
                let refused = last.unwrap_or(&got).starts_with("HTTP/1.1 502 ");
                assert!(
                    refused || end == End::Reset,
                    "{answer:?} cut at {at}: {end:?} after {got:?}"
                );
            }
        }
    }
    // Of an answer that its connection ends a clean end is its own, and a reset is none.
    let answer = "HTTP/1.0 200 OK\r\n\r\nhello";
    for (at, (got, end)) in ended(answer, true).into_iter().enumerate() {
        assert!(
            end == End::Reset || got.starts_with("HTTP/1.1 502 "),
            "cut at {at}: {end:?} after {got:?}"
        );
    }
}

#[test]
fn an_answer_that_switches_is_the_same_for_every_split_and_behind_another() {
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = format!("{SWITCH}\0HTTP/1.1 200 OK\r\n\r\n");
    let ways = [false, true].map(|behind| got(request, &answer, behind));
    for (got, end) in ways.into_iter().flatten() {
        let (head, passed) = got.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head:?}");
        assert_eq!((passed, end), ("\0HTTP/1.1 200 OK\r\n\r\n", End::Fin));
    }
}

#[test]
fn a_sound_answer_is_the_same_for_every_split_and_behind_another() {
    for (answer, passed) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 200 OK\r\n"),
        (
            "HTTP/1.1 200 OK\r\nA:\tb \r\nContent-Length:2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nB: 1\r\nConnection: X-Mine, close\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\na: 2\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nB: 1\r\na: 2\r\nContent-Length: 2\r\n",
        ),
        (
            "HTTP/1.1 599 Odd \u{e9}\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 599 Odd \u{e9}\r\nContent-Length: 2\r\n",
        ),
    ] {
        for behind in [false, true] {
            for (got, end) in got(
                "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                answer,
                behind,
            ) {
                assert_eq!(
                    (got, end),
                    (format!("{passed}Connection: close\r\n\r\nok"), End::Fin)
                );
            }
        }
    }
    let chunked = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1;x=y\r\no\r\n01\r\nk\r\n000\r\nX: y\r\n\r\n";
    for (got, _) in got(
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        chunked,
        true,
    ) {
        assert_eq!(
            got,
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             1\r\no\r\n01\r\nk\r\n000\r\nX: y\r\n\r\n"
        );
    }
}
