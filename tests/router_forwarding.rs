//! What the router passes on, and what it does while slots come and go.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use router_support::{End, OK, PATIENCE, Raw, Rig, Upstream, block_on, named, quick, slot, table};
use slot::router::counts::Class;
use slot::router::roll::{Cut, Whose};
use slot::router::{Limits, Source};
use slot::wire::table::Slot;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Bytes that are not the same anywhere near.
fn noise(count: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    (0..count)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

#[test]
fn both_sides_are_kept_alive() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(client.message().unwrap().text(), "ok");
    }
    drop(client);
    drop(rig);
    assert_eq!(upstream.finish().len(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.message() {
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            raw.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(
        (0..50)
            .map(|i| format!("POST /{i} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
            .collect::<String>(),
    );
    for i in 0..50 {
        assert_eq!(client.message().unwrap().text(), format!("/{i}"));
    }
}

#[test]
fn the_upstream_is_told_who_asks() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    rig.ask("GET / HTTP/1.1\r\nHost: A.example\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: evil\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n");
    drop(rig);
    let seen = upstream.finish().concat();
    for line in [
        "\r\nHost: A.example\r\n",
        "\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "\r\nX-Forwarded-Proto: http\r\n",
        "\r\nX-Forwarded-Host: A.example\r\n",
        "\r\nVia: 1.1 slot-",
    ] {
        assert!(seen.contains(line), "{line:?} in {seen:?}");
    }
    assert!(
        !seen.contains("6.6.6.6") && !seen.contains("evil"),
        "{seen:?}"
    );
}

#[test]
fn a_loop_is_broken() {
    // The router is its own upstream, and so its own idle client at the end.
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..quick()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let source = Source::Given(table(1, vec![slot("blue", 100, address)]));
    let config = slot::router::Config {
        table: source,
        threads: 1,
        limits,
        ..slot::router::Config::new(vec![("http".into(), listener)])
    };
    let rig = Rig {
        address,
        server: Some(slot::router::Server::start(config).unwrap()),
    };
    assert_eq!(rig.ask(GET).status(), 508);
}

#[test]
fn large_bodies_pass_both_ways_by_length_and_by_chunks() {
    const SIZE: usize = 8 * 1024 * 1024;
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.message() {
            if request.field("transfer-encoding").is_some() {
                raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for chunk in request.body.chunks(100_001) {
                    raw.send(format!("{:x}\r\n", chunk.len()));
                    raw.send(chunk);
                    raw.send("\r\n");
                }
                raw.send("0\r\n\r\n");
            } else {
                raw.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    request.body.len()
                ));
                raw.send(&request.body);
            }
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    let body = noise(SIZE);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    client.send(&body);
    assert!(client.message().unwrap().body == body);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(77_777) {
        client.send(format!("{:x};x\r\n", chunk.len()));
        client.send(chunk);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert!(client.message().unwrap().body == body);
    drop(client);
    drop(rig);
    // One connection or two: a POST takes one that was used within the last second, and a slow machine takes longer to look at 8 MiB.
    upstream.finish();
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |raw, _| {
        raw.message();
        let body = vec![b'x'; 1 << 20];
        raw.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            512 << 20
        ));
        raw.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let sent: usize = std::iter::from_fn(|| raw.stream.write(&body).ok())
            .take(512)
            .sum();
        tell.lock().unwrap().send(sent).unwrap();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    let sent = told.recv_timeout(PATIENCE).unwrap();
    // What the kernel's four socket buffers take, and one buffer of ours.
    assert!(sent < 64 << 20, "{sent} bytes went somewhere");
    drop(client);
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |raw, _| {
        wait.lock().unwrap().recv().unwrap();
        let length = raw.message().unwrap().body.len();
        raw.send(format!(
            "HTTP/1.1 200 OK\r\nX-Got: {length}\r\nContent-Length: 0\r\n\r\n"
        ));
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    let size = 64 << 20;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
    ));
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let body = vec![b'x'; 1 << 20];
    let sent: usize = std::iter::from_fn(|| client.stream.write(&body).ok())
        .take(64)
        .sum();
    assert!(sent < 48 << 20, "{sent} bytes went somewhere");
    go.send(()).unwrap();
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    client.send(vec![b'x'; size - sent]);
    assert_eq!(
        client.message().unwrap().field("x-got"),
        Some(size.to_string().as_str())
    );
}

#[test]
fn interim_answers_pass_and_expectations_are_met_by_the_upstream() {
    let upstream = Upstream::start(|raw, _| {
        let request = raw.head().unwrap();
        assert_eq!(request.field("expect"), Some("100-continue"));
        raw.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(raw.exactly(5).unwrap(), b"hello");
        raw.send(OK);
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 102);
    assert_eq!(client.head().unwrap().status(), 100);
    client.send("hello");
    assert_eq!(client.message().unwrap().text(), "ok");
}

#[test]
fn interim_answers_have_an_end_and_never_reach_an_old_client() {
    let upstream = Upstream::start(|raw, _| {
        let request = raw.head().unwrap();
        let count = if request.head.contains("/many") {
            100
        } else {
            3
        };
        raw.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count));
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    });
    let rig = Rig::to(&upstream);
    let mut old = rig.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert!(old.end().0.starts_with(b"HTTP/1.1 200"));
    let mut client = rig.client();
    client.send("GET /many HTTP/1.1\r\nHost: a\r\n\r\n");
    client.shut();
    let (bytes, _) = client.end();
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(
        (text.matches(" 103 ").count(), text.matches(" 502 ").count()),
        (16, 1),
        "{text}"
    );
}

