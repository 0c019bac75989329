//! slotd's API over TCP: whether it is to listen and does, for whom, and who could listen in.

use std::net::{IpAddr, SocketAddr};

use super::facts::{Facts, UnitFacts};
use super::finding::Finding;
use super::units::{REINSTALL, faults};

const UNIT: &str = "slotd-tcp.socket";

/// What PID 1 starts the socket by: it refuses to while slotd runs (systemd.socket(5)).
const RESTART: &str = "`systemctl restart slotd.service`: apps and routers do not notice";

pub(super) fn socket(facts: &Facts) -> Vec<Finding> {
    let Some(unit) = facts.units.get(UNIT) else {
        return Vec::new();
    };
    // Somebody wants to be sure that it never listens.
    if unit.load == "masked" {
        return Vec::new();
    }
    let mut found = faults(facts, UNIT, unit, REINSTALL);
    if !unit.is_loaded() {
        return found;
    }
    let wanted = unit.installed == "enabled";
    let slotd = facts.units.get("slotd.service");
    if unit.has_failed() {
        found.push(failed(facts, unit));
    } else if unit.is_up() {
        found.extend(listening(facts));
    } else if wanted && slotd.is_some_and(UnitFacts::is_up) {
        found.push(
            Finding::problem("tcp-down", UNIT, "is enabled, and does not listen")
                .because("nobody reaches slotd over TCP: the socket is started with slotd, and slotd was started before it was enabled")
                .mended_by(RESTART)
                .told_by(format!("journalctl -b -u {UNIT}")),
        );
    }
    found
}

fn failed(facts: &Facts, unit: &UnitFacts) -> Finding {
    let text = match facts.tcp.holders.as_slice() {
        [] => format!("has failed ({})", unit.result),
        holders => format!(
            "has failed ({}): its port is taken by {}",
            unit.result,
            holders.join(", ")
        ),
    };
    Finding::problem("tcp-failed", UNIT, text)
        .because("nobody reaches slotd over TCP")
        .mended_by(format!(
            "free its port, or give it another place (`systemctl edit {UNIT}`, with an empty `ListenStream=` and then your own); then \
             `systemctl reset-failed {UNIT}` and {RESTART}"
        ))
        .told_by(format!("journalctl -b -u {UNIT}"))
}

/// Of one that listens: those who may ask, and those who can.
fn listening(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    match &facts.tcp.tokens {
        Err(why) => found.push(Finding::unseen("tcp-tokens", UNIT, why)),
        Ok(tokens) => match &tokens.known {
            Err(why) => found.push(
                Finding::problem("tcp-tokens-wrong", "/etc/slot/api-tokens", format!("is wrong: {why}"))
                    .because("a slotd that has read it takes no token, not those of the other lines either: every request over TCP is answered 503")
                    .mended_by(format!("mend that line, then {RESTART}"))
                    .told_by("journalctl -b -u slotd"),
            ),
            Ok(_) if tokens.changed => found.push(
                Finding::warning("tcp-tokens-stale", "/etc/slot/api-tokens", "is another than when slotd read it")
                    .because("slotd takes the tokens that it had then: new ones are refused, and those that were taken out are not")
                    .mended_by(RESTART),
            ),
            Ok(0) => found.push(
                Finding::warning("tcp-tokens-none", UNIT, "listens, and slotd has no token to compare with")
                    .because("every request over TCP is answered 503")
                    .mended_by(format!(
                        "`slotctl token new --name NAME --scope read` prints a line for /etc/slot/api-tokens (root's, mode 0600), then {RESTART}; \
                         or, if nobody is to ask over TCP, `systemctl disable --now {UNIT}` before that"
                    )),
            ),
            Ok(_) => {}
        },
    }
    let open: Vec<&SocketAddr> = (facts.tcp.addresses.iter())
        .filter(|at| reach(at.ip()) == Reach::Anybody)
        .collect();
    for at in &open {
        found.push(
            Finding::warning("tcp-open", UNIT, format!("listens on {at}, which is not loopback"))
                .because(
                    "nothing is encrypted there: who sees the packets of a request has its token, and may deploy with it; and anybody who \
                     reaches the port may try tokens",
                )
                .mended_by(format!(
                    "`systemctl revert {UNIT}` has it listen on loopback, behind a server that has TLS, and `systemctl edit {UNIT}` at an \
                     address inside a VPN; then `systemctl stop {UNIT}` and {RESTART}"
                )),
        );
    }
    if found.is_empty() {
        let shown = |at: &SocketAddr| match reach(at.ip()) {
            Reach::Machine => at.to_string(),
            Reach::Network | Reach::Anybody => {
                format!("{at} (unencrypted: for a VPN or a network whose members you trust)")
            }
        };
        let places: Vec<String> = facts.tcp.addresses.iter().map(shown).collect();
        found.push(Finding::ok(
            "tcp",
            UNIT,
            format!("listens on {}, for who has a token", places.join(" and ")),
        ));
    }
    found
}

/// Who may come to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Processes of this machine.
    Machine,
    /// A network of somebody's own (RFC 1918, RFC 4193, RFC 6598, and link-local ones).
    Network,
    Anybody,
}

fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        ip if ip.is_loopback() => Reach::Machine,
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            match ip.is_private() || ip.is_link_local() || is_shared {
                true => Reach::Network,
                false => Reach::Anybody,
            }
        }
        IpAddr::V6(ip) => match ip.is_unique_local() || ip.is_unicast_link_local() {
            true => Reach::Network,
            false => Reach::Anybody,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_this_machine_of_a_network_or_of_anybody() {
        for (reached, addresses) in [
            (
                Reach::Machine,
                &["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"][..],
            ),
            (
                Reach::Network,
                &[
                    "10.0.0.7",
                    "192.168.1.1",
                    "100.64.0.1",
                    "fd00::1",
                    "169.254.1.1",
                ],
            ),
            (
                Reach::Anybody,
                &["0.0.0.0", "::", "192.0.2.1", "100.128.0.1", "2001:db8::1"],
            ),
        ] {
            for address in addresses {
                assert_eq!(reach(address.parse().unwrap()), reached, "{address}");
            }
        }
    }
}
