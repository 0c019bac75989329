//! That requests reach the active slot the way that clients take: through the public listener.
//!
//! **Invariant:** what cannot be found out is no failure: no router answers, or its listeners take only what a load balancer sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::live::Live;
use super::units::Units;
use crate::config::App;
use crate::deploy::{Probe, Route, Weight};
use crate::probe::{Address, Answer, Internet, NoAnswer, ask_from};
use crate::router::table::sticky::By;
use crate::wire::control::{Listener, Stats};

/// How long it is tried.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);
/// How much longer it may take that there is a socket to ask with.
const GRACE: Duration = Duration::from_millis(500);

impl<U: Units> Live<U> {
    /// Asks the app through a public listener, once the routers have its table: what the last answer was, and where it was asked for;
    /// `None` where that cannot be found out.
    pub(super) async fn reached(&self, route: &Route) -> Option<Probe> {
        if !route.ready || route.active.is_none() {
            return None;
        }
        let told = self.tables.routers().stats().await.unwrap_or_default();
        let stats = told.into_iter().filter_map(|(_, stats)| stats.ok());
        let mut at = public(stats, self.app.listener.as_deref());
        if at.is_empty() {
            return None;
        }
        let by_address = self.app.sticky == Some(By::Address) && route.left != Weight::NONE;
        if by_address {
            // Loopback has one address of IPv6, and would be one client.
            at.sort_by_key(SocketAddr::is_ipv6);
        }
        let (host, path, is_health) = target(&self.app);
        let (mut in_a_row, mut failed) = (0, false);
        let mut asked_for = 0;
        let until = Instant::now() + LIMIT;
        loop {
            asked_for += 1;
            let from = by_address.then(|| client(asked_for));
            let internet = self.units.internet();
            let (pass, at, found) =
                look(internet, from, &at, &host, &path, is_health, until).await?;
            let asked = format!("asked for {path} of {host} at the public listener {at}: {found}");
            in_a_row = if pass { in_a_row + 1 } else { 0 };
            failed |= !pass;
            let late = until <= Instant::now() + AGAIN;
            if in_a_row >= enough(route.left) || late && !failed {
                return Some(Probe { pass, text: asked });
            }
            if pass && !late {
                continue;
            }
            if late {
                let text = format!(
                    "{asked}; `slotctl status` shows the routers, `journalctl -u 'slot-router@*'` what they say"
                );
                return Some(Probe { pass: false, text });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The addresses of as many clients as there are questions (RFC 6890 section 2.2.2: all of 127.0.0.0/8 is this host). Where a slot is chosen by
/// the client's, one client would get all answers from the same.
fn client(question: u16) -> Ipv4Addr {
    let [high, low] = question.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// How many answers in a row are not all from the slot before, which a switch has left so much: less than one in a thousand would be.
fn enough(left: Weight) -> u32 {
    let mut in_a_million = 1_000_000;
    let mut answers = 0;
    while answers == 0 || in_a_million > 1_000 {
        in_a_million = in_a_million * u32::from(left.get()) / 100;
        answers += 1;
    }
    answers
}

/// Asks once, at each address until one answers. Gives whether that was as it is to be, the one that answered, or was asked last, and what
/// came of it; `None` where nobody could be asked.
async fn look(
    internet: &Internet,
    from: Option<Ipv4Addr>,
    addresses: &[SocketAddr],
    host: &str,
    path: &str,
    is_health: bool,
    until: Instant,
) -> Option<(bool, SocketAddr, String)> {
    let mut failed = None;
    for at in addresses {
        let left = until.saturating_duration_since(Instant::now());
        let address = Address::Tcp(*at);
        let from = from.filter(|_| at.is_ipv4()).map(IpAddr::V4);
        let asked = ask_from(internet, from, &address, host, path, left);
        // Later than `left` only if there was no socket to ask with.
        let Ok(answer) = timeout(left + GRACE, asked).await else {
            continue;
        };
        match answer {
            Ok(answer) => return Some((serves(&answer, is_health), *at, answer.to_string())),
            // A machine without this family of addresses; its clients have another one.
            Err(NoAnswer::Connect { .. }) => {}
            Err(none) => failed = Some((false, *at, none.to_string())),
        }
    }
    failed
}

/// Where clients of this machine reach the app: one listener, by each family of addresses that it may be reached by.
fn public(routers: impl Iterator<Item = Stats>, listener: Option<&str>) -> Vec<SocketAddr> {
    routers
        .filter(|stats| stats.accepting)
        .flat_map(|stats| stats.listeners)
        .filter(|it: &Listener| !it.proxied && listener.is_none_or(|name| it.name == name))
        .find_map(|it| it.address.parse::<SocketAddr>().ok())
        .map(|at| {
            let with = |ip: IpAddr| SocketAddr::new(ip, at.port());
            let (v4, v6) = (
                with(Ipv4Addr::LOCALHOST.into()),
                with(Ipv6Addr::LOCALHOST.into()),
            );
            match at.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
                // One of both families, unless bindv6only says otherwise (ipv6(7)).
                IpAddr::V6(ip) if ip.is_unspecified() => vec![v6, v4],
                // A certain address may be another machine's at the moment (a floating one); nobody else is spoken to.
                ip if ip.is_loopback() => vec![at],
                IpAddr::V4(_) | IpAddr::V6(_) => Vec::new(),
            }
        })
        .unwrap_or_default()
}

/// Host and path of a request that is the app's, and whether they are those of its health.
fn target(app: &App) -> (String, String, bool) {
    let host = app.hosts.first().map_or("*", String::as_str);
    // An app that has many hosts need not know this one.
    let any_host = host.starts_with("*.");
    let host = match host {
        "*" => "localhost".to_owned(),
        host => host.replacen('*', "slot-probe", 1),
    };
    let own_port = app.ports.values().any(|ports| ports.internal != ports.port);
    let covers = |prefix: &String| {
        let rest = app.health.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    if !own_port && !any_host && app.paths.iter().any(covers) {
        return (host, app.health.clone(), true);
    }
    let path = app.paths.first().cloned().unwrap_or_else(|| "/".to_owned());
    (host, path, false)
}

/// Whether an answer is as the slot's is to be. A path that is not that of health may be answered anyhow, but not by the router in its place.
fn serves(answer: &Answer, is_health: bool) -> bool {
    match is_health {
        true => answer.passes(),
        false => !answer.is_routers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(lines: &str) -> App {
        App::parse(&format!("command = './server'\n{lines}"), "web.toml").unwrap()
    }

    #[test]
    fn what_is_asked_for_is_the_apps() {
        for (lines, host, path, is_health) in [
            ("", "localhost", "/", true),
            (
                "health = '/healthz?deep'",
                "localhost",
                "/healthz?deep",
                true,
            ),
            (
                "hosts = ['*.example.org']\npaths = ['/api']\nhealth = '/api/up'",
                "slot-probe.example.org",
                "/api",
                false,
            ),
            (
                "paths = ['/api']\nhealth = '/apiary'",
                "localhost",
                "/api",
                false,
            ),
            (
                "[ports]\nblue = { port = 20001, internal = 20002 }\ngreen = 20003",
                "localhost",
                "/",
                false,
            ),
        ] {
            let wanted = (host.to_owned(), path.to_owned(), is_health);
            assert_eq!(target(&app(lines)), wanted, "{lines}");
        }
    }

    #[test]
    fn one_answer_is_enough_where_the_slot_before_cannot_have_given_it() {
        for (others, answers) in [("0", 1), ("1", 2), ("5", 3), ("10", 3), ("20", 5)] {
            assert_eq!(enough(others.parse().unwrap()), answers, "{others}");
        }
    }

    #[test]
    fn a_listener_of_every_address_is_asked_on_loopback_and_one_behind_a_proxy_is_not_asked() {
        let stats = |listeners: &[(&str, &str, bool)]| Stats {
            accepting: true,
            listeners: listeners
                .iter()
                .map(|(name, address, proxied)| Listener {
                    name: (*name).to_owned(),
                    address: (*address).to_owned(),
                    proxied: *proxied,
                })
                .collect(),
            ..Stats::default()
        };
        let both = stats(&[("http", "[::]:80", false), ("other", "0.0.0.0:81", false)]);
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let of = |stats: &Stats, name| public([stats.clone()].into_iter(), name);
        assert_eq!(of(&both, None), ["[::1]:80", "127.0.0.1:80"].map(at));
        assert_eq!(of(&both, Some("other")), ["127.0.0.1:81"].map(at));
        assert_eq!(of(&both, Some("none")), []);
        assert_eq!(of(&stats(&[("http", "[::]:80", true)]), None), []);
        assert_eq!(of(&stats(&[("http", "192.0.2.1:80", false)]), None), []);
        let draining = Stats {
            accepting: false,
            ..both
        };
        assert_eq!(of(&draining, None), []);
    }
}
