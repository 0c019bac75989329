//! What a head that was written says in other fields than those that a router must know: read again in the rare case that it matters.
//!
//! **Invariant:** nothing is allocated, and nothing behind the head is looked at.

use super::tokens::trim;

/// The values of the fields of this name in a head that [`super::forward::request`] wrote, in their order; a body may follow it.
pub fn values<'a>(head: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    lines(head).filter_map(move |line| {
        let (own, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        own.eq_ignore_ascii_case(name.as_bytes())
            .then(|| trim(value))
    })
}

/// The value of the first cookie of this name that has one (RFC 6265 section 5.4: of several the one with the longest path comes first).
#[must_use]
pub fn cookie<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut pairs = values(head, "Cookie").flat_map(|line| line.split(|b| *b == b';').map(trim));
    pairs.find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// The lines of the fields, without their ends.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = head.split(|b| *b == b'\n').skip(1);
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"POST /slot=0 HTTP/1.1\r\nHost: a\r\nX-User: alice\r\nX-User-Id:7\r\ncookie: myslot=1; slot2=2;SLOT=3; slot =4\r\n\
        X-Empty:\r\nCookie: a=\"slot=5\"; slot=; b; slot=6;slot=7\r\nCookie: slot=8\r\n\r\nX-Late: 1\r\nCookie: late=9\r\n";

    #[test]
    fn a_field_is_found_by_its_whole_name_and_never_in_the_body() {
        let all = |name| values(HEAD, name).collect::<Vec<_>>();
        assert_eq!(all("x-user"), [b"alice"]);
        assert_eq!(all("X-User-Id"), [b"7"]);
        assert_eq!(all("X-Empty"), [b""]);
        assert!(all("X-Late").is_empty() && all("User").is_empty());
    }

    #[test]
    fn a_cookie_is_found_among_others_in_several_lines() {
        assert_eq!(cookie(HEAD, "slot"), Some(&b"6"[..]));
        assert_eq!(cookie(HEAD, "slot2"), Some(&b"2"[..]));
        assert_eq!(cookie(HEAD, "late"), None);
        assert_eq!(cookie(b"GET / HTTP/1.1\r\n\r\n", "slot"), None);
    }
}