#[test]
fn an_answer_before_the_body_was_read_is_not_lost() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let answer = client.message().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.text().as_str(),
            answer.field("connection")
        ),
        (413, "big", Some("close"))
    );
}

#[test]
fn trailers_pass_both_ways() {
    const CHUNKS: &str = "5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n";
    let upstream = Upstream::start(|raw, _| {
        let request = raw.head().unwrap();
        assert_eq!(
            (request.field("te"), request.field("connection")),
            (Some("trailers"), Some("TE"))
        );
        assert_eq!(
            raw.until(b"\r\n\r\n").unwrap(),
            b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
        );
        raw.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{CHUNKS}"
        ));
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"));
    assert_eq!(client.head().unwrap().field("trailer"), Some("X-Sum"));
    assert_eq!(
        client.until(b"\r\n\r\n").unwrap(),
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
}

#[test]
fn http_1_0_clients_get_plain_bodies_and_a_close() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.message() {
            assert!(request.head.contains(" HTTP/1.1\r\n") && request.field("host").is_some());
            match request.head.split(' ').nth(1).unwrap() {
                "/chunked" => raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nX: y\r\n\r\n"),
                _ => raw.send(OK),
            };
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let (bytes, end) = client.end();
    assert_eq!(
        (String::from_utf8_lossy(&bytes).as_ref(), end),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world",
            End::Fin
        )
    );
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.message().unwrap();
        assert_eq!(
            (answer.field("connection"), answer.text().as_str()),
            (Some("keep-alive"), "ok")
        );
    }
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.message().unwrap().field("connection"), Some("close"));
    assert_eq!(client.end().1, End::Fin);
}

#[test]
fn answers_that_end_with_their_connection_are_relayed_to_the_end() {
    let body = noise(3_000_000);
    let upstream = Upstream::start({
        let body = body.clone();
        move |raw, _| {
            raw.message();
            raw.send("HTTP/1.0 200 OK\r\n\r\n");
            raw.send(&body);
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.head().unwrap().field("connection"), Some("close"));
    let (got, end) = client.end();
    assert!(got == body && end == End::Fin);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    client.shut();
    assert!(client.end().0.ends_with(b"\r\n\r\nok"));
}

#[test]
fn a_half_closed_body_ends_both_sides() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        assert_eq!(raw.end().1, End::Reset);
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig.eventually("under way", |s| {
        s.slots.iter().any(|s| s.in_flight.requests == 1)
    });
    client.shut();
    client.end();
    rig.eventually("over", |s| s.slots.iter().all(|s| s.in_flight.total() == 0));
}

#[test]
fn a_client_that_leaves_ends_its_request_upstream() {
    let upstream = Upstream::start(|raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
        assert_eq!(raw.end().1, End::Reset);
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    client.until(b"begin").unwrap();
    client.reset();
    rig.eventually("over", |s| s.slots.iter().all(|s| s.in_flight.total() == 0));
}

#[test]
fn a_tunnel_whose_client_has_ended_and_whose_upstream_falls_silent_is_reset() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |raw, _| {
        raw.head();
        raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\npart");
        // It neither ends nor says more.
        _ = wait.lock().unwrap().recv();
    });
    let limits = Limits {
        half_closed: Duration::from_millis(100),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    let mut client = rig.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 101);
    client.shut();
    assert_eq!(client.end(), (b"part".to_vec(), End::Reset));
    done.send(()).unwrap();
}

