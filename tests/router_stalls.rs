//! Clients and apps that stall, dribble, half-close, reset or take nothing, in every phase of a request and in both directions: meanwhile
//! each has the descriptors and the memory that its phase needs and no more, and nothing is left of it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use router_support::{End, Raw, Rig, quick, slot, table};
use slot::router::buffer::{LARGE, SMALL};
use slot::router::{Limits, Source};
use slot::wire::control::{InFlight, Stats};

/// As many at once: a little for each shows.
const COUNT: u64 = 2;

/// Who does something, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    App,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    /// What the client has sent.
    asked: &'static str,
    /// The last of it that the app gets as it is; nothing, if the app has not heard of it.
    heard: &'static str,
    /// What the app has sent.
    answered: &'static str,
    /// The last of it that the client gets as it is.
    passed: &'static str,
    /// Who takes nothing, although the other sends as much as it can.
    takes_nothing: Option<Side>,
    class: InFlight,
    descriptors: u64,
    /// The most that it may have of memory for bytes under way.
    bytes: usize,
    /// What ends it if nobody does anything: the status, or 0 for a reset; nothing, if it may last.
    late: Option<u16>,
}

const HELD: Phase = Phase {
    name: "",
    asked: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    heard: "\r\n\r\n",
    answered: "",
    passed: "",
    takes_nothing: None,
    class: InFlight {
        requests: 1,
        streams: 0,
        tunnels: 0,
    },
    descriptors: 2,
    bytes: 0,
    late: Some(0),
};

const STREAM: Phase = Phase {
    asked: "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
    answered: "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n",
    passed: "data: 1\n\n",
    class: InFlight {
        requests: 0,
        streams: 1,
        tunnels: 0,
    },
    // A pipe between the two.
    descriptors: 4,
    ..HELD
};

const TUNNEL: Phase = Phase {
    asked: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    answered: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    passed: "hello",
    class: InFlight {
        requests: 0,
        streams: 0,
        tunnels: 1,
    },
    // And one for each way.
    descriptors: 6,
    late: None,
    ..HELD
};

const PHASES: &[Phase] = &[
    Phase {
        name: "in the head of a request",
        asked: "GET / HTTP/1.1\r\nHost: a\r\nX: ",
        heard: "",
        class: InFlight {
            requests: 0,
            streams: 0,
            tunnels: 0,
        },
        descriptors: 1,
        bytes: SMALL,
        late: Some(408),
        ..HELD
    },
    Phase {
        name: "in a body of known length",
        asked: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello",
        heard: "hello",
        late: Some(408),
        ..HELD
    },
    Phase {
        name: "in a chunk of a body",
        asked: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello",
        heard: "hello",
        late: Some(408),
        ..HELD
    },
    Phase {
        name: "in the size of a chunk of a body",
        asked: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6",
        heard: "hello\r\n",
        bytes: SMALL,
        late: Some(408),
        ..HELD
    },
    Phase {
        name: "before an answer",
        late: Some(504),
        ..HELD
    },
    Phase {
        name: "in the head of an answer",
        answered: "HTTP/1.1 200 OK\r\nX: ",
        bytes: SMALL,
        late: Some(504),
        ..HELD
    },
    Phase {
        name: "in an answer of known length",
        answered: "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        passed: "hello",
        ..HELD
    },
    Phase {
        name: "in a chunk of an answer",
        answered: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhello",
        passed: "hello",
        ..HELD
    },
    Phase {
        name: "in the size of a chunk of an answer",
        answered: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6",
        passed: "hello",
        bytes: SMALL,
        ..HELD
    },
    Phase {
        name: "in a stream",
        late: None,
        ..STREAM
    },
    Phase {
        name: "in a tunnel",
        ..TUNNEL
    },
    Phase {
        name: "in an answer that the client does not take",
        answered: "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\nhello",
        takes_nothing: Some(Side::Client),
        bytes: LARGE,
        ..HELD
    },
    Phase {
        name: "in chunks of an answer that the client does not take",
        answered: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\nhello",
        takes_nothing: Some(Side::Client),
        bytes: LARGE,
        ..HELD
    },
    Phase {
        name: "in a body that the app does not take",
        asked: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\nhello",
        heard: "hello",
        takes_nothing: Some(Side::App),
        bytes: LARGE,
        late: Some(504),
        ..HELD
    },
    Phase {
        name: "in a stream that the client does not take",
        takes_nothing: Some(Side::Client),
        ..STREAM
    },
    Phase {
        name: "in a tunnel of which the client takes nothing",
        takes_nothing: Some(Side::Client),
        ..TUNNEL
    },
    Phase {
        name: "in a tunnel of which the app takes nothing",
        takes_nothing: Some(Side::App),
        ..TUNNEL
    },
];

