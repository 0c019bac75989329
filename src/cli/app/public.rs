//! The public socket, slot-router.socket: whether it can be had, and who has its port otherwise.

use super::super::exit::Exit;
use super::super::listeners::{Holder, holders};
use super::systemctl;

/// The unit.
const SOCKET: &str = "slot-router.socket";

/// Checks that the public ports are ours or free.
///
/// # Errors
/// Naming who has one, and the ways out.
pub fn check() -> anyhow::Result<()> {
    if systemctl(&["is-active", SOCKET]).is_ok() {
        return Ok(());
    }
    let listen = systemctl(&["show", "--property=Listen", "--value", SOCKET])?;
    for port in ports(&listen) {
        let holders = holders(port);
        if let Some(router) = holders.iter().find_map(own_router) {
            return Err(Exit::Failed.because(stranded(port, router)));
        }
        if !holders.is_empty() {
            return Err(Exit::Failed.because(taken(port, &holders)));
        }
    }
    Ok(())
}

/// The unit, if the holder is one of slot's routers.
fn own_router(holder: &Holder) -> Option<&str> {
    let unit = holder.unit.as_deref()?;
    unit.starts_with("slot-router@").then_some(unit)
}

/// A router has the socket, and systemd does not: it closed its own when somebody stopped that alone.
fn stranded(port: u16, router: &str) -> String {
    format!(
        "slot-router.socket does not listen, while {router} still serves port {port} with the socket that it was given; nothing was \
         changed.\n`systemctl restart slot-router.socket` gives both a new one: what is in flight may end first, for 30 seconds at most, \
         and there is a moment in which nobody listens. Then run this again."
    )
}

/// Where the public socket can be reached from this machine: `http://127.0.0.1/`.
#[must_use]
pub fn addresses() -> Vec<String> {
    let listen = systemctl(&["show", "--property=Listen", "--value", SOCKET]).unwrap_or_default();
    ports(&listen)
        .map(|port| match port {
            80 => "http://127.0.0.1/".to_owned(),
            port => format!("http://127.0.0.1:{port}/"),
        })
        .collect()
}

/// The names of the listeners that the router gets: `FileDescriptorName=` of every socket that `Sockets=` in its unit names.
///
/// # Errors
/// systemd does not say.
pub fn listeners() -> anyhow::Result<Vec<String>> {
    let sockets = sockets()?;
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let mut words = vec!["show", "--property=FileDescriptorName", "--value"];
    words.extend(sockets.iter().map(String::as_str));
    let names = systemctl(&words)?;
    Ok(names.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Every socket that `Sockets=` in the router's unit names.
///
/// # Errors
/// systemd does not say.
pub fn sockets() -> anyhow::Result<Vec<String>> {
    // It is there as its effect on the other side (systemd.service(5)).
    let sockets = systemctl(&[
        "show",
        "--property=TriggeredBy",
        "--value",
        "slot-router@1.service",
    ])?;
    let sockets = sockets.split_ascii_whitespace().map(str::to_owned);
    Ok(sockets.collect())
}

/// The ports in `[::]:80 (Stream)`, one address on each line.
pub fn ports(listen: &str) -> impl Iterator<Item = u16> {
    listen
        .split_ascii_whitespace()
        .filter_map(|word| word.rsplit_once(':')?.1.parse().ok())
}

/// Says who has the port and what can be done.
fn taken(port: u16, holders: &[Holder]) -> String {
    let who: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let unit = holders
        .iter()
        .find_map(|holder| holder.unit.as_deref())
        .unwrap_or("that server");
    let proxy = match holders.first().map(|holder| holder.command.as_str()) {
        Some("nginx") => {
            "in nginx, `map $http_upgrade $connection_upgrade { default upgrade; '' close; }` and, in its `server`, \
             `location / { proxy_pass http://127.0.0.1:8080; proxy_http_version 1.1; proxy_set_header Host $host; \
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; proxy_buffering off; }`"
        }
        Some("caddy") => "in a Caddyfile, `reverse_proxy 127.0.0.1:8080`",
        Some("apache2" | "httpd") => {
            "in Apache, `ProxyPass / http://127.0.0.1:8080/ upgrade=websocket` and `ProxyPreserveHost On`"
        }
        Some("haproxy") => "in HAProxy, `server slot 127.0.0.1:8080`",
        _ => "let that server forward to http://127.0.0.1:8080",
    };
    format!(
        "port {port} is taken by {}, so slot-router.socket cannot listen there; nothing was changed.\n\
         Either stop it: `systemctl disable --now {unit}`.\n\
         Or let slot listen elsewhere: `systemctl edit slot-router.socket`, write\n\
         \x20   [Socket]\n\
         \x20   ListenStream=\n\
         \x20   ListenStream=8080\n\
         and run this again.\n\
         Or put slot behind it: the same with `ListenStream=127.0.0.1:8080`, and {proxy}; for the app to learn whom that server serves,\n\
         \x20   write `trusted_peers = [\"127.0.0.1\"]` under `[router]` in /etc/slot/machine.toml.",
        who.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../../README.md");

    #[test]
    fn ports_are_read_from_every_address() {
        let listen = "0.0.0.0:80 (Stream)\n[::]:8080 (Stream)\n/run/x.sock (Stream)\n";
        assert_eq!(ports(listen).collect::<Vec<_>>(), [80, 8080]);
    }

    #[test]
    fn who_has_the_port_is_named_with_the_ways_out() {
        let holder = Holder {
            pid: 42,
            command: "nginx".to_owned(),
            unit: Some("nginx.service".to_owned()),
        };
        let text = taken(80, &[holder]);
        for part in [
            "port 80 is taken by nginx (pid 42, nginx.service)",
            "systemctl disable --now nginx.service",
            "ListenStream=\n    ListenStream=8080",
            "proxy_pass http://127.0.0.1:8080",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_nginx_is_to_do_is_the_same_here_and_in_the_readme() {
        let holder = Holder {
            pid: 42,
            command: "nginx".to_owned(),
            unit: None,
        };
        let text = taken(80, &[holder]);
        let (_, block) = README.split_once("```nginx\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let lines = block.lines().map(str::trim);
        let own: Vec<_> = lines
            .filter(|line| line.starts_with("proxy_") || line.starts_with("map "))
            .collect();
        assert!(own.len() > 6, "{own:?}");
        for line in own {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
