//! Every limit (strictness item 12): where it is set, the status that it has, and what the log says.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use router_support::{End, GOOD, OK, Raw, Rig, Upstream, app, quick, slot, table};
use slot::router::{Limits, Source};
use slot::wire::table::{Limits as Own, Table};

/// A router as a process, with this `machine.toml`; its address and its log.
struct Process {
    child: Child,
    address: std::net::SocketAddr,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start(machine: &str, upstream: &Upstream) -> Self {
        Self::with(
            machine,
            &table(1, vec![slot("blue", 100, upstream.address)]),
        )
    }

    fn with(machine: &str, routes: &Table) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [config, first] =
            ["machine.toml", "table.json"].map(|name| directory.path().join(name));
        std::fs::write(&config, machine).unwrap();
        std::fs::write(&first, serde_json::to_vec(routes).unwrap()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_slot-router"))
            .args(["--listen", "127.0.0.1:0", "--threads", "1", "--config"])
            .arg(config)
            .arg("--table")
            .arg(first)
            .env_remove("SLOT_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Self {
            log: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
            address: ([127, 0, 0, 1], 0).into(),
            _directory: directory,
        };
        let line = process.line("accepting");
        let address = line.split_once("accepting on ").unwrap().1;
        process.address = address.trim().parse().unwrap();
        process
    }

    /// The next line of its log that has these words.
    fn line(&mut self, words: &str) -> String {
        let mut lines = self.log.by_ref().map(Result::unwrap);
        let found = lines.find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("it ended without {words:?} in its log"))
    }

    fn client(&self) -> Raw {
        Raw::connect(self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn item_12_each_limit_of_the_machines_file_has_its_status_and_its_line_in_the_log() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(request) = raw.head() {
            match request.field("transfer-encoding").is_some() || request.head.contains("/slow") {
                // Never answered: the router gives up first.
                true => drop(raw.end()),
                false => _ = raw.send(OK),
            }
        }
    });
    let machine = "[limits]\nhead_bytes = \"2K\"\nhead_fields = 20\ntarget_bytes = 256\nhead_timeout = \"50ms\"\nidle_timeout = \"10s\"\n\
        body_bytes = 10\nbody_stall = \"50ms\"\nresponse_timeout = \"50ms\"\nconnections_per_address = 1\n\
        [router]\ntrusted_peers = [\"127.0.0.0/8\"]\n";
    let mut router = Process::start(machine, &upstream);
    let cases: [(String, u16, &str); 9] = [
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2048)), 431, "(limit head_bytes, head_fields)"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20)), 431, ""),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(256)), 414, "(limit target_bytes)"),
        ("GET / HTTP/1.1\r\nHost".to_owned(), 408, "(limit head_timeout)"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world".to_owned(), 413, "(limit body_bytes)"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".to_owned(), 413, ""),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n".to_owned(), 413, ""),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel".to_owned(), 408, "(limit body_stall)"),
        ("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 504, "web@blue: the app did not answer in time (limit response_timeout)"),
    ];
    for (request, status, line) in &cases {
        let mut client = router.client();
        client.send(request);
        let answer = client.message().unwrap();
        assert_eq!(answer.status(), *status, "{request:?}: {}", answer.text());
        if !line.is_empty() {
            let told = router.line(line);
            assert!(told.contains("127.0.0.1: "), "{told}");
        }
        if *status != 504 {
            assert_eq!(answer.field("connection"), Some("close"), "{request:?}");
        }
    }
    let mut client = router.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 200);
    drop((client, router));
    let seen = upstream.finish().concat();
    assert_eq!(
        seen.matches("POST").count(),
        1,
        "only the one that stalled: {seen:?}"
    );
}

#[test]
fn item_12_an_app_that_stops_in_its_answer_is_named_with_the_limit() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
        raw.end();
    });
    let mut router = Process::start("[limits]\nresponse_stall = \"50ms\"\n", &upstream);
    let mut client = router.client();
    client.send(GOOD);
    assert_eq!(client.end().1, End::Reset);
    let address = upstream.address;
    router.line(&format!(
        "127.0.0.1: web@blue: the app's answer was cut short (limit response_stall): timed out (at {address})"
    ));
    drop(router);
    upstream.finish();
}