/// A router, and the listener of its only slot.
struct Scene {
    rig: Rig,
    listener: TcpListener,
}

/// Both ends of a request.
struct Pair {
    client: Raw,
    app: Option<Raw>,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let blue = slot("blue", 100, listener.local_addr().unwrap());
        let rig = Rig::with(Source::Given(table(1, vec![blue])), limits);
        Self { rig, listener }
    }

    /// A request that has come so far.
    fn pair(&self, phase: &Phase) -> Pair {
        let mut client = self.rig.client();
        client.send(phase.asked);
        if phase.heard.is_empty() {
            return Pair { client, app: None };
        }
        let mut app = Raw::new(self.listener.accept().unwrap().0, None);
        app.until(phase.heard.as_bytes()).unwrap();
        app.send(phase.answered);
        if phase.takes_nothing != Some(Side::Client) && !phase.passed.is_empty() {
            client.until(phase.passed.as_bytes()).unwrap();
        }
        match phase.takes_nothing {
            Some(Side::Client) => fill(&app),
            Some(Side::App) => fill(&client),
            None => {}
        }
        let app = Some(app);
        Pair { client, app }
    }

    /// Waits until nothing is left, also nothing that is kept for the next request: of those here none is one that could be.
    fn is_quiet(&self, what: &str) {
        self.rig.eventually(&format!("quiet, {what}"), |stats| {
            let owned = (stats.descriptors, stats.buffer_bytes);
            (stats.connections, under_way(stats), owned) == (0, InFlight::default(), (0, 0))
        });
    }
}

fn under_way(stats: &Stats) -> InFlight {
    stats.slots.iter().map(|slot| slot.in_flight).sum()
}

/// Sends until nothing has been taken for some time.
fn fill(sender: &Raw) {
    let timeout = |time| sender.stream.set_write_timeout(Some(time)).unwrap();
    timeout(Duration::from_millis(20));
    while (&sender.stream).write(&[b'x'; 1 << 18]).is_ok() {}
    timeout(router_support::PATIENCE);
}

/// Does to one side what a fault is.
fn commit(fault: &str, side: &mut Option<Raw>) {
    match fault {
        "closes" => *side = None,
        "resets" => {
            if let Some(side) = side.take() {
                side.reset();
            }
        }
        _ => {
            if let Some(side) = side {
                side.shut();
            }
        }
    }
}

#[test]
fn in_each_phase_one_has_what_it_needs_and_nothing_is_left_whoever_ends_it_and_how() {
    let scene = Scene::new(quick());
    let mut most = 0;
    for phase in PHASES {
        for who in [Side::Client, Side::App] {
            for fault in ["closes", "resets", "half-closes"] {
                let pairs: Vec<Pair> = (0..COUNT).map(|_| scene.pair(phase)).collect();
                let name = format!("{}, where the {who:?} {fault}", phase.name);
                let wanted = InFlight {
                    requests: phase.class.requests * COUNT,
                    streams: phase.class.streams * COUNT,
                    tunnels: phase.class.tunnels * COUNT,
                };
                scene.rig.eventually(&name, |stats| {
                    (stats.connections, under_way(stats)) == (COUNT, wanted)
                        && stats.descriptors == COUNT * phase.descriptors
                        && stats.buffer_bytes <= COUNT * phase.bytes as u64
                });
                let stats = router_support::block_on(scene.rig.control().stats());
                most = most.max(stats.buffer_bytes);
                for pair in pairs {
                    let (mut client, mut app) = (Some(pair.client), pair.app);
                    match who {
                        Side::Client => commit(fault, &mut client),
                        Side::App => commit(fault, &mut app),
                    }
                    // And the other sees no reason to stay; an app that has heard of nothing was never there.
                    drop((client, app));
                }
                scene.is_quiet(&name);
            }
        }
    }
    assert_eq!(most, COUNT * LARGE as u64, "memory in use is counted");
}