#[test]
fn websockets_are_tunnels_until_both_sides_end() {
    let data = noise(2_000_000);
    let upstream = Upstream::start({
        let data = data.clone();
        move |raw, _| {
            let request = raw.head().unwrap();
            assert_eq!(
                (
                    request.field("connection"),
                    request.field("upgrade"),
                    request.field("sec-websocket-key")
                ),
                (Some("Upgrade"), Some("websocket"), Some("k"))
            );
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\n");
            let got = raw.exactly(data.len()).unwrap();
            raw.send(got);
            // The client ends first; what we say after that still arrives.
            assert!(raw.end().0.is_empty());
            raw.send("bye");
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n");
    let answer = client.head().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.field("sec-websocket-accept"),
            answer.field("upgrade")
        ),
        (101, Some("s"), Some("websocket"))
    );
    rig.eventually("a tunnel", |s| {
        s.slots[0].in_flight.tunnels == 1 && s.slots[0].in_flight.requests == 0
    });
    client.send(&data);
    assert!(client.exactly(data.len()).unwrap() == data);
    client.shut();
    assert_eq!(client.end(), (b"bye".to_vec(), End::Fin));
    rig.eventually("no tunnel", |s| {
        s.slots[0].in_flight.total() == 0 && s.slots[0].answers == [1, 0, 0, 0, 0]
    });
}

#[test]
fn a_tunnel_outlives_a_swap_and_a_drain() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        while let Ok(()) = raw.more() {
            let rest = std::mem::take(&mut raw.rest);
            raw.send(rest);
        }
    });
    let mut rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 101);
    rig.put(table(2, vec![slot("green", 100, "127.0.0.1:1")]));
    let control = rig.control();
    let stats = block_on(control.stats());
    assert_eq!(
        stats
            .slots
            .iter()
            .find(|s| s.slot == "blue")
            .map(|s| s.in_flight.tunnels),
        Some(1)
    );
    let server = rig.server.take().unwrap();
    server.drain();
    client.send("still here");
    assert_eq!(client.exactly(10).unwrap(), b"still here");
    drop(client);
    server.wait();
}

#[test]
fn events_arrive_one_by_one_and_count_as_a_stream() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |raw, _| {
        assert_eq!(raw.message().unwrap().field("connection"), Some("close"));
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for n in 0..3 {
            raw.send(format!("9\r\ndata: {n}\n\n\r\n"));
            wait.lock().unwrap().recv().unwrap();
        }
        raw.send("0\r\n\r\n");
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.head().unwrap().field("connection"), Some("close"));
    for n in 0..3 {
        assert_eq!(
            client.until(b"\n\n\r\n").unwrap(),
            format!("9\r\ndata: {n}\n\n\r\n").into_bytes()
        );
        rig.eventually("a stream", |s| {
            s.slots[0].in_flight.streams == 1 && s.slots[0].in_flight.requests == 0
        });
        go.send(()).unwrap();
    }
    assert_eq!(client.end(), (b"0\r\n\r\n".to_vec(), End::Fin));
    rig.eventually("no stream", |s| s.slots[0].in_flight.total() == 0);
}

#[test]
fn a_stream_passes_with_its_framing_so_that_its_client_sees_where_it_is_cut_short() {
    // Not even a chunk's extension is touched: nobody reads it on the way.
    let body = "5;x=1\r\nhello\r\n";
    let upstream = Upstream::start(move |raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        raw.send(body);
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.end(), (body.as_bytes().to_vec(), End::Fin));
}

