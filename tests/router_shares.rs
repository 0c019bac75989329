//! Weights through a real router: what clients on many connections see of them.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod router_support;

use std::sync::Mutex;

use router_support::{Raw, Rig, Upstream, named, quick, slot, table};
use slot::router::Source;
use slot::wire::table::Table;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// How many requests a share is taken of, and how far it may be off: one per cent of them.
const OVER: usize = 10_000;
const OFF: usize = OVER / 100;

struct Slots([Upstream; 3]);

impl Slots {
    fn new() -> Self {
        Self(["blue", "green", "canary"].map(named))
    }

    fn table(&self, revision: u64, weights: [u8; 3]) -> Table {
        let slots = ["blue", "green", "canary"].into_iter().zip(&self.0);
        let slots = slots.zip(weights);
        let slots = slots.map(|((name, upstream), weight)| slot(name, weight, upstream.address));
        table(revision, slots.collect())
    }
}

fn rig(first: Table) -> Rig {
    Rig::set(Source::Given(first), quick(), |config| config.threads = 4)
}

/// Who answered each request, in the order of the answers, over 8 connections at the same time.
fn asked(rig: &Rig, count: usize) -> Vec<String> {
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client: Raw = rig.client();
                for _ in 0..count / 8 {
                    client.send(GET);
                    let who = client.message().unwrap().text();
                    answers.lock().unwrap().push(who);
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

fn is_about(answers: &[String], name: &str, percent: u8) {
    let found = answers.iter().filter(|it| *it == name).count();
    let wanted = answers.len() * usize::from(percent) / 100;
    assert!(
        found.abs_diff(wanted) <= OFF,
        "{name} answered {found} of {}, and was to answer {wanted}",
        answers.len()
    );
}

#[test]
fn over_any_ten_thousand_requests_on_many_threads_a_share_is_within_one_point() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, [69, 30, 1]));
    let answers = asked(&rig, 2 * OVER);
    for start in [0, OVER / 3, OVER / 2, OVER] {
        let window = &answers[start..start + OVER];
        for (name, percent) in [("blue", 69), ("green", 30), ("canary", 1)] {
            is_about(window, name, percent);
        }
    }
}

#[test]
fn a_slot_with_weight_0_gets_none_and_all_zero_is_503_at_once() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, [90, 10, 0]));
    let answers = asked(&rig, 2_000);
    assert!(answers.iter().all(|who| who != "canary"));
    rig.put(slots.table(2, [100, 0, 0]));
    assert!(asked(&rig, 2_000).iter().all(|who| who == "blue"));
    rig.put(slots.table(3, [0, 0, 0]));
    let mut client = rig.client();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(client.message().unwrap().status(), 503);
    }
    rig.eventually("nothing held", |stats| stats.held == 0);
}

#[test]
fn a_share_is_kept_while_tables_come_faster_than_requests() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, [90, 10, 0]));
    let mut client = rig.client();
    let mut answers = Vec::new();
    // The table says the same each time, as when another app's part of it changes.
    for revision in 2..502 {
        rig.put(slots.table(revision, [90, 10, 0]));
        for _ in 0..2 {
            client.send(GET);
            answers.push(client.message().unwrap().text());
        }
    }
    let green = answers.iter().filter(|who| *who == "green").count();
    assert_eq!((answers.len(), green), (1_000, 100));
}
