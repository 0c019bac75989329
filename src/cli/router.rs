//! `slotctl router upgrade`, and the router's instances as they are shown.

use std::fmt::Write;
use std::time::Duration;

use hyper::Method;

use super::args::RouterUpgrade;
use super::client::{Client, empty};
use super::exit::Exit;
use super::status::{in_flight, time_until};
use super::term::{Paint, harmless, say, say_json, whole_span};
use crate::wire::api::{RouterStatus, Upgraded};

/// Exchanges the instance that accepts for a new one.
///
/// # Errors
/// If slotd does not answer, or the new instance did not come up.
pub async fn upgrade(client: &Client, options: &RouterUpgrade, json: bool) -> anyhow::Result<Exit> {
    let limit = options.drain.as_ref();
    let limit = limit.map_or_else(String::new, |span| format!("?limit={}", span.text));
    let path = format!("/router/upgrade{limit}");
    let upgraded: Upgraded = client.ask(Method::POST, &path, empty()).await?;
    if json {
        say_json(&upgraded)?;
        return Ok(Exit::Ok);
    }
    say(&told(&upgraded))?;
    Ok(Exit::Ok)
}

fn told(upgraded: &Upgraded) -> String {
    let Some(new) = upgraded.accepting else {
        return "No router runs; the next connection starts one.\n".to_owned();
    };
    let mut text = format!("slot-router@{new} accepts.");
    for old in &upgraded.draining {
        let _ = write!(
            text,
            " slot-router@{old} ends what it has, and then itself."
        );
    }
    text.push('\n');
    text
}

/// A line for each instance; `now` is milliseconds since the epoch.
#[must_use]
pub fn table(instances: &[RouterStatus], now: u64, paint: Paint) -> String {
    let mut text = String::new();
    for router in instances {
        let doing = if router.accepting {
            "accepts"
        } else {
            "drains"
        };
        let age = whole_span(Duration::from_millis(now.saturating_sub(router.since_ms)));
        let mut line = format!(
            "router {} {doing}, up {age}: connections {}, {}",
            harmless(&router.instance),
            router.connections,
            in_flight(router.in_flight)
        );
        for (word, count) in [
            ("held", router.held),
            ("idle", router.idle),
            ("not kept", router.unkept),
        ] {
            if count > 0 {
                let _ = write!(line, ", {word} {count}");
            }
        }
        if let Some(until) = router.drain_until_ms {
            let _ = write!(line, "; cut {}", time_until(until, now));
        }
        if !router.accepting {
            line = paint.odd(&line);
        }
        let _ = writeln!(text, "{line}");
        if let Some(problem) = &router.problem {
            let _ = writeln!(text, "  {} {}", paint.bad("settings:"), harmless(problem));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::InFlight;

    #[test]
    fn an_instance_that_drains_says_what_it_holds_and_for_how_long() {
        let router = RouterStatus {
            instance: "1".to_owned(),
            since_ms: 1_000,
            connections: 7,
            in_flight: InFlight {
                requests: 1,
                streams: 2,
                tunnels: 1,
            },
            idle: 3,
            unkept: 1,
            drain_until_ms: Some(121_000),
            ..RouterStatus::default()
        };
        assert_eq!(
            table(&[router], 61_000, Paint::default()),
            "router 1 drains, up 1m 0s: connections 7, requests 1, streams 2, tunnels 1, idle 3, not kept 1; cut in 1m 0s\n"
        );
    }

    #[test]
    fn an_instance_whose_settings_are_wrong_says_so() {
        let router = RouterStatus {
            instance: "2".to_owned(),
            accepting: true,
            problem: Some("machine.toml:1: no".to_owned()),
            ..RouterStatus::default()
        };
        let shown = table(&[router], 0, Paint::default());
        assert!(
            shown.ends_with("\n  settings: machine.toml:1: no\n"),
            "{shown}"
        );
    }

    #[test]
    fn an_upgrade_says_which_instance_accepts_and_which_ends() {
        let upgraded = |accepting, draining: &[u8]| Upgraded {
            accepting,
            draining: draining.to_vec(),
        };
        assert_eq!(
            told(&upgraded(Some(2), &[1])),
            "slot-router@2 accepts. slot-router@1 ends what it has, and then itself.\n"
        );
        assert!(told(&upgraded(None, &[])).starts_with("No router runs"));
    }
}