#[test]
fn a_silent_stream_ends_when_its_client_leaves() {
    let upstream = Upstream::start(|raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    client.head().unwrap();
    rig.eventually("a stream", |s| s.slots[0].in_flight.streams == 1);
    drop(client);
    rig.eventually("no stream", |s| s.slots[0].in_flight.total() == 0);
}

#[test]
fn the_next_request_on_a_connection_goes_to_the_new_slot() {
    let (blue, green) = (named("blue"), named("green"));
    let rig = Rig::to(&blue);
    let mut client = rig.client();
    let mut ask = || {
        client.send(GET);
        client.message().unwrap().text()
    };
    assert_eq!(ask(), "blue");
    rig.put(table(
        2,
        vec![
            slot("blue", 0, blue.address),
            slot("green", 100, green.address),
        ],
    ));
    assert_eq!(ask(), "green");
    rig.put(table(
        3,
        vec![
            slot("blue", 100, blue.address),
            slot("green", 0, green.address),
        ],
    ));
    assert_eq!(ask(), "blue");
}

#[test]
fn after_a_swap_the_old_slot_only_loses_and_its_drain_is_told() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let blue = Upstream::start(move |raw, _| {
        while raw.message().is_some() {
            wait.lock().unwrap().recv().unwrap();
            raw.send(OK);
        }
    });
    let green = named("green");
    let rig = Rig::to(&blue);
    let mut waiting: Vec<Raw> = (0..2).map(|_| rig.client()).collect();
    waiting.iter_mut().for_each(|c| _ = c.send(GET));
    let control = rig.control();
    rig.eventually("two under way", |s| s.slots[0].in_flight.requests == 2);
    rig.put(table(2, vec![slot("green", 100, green.address)]));
    for _ in 0..10 {
        assert_eq!(rig.ask(GET).text(), "green");
    }
    assert_eq!(block_on(control.in_flight("web", "blue", None)).requests, 2);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(
        block_on(control.drained("web", "blue", None, PATIENCE)).total(),
        0
    );
    waiting
        .iter_mut()
        .for_each(|c| assert_eq!(c.message().unwrap().text(), "ok"));
    rig.eventually(
        "forgot the run that is not named and has nothing under way",
        |stats| stats.slots.iter().all(|s| s.slot == "green"),
    );
}

#[test]
fn counts_are_those_of_one_boot() {
    let blue = named("blue");
    let of = |boot: &str| slot::wire::table::Slot {
        boot_id: Some(boot.into()),
        ..slot("blue", 100, blue.address)
    };
    let rig = Rig::with(Source::Given(table(1, vec![of("one")])), quick());
    rig.ask(GET);
    rig.put(table(2, vec![of("two")]));
    rig.ask(GET);
    rig.ask(GET);
    rig.eventually("two answers, both of the second", |stats| {
        let counts = stats.slots.iter();
        counts
            .map(|s| (s.boot_id.as_deref(), s.answers[1]))
            .eq([(Some("two"), 2)])
    });
}

#[test]
fn requests_are_shared_by_weight() {
    let (blue, green) = (named("blue"), named("green"));
    let rig = Rig::with(
        Source::Given(table(
            1,
            vec![
                slot("blue", 93, blue.address),
                slot("green", 7, green.address),
            ],
        )),
        quick(),
    );
    let mut client = rig.client();
    let answers = (0..200).map(|_| {
        client.send(GET);
        client.message().unwrap().text()
    });
    assert_eq!(answers.filter(|a| a == "green").count(), 14);
}

#[test]
fn a_request_for_a_slot_that_boots_is_held_until_the_table_changes() {
    let blue = named("blue");
    let booting = slot::wire::table::Slot {
        ready: false,
        ..slot("blue", 100, blue.address)
    };
    let rig = Rig::with(Source::Given(table(1, vec![booting])), quick());
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    rig.eventually("held", |s| {
        s.held == 1 && s.slots.iter().all(|s| s.in_flight.total() == 0)
    });
    assert!(blue.seen().is_empty());
    rig.put(table(2, vec![slot("blue", 100, blue.address)]));
    client.send("hello");
    // No 100 of ours: the first thing that comes is the slot's.
    assert_eq!(client.message().unwrap().text(), "blue");
    rig.eventually("not held", |s| s.held == 0);
}

#[test]
fn a_request_for_a_slot_that_refuses_connections_is_held_until_it_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let rig = Rig::with(
        Source::Given(table(1, vec![slot("blue", 100, address)])),
        quick(),
    );
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    rig.eventually("held", |s| s.held == 1);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(16).unwrap();
    let blue = Upstream::on(socket.into(), |raw, _| {
        assert_eq!(raw.message().unwrap().body, b"hello");
        raw.send(OK);
    });
    assert_eq!(client.message().unwrap().text(), "ok");
    drop((client, rig));
    assert_eq!(blue.finish().len(), 1);
}