#[test]
fn item_12_an_app_that_takes_no_connection_is_named_with_the_limit() {
    // With one that nobody takes, its queue is full, and the kernel drops what would be another (listen(2)).
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();
    let routes = table(1, vec![slot("blue", 100, address)]);
    let mut router = Process::with("[limits]\nconnect_timeout = \"50ms\"\n", &routes);
    let mut client = router.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 504);
    let line = router.line(&format!(
        "127.0.0.1: web@blue: the app did not accept the connection in time (limit connect_timeout) (at {address})"
    ));
    for field in ["client=\"127.0.0.1\"", &format!("upstream={address}")] {
        assert!(line.contains(field), "{field}: {line}");
    }
}

#[test]
fn item_12_requests_for_an_app_that_is_down_are_named_with_the_limit_and_where_they_went() {
    let mut routes = table(1, vec![slot("blue", 100, "127.0.0.1:1")]);
    routes.apps[0].slots[0].ready = false;
    for (machine, hold_ms, line) in [
        (
            "",
            Some(50),
            "127.0.0.1: the app did not come up in time (a/good) (limit hold_timeout)",
        ),
        (
            "[limits]\nhold_timeout = \"50ms\"\n",
            None,
            "127.0.0.1: the app did not come up in time (a/good) (limit hold_timeout)",
        ),
        (
            "[limits]\nheld_requests = 0\n",
            None,
            "127.0.0.1: too many requests wait for an app that is down (a/good) (limit held_requests)",
        ),
        (
            "[limits]\nheld_bytes = 10\n",
            None,
            "127.0.0.1: the requests that wait for an app that is down have too many bytes (a/good) (limit held_bytes)",
        ),
    ] {
        routes.apps[0].hold_ms = hold_ms;
        let mut router = Process::with(machine, &routes);
        let mut client = router.client();
        client.send(GOOD);
        assert_eq!(client.message().unwrap().status(), 503, "{machine}");
        router.line(line);
    }
}

#[test]
fn item_12_a_router_that_is_given_no_table_says_so_in_time() {
    // One that makes no sense is none.
    let routes = table(1, vec![slot("blue", 100, "nowhere")]);
    let mut router = Process::with("[limits]\ntable_timeout = \"50ms\"\n", &routes);
    let mut client = router.client();
    client.send(GOOD);
    assert_eq!(client.message().unwrap().status(), 503);
    router.line("127.0.0.1: no routing table came in time (a/good) (limit table_timeout)");
}

#[test]
fn item_12_the_verdict_does_not_depend_on_how_a_request_came() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        heads: slot::router::h1::Limits {
            head_bytes: 300,
            fields: 10,
            target_bytes: 100,
        },
        body_bytes: 10,
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(300)), 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world".to_owned(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n".to_owned(), 413),
    ] {
        rig.in_every_way(&request, |mut client, way| {
            let answer = client.message().unwrap();
            assert_eq!(answer.status(), status, "{request:?} {way}");
            assert_eq!(answer.field("connection"), Some("close"));
        });
    }
    drop(rig);
    for seen in upstream.finish() {
        assert!(
            !seen.ends_with("world") && !seen.ends_with("\r\n0\r\n\r\n"),
            "{seen:?}"
        );
    }
}

