//! An IP address in writing, made where it is needed: a connection that waits has no use for one.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::ops::Deref;

/// The longest there is: eight groups of four digits, which are an IPv6 address (RFC 5952).
const MOST: usize = 39;

/// An address in writing.
#[derive(Clone, Copy)]
pub struct Spelled {
    bytes: [u8; MOST],
    length: u8,
}

impl Spelled {
    /// `address`; one of IPv4 that came by IPv6 is what it is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let mut out = Self {
            bytes: [0; MOST],
            length: 0,
        };
        match address.to_canonical() {
            // Each request says it, and by way of a formatter that takes ten times as long.
            IpAddr::V4(v4) => {
                for octet in v4.octets() {
                    let start = usize::from(out.length);
                    let (written, length) = OCTETS[usize::from(octet)];
                    out.bytes[start..start + 4].copy_from_slice(&written);
                    out.length += length;
                }
                // There is no dot behind the last one.
                out.length -= 1;
            }
            // There is always room.
            IpAddr::V6(v6) => _ = write!(out, "{v6}"),
        }
        out
    }

    /// Its characters.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Each octet in decimal with a dot behind it, and the length of that.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut all = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < all.len() {
        let (mut left, mut length) = (octet, 1 + (octet >= 10) as u8 + (octet >= 100) as u8);
        all[octet].0[length as usize] = b'.';
        all[octet].1 = length + 1;
        while length > 0 {
            length -= 1;
            all[octet].0[length as usize] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        octet += 1;
    }
    all
};

impl Write for Spelled {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = usize::from(self.length);
        let room = self.bytes.get_mut(start..start + text.len());
        room.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length += text.len() as u8;
        Ok(())
    }
}

impl Deref for Spelled {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 0, 255 - octet, octet);
            assert_eq!(*Spelled::of(address.into()), *address.to_string());
            let mapped = address.to_ipv6_mapped();
            assert_eq!(*Spelled::of(mapped.into()), *address.to_string());
        }
        for bits in [1, 0, u128::MAX, 0x2001_0db8 << 96 | 1, 0x1234 << 112] {
            let address = Ipv6Addr::from_bits(bits);
            assert_eq!(*Spelled::of(address.into()), *address.to_string());
        }
    }
}
