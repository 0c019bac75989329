//! Request targets and authorities (RFC 9112 section 3.2, RFC 3986 section 3.2).

use super::tokens::{alphanumeric_and, find};
use super::{Refusal, Span};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Path and query as they were written; empty if an absolute target had no path.
    pub origin: Span,
    /// The part of `origin` before the query.
    pub path: Span,
    /// The authority of an absolute target, which overrides `Host`.
    pub authority: Option<Span>,
}

/// Reads the target in `span`, which must be one for `method`.
///
/// # Errors
/// 414 over `most` bytes; 501 for CONNECT; 400 for the rest.
pub fn parse(buffer: &[u8], span: Span, method: &[u8], most: usize) -> Result<Target, Refusal> {
    let target = span.of(buffer);
    if target.len() > most {
        return Err(Refusal {
            status: 414,
            reason: "the request target is too long",
        });
    }
    if method == b"CONNECT" {
        return Err(Refusal {
            status: 501,
            reason: "CONNECT is not served",
        });
    }
    // The scan has refused control characters.
    if target.iter().fold(false, |bad, b| {
        bad | (*b >= 0x7f) | (*b == b'#') | (*b <= b' ')
    }) {
        return Err(Refusal::bad(
            "the request target has a fragment or a character outside ASCII",
        ));
    }
    let from = span.start as usize;
    match target.first() {
        Some(b'/') => Ok(origin(target, from, 0, None)),
        Some(b'*') if target.len() == 1 && method == b"OPTIONS" => Ok(Target {
            origin: span,
            path: span,
            authority: None,
        }),
        _ => absolute(target, from),
    }
}

fn origin(target: &[u8], from: usize, at: usize, authority: Option<Span>) -> Target {
    let query = find(b'?', &target[at..]).map_or(target.len(), |n| at + n);
    Target {
        origin: Span::new(from + at, from + target.len()),
        path: Span::new(from + at, from + query),
        authority,
    }
}

fn absolute(target: &[u8], from: usize) -> Result<Target, Refusal> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| {
            target
                .get(..s.len())
                .is_some_and(|t| t.eq_ignore_ascii_case(s))
        })
        .ok_or(Refusal::bad(
            "the request target is neither a path nor an http URI",
        ))?
        .len();
    let end = target[scheme..]
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .map_or(target.len(), |n| scheme + n);
    host(&target[scheme..end])?;
    if end == scheme {
        return Err(Refusal::bad("the request target has no host"));
    }
    Ok(origin(
        target,
        from,
        end,
        Some(Span::new(from + scheme, from + end)),
    ))
}

/// The host of `authority` without its port.
///
/// # Errors
/// User information, a list, a bad port, characters that no host has, or more of them than a name has.
pub fn host(authority: &[u8]) -> Result<&[u8], Refusal> {
    const BAD: Refusal = Refusal::bad("the host is not valid");
    // 253 for the name (RFC 1035 section 2.3.4), a final dot, a colon and five digits.
    if authority.len() > 260 {
        return Err(BAD);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix(b"[") {
        let end = memchr::memchr(b']', rest).ok_or(BAD)?;
        let literal = std::str::from_utf8(&rest[..end]).map_err(|_| BAD)?;
        literal.parse::<std::net::Ipv6Addr>().map_err(|_| BAD)?;
        (&authority[..end + 2], &rest[end + 1..])
    } else {
        let end = find(b':', authority).unwrap_or(authority.len());
        (&authority[..end], &authority[end..])
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if host.first() != Some(&b'[') && !host.iter().all(|b| HOST[usize::from(*b)]) || !port_is_valid
    {
        return Err(BAD);
    }
    if host.is_empty() && !port.is_empty() {
        Err(BAD)
    } else {
        Ok(host)
    }
}

/// The part of `authority`, which [`host`] let through, before its port.
#[must_use]
pub fn before_port(authority: &[u8]) -> &[u8] {
    let literal = match authority {
        [b'[', ..] => find(b']', authority).map_or(0, |n| n + 1),
        _ => 0,
    };
    let port = find(b':', &authority[literal..]);
    &authority[..port.map_or(authority.len(), |n| literal + n)]
}

/// Unreserved characters, sub-delims without the comma, and the percent of an escape.
static HOST: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+;=%");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, method: &str) -> Result<(String, String, Option<String>), u16> {
        let bytes = target.as_bytes();
        let text = |s: Span| String::from_utf8(s.of(bytes).to_vec()).unwrap();
        parse(bytes, Span::new(0, bytes.len()), method.as_bytes(), 64)
            .map(|t| (text(t.origin), text(t.path), t.authority.map(text)))
            .map_err(|r| r.status)
    }

    #[test]
    fn the_forms_of_a_target_are_told_apart() {
        assert_eq!(read("/a?b", "GET"), Ok(("/a?b".into(), "/a".into(), None)));
        assert_eq!(read("*", "OPTIONS"), Ok(("*".into(), "*".into(), None)));
        assert_eq!(
            read("HTTP://h:80/a?b", "GET"),
            Ok(("/a?b".into(), "/a".into(), Some("h:80".into())))
        );
        assert_eq!(
            read("http://h?b", "GET"),
            Ok(("?b".into(), String::new(), Some("h".into())))
        );
    }

    #[test]
    fn targets_in_no_form_are_refused() {
        for (target, method) in [
            ("*", "GET"),
            ("a", "GET"),
            ("", "GET"),
            ("h:80", "GET"),
            ("ftp://h/", "GET"),
            ("http:///a", "GET"),
            ("http://u@h/", "GET"),
            ("http://a,b/", "GET"),
            ("/a#b", "GET"),
            ("/\u{e9}", "GET"),
            ("**", "OPTIONS"),
        ] {
            assert_eq!(read(target, method), Err(400), "{target:?}");
        }
        assert_eq!(read("h:443", "CONNECT"), Err(501));
        assert_eq!(read(&format!("/{}", "a".repeat(64)), "GET"), Err(414));
    }

    #[test]
    fn hosts_are_names_addresses_or_literals() {
        for (good, bare) in [
            ("a.b:80", "a.b"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1", "127.0.0.1"),
            ("a:", "a"),
            ("", ""),
        ] {
            assert_eq!(host(good.as_bytes()), Ok(bare.as_bytes()), "{good}");
            assert_eq!(before_port(good.as_bytes()), bare.as_bytes(), "{good}");
        }
        for bad in [
            "u@h", "a,b", "a b", "a/b", "[::1", "[x]", "[::1]a", "a:b", "a:80:80", "a:123456",
            ":80", "a\"b", "\u{e9}",
        ] {
            assert!(host(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
