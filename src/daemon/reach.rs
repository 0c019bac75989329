//! That requests reach the active slot the way that clients take: through the public listener.
//!
//! **Invariant:** what cannot be found out is no failure: no router answers, or its listeners take only what a load balancer sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::live::Live;
use super::units::Units;
use crate::config::App;
use crate::deploy::Route;
use crate::probe::{Address, Answer, ask};
use crate::wire::control::{Listener, Stats};

/// How long it is tried.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

impl<U: Units> Live<U> {
    /// Asks the app through a public listener, once the routers have its table.
    ///
    /// # Errors
    /// What the last answer was, and where it was asked for.
    pub(super) async fn reached(&self, route: &Route) -> Result<(), String> {
        if !route.ready || route.active.is_none() {
            return Ok(());
        }
        let told = self.tables.routers().stats().await.unwrap_or_default();
        let stats = told.into_iter().filter_map(|(_, stats)| stats.ok());
        let Some(at) = public(stats, self.app.listener.as_deref()) else {
            return Ok(());
        };
        let (host, path, is_health) = target(&self.app);
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = ask(&Address::Tcp(at), &host, &path, left).await;
            let why = match answer {
                Ok(answer) if serves(&answer, is_health) => return Ok(()),
                Ok(answer) => answer.to_string(),
                Err(none) => none.to_string(),
            };
            if until <= Instant::now() + AGAIN {
                return Err(format!(
                    "asked for {path} of {host} at the public listener {at}: {why}; `slotctl status` shows the routers, \
                     `journalctl -u 'slot-router@*'` what they say"
                ));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Where a client of this machine reaches the app.
fn public(routers: impl Iterator<Item = Stats>, listener: Option<&str>) -> Option<SocketAddr> {
    routers
        .filter(|stats| stats.accepting)
        .flat_map(|stats| stats.listeners)
        .filter(|it: &Listener| !it.proxied && listener.is_none_or(|name| it.name == name))
        .find_map(|it| it.address.parse::<SocketAddr>().ok())
        .map(|mut at| {
            match at.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => at.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => at.set_ip(Ipv6Addr::LOCALHOST.into()),
                IpAddr::V4(_) | IpAddr::V6(_) => {}
            }
            at
        })
        // slotd may speak to nobody else (its unit's IPAddressAllow=).
        .filter(|at| at.ip().is_loopback())
}

/// Host and path of a request that is the app's, and whether they are those of its health.
fn target(app: &App) -> (String, String, bool) {
    let host = app.hosts.first().map_or("*", String::as_str);
    let host = match host {
        "*" => "localhost".to_owned(),
        host => host.replacen('*', "slot-probe", 1),
    };
    let own_port = app.ports.values().any(|ports| ports.internal != ports.port);
    let covers = |prefix: &String| {
        let rest = app.health.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    if !own_port && app.paths.iter().any(covers) {
        return (host, app.health.clone(), true);
    }
    let path = app.paths.first().cloned().unwrap_or_else(|| "/".to_owned());
    (host, path, false)
}

/// Whether an answer came from the slot. A path that is not that of health may answer what it likes; the router's own refusals have
/// one form.
fn serves(answer: &Answer, is_health: bool) -> bool {
    if is_health {
        return answer.passes();
    }
    !(answer.status.is_server_error() && answer.line.starts_with("{\"error\":"))
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
                "/api/up",
                true,
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
        let of = |stats: &Stats, name| public([stats.clone()].into_iter(), name);
        assert_eq!(of(&both, None), "[::1]:80".parse().ok());
        assert_eq!(of(&both, Some("other")), "127.0.0.1:81".parse().ok());
        assert_eq!(of(&both, Some("none")), None);
        assert_eq!(of(&stats(&[("http", "[::]:80", true)]), None), None);
        assert_eq!(of(&stats(&[("http", "192.0.2.1:80", false)]), None), None);
        let draining = Stats {
            accepting: false,
            ..both
        };
        assert_eq!(of(&draining, None), None);
    }
}