#[test]
fn a_held_request_moves_to_the_slot_that_the_next_table_names() {
    let directory = tempfile::tempdir().unwrap();
    let missing = format!("unix:{}", directory.path().join("none.sock").display());
    let green = named("green");
    let rig = Rig::with(
        Source::Given(table(1, vec![slot("blue", 100, missing)])),
        quick(),
    );
    let mut client = rig.client();
    client.send(GET);
    rig.eventually("held", |s| s.held == 1);
    rig.put(table(2, vec![slot("green", 100, green.address)]));
    assert_eq!(client.message().unwrap().text(), "green");
}

#[test]
fn what_is_held_too_long_or_too_many_is_503() {
    let mut down = table(
        1,
        vec![slot::wire::table::Slot {
            ready: false,
            ..slot("blue", 100, "127.0.0.1:1")
        }],
    );
    down.apps[0].hold_ms = Some(50);
    let rig = Rig::with(Source::Given(down.clone()), Limits { held: 1, ..quick() });
    let mut client = rig.client();
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.field("retry-after"),
            answer.field("connection")
        ),
        (503, Some("1"), None)
    );
    down.revision = 2;
    down.apps[0].hold_ms = Some(60_000);
    rig.put(down);
    client.send(GET);
    rig.eventually("held", |s| s.held == 1);
    assert!(rig.ask(GET).text().contains("too many"));
    drop(client);
    rig.eventually("let go with its client", |s| s.held == 0);
}

#[test]
fn those_who_were_held_are_let_go_a_few_at_once_and_then_ever_more() {
    const COUNT: u64 = 100;
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::start(move |raw, _| {
        while raw.message().is_some() {
            tell.lock().unwrap().send(Instant::now()).unwrap();
            raw.send(OK);
        }
    });
    let down = Slot {
        ready: false,
        ..slot("blue", 100, upstream.address)
    };
    let rig = Rig::with(Source::Given(table(1, vec![down])), quick());
    let mut held: Vec<Raw> = (0..COUNT).map(|_| rig.client()).collect();
    held.iter_mut().for_each(|client| _ = client.send(GET));
    rig.eventually("held", |s| s.held == COUNT);
    let back = Instant::now();
    rig.put(table(2, vec![slot("blue", 100, upstream.address)]));
    for client in &mut held {
        assert_eq!(client.message().unwrap().status(), 200);
    }
    let mut came: Vec<Duration> = told.try_iter().map(|at| at - back).collect();
    came.sort();
    assert_eq!(came.len() as u64, COUNT);
    // Eight go at once, and every 50 milliseconds there may be twice as many; the router's clock ticks every four.
    for (gone, steps) in [(8, 1), (16, 2), (32, 3), (64, 4)] {
        let least = Duration::from_millis(50 * steps - 10);
        assert!(came[gone] >= least, "{gone} went before: {came:?}");
    }
}

#[test]
fn no_weight_is_503_at_once_and_no_route_is_404() {
    let mut all_zero = table(1, vec![slot("blue", 0, "127.0.0.1:1")]);
    all_zero.apps[0].routes[0].host = "a".into();
    let rig = Rig::with(Source::Given(all_zero), quick());
    let mut client = rig.client();
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.status(), answer.text().contains("takes no requests")),
        (503, true)
    );
    client.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(client.message().unwrap().status(), 404);
    client.send("HEAD / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 404);
    client.send(GET);
    assert_eq!(client.message().unwrap().status(), 503);
}

