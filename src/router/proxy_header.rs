//! The header of the PROXY protocol, versions 1 and 2: how a load balancer that forwards bytes says whose they are
//! (haproxy.org, proxy-protocol.txt).
//!
//! **Invariant:** no socket and no clock. For every way to split the same bytes the verdict is the same, and at most [`MOST`] of
//! them are looked at.
//!
//! **Invariant:** nothing is repaired: a header that is not exactly one of the two forms is refused, and the connection with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header: what version 2 tells about TLS fits in a few hundred bytes.
pub const MOST: usize = 4096;

/// The longest header of version 1, its CR LF included (section 2.1).
const MOST_TEXT: usize = 107;
const TEXT: &[u8] = b"PROXY ";
const BINARY: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const BINARY_HEAD: usize = 16;
/// The type of the additional value that is a CRC32c of the header (section 2.2.3).
const CHECKSUM: u8 = 3;

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Partial,
    /// All of it.
    Whole {
        /// Its length in bytes.
        length: usize,
        /// The client's address; none if the sender speaks for itself, as in its health checks.
        client: Option<IpAddr>,
    },
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Reads the header at the start of `bytes`, all that was received so far.
///
/// # Errors
/// It is none, or not exactly as it is written down.
pub fn read(bytes: &[u8]) -> Result<Header, Malformed> {
    if begins(bytes, TEXT) {
        text(bytes)
    } else if begins(bytes, BINARY) {
        binary(bytes)
    } else {
        Err(Malformed(
            "the connection does not begin with a PROXY header",
        ))
    }
}

