//! Clients that keep to a slot, through a real router, while shares grow.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use router_support::{Message, Raw, Rig, Upstream, named, quick, slot, table};
use slot::router::Source;
use slot::wire::table::{Sticky, Table};

/// How many clients there are, and how many of them may be on another slot than weights say where the router itself spreads them.
const CLIENTS: usize = 1_000;
const OFF: f64 = 20.0;

struct Slots([Upstream; 2]);

impl Slots {
    fn new() -> Self {
        Self(["blue", "green"].map(named))
    }

    /// What the client is known by, and how much is green's.
    fn table(&self, revision: u64, by: &str, weight: u8) -> Table {
        let [blue, green] = &self.0;
        let slots = vec![
            slot("blue", 100 - weight, blue.address),
            slot("green", weight, green.address),
        ];
        let mut table = table(revision, slots);
        table.apps[0].sticky = Some(Sticky {
            by: by.to_owned(),
            salt: 7,
            places: Vec::new(),
        });
        table
    }
}

/// A router on four threads, which believes whoever connects from this machine.
fn rig(first: Table) -> Rig {
    Rig::set(Source::Given(first), quick(), |config| {
        config.threads = 4;
        config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
    })
}

fn ask(connection: &mut Raw, fields: &str) -> Message {
    connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    connection.message().unwrap()
}

/// The cookie that an answer sets, as a request sends it.
fn given(answer: &Message) -> Option<String> {
    let set = answer.field("Set-Cookie")?;
    let (pair, rest) = set.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(pair.len(), "slot=0123456789abcdef".len(), "{pair}");
    assert_eq!(answer.head.matches("Set-Cookie").count(), 1, "{answer:?}");
    Some(format!("Cookie: theme=dark; {pair}; slot2=x\r\n"))
}

/// Has every client ask at 1, 10, 50 and 100 per cent: each that has seen green sees it always, and as many as should.
/// `fields` are those of a client, to which a cookie is added that it is given.
fn nobody_goes_back(by: &str, fields: impl Fn(usize) -> String, off: impl Fn(f64) -> f64) {
    let slots = Slots::new();
    let rig = rig(slots.table(1, by, 1));
    // Several requests of a client are on several threads.
    let mut connections: Vec<Raw> = (0..7).map(|_| rig.client()).collect();
    let mut clients: Vec<_> = (0..CLIENTS).map(|it| (fields(it), false)).collect();
    for (revision, weight) in [(1, 1), (2, 10), (3, 50), (4, 100)] {
        rig.put(slots.table(revision, by, weight));
        for round in 0..2 {
            let mut count = 0;
            for (number, (fields, seen)) in clients.iter_mut().enumerate() {
                let answer = ask(&mut connections[(number + 3 * round) % 7], fields);
                let is_green = answer.text() == "green";
                assert!(
                    is_green || !*seen,
                    "{fields} went back at {weight} per cent"
                );
                assert!(is_green == *seen || round == 0, "{fields} moved");
                (*seen, count) = (is_green, count + usize::from(is_green));
                if let Some(cookie) = given(&answer) {
                    assert!(!fields.contains("slot="), "{fields} was given {cookie}");
                    *fields += &cookie;
                }
            }
            let wanted = (CLIENTS * usize::from(weight) / 100) as f64;
            assert!(
                (count as f64 - wanted).abs() <= off(f64::from(weight) / 100.0),
                "{count} of {CLIENTS} see green at {weight} per cent"
            );
        }
    }
}

/// Three standard deviations of how many clients of as many have a place.
fn by_chance(share: f64) -> f64 {
    3.0 * (CLIENTS as f64 * share * (1.0 - share)).sqrt()
}

#[test]
fn by_cookie_nobody_goes_back_while_a_share_grows_and_it_is_within_two_points() {
    nobody_goes_back("cookie", |_| String::new(), |_| OFF);
}

#[test]
fn by_header_nobody_goes_back_while_a_share_grows() {
    let fields = |number| format!("x-user: user-{number}\r\n");
    nobody_goes_back("header:X-User", fields, by_chance);
}

#[test]
fn by_address_nobody_goes_back_while_a_share_grows() {
    let fields = |number| {
        format!(
            "X-Forwarded-For: 10.9.9.9, 203.0.{}.{}\r\n",
            number / 200,
            number % 200
        )
    };
    nobody_goes_back("address", fields, by_chance);
}

#[test]
fn while_one_slot_has_all_requests_nobody_is_given_a_cookie() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, "cookie", 0));
    let mut client = rig.client();
    assert_eq!(given(&ask(&mut client, "")), None);
    rig.put(slots.table(2, "cookie", 50));
    assert!(given(&ask(&mut client, "")).is_some());
    rig.put(slots.table(3, "cookie", 100));
    assert_eq!(given(&ask(&mut client, "")), None);
}

#[test]
fn the_app_sees_the_cookie_and_a_client_that_came_by_https_sends_it_by_that_alone() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, "cookie", 50));
    let mut client = rig.client();
    let answer = ask(&mut client, "X-Forwarded-Proto: https\r\n");
    let set = answer.field("Set-Cookie").unwrap();
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{set}");
    ask(&mut client, "Cookie: a=b\r\nCookie: slot=4711;c=d\r\n");
    let seen: String = slots.0.iter().flat_map(Upstream::seen).collect();
    assert!(
        seen.contains("\r\nCookie: a=b\r\nCookie: slot=4711;c=d\r\n"),
        "{seen}"
    );
}

#[test]
fn who_has_no_such_field_goes_where_weights_say() {
    let slots = Slots::new();
    let rig = rig(slots.table(1, "header:X-User", 10));
    let mut client = rig.client();
    let answers: Vec<_> = (0..200).map(|_| ask(&mut client, "X-User:\r\n")).collect();
    assert!(answers.iter().all(|answer| given(answer).is_none()));
    let green = answers.iter().filter(|answer| answer.text() == "green");
    assert_eq!(green.count(), 20);
}

#[test]
fn a_request_that_is_sent_again_goes_to_the_same_slot_and_its_cookie_too() {
    let ends_after_one = |name: &'static str| {
        Upstream::start(move |raw, _| {
            raw.message();
            raw.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            ));
            // The router finds the connection fit for another request, which gets no answer.
            raw.message();
        })
    };
    let slots = Slots(["blue", "green"].map(ends_after_one));
    let rig = rig(slots.table(1, "cookie", 50));
    let mut client = rig.client();
    for _ in 0..50 {
        let first = ask(&mut client, "");
        let cookie = given(&first).expect("it is new");
        for _ in 0..2 {
            assert_eq!(ask(&mut client, &cookie).text(), first.text());
        }
    }
    // A request has one id, however often it is sent.
    let [blue, green] = slots.0.each_ref().map(|upstream| {
        let seen = upstream.seen().concat();
        let ids = seen.lines().filter(|line| line.starts_with("X-Request-Id"));
        ids.map(str::to_owned).collect::<Vec<_>>()
    });
    assert!(blue.len() + green.len() > 150, "none was sent again");
    assert!(blue.iter().all(|id| !green.contains(id)), "one was at both");
}
