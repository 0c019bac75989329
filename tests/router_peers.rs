//! Who asks (strictness item 13): forwarded headers, whom they are believed of, and the PROXY protocol.
//!
//! Judged by what the upstream received, for headers that come at once, in two parts, and byte by byte.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::net::TcpListener;
use std::time::Duration;

use router_support::{End, GOOD, OK, Raw, Rig, Upstream, block_on, quick};
use slot::router::Limits;
use slot::router::roll::Whose;

const LINE: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 56324 80\r\n";

/// The same in version 2.
fn binary() -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 198, 51, 100, 1, 0xdc, 4, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &addresses[..]].concat()
}

/// What the upstream got, once the router has ended.
fn seen(rig: Rig, upstream: Upstream) -> String {
    drop(rig);
    upstream.finish().concat()
}

/// Sends what a connection begins with in every way; `check` sees how each went.
fn begun_in_every_way(rig: &Rig, bytes: &[u8], check: impl Fn(Raw, &str)) {
    for cut in 0..bytes.len() {
        let mut client = rig.client();
        _ = client.send(&bytes[..cut]) && client.send(&bytes[cut..]);
        check(client, &format!("cut at {cut}"));
    }
    let mut client = rig.client();
    _ = bytes.iter().all(|byte| client.send([*byte]));
    check(client, "byte by byte");
}

/// Sends a request in every way, each of which the app answers; in how many ways that was.
fn asked_in_every_way(rig: &Rig, request: &str) -> usize {
    let mut ways = 0;
    rig.in_every_way(request, |mut client, way| {
        assert_eq!(client.message().unwrap().status(), 200, "{way}");
        ways += 1;
    });
    ways
}

#[test]
fn item_13_what_a_peer_that_is_not_trusted_says_of_clients_is_replaced() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-FORWARDED-HOST: evil\r\n\
        X-Forwarded-Port: evil\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: evil\r\n\r\n";
    asked_in_every_way(&rig, request);
    let seen = seen(rig, upstream);
    for evil in ["6.6.6.6", "evil", "https"] {
        assert!(!seen.contains(evil), "{evil} in {seen:?}");
    }
    let asked = seen.matches("GET /").count();
    for own in [
        "\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "\r\nX-Forwarded-Proto: http\r\n",
        "\r\nX-Forwarded-Host: a\r\n",
        "\r\nX-Request-Id: ",
    ] {
        assert_eq!(seen.matches(own).count(), asked, "{own:?}");
    }
}

#[test]
fn item_13_a_trusted_peer_is_appended_to_what_it_says() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::trusting(&upstream, quick(), false);
    let ways = asked_in_every_way(
        &rig,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
         X-Forwarded-For: 198.51.100.2\r\nForwarded: for=203.0.113.9\r\nX-Request-Id: theirs\r\n\r\n",
    );
    let seen = seen(rig, upstream);
    for line in [
        "\r\nX-Forwarded-For: 203.0.113.9, 198.51.100.2, 127.0.0.1\r\n",
        "\r\nX-Forwarded-Proto: https\r\n",
        "\r\nX-Forwarded-Host: shop.example\r\n",
        "\r\nForwarded: for=203.0.113.9, for=127.0.0.1;proto=http;host=\"a\"\r\n",
        "\r\nX-Request-Id: theirs\r\n",
    ] {
        assert_eq!(seen.matches(line).count(), ways, "{line:?} in {seen:?}");
    }
    // One more, of the good request.
    assert_eq!(
        seen.matches("X-Forwarded-For").count(),
        ways + 1,
        "{seen:?}"
    );
}

#[test]
fn item_13_names_with_underscores_that_alias_protected_ones_are_dropped() {
    for trusting in [false, true] {
        let upstream = Upstream::answering(OK);
        let rig = match trusting {
            true => Rig::trusting(&upstream, quick(), false),
            false => Rig::to(&upstream),
        };
        let ways = asked_in_every_way(
            &rig,
            "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: evil\r\nX_Real-IP: 6.6.6.6\r\nX_REQUEST_ID: evil\r\n\
             Content_Length: evil\r\nTransfer_Encoding: evil\r\nHOST_: kept\r\nmy_own: kept\r\n\r\n",
        );
        let seen = seen(rig, upstream);
        for evil in ["6.6.6.6", "evil"] {
            assert!(!seen.contains(evil), "{evil} in {seen:?}");
        }
        let kept = seen.matches("\r\nHOST_: kept\r\nmy_own: kept\r\n").count();
        assert_eq!(kept, ways, "{seen:?}");
    }
}

