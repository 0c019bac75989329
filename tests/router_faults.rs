//! What the router does when a slot or a client ends, stalls or goes on at the wrong moment.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use router_support::{End, OK, PATIENCE, Rig, Upstream, block_on, quick, slot, table};
use slot::router::{Limits, Source};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_post_whose_body_has_begun_waits_for_its_slot_to_come_back() {
    for (field, begun, rest) in [
        ("Content-Length: 10", "01234", "56789"),
        (
            "Transfer-Encoding: chunked",
            "3;x\r\n012\r\n7\r\n34",
            "56789\r\n0\r\n\r\n",
        ),
    ] {
        let mut blue = Upstream::start(|raw, _| {
            raw.message();
            raw.send(OK);
        });
        let rig = Rig::to(&blue);
        let mut client = rig.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.message().unwrap().text(), "ok");
        // The router has a connection left over from that, whose other end is gone.
        blue.stop();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{begun}"
        ));
        rig.eventually("held", |s| s.held == 1);
        let again = Upstream::on(TcpListener::bind(blue.address).unwrap(), |raw, _| {
            assert_eq!(raw.message().unwrap().text(), "0123456789");
            raw.send(OK);
        });
        client.send(rest);
        assert_eq!(client.message().unwrap().text(), "ok", "{field}");
        drop((client, rig));
        assert_eq!(again.finish().len(), 1);
    }
}

#[test]
fn a_symbolic_link_in_place_of_a_slots_socket_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (own, other) = (
        directory.path().join("http.sock"),
        directory.path().join("control.sock"),
    );
    let control = UnixListener::bind(&other).unwrap();
    control.set_nonblocking(true).unwrap();
    std::os::unix::fs::symlink(&other, &own).unwrap();
    let blue = slot("blue", 100, format!("unix:{}", own.display()));
    let rig = Rig::with(Source::Given(table(1, vec![blue])), quick());
    assert_eq!(rig.ask(GET).status(), 502);
    let connected = control.accept().map(drop).map_err(|e| e.kind());
    assert_eq!(connected, Err(ErrorKind::WouldBlock));
    // The same name is good once it is a socket.
    std::fs::remove_file(&own).unwrap();
    let listener = UnixListener::bind(&own).unwrap();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        stream.write_all(OK).unwrap();
    });
    assert_eq!(rig.ask(GET).text(), "ok");
    serving.join().unwrap();
}

#[test]
fn a_slot_that_ends_every_connection_at_once_is_not_asked_without_end() {
    let upstream = Upstream::start(|raw, _| {
        let socket = socket2::SockRef::from(&raw.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    });
    let mut blue = table(1, vec![slot("blue", 100, upstream.address)]);
    blue.apps[0].hold_ms = Some(100);
    let rig = Rig::with(Source::Given(blue), quick());
    let answer = rig.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
    // Which one depends on whether the request or the reset was first.
    assert!(matches!(answer.status(), 502 | 503), "{}", answer.head);
    assert!(upstream.seen().len() < 10, "{}", upstream.seen().len());
}

#[test]
fn whoever_has_waited_for_a_slot_that_refuses_is_sent_away_in_time_whatever_the_table_says() {
    const WAIT: usize = 100;
    let mut down = table(1, vec![slot("blue", 100, "127.0.0.1:1")]);
    let mut ready = down.clone();
    down.apps[0].slots[0].ready = false;
    (ready.revision, ready.apps[0].hold_ms) = (2, Some(1));
    let rig = Rig::with(Source::Given(down), quick());
    let mut clients: Vec<_> = (0..WAIT).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    rig.eventually("held", |s| s.held == WAIT as u64);
    rig.put(ready);
    for client in &mut clients {
        assert_eq!(client.message().unwrap().status(), 503);
    }
    // It did not take a try for each to know that.
    let tries = block_on(rig.control().stats()).slots[0].errors;
    assert!((1..WAIT as u64 / 2).contains(&tries), "{tries}");
}

#[test]
fn an_upstream_may_promise_to_keep_its_connection_for_ever() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9223372036854775807\r\nContent-Length: 2\r\n\r\nok",
    );
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.message().unwrap().text(), "ok");
    }
    drop((client, rig));
    assert_eq!(upstream.finish().len(), 1);
}

