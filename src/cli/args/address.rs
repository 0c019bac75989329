//! Where a listener listens: a port of every address, or one address and a port.
//!
//! **Invariant:** however it is written, one place has one form, which is the one that systemd is given: `0443` would be an octal number to
//! it, and a listener that is named by two forms would be two.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As `ListenStream=` takes it (systemd.socket(5)): a port alone is one of every address.
    pub text: String,
    /// Of this machine, or unspecified; `::` is every one, of IPv4 too.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Reads one, in any of its forms.
///
/// # Errors
/// What to write, in a sentence.
pub fn address(text: &str) -> Result<Address, String> {
    const WRITE: &str = "write a port (443), or an address and a port (127.0.0.1:8081, [::1]:8081)";
    if text.contains('%') {
        return Err(format!(
            "an address of one interface (%) cannot be had: its scope is another number after a reboot; {WRITE}"
        ));
    }
    // `+443` is a number too, and nobody means it.
    let (ip, port) = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), text.parse().unwrap_or(0)),
        false => match text.parse::<SocketAddr>() {
            Ok(address) => (address.ip(), address.port()),
            Err(_) => return Err(WRITE.to_owned()),
        },
    };
    // `::ffff:127.0.0.1` is 127.0.0.1 (RFC 4291, section 2.5.5.2).
    let ip = ip.to_canonical();
    if port == 0 {
        return Err(WRITE.to_owned());
    }
    if let Some(kind) = unlistenable(ip) {
        return Err(format!("{ip} is {kind}; {WRITE}"));
    }
    let text = match ip {
        IpAddr::V6(ip) if ip.is_unspecified() => port.to_string(),
        ip => SocketAddr::new(ip, port).to_string(),
    };
    Ok(Address { text, ip, port })
}

/// What an address is that no connection comes to, or none that is not also named by its interface.
fn unlistenable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        ip if ip.is_multicast() => Some("a group's (multicast)"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("everybody's (broadcast)"),
        // RFC 4291, section 2.5.6; it means nothing without its scope.
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("link-local"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_port_or_an_address_with_one_and_each_has_one_form() {
        for (written, text, port) in [
            ("443", "443", 443),
            ("0443", "443", 443),
            ("[::]:443", "443", 443),
            ("[0:0::0]:0443", "443", 443),
            ("0.0.0.0:443", "0.0.0.0:443", 443),
            ("127.0.0.1:8081", "127.0.0.1:8081", 8081),
            ("127.0.0.1:08081", "127.0.0.1:8081", 8081),
            ("[::1]:8081", "[::1]:8081", 8081),
            ("[2001:DB8:0:0::0A]:80", "[2001:db8::a]:80", 80),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", 80),
            ("[::FFFF:7f00:1]:80", "127.0.0.1:80", 80),
            ("[::ffff:0.0.0.0]:80", "0.0.0.0:80", 80),
        ] {
            let read = address(written).unwrap_or_else(|why| panic!("{written}: {why}"));
            assert_eq!((read.text.as_str(), read.port), (text, port), "{written}");
            // What is read again is the same.
            assert_eq!(address(&read.text), Ok(read));
        }
    }

    #[test]
    fn what_is_no_place_to_listen_is_refused_whole() {
        for wrong in [
            "",
            "0",
            "65536",
            "127.0.0.1:0",
            "http",
            "localhost:80",
            "127.0.0.1",
            "127.0.0.01:80",
            "127.1:80",
            "0x7f.0.0.1:80",
            "80 81",
            "::1",
            "::1:80",
            "+443",
            "[::1]",
        ] {
            let why = address(wrong).expect_err(wrong);
            assert!(why.starts_with("write a port"), "{wrong:?}: {why}");
        }
        for (wrong, kind) in [
            ("[fe80::1%2]:80", "one interface"),
            ("[fe80::1%eth0]:80", "one interface"),
            ("[fe80::1]:80", "link-local"),
            ("224.0.0.1:80", "multicast"),
            ("[ff02::1]:80", "multicast"),
            ("[::ffff:224.0.0.1]:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
        ] {
            let why = address(wrong).expect_err(wrong);
            assert!(
                why.contains(kind) && why.contains("write a port"),
                "{wrong:?}: {why}"
            );
        }
    }
}