/// True if `bytes` begin with `mark`, as far as they have come.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let common = bytes.len().min(mark.len());
    bytes[..common] == mark[..common]
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 56324 443` and CR LF.
fn text(bytes: &[u8]) -> Result<Header, Malformed> {
    let visible = &bytes[..bytes.len().min(MOST_TEXT)];
    let Some(end) = visible.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() {
            MOST_TEXT.. => Err(Malformed("the PROXY line has no end")),
            _ => Ok(Header::Partial),
        };
    };
    let malformed = Malformed("the PROXY line is malformed");
    let line = std::str::from_utf8(&visible[TEXT.len().min(end)..end]).map_err(|_| malformed)?;
    let mut words = line.split(' ');
    let client = match words.next() {
        // What follows is to be ignored (section 2.1).
        Some("UNKNOWN") if !line.bytes().any(|b| b.is_ascii_control()) => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || match (family, words.next()?) {
                ("TCP4", word) => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                (_, word) => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            };
            let (client, _here) = (address().ok_or(malformed)?, address().ok_or(malformed)?);
            let ports = [words.next(), words.next()];
            if !ports.iter().all(|port| port.is_some_and(is_port)) || words.next().is_some() {
                return Err(malformed);
            }
            Some(client)
        }
        _ => return Err(malformed),
    };
    Ok(Header::Whole {
        length: end + 2,
        client,
    })
}

/// A number of 0 to 65535 without leading zeros.
fn is_port(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_digit())
        && (word == "0" || !word.starts_with('0'))
        && word.parse::<u16>().is_ok()
}

fn binary(bytes: &[u8]) -> Result<Header, Malformed> {
    let Some(head) = bytes.get(..BINARY_HEAD) else {
        return Ok(Header::Partial);
    };
    let (command, family) = (head[12], head[13]);
    let length = BINARY_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MOST {
        return Err(Malformed("the PROXY header is too long"));
    }
    let addresses = match (command, family) {
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => Some(4),
        (0x21, 0x21) => Some(16),
        (0x20..=0x2f, _) => {
            return Err(Malformed("the PROXY header is not about a TCP connection"));
        }
        _ => return Err(Malformed("the PROXY header is of an unknown version")),
    };
    let Some(header) = bytes.get(..length) else {
        return Ok(Header::Partial);
    };
    let body = &header[BINARY_HEAD..];
    let Some(size) = addresses else {
        // What a sender adds about itself is to be skipped (section 2.2).
        return Ok(Header::Whole {
            length,
            client: None,
        });
    };
    // Two addresses and two ports, then additional values.
    let rest = body
        .get(2 * size + 4..)
        .ok_or(Malformed("the PROXY header has no room for its addresses"))?;
    check_values(header, length - rest.len())?;
    let mut octets = [0; 16];
    octets[..size].copy_from_slice(&body[..size]);
    let client = match size {
        4 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
        _ => IpAddr::from(octets),
    };
    Ok(Header::Whole {
        length,
        client: Some(client),
    })
}

/// That the additional values of `header`, from `at` on, fill it exactly, and that its checksum is right if it has one.
fn check_values(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while let [kind, high, low, rest @ ..] = &header[at..] {
        let value = usize::from(u16::from_be_bytes([*high, *low]));
        if rest.len() < value {
            break;
        }
        let from = at + 3;
        at = from + value;
        if *kind == CHECKSUM {
            // It is of the header with zeros in its own place.
            let found =
                crc32c(header.iter().enumerate().map(
                    |(i, b)| {
                        if (from..at).contains(&i) { 0 } else { *b }
                    },
                ));
            if header[from..at] != found.to_be_bytes() {
                return Err(Malformed("the checksum of the PROXY header is wrong"));
            }
        }
    }
    if at == header.len() {
        Ok(())
    } else {
        Err(Malformed("a value in the PROXY header is cut short"))
    }
}

/// CRC32c (RFC 3720 appendix B.4), bit by bit: a header comes once in the life of a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on all of `bytes`, which is that on them one at a time.
    fn verdict(bytes: &[u8]) -> Result<Header, Malformed> {
        let whole = read(bytes);
        let by_one = (0..=bytes.len())
            .map(|end| read(&bytes[..end]))
            .find(|seen| *seen != Ok(Header::Partial));
        assert_eq!(by_one.unwrap_or(Ok(Header::Partial)), whole, "{bytes:?}");
        whole
    }

    /// Whose connection it is, with a request behind the header.
    fn client(header: &[u8]) -> Result<Option<IpAddr>, Malformed> {
        match verdict(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat())? {
            Header::Whole { length, client } => {
                assert_eq!(length, header.len());
                Ok(client)
            }
            Header::Partial => panic!("{header:?} is not whole"),
        }
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [BINARY, &[command, family][..], &length, body].concat()
    }

    const PAIR_4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];

    #[test]
    fn both_versions_name_the_client() {
        for (line, address) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
                Some("192.0.2.7"),
            ),
            (
                "PROXY TCP6 2001:db8::7 ::1 0 65535\r\n",
                Some("2001:db8::7"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            assert_eq!(
                client(line.as_bytes()),
                Ok(address.map(|a| a.parse().unwrap())),
                "{line:?}"
            );
        }
        assert_eq!(
            client(&version_2(0x21, 0x11, PAIR_4)),
            Ok(Some([192, 0, 2, 7].into()))
        );
        let mut pair_6 = [0; 36];
        pair_6[0] = 0x20;
        pair_6[15] = 9;
        assert_eq!(
            client(&version_2(0x21, 0x21, &pair_6)),
            Ok(Some("2000::9".parse().unwrap()))
        );
        assert_eq!(client(&version_2(0x20, 0x00, b"")), Ok(None));
        assert_eq!(client(&version_2(0x20, 0x11, PAIR_4)), Ok(None));
        assert_eq!(client(&version_2(0x21, 0x00, b"anything")), Ok(None));
    }

    #[test]
    fn lines_that_are_not_exactly_right_are_refused_for_every_split() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n\r\n",
            "PROXY UNKNOWN \0\r\n",
            "PROXY UNKNOWN\n\r\n",
        ] {
            assert!(verdict(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MOST_TEXT));
        assert!(verdict(endless.as_bytes()).is_err());
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MOST_TEXT - 16));
        assert_eq!(client(longest.as_bytes()), Ok(None));
    }

    #[test]
    fn headers_of_version_2_are_filled_exactly() {
        let with = |more: &[u8]| version_2(0x21, 0x11, &[PAIR_4, more].concat());
        assert!(client(&with(&[4, 0, 0, 5, 0, 2, b'i', b'd'])).is_ok());
        for bad in [
            with(&[4]),
            with(&[4, 0]),
            with(&[4, 0, 1]),
            with(&[4, 0, 0, 5]),
            version_2(0x21, 0x11, &PAIR_4[..11]),
            version_2(0x21, 0x21, PAIR_4),
            version_2(0x21, 0x12, PAIR_4),
            version_2(0x21, 0x31, &[0; 216]),
            version_2(0x22, 0x11, PAIR_4),
            version_2(0x11, 0x11, PAIR_4),
            version_2(0x21, 0x00, &[0; MOST]),
            b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        ] {
            assert!(verdict(&bad).is_err(), "{bad:?}");
        }
        for end in 0..28 {
            assert_eq!(verdict(&with(b"")[..end]), Ok(Header::Partial));
        }
    }

    #[test]
    fn a_checksum_is_that_of_the_header() {
        // The test value of RFC 3720 for 32 zeros.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        let mut header = version_2(
            0x21,
            0x11,
            &[PAIR_4, &[CHECKSUM, 0, 4, 0, 0, 0, 0]].concat(),
        );
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert!(client(&header).is_ok());
        header[20] ^= 1;
        assert!(verdict(&header).is_err());
        let short = version_2(0x21, 0x11, &[PAIR_4, &[CHECKSUM, 0, 2, 0, 0]].concat());
        assert!(verdict(&short).is_err());
    }
}
