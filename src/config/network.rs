//! A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.

use std::net::IpAddr;
use std::str::FromStr;

/// Addresses with a common prefix (RFC 4632 section 3.1, RFC 4291 section 2.3). IPv4 addresses are those that IPv6 maps them to, so
/// that a client is found whichever way a socket writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    mask: u128,
}

impl Network {
    /// True if `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }

    /// True if every IPv4 or every IPv6 address is in it.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        let all_v4 = [0, u8::MAX].map(|octet| IpAddr::from([octet; 4]));
        self.mask == 0 || all_v4.iter().all(|address| self.contains(*address))
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .to_bits()
}

impl FromStr for Network {
    /// What to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "write an address, or a block of them: \"192.0.2.7\", \"10.0.0.0/8\", \"2001:db8::/32\"";
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| RULE)?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let length = match prefix {
            "" if !text.contains('/') => width,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| RULE)?
            }
            _ => return Err(RULE.to_owned()),
        };
        let free = width.checked_sub(length).ok_or(RULE)?;
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        let all = bits(address);
        if all & !mask != 0 {
            // A typing error: the block that was meant could be longer or shorter.
            return Err(format!(
                "{text:?} has bits behind its first {length}; set them to zero, or write the address alone"
            ));
        }
        Ok(Self { bits: all, mask })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(block: &str, address: &str) -> bool {
        let block: Network = block.parse().unwrap();
        block.contains(address.parse().unwrap())
    }

    #[test]
    fn a_block_has_the_addresses_with_its_prefix() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.1"),
        ] {
            assert!(has(block, inside), "{block} has {inside}");
            assert!(!has(block, outside), "{block} does not have {outside}");
        }
        assert!(has("0.0.0.0/0", "203.0.113.9") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("::/0", "203.0.113.9"));
        for (block, everyone) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("::ffff:0.0.0.0/96", true),
            ("0.0.0.0/1", false),
            ("2001:db8::/32", false),
        ] {
            let block: Network = block.parse().unwrap();
            assert_eq!(block.is_everyone(), everyone, "{block:?}");
        }
        assert!(
            has("10.0.0.0/8", "::ffff:10.0.0.1"),
            "however it is written"
        );
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for bad in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "a.example",
            "10.0.0.1/8",
            "2001:db8::1/32",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/ 8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }
}
