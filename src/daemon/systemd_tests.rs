//! What people read when a unit is not where it should be; the units themselves run on real systemd only.

use super::*;

fn app(text: &str) -> App {
    App::parse(
        &format!("name = \"web\"\ncommand = \"./server\"\n{text}"),
        "web.toml",
    )
    .unwrap()
}

fn green(text: &str) -> Slot {
    slot(
        &app(text),
        &"green".parse().unwrap(),
        Path::new("/run/slot"),
    )
}

fn addresses(places: &[&str]) -> Vec<SocketAddr> {
    places.iter().map(|place| place.parse().unwrap()).collect()
}

fn listens(slot: &Slot, places: &[&str]) -> String {
    elsewhere(slot, &slot.health, slot.variable, &addresses(places))
}

const PORTS: &str = "[ports]\nblue = 20001\ngreen = 20002\n";

#[test]
fn an_app_that_listens_elsewhere_is_told_where_and_what_to_do() {
    let slot = green(PORTS);
    assert_eq!(listens(&slot, &[]), "");
    assert_eq!(
        listens(&slot, &["127.0.0.1:3000"]),
        "; web@green.service listens on 127.0.0.1:3000 instead: let it use $PORT"
    );
    assert_eq!(
        listens(&slot, &["[::1]:20002"]),
        "; web@green.service listens on [::1]:20002 instead: let it listen on 127.0.0.1"
    );
    assert_eq!(
        listens(&green("bind = \"unix\"\n"), &["0.0.0.0:80", "0.0.0.0:81"]),
        "; web@green.service listens on 0.0.0.0:80 and 0.0.0.0:81 instead: let it use $SOCKET"
    );
}

#[test]
fn health_is_asked_where_the_app_is_told_to_answer_it() {
    let slot = green(
        "[ports]\nblue = { port = 20001, internal = 20003 }\ngreen = { port = 20002, internal = 20004 }\n",
    );
    assert_eq!(slot.upstream.to_string(), "127.0.0.1:20002");
    assert_eq!(slot.health.to_string(), "127.0.0.1:20004");
    assert_eq!(
        listens(&slot, &["127.0.0.1:20002"]),
        "; web@green.service listens on 127.0.0.1:20002 instead: let it use $INTERNAL_PORT"
    );
}

#[test]
fn a_healthy_app_that_does_not_listen_where_requests_go_is_told_where_that_is() {
    let slot = green(
        "[ports]\nblue = { port = 20001, internal = 20003 }\ngreen = { port = 20002, internal = 20004 }\n",
    );
    let answer = Answer {
        status: hyper::StatusCode::OK,
        line: String::new(),
        is_routers: false,
        took: Duration::ZERO,
        listener: None,
    };
    let told = |places: &[&str]| not_public(&slot, &answer, &addresses(places));
    assert_eq!(
        told(&["127.0.0.1:20004"]),
        "200 OK on 127.0.0.1:20004, but nobody listens on 127.0.0.1:20002: let it use $PORT for its requests"
    );
    assert_eq!(
        told(&["127.0.0.1:20004", "0.0.0.0:3000"]),
        "200 OK on 127.0.0.1:20004, but nobody listens on 127.0.0.1:20002; web@green.service listens on 0.0.0.0:3000 instead: let it use $PORT"
    );
    assert_eq!(
        told(&["127.0.0.1:20004", "[::1]:20002"]),
        "200 OK on 127.0.0.1:20004, but nobody listens on 127.0.0.1:20002; web@green.service listens on [::1]:20002 instead: let it listen on 127.0.0.1"
    );
}

#[test]
fn only_a_slot_whose_socket_pid_1_holds_has_a_socket_unit() {
    assert_eq!(green(PORTS).socket, None);
    assert_eq!(green("bind = \"unix\"\n").socket, None);
    let slot = green("bind = \"fd\"\n");
    assert_eq!(slot.socket.unwrap().as_str(), "web@green.socket");
    assert_eq!(
        slot.health.to_string(),
        "unix:/run/slot/web/green/http.sock"
    );
}

#[test]
fn a_start_that_could_not_be_asked_for_says_what_would_help() {
    let unit = UnitName::service(&"web".parse().unwrap(), &"green".parse().unwrap());
    let missing = not_asked(&CallError::NotLoaded {
        unit: unit.clone(),
        message: "Unit web@green.service not found".to_owned(),
    });
    assert_eq!(missing.result.as_str(), "unit-missing");
    assert_eq!(
        missing.text,
        "Unit web@green.service not found; register the app with `slotctl app add`, or run `systemctl daemon-reload`"
    );
    let denied = not_asked(&CallError::Denied {
        unit,
        verb: "start",
        why: crate::systemd::Why::NoPolkit,
    });
    assert_eq!(denied.result.as_str(), "not-permitted");
    assert!(
        denied.text.contains("apt install polkitd"),
        "{}",
        denied.text
    );
}
