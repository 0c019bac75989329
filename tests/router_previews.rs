//! Requests that name the run that they are for, through a real router.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use router_support::{Message, Rig, Upstream, app, named, quick, slot};
use slot::router::Source;
use slot::wire::table::{Named, Preview, Sticky, Table};

/// The SHA-256 of `secret`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// All requests are blue's, and green can be asked by its names.
fn rig(slots: &[Upstream; 2], change: impl FnOnce(&mut Table)) -> Rig {
    let [blue, green] = slots;
    let slots = vec![
        slot("blue", 100, blue.address),
        slot("green", 0, green.address),
    ];
    let mut web = app("web", "*", "/", slots);
    web.preview = Some(Preview {
        domain: Some("web.example".into()),
        token: Some(SECRET.into()),
        runs: vec![Named {
            slot: "green".into(),
            boot_id: None,
            release: "1a2b3c4d".into(),
            names: ["green", "1a2b3c4d", "v1.2"].map(Into::into).into(),
        }],
    });
    let mut table = Table {
        revision: 1,
        apps: vec![web],
    };
    change(&mut table);
    Rig::with(Source::Given(table), quick())
}

fn ask(rig: &Rig, host: &str, fields: &str) -> Message {
    rig.ask(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

#[test]
fn a_host_reaches_a_run_by_its_slot_its_release_or_its_version_whatever_its_weight() {
    let slots = ["blue", "green"].map(named);
    let rig = rig(&slots, |_| {});
    for host in [
        "green.web.example",
        "GREEN.web.example:8080",
        "1a2b3c4d.web.example",
        "V1.2.Web.Example",
    ] {
        let answer = ask(&rig, host, "");
        assert_eq!(answer.text(), "green", "{host}");
        assert_eq!(answer.field("Slot-Release"), Some("1a2b3c4d"), "{host}");
    }
    for host in ["web.example", "example", "green.shop.example"] {
        let answer = ask(&rig, host, "");
        assert_eq!(
            (answer.text().as_str(), answer.field("Slot-Release")),
            ("blue", None),
            "{host}"
        );
    }
}

#[test]
fn a_name_of_nothing_that_runs_is_404_and_so_is_every_name_where_nothing_does() {
    let slots = ["blue", "green"].map(named);
    let rig = rig(&slots, |_| {});
    for host in [
        "blue.web.example",
        "99999999.web.example",
        "a.green.web.example",
    ] {
        assert_eq!(ask(&rig, host, "").status(), 404, "{host}");
    }
    assert_eq!(
        ask(&rig, "a", "Slot-Preview: secret blue\r\n").status(),
        404
    );
    let mut table = Table {
        revision: 2,
        ..router_support::block_on(rig.control().table()).unwrap()
    };
    let runs = std::mem::take(&mut table.apps[0].preview.as_mut().unwrap().runs);
    assert!(!runs.is_empty());
    rig.put(table.clone());
    assert_eq!(ask(&rig, "green.web.example", "").status(), 404);
    // What its slot has run before.
    let web = &mut table.apps[0];
    web.preview.as_mut().unwrap().runs = runs;
    (table.revision, web.slots[1].boot_id) = (3, Some("another".into()));
    rig.put(table);
    assert_eq!(ask(&rig, "green.web.example", "").status(), 404);
}

#[test]
fn a_field_with_the_token_reaches_a_run_and_the_app_never_sees_it() {
    let slots = ["blue", "green"].map(named);
    let rig = rig(&slots, |_| {});
    let answer = ask(&rig, "a", "slot-preview: secret v1.2\r\n");
    assert_eq!(
        (answer.text().as_str(), answer.field("Slot-Release")),
        ("green", Some("1a2b3c4d"))
    );
    for wrong in ["Secret green", "green", "", SECRET] {
        let refused = ask(&rig, "a", &format!("Slot-Preview: {wrong}\r\n"));
        assert_eq!(refused.status(), 403, "{wrong}");
    }
    let seen: String = slots.iter().flat_map(Upstream::seen).collect();
    assert!(!seen.to_lowercase().contains("preview"), "{seen}");
}

#[test]
fn an_app_without_a_token_has_none_that_fits() {
    let slots = ["blue", "green"].map(named);
    let rig = rig(&slots, |table| {
        table.apps[0].preview.as_mut().unwrap().token = None;
    });
    assert_eq!(ask(&rig, "a", "Slot-Preview:  green\r\n").status(), 403);
}

#[test]
fn a_preview_is_no_ticket_and_gives_no_cookie() {
    let slots = ["blue", "green"].map(named);
    let rig = rig(&slots, |table| {
        let web = &mut table.apps[0];
        (web.slots[0].weight, web.slots[1].weight) = (90, 10);
        web.sticky = Some(Sticky {
            by: "cookie".into(),
            salt: 1,
            places: Vec::new(),
        });
    });
    let mut green = 0;
    for _ in 0..100 {
        let preview = ask(&rig, "green.web.example", "");
        assert_eq!(
            (preview.text().as_str(), preview.field("Set-Cookie")),
            ("green", None)
        );
        green += usize::from(ask(&rig, "a", "").text() == "green");
    }
    assert_eq!(green, 10);
}