#[test]
fn without_a_usable_table_requests_wait_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let corrupt = directory.path().join("corrupt.json");
    std::fs::write(&corrupt, "{\"revision\":1,\"apps\":[{").unwrap();
    let senseless = directory.path().join("senseless.json");
    std::fs::write(
        &senseless,
        serde_json::to_vec(&table(9, vec![slot("blue", 50, "127.0.0.1:1")])).unwrap(),
    )
    .unwrap();
    let blue = named("blue");
    for source in [
        Source::None,
        Source::File(directory.path().join("missing.json")),
        Source::File(corrupt),
        Source::File(senseless),
    ] {
        let rig = Rig::with(source, quick());
        let mut client = rig.client();
        client.send(GET);
        rig.eventually("held", |s| s.held == 1 && s.revision.is_none());
        rig.put(table(1, vec![slot("blue", 100, blue.address)]));
        assert_eq!(client.message().unwrap().text(), "blue");
    }
    let rig = Rig::with(
        Source::None,
        Limits {
            held_without_table: Duration::from_millis(50),
            ..quick()
        },
    );
    assert_eq!(rig.ask(GET).status(), 503);
}

#[test]
fn a_stored_table_is_used_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let (blue, path) = (named("blue"), directory.path().join("table.json"));
    std::fs::write(
        &path,
        serde_json::to_vec(&table(7, vec![slot("blue", 100, blue.address)])).unwrap(),
    )
    .unwrap();
    let rig = Rig::with(Source::File(path), quick());
    assert_eq!(rig.ask(GET).text(), "blue");
    assert_eq!(block_on(rig.control().stats()).revision, Some(7));
}

#[test]
fn slots_that_do_not_answer_are_told_apart() {
    let silent = Upstream::start(|raw, _| {
        raw.message();
        raw.end();
    });
    let rig = Rig::limited(
        &silent,
        Limits {
            response_head: Duration::from_millis(50),
            ..quick()
        },
    );
    let mut client = rig.client();
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer.text().contains("did not answer in time")
        ),
        (504, true)
    );
    let resets = Upstream::start(|raw, _| {
        raw.message();
        raw.stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    rig.put(table(2, vec![slot("blue", 100, resets.address)]));
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (
            answer.status(),
            answer
                .text()
                .contains("closed the connection before it answered")
        ),
        (502, true)
    );
    // A directory is no socket: nobody listens there, now or later.
    let directory = format!("unix:{}", std::env::temp_dir().display());
    let mut nowhere = table(3, vec![slot("blue", 100, directory)]);
    nowhere.apps[0].hold_ms = Some(50);
    rig.put(nowhere);
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.status(), answer.text().contains("did not come up")),
        (503, true)
    );
    rig.eventually("three errors and nothing in flight", |stats| {
        stats.slots.iter().all(|s| s.in_flight.total() == 0) && stats.slots[0].errors >= 3
    });
}

#[test]
fn a_body_that_stalls_is_408_and_ends_upstream() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        assert_eq!(raw.end().1, End::Reset);
    });
    let rig = Rig::limited(
        &upstream,
        Limits {
            body_stall: Duration::from_millis(50),
            ..quick()
        },
    );
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.message().unwrap().status(), 408);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::limited(
        &upstream,
        Limits {
            idle: Duration::from_millis(50),
            ..quick()
        },
    );
    assert_eq!(rig.client().end(), (Vec::new(), End::Fin));
    let mut client = rig.client();
    client.send(GET);
    client.message().unwrap();
    assert_eq!(client.end(), (Vec::new(), End::Fin));
}

#[test]
fn a_draining_router_answers_what_it_holds_and_ends() {
    let upstream = Upstream::answering(OK);
    let mut rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.message().unwrap().field("connection"), None);
    let server = rig.server.take().unwrap();
    server.drain();
    client.send(GET);
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.field("connection")),
        ("ok", Some("close"))
    );
    assert_eq!(client.end().1, End::Fin);
    let address = rig.address;
    server.wait();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn unix_upstreams_serve_like_others() {
    use std::os::unix::net::UnixListener;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let upstream = std::thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut byte = [0];
            while !seen.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                seen.push(byte[0]);
            }
            seen.push(b'.');
            stream.write_all(OK).unwrap();
        }
    });
    let rig = Rig::with(
        Source::Given(table(
            1,
            vec![slot("blue", 100, format!("unix:{}", path.display()))],
        )),
        quick(),
    );
    let mut client = rig.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.message().unwrap().text(), "ok");
    }
    upstream.join().unwrap();
}