#[test]
fn item_13_connection_cannot_strip_what_the_upstream_is_told() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::trusting(&upstream, quick(), false);
    let ways = asked_in_every_way(
        &rig,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, x-forwarded-host, X-Forwarded-Proto, Forwarded, X-Request-Id, X-Real-IP\r\n\
         X-Forwarded-For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n\r\n",
    );
    let seen = seen(rig, upstream);
    for line in [
        "X-Forwarded-For: 203.0.113.9, 127.0.0.1\r\n",
        "X-Forwarded-Host: a\r\n",
        "X-Forwarded-Proto: http\r\n",
        "Forwarded: for=203.0.113.9, ",
        "X-Request-Id: ",
        "X-Real-IP: 203.0.113.9\r\n",
    ] {
        assert!(seen.matches(line).count() >= ways, "{line:?} in {seen:?}");
    }
}

#[test]
fn proxy_headers_name_the_client_however_they_arrive() {
    for header in [LINE.as_bytes().to_vec(), binary()] {
        let upstream = Upstream::answering(OK);
        let rig = Rig::trusting(&upstream, quick(), true);
        // Behind the header come two requests, the second one defective.
        let bytes = [&header, GOOD.as_bytes(), b"GET /\0 HTTP/1.1\r\n\r\n"].concat();
        begun_in_every_way(&rig, &bytes, |mut client, way| {
            assert_eq!(client.message().unwrap().status(), 200, "{way}");
            assert_eq!(client.message().unwrap().status(), 400, "{way}");
        });
        let seen = seen(rig, upstream);
        let asked = seen.matches("GET /good ").count();
        assert_eq!(asked, bytes.len() + 1);
        assert_eq!(
            seen.matches("\r\nX-Forwarded-For: 203.0.113.9\r\n").count(),
            asked,
            "{seen:?}"
        );
    }
}

#[test]
fn a_client_behind_a_proxy_header_is_believed_only_if_it_is_trusted_itself() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::trusting(&upstream, quick(), true);
    let claim = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
    rig.ask(format!("{LINE}{claim}"));
    rig.ask(format!("PROXY TCP4 127.0.0.9 127.0.0.1 1 80\r\n{claim}"));
    // A health check of the load balancer is its own.
    rig.ask(format!("PROXY UNKNOWN\r\n{claim}"));
    let seen = seen(rig, upstream);
    for line in [
        "X-Forwarded-For: 203.0.113.9\r\n",
        "X-Forwarded-For: 6.6.6.6, 127.0.0.9\r\n",
        "X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen:?}");
    }
}

#[test]
fn without_a_proper_proxy_header_a_connection_that_needs_one_is_closed_unanswered() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::trusting(&upstream, quick(), true);
    let bad_sum = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13",
        &[0; 12][..],
        &[3, 0, 4, 1, 2, 3, 4],
    ]
    .concat();
    for bad in [
        GOOD.as_bytes(),
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 80\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04....",
        &bad_sum,
    ] {
        let bytes = [bad, GOOD.as_bytes()].concat();
        begun_in_every_way(&rig, &bytes, |mut client, way| {
            let (answer, _) = client.end();
            assert!(answer.is_empty(), "{way}: {bad:?} was answered {answer:?}");
        });
    }
    assert_eq!(seen(rig, upstream), "");
}

#[test]
fn a_proxy_header_comes_in_time() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        proxy_header: Duration::from_millis(50),
        ..quick()
    };
    let rig = Rig::trusting(&upstream, limits, true);
    let mut slow = rig.client();
    slow.send("PROXY TCP4 203.");
    assert_eq!(slow.end(), (Vec::new(), End::Reset));
    assert_eq!(rig.client().end().0, b"");
    // One that came is not in a hurry any more.
    let mut client = rig.client();
    client.send(LINE);
    rig.eventually("one connection", |s| s.connections == 1);
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 200);
}

#[test]
fn only_a_trusted_peer_may_send_a_proxy_header_and_only_where_one_is_due() {
    let upstream = Upstream::answering(OK);
    let source = || {
        let blue = router_support::slot("blue", 100, upstream.address);
        slot::router::Source::Given(router_support::table(1, vec![blue]))
    };
    let stranger = Rig::set(source(), quick(), |config| {
        config.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = vec!["http".to_owned()];
    });
    let mut client = stranger.client();
    client.send(format!("{LINE}{GOOD}"));
    assert!(client.end().0.is_empty());
    let elsewhere = Rig::set(source(), quick(), |config| {
        config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = vec!["another".to_owned()];
    });
    assert_eq!(elsewhere.ask(format!("{LINE}{GOOD}")).status(), 400);
    assert_eq!(
        elsewhere
            .ask([&binary(), GOOD.as_bytes()].concat())
            .status(),
        400
    );
    drop(stranger);
    assert_eq!(seen(elsewhere, upstream), "");
}