#[test]
fn item_12_what_held_requests_keep_in_memory_is_bounded_and_given_back() {
    let upstream = Upstream::answering(OK);
    let down = |revision| {
        let mut down = table(revision, vec![slot("blue", 100, upstream.address)]);
        down.apps[0].slots[0].ready = false;
        down
    };
    let up = |revision| table(revision, vec![slot("blue", 100, upstream.address)]);
    let limits = Limits {
        held_bytes: 4000,
        ..quick()
    };
    let rig = Rig::with(Source::Given(down(1)), limits);
    let large = format!(
        "GET /large HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(2000)
    );
    // A second time, what the first had is there again.
    for round in 0..2 {
        let [mut first, mut second, mut third] = [rig.client(), rig.client(), rig.client()];
        first.send(&large);
        rig.eventually("held", |s| s.held == 1);
        second.send(&large);
        let refused = second.message().unwrap();
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("too many bytes"), "{refused:?}");
        // There is room for a small one.
        third.send(GOOD);
        rig.eventually("two held", |s| s.held == 2);
        rig.put(up(2 * round + 2));
        for client in [&mut first, &mut third] {
            assert_eq!(client.message().unwrap().status(), 200);
        }
        rig.put(down(2 * round + 3));
    }
}

#[test]
fn item_12_a_proxy_header_that_is_late_is_named_with_the_limit() {
    let upstream = Upstream::answering(OK);
    let machine = "[limits]\nproxy_header_timeout = \"50ms\"\n\
        [router]\ntrusted_peers = [\"127.0.0.0/8\"]\nproxy_protocol = [\"http\"]\n";
    let mut router = Process::start(machine, &upstream);
    let mut client = router.client();
    client.send("PROXY TCP4 203.");
    router.line("127.0.0.1: its PROXY header did not come in time (limit proxy_header_timeout)");
    assert_eq!(client.end(), (Vec::new(), End::Reset));
}

#[test]
fn item_12_an_app_that_never_comes_to_its_answer_is_named_with_the_limit() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3));
        raw.end();
    });
    let mut router = Process::start("[limits]\ninterim_answers = 2\n", &upstream);
    let mut client = router.client();
    client.send(GOOD);
    for status in [103, 103, 502] {
        assert_eq!(client.message().unwrap().status(), status);
    }
    router
        .line("127.0.0.1: web@blue: the app sent too many interim answers (limit interim_answers)");
    drop(router);
    upstream.finish();
}

#[test]
fn item_12_a_tunnel_of_which_one_side_has_ended_is_named_with_the_limit() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        // It hears that nothing more comes, and says nothing.
        while raw.more() != Err(End::Reset) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let mut router = Process::start("[limits]\nhalf_closed_timeout = \"50ms\"\n", &upstream);
    let mut client = router.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 101);
    client.shut();
    router.line(
        "127.0.0.1: one side of its tunnel has ended, and nothing comes of the other (a/ws) (limit half_closed_timeout)",
    );
    assert_eq!(client.end().1, End::Reset);
}

#[test]
fn item_12_a_client_that_sends_on_after_its_last_answer_is_named_with_the_limit() {
    let upstream = Upstream::answering(OK);
    let mut router = Process::start("[limits]\nlinger_timeout = \"50ms\"\n", &upstream);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.message().unwrap().status(), 400);
    while client.send("more") {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    router.line("127.0.0.1: it goes on sending after its last answer (limit linger_timeout)");
}

#[test]
fn item_12_a_client_that_takes_nothing_of_an_event_stream_is_reset_when_its_app_says_so() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
        while raw.send(vec![b'x'; 1 << 20]) {}
    });
    let mut routes = table(1, vec![slot("blue", 100, upstream.address)]);
    routes.apps[0].limits.write_stall_ms = Some(50);
    let mut router = Process::with("[limits]\nwrite_stall = \"1h\"\n", &routes);
    let mut client = router.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    router.line("127.0.0.1: it takes nothing of its stream (a/events) (limit write_stall)");
    assert_eq!(client.end().1, End::Reset);
    drop(router);
    upstream.finish();
}

