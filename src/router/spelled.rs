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
                let [first, rest @ ..] = v4.octets();
                out.number(first);
                for octet in rest {
                    out.push(b'.');
                    out.number(octet);
                }
            }
            // There is always room.
            IpAddr::V6(v6) => _ = write!(out, "{v6}"),
        }
        out
    }

    fn number(&mut self, number: u8) {
        if number >= 100 {
            self.push(b'0' + number / 100);
        }
        if number >= 10 {
            self.push(b'0' + number / 10 % 10);
        }
        self.push(b'0' + number % 10);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.length)] = byte;
        self.length += 1;
    }
}

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
        let bytes = &self.bytes[..usize::from(self.length)];
        std::str::from_utf8(bytes).unwrap_or_default()
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