#[test]
fn of_two_listeners_one_has_proxy_headers_and_the_other_has_none() {
    let upstream = Upstream::answering(OK);
    let blue = router_support::slot("blue", 100, upstream.address);
    let source = slot::router::Source::Given(router_support::table(1, vec![blue]));
    let rig = Rig::set(source, quick(), |config| {
        let balanced = TcpListener::bind("127.0.0.1:0").unwrap();
        config.listeners.push(("balanced".to_owned(), balanced));
        config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = vec!["balanced".to_owned()];
    });
    let plain = rig.address;
    let balanced = rig.server.as_ref().unwrap().addresses()[1];
    let answer = |address, bytes: &[u8]| {
        let mut client = Raw::connect(address);
        client.send(bytes);
        client.message().map(|answer| answer.status())
    };
    for header in [LINE.as_bytes().to_vec(), binary()] {
        let with = [&header, GOOD.as_bytes()].concat();
        assert_eq!(answer(plain, &with), Some(400));
        assert_eq!(answer(balanced, &with), Some(200));
    }
    assert_eq!(answer(plain, GOOD.as_bytes()), Some(200));
    assert_eq!(answer(balanced, GOOD.as_bytes()), None);
    let seen = seen(rig, upstream);
    // Where none is due the client is who connects.
    assert_eq!(seen.matches("X-Forwarded-For: 203.0.113.9\r\n").count(), 2);
    assert_eq!(seen.matches("X-Forwarded-For: 127.0.0.1\r\n").count(), 1);
}

#[test]
fn item_12_an_address_has_so_many_connections_and_another_is_not_kept_out() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        connections_per_address: 2,
        linger: Duration::from_millis(50),
        ..quick()
    };
    let rig = Rig::trusting(&upstream, limits, true);
    let from = |address: &str| {
        let mut client = rig.client();
        client.send(format!("PROXY TCP4 {address} 198.51.100.1 1 80\r\n{GOOD}"));
        client
    };
    let mut two = [from("203.0.113.9"), from("203.0.113.9")];
    for client in &mut two {
        assert_eq!(client.message().unwrap().status(), 200);
    }
    let mut third = from("203.0.113.9");
    let refused = third.message().unwrap();
    assert_eq!(
        (refused.status(), refused.field("connection")),
        (429, Some("close"))
    );
    assert_eq!(third.end().0, b"");
    assert_eq!(from("203.0.113.10").message().unwrap().status(), 200);
    // One that does not go takes no other's place, and one that goes leaves its own.
    drop((third, two));
    rig.eventually("gone", |s| s.connections == 0);
    assert_eq!(from("203.0.113.9").message().unwrap().status(), 200);
    drop(rig);
    assert_eq!(upstream.finish().concat().matches("GET /good").count(), 4);
}

#[test]
fn item_12_connections_are_not_counted_by_address_behind_trusted_peers_and_on_this_machine() {
    for trusting in [false, true] {
        let upstream = Upstream::answering(OK);
        let limits = Limits {
            connections_per_address: 1,
            ..quick()
        };
        let rig = match trusting {
            true => Rig::trusting(&upstream, limits, false),
            false => Rig::limited(&upstream, limits),
        };
        let mut clients = [rig.client(), rig.client(), rig.client()];
        for client in &mut clients {
            client.send(GOOD);
            assert_eq!(client.message().unwrap().status(), 200);
        }
    }
}

#[test]
fn a_stream_is_listed_with_the_client_that_the_proxy_header_named() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
        raw.end();
    });
    let rig = Rig::trusting(&upstream, quick(), true);
    let mut client = rig.client();
    client.send(format!(
        "{LINE}GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
    ));
    client.head().unwrap();
    rig.eventually("a stream", |s| s.slots[0].in_flight.streams == 1);
    let whose = Whose {
        app: "web".into(),
        slot: "blue".into(),
    };
    let listing = block_on(rig.control().connections(&whose));
    let clients: Vec<_> = listing.connections.iter().map(|one| &one.client).collect();
    assert_eq!(clients, ["203.0.113.9"]);
    client.reset();
}