#[test]
fn the_machines_file_is_refused_whole_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("machine.toml");
    for (text, says) in [
        (
            "[limits]\nhead_byte = 1\n",
            "machine.toml:2: unknown key `limits.head_byte`; did you mean `head_bytes`?",
        ),
        (
            "[limits]\nhead_bytes = 100\n",
            "machine.toml:2: limits.head_bytes: it is out of range",
        ),
        (
            "[limits]\nbody_bytes = \"10X\"\n",
            ":2: limits.body_bytes: \"10X\" is not a number of bytes",
        ),
        (
            "[limits]\nhead_timeout = \"0s\"\n",
            ":2: limits.head_timeout: no time at all",
        ),
        (
            "[limits]\nconnections = 0\n",
            ":2: limits.connections: 0 is out of range",
        ),
        (
            "[router]\ntrusted_peers = [\"10.0.0.1/8\"]\n",
            ":2: router.trusted_peers: \"10.0.0.1/8\" is no block of addresses",
        ),
        (
            "[router]\nproxy_protocol = [\"http\"]\n",
            ":2: router.proxy_protocol: everyone could claim any address",
        ),
        (
            "[router]\ntrusted_peers = [\"::/0\"]\n",
            ":2: router.trusted_peers: everyone would be believed",
        ),
        (
            "[router]\ntrusted_peers = [\"10.0.0.0/8\"]\nproxy_protocol = [\"htpp\"]\n",
            ":3: router.proxy_protocol: the router has no listener \"htpp\"; write the FileDescriptorName= of one of its sockets: [\"http\"]",
        ),
        ("trusted_peers = []\n", ":1: unknown key `trusted_peers`"),
    ] {
        std::fs::write(&config, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_slot-router"))
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(says),
            "{text:?}: {error}"
        );
        assert!(!error.contains("accepting"), "{error}");
    }
}

/// A router with two apps, of which `/own` has these limits.
fn two_apps(upstream: &Upstream, limits: Own) -> Rig {
    let slots = || vec![slot("blue", 100, upstream.address)];
    let mut own = app("own", "*", "/own", slots());
    own.limits = limits;
    let apps = vec![own, app("web", "*", "/", slots())];
    Rig::with(Source::Given(Table { revision: 1, apps }), quick())
}

#[test]
fn item_12_an_app_has_its_own_limit_of_bodies() {
    let upstream = Upstream::answering(OK);
    let rig = two_apps(
        &upstream,
        Own {
            body_bytes: Some(5),
            ..Own::default()
        },
    );
    let post = |path: &str, rest: &str| {
        let mut client = rig.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}"));
        client.message().unwrap().status()
    };
    for (rest, status) in [
        ("Content-Length: 5\r\n\r\nhello", 200),
        ("Content-Length: 6\r\n\r\nhello!", 413),
        ("Content-Length: 6\r\nExpect: 100-continue\r\n\r\n", 413),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            200,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2;xxxxxxxx\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
            200,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n4\r\nllo!\r\n0\r\n\r\n",
            413,
        ),
        ("Transfer-Encoding: chunked\r\n\r\n6\r\n", 413),
    ] {
        assert_eq!(post("/own", rest), status, "{rest:?}");
    }
    assert_eq!(post("/", "Content-Length: 6\r\n\r\nhello!"), 200);
    drop(rig);
    let seen = upstream.finish().concat();
    assert!(
        !seen.contains("llo!\r\n0\r\n"),
        "nothing whole that was too large: {seen:?}"
    );
    assert_eq!(seen.matches("POST ").count(), 4, "{seen:?}");
}

#[test]
fn item_12_a_chunked_body_that_grows_too_large_is_413_and_ends_upstream() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        let (bytes, end) = raw.end();
        assert_eq!((bytes, end), (b"3\r\nabc\r\n".to_vec(), End::Reset));
    });
    let rig = two_apps(
        &upstream,
        Own {
            body_bytes: Some(5),
            ..Own::default()
        },
    );
    let mut client = rig.client();
    client.send("POST /own HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    while !upstream.seen().concat().ends_with("3\r\nabc\r\n") {
        std::thread::yield_now();
    }
    client.send("3\r\ndef\r\n0\r\n\r\n");
    assert_eq!(client.message().unwrap().status(), 413);
    assert_eq!(client.end().0, b"");
    drop(rig);
    upstream.finish();
}