#[test]
fn an_event_stream_that_began_before_the_request_ended_may_be_silent() {
    let ((tell, told), (go, wait)) = (channel(), channel::<()>());
    let both = Mutex::new((tell, wait));
    let upstream = Upstream::start(move |raw, _| {
        let request = raw.head().unwrap();
        if request.head.starts_with("GET") {
            // Never answered, until the router gives up.
            raw.end();
            return;
        }
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        assert_eq!(raw.until(b"0\r\n\r\n").unwrap(), b"3\r\nend\r\n0\r\n\r\n");
        let both = both.lock().unwrap();
        both.0.send(()).unwrap();
        both.1.recv().unwrap();
        raw.send("3\r\ntwo\r\n0\r\n\r\n");
    });
    let limits = Limits {
        response_head: Duration::from_millis(50),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 200);
    client.until(b"one\r\n").unwrap();
    client.send("3\r\nend\r\n0\r\n\r\n");
    told.recv_timeout(PATIENCE).unwrap();
    // Whoever waits for a head from now on waits longer than the stream was silent.
    assert_eq!(rig.ask(GET).status(), 504);
    go.send(()).unwrap();
    assert_eq!(client.end(), (b"3\r\ntwo\r\n0\r\n\r\n".to_vec(), End::Fin));
}

#[test]
fn a_client_that_goes_on_after_a_last_answer_is_not_reset() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.0 200 OK\r\n\r\nok");
    });
    let limits = Limits {
        linger: Duration::from_secs(10),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    let mut client = rig.client();
    client.send(GET);
    assert_eq!(client.head().unwrap().field("connection"), Some("close"));
    assert_eq!(client.end(), (b"ok".to_vec(), End::Fin));
    // To a closed socket the first of them would bring a reset, and the others would fail.
    for _ in 0..100 {
        assert!(client.send(GET));
    }
}

#[test]
fn a_stream_whose_client_has_said_much_and_left_is_over() {
    let upstream = Upstream::start(|raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        assert_eq!(raw.end().1, End::Reset);
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send(GET);
    client.until(b"one").unwrap();
    rig.eventually("a stream", |s| s.slots[0].in_flight.streams == 1);
    // More than the router would keep of it: behind that its end was not seen.
    client.send(GET.repeat(4096));
    client.reset();
    rig.eventually("over", |s| s.slots[0].in_flight.total() == 0);
}

#[test]
fn an_old_client_sees_the_end_of_an_answer_of_the_routers_own() {
    let upstream = Upstream::answering(OK);
    let source = Source::Given(table(1, vec![slot("blue", 0, upstream.address)]));
    let rig = Rig::with(source, quick());
    let mut client = rig.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.status(), answer.field("connection")),
        (503, Some("close"))
    );
    assert_eq!(client.end(), (Vec::new(), End::Fin));
}

#[test]
fn what_was_refused_to_a_head_request_has_no_body() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 417);
    assert_eq!(client.end(), (Vec::new(), End::Fin));
}

#[test]
fn an_empty_line_behind_a_request_begins_no_other() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        head: Duration::from_millis(50),
        idle: Duration::from_millis(400),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    let mut client = rig.client();
    client.send(format!("{GET}\r\n"));
    assert_eq!(client.message().unwrap().text(), "ok");
    assert_eq!(client.end(), (Vec::new(), End::Fin));
}

#[test]
fn a_client_that_still_sends_much_after_an_early_answer_can_read_it() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    });
    let rig = Rig::limited(
        &upstream,
        Limits {
            linger: PATIENCE,
            ..quick()
        },
    );
    let mut client = rig.client();
    let body = vec![b'x'; 16 * 1024 * 1024];
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        2 * body.len()
    ));
    assert!(client.send(body));
    assert_eq!(client.message().unwrap().text(), "no");
    client.shut();
    assert_eq!(client.end(), (Vec::new(), End::Fin));
}

#[test]
fn an_app_that_never_reads_a_request_is_told_from_one_that_is_slow() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_, _| _ = wait.lock().unwrap().recv());
    let limits = Limits {
        body_stall: Duration::from_millis(300),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    let mut client = rig.client();
    let answer = std::thread::scope(|threads| {
        let mut sender = client.stream.try_clone().unwrap();
        threads.spawn(move || {
            _ = sender.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n");
            _ = sender.write_all(&vec![b'x'; 67_108_864]);
        });
        client.message().unwrap()
    });
    assert_eq!(
        (
            answer.status(),
            answer.text().contains("did not read the request in time")
        ),
        (504, true),
        "{}",
        answer.text()
    );
    drop(go);
}

#[test]
fn an_answer_under_way_when_the_router_must_end_is_seen_to_be_cut() {
    for (request, answer) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin"),
        (
            "GET / HTTP/1.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
        ),
    ] {
        let upstream = Upstream::start(move |raw, _| {
            raw.head().unwrap();
            raw.send(answer);
            raw.end();
        });
        let mut rig = Rig::to(&upstream);
        let mut client = rig.client();
        client.send(request);
        client.until(b"begin").unwrap();
        let server = rig.server.take().unwrap();
        server.control().drain_until(Some(1));
        server.wait();
        assert_eq!(client.end().1, End::Reset, "{answer}");
    }
}