#[test]
fn who_stalls_is_ended_by_the_limit_of_its_phase_and_leaves_nothing_although_both_sides_stay() {
    let short = Duration::from_millis(500);
    let scene = Scene::new(Limits {
        head: short,
        body_stall: short,
        write_stall: short,
        response_head: short,
        response_stall: short,
        linger: Duration::from_millis(50),
        // Of those whom a 504 leaves where they were.
        idle: short,
        ..quick()
    });
    for phase in PHASES {
        let Some(status) = phase.late else {
            continue;
        };
        let mut pair = scene.pair(phase);
        scene.is_quiet(phase.name);
        if phase.takes_nothing == Some(Side::Client) {
            // What it took before it stopped is all that it has.
            assert_eq!(pair.client.end().1, End::Reset, "{}", phase.name);
            continue;
        }
        match status {
            0 => assert_eq!(pair.client.end().1, End::Reset, "{}", phase.name),
            status => {
                let answer = pair.client.message();
                assert_eq!(answer.map(|it| it.status()), Some(status), "{}", phase.name);
            }
        }
        if let Some(mut app) = pair.app {
            assert_eq!(app.end().1, End::Reset, "{}", phase.name);
        }
    }
}

/// Sends byte by byte, for longer than anybody may stall here.
fn dribble(to: &mut Raw, bytes: &str) {
    for byte in bytes.bytes() {
        std::thread::park_timeout(Duration::from_millis(10));
        assert!(to.send([byte]));
    }
}

#[test]
fn who_sends_a_byte_at_a_time_is_served_for_as_long_as_it_goes_on() {
    const SLOWLY: &str = "one byte at a time, and no more";
    let short = Duration::from_millis(150);
    let scene = Scene::new(Limits {
        body_stall: short,
        write_stall: short,
        response_stall: short,
        half_closed: short,
        ..quick()
    });
    let length = SLOWLY.len();
    for phase in PHASES.iter().filter(|phase| phase.takes_nothing.is_none()) {
        let (asked, answered) = match phase.name {
            "in a body of known length" => (
                format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
                ),
                String::new(),
            ),
            "in an answer of known length" => (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"),
            ),
            "in a stream" | "in a tunnel" => (phase.asked.to_owned(), phase.answered.to_owned()),
            _ => continue,
        };
        let mut client = scene.rig.client();
        client.send(asked);
        let mut app = Raw::new(scene.listener.accept().unwrap().0, None);
        app.head().unwrap();
        app.send(&answered);
        if !answered.is_empty() {
            client.head().unwrap();
        }
        match answered.is_empty() {
            true => {
                dribble(&mut client, SLOWLY);
                assert_eq!(
                    app.exactly(length).unwrap(),
                    SLOWLY.as_bytes(),
                    "{}",
                    phase.name
                );
                app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                assert_eq!(client.message().unwrap().status(), 200);
            }
            false => {
                dribble(&mut app, SLOWLY);
                let came = client.until(SLOWLY.as_bytes());
                assert!(came.is_some(), "{}", phase.name);
            }
        }
        if phase.class.tunnels > 0 {
            dribble(&mut client, SLOWLY);
            assert!(app.until(SLOWLY.as_bytes()).is_some());
            // One side of it has ended, and the other goes on.
            client.shut();
            dribble(&mut app, SLOWLY);
            assert!(client.until(SLOWLY.as_bytes()).is_some());
        }
        drop((client, app));
        scene.is_quiet(phase.name);
    }
}