#[test]
fn item_12_an_app_has_its_own_limits_of_time() {
    let upstream = Upstream::start(|raw, _| {
        let request = raw.head().unwrap();
        if request.head.contains("/stall") {
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
        }
        raw.end();
    });
    let rig = two_apps(
        &upstream,
        Own {
            body_stall_ms: Some(50),
            response_head_ms: Some(50),
            response_stall_ms: Some(50),
            ..Own::default()
        },
    );
    assert_eq!(
        rig.ask("GET /own HTTP/1.1\r\nHost: a\r\n\r\n").status(),
        504
    );
    let stalled = "POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(rig.ask(stalled).status(), 408);
    let mut client = rig.client();
    client.send("GET /own/stall HTTP/1.1\r\nHost: a\r\n\r\n");
    let (bytes, end) = client.end();
    assert!(bytes.ends_with(b"begun") && end == End::Reset);
    // The other app has time: by now its own limit has passed many times.
    let mut other = rig.client();
    other.send("GET /stall HTTP/1.1\r\nHost: a\r\n\r\n");
    other.until(b"begun").unwrap();
    assert_eq!(rig.ask(stalled).status(), 408);
    rig.eventually("one under way", |s| {
        s.slots.iter().map(|s| s.in_flight.total()).sum::<u64>() == 1
    });
    other.reset();
    drop(rig);
    upstream.finish();
}

#[test]
fn item_12_a_client_that_takes_nothing_of_its_answer_is_reset_and_leaves_nothing() {
    let upstream = Upstream::start(|raw, _| {
        raw.head().unwrap();
        // More than the buffers of two sockets hold.
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        while raw.send(vec![b'x'; 1 << 20]) {}
    });
    let rig = two_apps(
        &upstream,
        Own {
            write_stall_ms: Some(50),
            ..Own::default()
        },
    );
    let mut client = rig.client();
    client.send("GET /own HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.eventually("given up", |s| s.slots.iter().any(|s| s.answers[1] == 1));
    rig.eventually("nothing left", |s| {
        s.connections == 0 && s.slots.iter().all(|s| s.in_flight.total() == 0)
    });
    assert_eq!(client.end().1, End::Reset);
    drop(rig);
    upstream.finish();
}

#[test]
fn item_12_beyond_all_connections_others_wait_until_one_ends() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        connections: 1,
        ..quick()
    };
    let source = Source::Given(table(1, vec![slot("blue", 100, upstream.address)]));
    // More threads than connections: the bound is that of all of them together.
    let rig = Rig::set(source, limits, |config| config.threads = 3);
    let mut first = rig.client();
    first.send(GOOD);
    assert_eq!(first.message().unwrap().status(), 200);
    let mut second = rig.client();
    second.send(GOOD);
    // It waits in the queue of the socket, refused by nobody.
    first.send(GOOD);
    assert_eq!(first.message().unwrap().status(), 200);
    rig.eventually("one connection", |s| s.connections == 1);
    assert!(second.rest.is_empty());
    drop(first);
    assert_eq!(second.message().unwrap().status(), 200);
}

#[test]
fn item_12_the_deadline_of_a_head_is_absolute() {
    let upstream = Upstream::answering(OK);
    let limits = Limits {
        head: Duration::from_millis(100),
        linger_most: Duration::from_millis(100),
        ..quick()
    };
    let rig = Rig::limited(&upstream, limits);
    for before in ["", GOOD] {
        let mut client = rig.client();
        client.send(before);
        if !before.is_empty() {
            assert_eq!(client.message().unwrap().status(), 200);
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
        // However lively it is, the head has no end.
        let stream = client.stream.try_clone().unwrap();
        let dribbling = std::thread::spawn(move || {
            use std::io::Write;
            while (&stream).write_all(b"y").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        assert_eq!(client.message().unwrap().status(), 408);
        client.end();
        drop(client);
        dribbling.join().unwrap();
    }
    drop(rig);
    assert_eq!(upstream.finish().concat().matches("HTTP/1.1").count(), 1);
}