#[test]
fn many_threads_take_a_table_before_it_is_said_to_be_in_force() {
    let (blue, green) = (named("blue"), named("green"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = Source::Given(table(1, vec![slot("blue", 100, blue.address)]));
    let config = slot::router::Config {
        table: source,
        threads: 4,
        limits: quick(),
        ..slot::router::Config::new(vec![("http".into(), listener)])
    };
    let server = slot::router::Server::start(config).unwrap();
    let rig = Rig {
        address: server.addresses()[0],
        server: Some(server),
    };
    let mut clients: Vec<Raw> = (0..16).map(|_| rig.client()).collect();
    for revision in 2..12 {
        let (wanted, upstream) = if revision % 2 == 0 {
            ("green", &green)
        } else {
            ("blue", &blue)
        };
        rig.put(table(revision, vec![slot(wanted, 100, upstream.address)]));
        for client in &mut clients {
            client.send(GET);
            assert_eq!(client.message().unwrap().text(), wanted);
        }
    }
    assert!(block_on(rig.control().is_alive()));
}

#[test]
fn the_control_socket_speaks_as_it_is_written() {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = slot::router::Config {
        control: Some(path.clone()),
        threads: 2,
        limits: quick(),
        ..slot::router::Config::new(vec![("http".into(), listener)])
    };
    let server = slot::router::Server::start(config).unwrap();
    let ask = |request: &str, body: &str| -> (u16, serde_json::Value) {
        let mut stream = UnixStream::connect(&path).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            serde_json::from_str(body).unwrap_or_default(),
        )
    };
    let json = |revision, weight| {
        serde_json::to_string(&table(revision, vec![slot("blue", weight, "127.0.0.1:1")])).unwrap()
    };
    assert_eq!(ask("GET /table", "").0, 404);
    assert_eq!(
        ask("PUT /table", &json(5, 100)),
        (200, serde_json::json!({"revision": 5}))
    );
    assert_eq!(
        ask("PUT /table", &json(4, 100)),
        (409, serde_json::json!({"revision": 5}))
    );
    let (status, problem) = ask("PUT /table", &json(6, 99));
    assert_eq!(
        (status, problem["error"].as_str()),
        (
            400,
            Some("the weights of app \"web\" add up to 99, not to 100 (or 0)")
        )
    );
    assert_eq!(ask("PUT /table", "{}").0, 400);
    let (status, got) = ask("GET /table", "");
    assert_eq!((status, &got["revision"]), (200, &serde_json::json!(5)));
    let (status, stats) = ask("GET /stats", "");
    assert_eq!(
        (status, &stats["accepting"], &stats["slots"][0]["slot"]),
        (200, &serde_json::json!(true), &serde_json::json!("blue"))
    );
    assert_eq!(
        ask("GET /drained?app=web&slot=blue&wait_ms=1000", ""),
        (
            200,
            serde_json::json!({"requests": 0, "streams": 0, "tunnels": 0})
        )
    );
    assert_eq!(ask("GET /drained?slot=blue", "").0, 400);
    let (status, stats) = ask("POST /stop-accepting", "");
    assert_eq!(
        (status, &stats["accepting"]),
        (200, &serde_json::json!(false))
    );
    server.wait();
    assert!(!path.exists());
}

#[test]
fn nothing_fails_while_tables_change_under_load() {
    let (blue, green) = (named("blue"), named("green"));
    let rig = Arc::new(Rig::to(&blue));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (rig, stop) = (Arc::clone(&rig), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut client = rig.client();
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(GET);
                    assert_eq!(client.message().unwrap().status(), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for revision in 2..200 {
        let (name, upstream) = if revision % 2 == 0 {
            ("green", &green)
        } else {
            ("blue", &blue)
        };
        rig.put(table(revision, vec![slot(name, 100, upstream.address)]));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(load.into_iter().map(|l| l.join().unwrap()).sum::<usize>() > 0);
}

#[test]
fn an_instance_that_does_not_say_what_is_under_way_hides_nothing_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["1", "2"].map(|instance| {
        let own = directory.path().join(instance);
        std::fs::create_dir(&own).unwrap();
        own.join("control.sock")
    });
    let upstream = Upstream::start(|raw, _| {
        raw.message();
        raw.end();
    });
    let source = Source::Given(table(1, vec![slot("blue", 100, upstream.address)]));
    let rig = Rig::set(source, quick(), |config| config.control = Some(one));
    let silent = std::os::unix::net::UnixListener::bind(two).unwrap();
    let silent = std::thread::spawn(move || drop(silent.accept()));
    let mut client = rig.client();
    client.send(GET);
    rig.eventually("under way", |s| s.slots[0].in_flight.total() == 1);
    let routers = slot::traffic::Routers::in_directory(directory.path().to_owned());
    let (listing, errors) = block_on(routers.connections("web", "blue")).unwrap();
    assert_eq!((listing.connections.len(), listing.left_out), (1, 0));
    let [error] = &errors[..] else {
        panic!("one of two is silent: {errors:?}");
    };
    assert!(error.to_string().starts_with("router instance 2 "));
    silent.join().unwrap();
    client.reset();
    drop(rig);
}

#[test]
fn a_slot_that_is_taken_back_after_its_drain_was_cut_answers_whatever_comes_then() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.head() {
            if request.head.contains("/stuck") {
                raw.end();
            } else if request.head.contains("/events") {
                raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: 1\n");
                raw.end();
            } else if request.head.contains("/ws") {
                raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n: 1\n");
                raw.end();
            } else {
                raw.send(OK);
            }
        }
    });
    let weights = |revision, blue| {
        let boot_id = Some("a".to_owned());
        let slots = [("blue", blue), ("green", 100 - blue)].map(|(name, weight)| Slot {
            boot_id: boot_id.clone(),
            ..slot(name, weight, upstream.address)
        });
        table(revision, slots.to_vec())
    };
    let rig = Rig::with(Source::Given(weights(1, 100)), quick());
    let mut stuck = rig.client();
    stuck.send("GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.eventually("under way", |s| s.slots[0].in_flight.requests == 1);
    rig.put(weights(2, 0));
    for class in [Class::Request, Class::Stream, Class::Tunnel] {
        rig.control().cut(&Cut {
            app: "web".into(),
            slot: "blue".into(),
            boot_id: Some("a".into()),
            class: Some(class),
            after: 0,
            spread: 20,
        });
    }
    assert_eq!(stuck.message().unwrap().status(), 503);
    rig.put(weights(3, 100));
    let (mut stream, mut tunnel) = (rig.client(), rig.client());
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    tunnel.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n\r\n");
    assert!(stream.until(b": 1\n").is_some() && tunnel.until(b": 1\n").is_some());
    // Whoever is asked now looks at what he was told as well.
    let whose = Whose {
        app: "web".into(),
        slot: "blue".into(),
    };
    let listed = block_on(rig.control().connections(&whose));
    assert_eq!(listed.connections.len(), 2);
    for _ in 0..100 {
        assert_eq!(rig.ask(GET).status(), 200);
    }
    rig.eventually("both", |s| s.slots[0].in_flight.total() == 2);
    drop((stream, tunnel));
}

#[test]
fn what_is_under_way_is_listed_and_can_be_ended() {
    let upstream = Upstream::start(|raw, _| {
        let request = raw.message().unwrap().head;
        if request.contains("/events") {
            raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        }
        raw.end();
    });
    let rig = Rig::to(&upstream);
    let (mut request, mut stream) = (rig.client(), rig.client());
    request.send("GET /slow?secret HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    stream.head().unwrap();
    rig.eventually("both", |s| s.slots[0].in_flight.total() == 2);
    let whose = Whose {
        app: "web".into(),
        slot: "blue".into(),
    };
    let listed = block_on(rig.control().connections(&whose));
    let mut listed: Vec<_> = listed
        .connections
        .iter()
        .map(|one| (one.class.as_str(), one.client.as_str(), one.route.as_str()))
        .collect();
    listed.sort_unstable();
    assert_eq!(
        listed,
        [
            ("request", "127.0.0.1", "a/slow"),
            ("stream", "127.0.0.1", "a/events")
        ]
    );
    let cut = |class| Cut {
        app: "web".into(),
        slot: "blue".into(),
        boot_id: None,
        class,
        after: 0,
        spread: 20,
    };
    rig.control().cut(&cut(Some(Class::Stream)));
    assert_eq!(stream.end().1, End::Reset);
    rig.eventually("the request alone", |s| s.slots[0].in_flight.total() == 1);
    rig.control().cut(&cut(None));
    assert_eq!(request.message().unwrap().status(), 503);
    // Nobody says that the app has failed.
    rig.eventually("nothing", |s| {
        s.slots[0].in_flight.total() == 0 && s.slots[0].errors == 0
    });
}
