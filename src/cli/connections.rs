//! `slotctl status --connections`: who is still on the old slot.

use std::fmt::Write;
use std::time::Duration;

use super::client::Client;
use super::exit::Exit;
use super::status::now_ms;
use super::term::{harmless, say, say_json, whole_span};
use crate::wire::api::Connections;

/// Lists what is under way on slots that get no new requests.
///
/// # Errors
/// If slotd does not answer.
pub async fn run(client: &Client, json: bool) -> anyhow::Result<Exit> {
    let connections: Connections = client.get("/connections").await?;
    if json {
        say_json(&connections)?;
    } else {
        say(&table(&connections, now_ms()))?;
    }
    Ok(Exit::Ok)
}

/// A line for each; `now` is milliseconds since the epoch.
fn table(connections: &Connections, now: u64) -> String {
    let mut text = String::new();
    for (slot, all) in &connections.slots {
        for one in all {
            let age = whole_span(Duration::from_millis(now.saturating_sub(one.since_ms)));
            let (client, route) = (harmless(&one.client), harmless(&one.route));
            let _ = writeln!(
                text,
                "{slot}  {:<7}  {age:>8}  {client}  {route}",
                one.class
            );
        }
        if let Some(count) = connections.left_out.get(slot) {
            let _ = writeln!(text, "{slot}  and {count} more");
        }
    }
    if !text.is_empty() {
        text.push_str("`slotctl drain --now SLOT` ends them.\n");
    } else if connections.warnings.is_empty() {
        text.push_str("Nothing is under way but at the active slot.\n");
    }
    for warning in &connections.warnings {
        let _ = writeln!(text, "warning: {}", harmless(warning));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Connection;

    #[test]
    fn each_says_what_it_is_how_old_who_and_where() {
        let tunnel = Connection {
            class: "tunnel".to_owned(),
            since_ms: 1_000,
            client: "192.0.2.7".to_owned(),
            route: "example.org/ws".to_owned(),
            boot_id: None,
        };
        let mut connections = Connections::default();
        connections.slots.insert("blue".to_owned(), vec![tunnel]);
        connections.left_out.insert("blue".to_owned(), 200);
        let text = table(&connections, 62_000);
        assert!(
            text.starts_with(
                "blue  tunnel      1m 1s  192.0.2.7  example.org/ws\nblue  and 200 more\n"
            ),
            "{text}"
        );
        assert!(table(&Connections::default(), 0).starts_with("Nothing"));
        let silent = Connections {
            warnings: vec!["router instance 1 did not answer".to_owned()],
            ..Connections::default()
        };
        assert_eq!(
            table(&silent, 0),
            "warning: router instance 1 did not answer\n"
        );
    }
}
