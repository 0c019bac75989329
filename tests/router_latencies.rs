//! How long the answers of a slot take, as a router counts it and slotd reads it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::time::{Duration, Instant};

use router_support::{OK, Rig, Upstream, app, block_on, quick, slot, table};
use slot::router::Source;
use slot::traffic::{Routers, TrafficError};
use slot::wire::control::{SlotStats, Stats};
use slot::wire::histogram::Histogram;
use slot::wire::table::Table;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Long beside what anything here takes of itself.
const LONG: Duration = Duration::from_millis(200);

fn held(revision: u64, ready: bool, upstream: &Upstream) -> Table {
    let mut slot = slot("blue", 100, upstream.address);
    slot.ready = ready;
    table(revision, vec![slot])
}

fn figures(rig: &Rig, app: &str) -> Vec<SlotStats> {
    block_on(rig.control().stats_of(Some(app))).slots
}

fn latencies(rig: &Rig) -> Histogram {
    figures(rig, "web").remove(0).latencies
}

/// The longest that is counted is one that ended after `since`, and began after it too.
fn began_after(since: Instant, rig: &Rig) {
    let (most, longest) = (since.elapsed(), latencies(rig).quantile(1.0).unwrap());
    assert!(
        longest <= most + most / 16,
        "{longest:?} are counted, and there were {most:?}"
    );
}

#[test]
fn each_answer_is_counted_with_the_time_that_the_slot_took_for_it() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(asked) = raw.message() {
            if asked.head.contains("/slow") {
                std::thread::sleep(LONG);
            }
            raw.send(OK);
        }
    });
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    for path in ["/", "/", "/slow", "/"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.message().unwrap();
    }
    let latencies = latencies(&rig);
    assert_eq!(latencies.total(), 4);
    assert!(latencies.quantile(1.0).unwrap() >= LONG);
}

#[test]
fn a_hold_is_no_time_of_the_slots() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::with(Source::Given(held(1, false, &upstream)), quick());
    let mut client = rig.client();
    client.send(GET);
    rig.eventually("held", |stats| stats.held == 1);
    std::thread::sleep(LONG);
    let since = Instant::now();
    rig.put(held(2, true, &upstream));
    client.message().unwrap();
    began_after(since, &rig);
}

#[test]
fn nor_is_what_the_client_takes_for_its_body() {
    let upstream = Upstream::answering(OK);
    let rig = Rig::to(&upstream);
    let mut client = rig.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
    rig.eventually("under way", |s| s.slots[0].in_flight.requests == 1);
    std::thread::sleep(LONG);
    let since = Instant::now();
    client.send("2");
    client.message().unwrap();
    began_after(since, &rig);
}

#[test]
fn event_streams_tunnels_and_what_got_no_answer_are_left_out() {
    let upstream = Upstream::start(|raw, _| {
        while let Some(asked) = raw.message() {
            let path = asked.head.split(' ').nth(1).unwrap();
            let (answer, ends) = match path {
                "/stream" => (
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
                    true,
                ),
                "/tunnel" => (
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                    true,
                ),
                "/hints" => (
                    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                    false,
                ),
                "/cut" => ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true),
                "/cut-stream" => (
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nda",
                    true,
                ),
                _ => ("no answer\r\n\r\n", true),
            };
            raw.send(answer);
            if ends {
                return;
            }
        }
    });
    let rig = Rig::to(&upstream);
    let (websocket, events) = (
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Accept: text/event-stream\r\n",
    );
    for (path, fields) in [
        ("/stream", events),
        ("/tunnel", websocket),
        ("/hints", ""),
        ("/broken", ""),
        ("/cut", ""),
        ("/cut-stream", events),
    ] {
        let mut client = rig.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.shut();
        client.end();
    }
    rig.eventually("over", |s| s.slots[0].in_flight.total() == 0);
    let slot = figures(&rig, "web").remove(0);
    // An answer that is cut short is one error, and no answer.
    let answers = &slot.answers[1..];
    assert_eq!((answers, slot.errors), (&[1, 0, 0, 0][..], 2), "{slot:?}");
    assert_eq!(slot.latencies.total(), 2, "{slot:?}");
}

/// `in_flight` and `given_up` of the only slot.
fn given_up(rig: &Rig, in_flight: u64, given_up: u64) {
    rig.eventually(&format!("{in_flight}, {given_up}"), |stats| {
        let slot = &stats.slots[0];
        (slot.in_flight.total(), slot.given_up) == (in_flight, given_up)
    });
}

#[test]
fn what_clients_give_up_before_the_head_of_an_answer_is_counted_for_itself() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let upstream = Upstream::start(move |raw, _| {
        while let Some(asked) = raw.message() {
            if asked.head.contains("/hang") {
                gate.lock().unwrap().recv().unwrap();
            }
            raw.send(OK);
        }
    });
    let rig = Rig::to(&upstream);
    let hang = "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n";
    // One that waits, and one that has said all that it will: it may wait too, and is answered.
    let mut waits = rig.client();
    waits.send(hang);
    given_up(&rig, 1, 0);
    let mut shut = rig.client();
    shut.send(hang);
    shut.shut();
    given_up(&rig, 2, 1);
    // Gone for good.
    let mut gone = rig.client();
    gone.send(hang);
    given_up(&rig, 3, 1);
    drop(gone);
    given_up(&rig, 3, 2);
    // A request that was never whole waits for nobody.
    let mut half = rig.client();
    half.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
    given_up(&rig, 4, 2);
    drop(half);
    given_up(&rig, 3, 2);
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    shut.message().unwrap();
    waits.message().unwrap();
    rig.eventually("over", |stats| stats.slots[0].in_flight.total() == 0);
    let slot = figures(&rig, "web").remove(0);
    // What comes for somebody who is gone is an answer none the less.
    assert_eq!(
        (slot.answers[1], slot.errors, slot.given_up),
        (3, 0, 0),
        "{slot:?}"
    );
}

#[test]
fn slotd_reads_one_apps_alone_and_none_where_it_asks_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let instance = directory.path().join("1");
    std::fs::create_dir(&instance).unwrap();
    let upstream = Upstream::answering(OK);
    let slots = || vec![slot("blue", 100, upstream.address)];
    let apps = vec![
        app("web", "a", "/", slots()),
        app("shop", "b", "/", slots()),
    ];
    let table = Table { revision: 1, apps };
    let rig = Rig::set(Source::Given(table), quick(), |config| {
        config.control = Some(instance.join("control.sock"));
    });
    for host in ["a", "a", "b"] {
        rig.ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    rig.eventually("over", |stats| {
        stats.slots.iter().all(|slot| slot.in_flight.total() == 0)
    });
    let routers = Routers::in_directory(directory.path().to_owned());
    let counted = |mut told: Vec<(String, Result<Stats, TrafficError>)>| {
        let stats = told.remove(0).1.unwrap();
        assert!(stats.since_ms > 0);
        let slots = stats.slots.into_iter();
        slots
            .map(|slot| (slot.app, slot.answers[1], slot.latencies.total()))
            .collect::<Vec<_>>()
    };
    let all = block_on(routers.stats()).unwrap();
    let (web, shop) = ("web".to_owned(), "shop".to_owned());
    assert_eq!(counted(all), [(shop, 1, 0), (web.clone(), 2, 0)]);
    let one = block_on(routers.figures("web")).unwrap();
    assert_eq!(counted(one), [(web, 2, 2)]);
}
