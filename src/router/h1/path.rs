//! The path that routes are matched on: as the most eager upstream could read the one that was sent.

use super::Refusal;
use std::borrow::Cow;

/// `path` with escapes decoded, repeated slashes merged and dot segments removed.
///
/// Reserved characters are decoded too (`%2F`): what matters is where a path *could* lead. A caller
/// that finds another app for this than for the raw path refuses the request.
///
/// # Errors
/// An escape that is not two hexadecimal digits, or an escaped NUL.
pub fn normalise(path: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    if !needs_work(path) {
        return Ok(Cow::Borrowed(path));
    }
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        let mut byte = *byte;
        if byte == b'%' {
            let escape = after
                .get(..2)
                .and_then(|d| Some((hex(d[0])? << 4) | hex(d[1])?));
            byte = escape
                .filter(|b| *b != 0)
                .ok_or(Refusal::bad("an escape in the path is malformed"))?;
            rest = &after[2..];
        }
        plain.push(if byte == b'\\' { b'/' } else { byte });
    }
    let mut clean = Vec::with_capacity(plain.len());
    let directory = plain.ends_with(b"/") || plain.ends_with(b"/.") || plain.ends_with(b"/..");
    for segment in plain.split(|b| *b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => clean.truncate(clean.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            _ => {
                clean.push(b'/');
                clean.extend_from_slice(segment);
            }
        }
    }
    if directory || clean.is_empty() {
        clean.push(b'/');
    }
    Ok(Cow::Owned(clean))
}

/// False for almost every path: then it is its own normal form.
fn needs_work(path: &[u8]) -> bool {
    let mut previous = 0;
    for byte in path {
        if matches!(byte, b'%' | b'\\') || previous == b'/' && matches!(byte, b'/' | b'.') {
            return true;
        }
        previous = *byte;
    }
    path.is_empty()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_an_upstream_might() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a/b"),
            ("//a", "/a"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2Fb", "/a/b"),
            ("/%61pi", "/api"),
            ("/a\\..\\b", "/b"),
            ("/a%5c..%5cb", "/b"),
            ("/.well-known", "/.well-known"),
            ("/a/", "/a/"),
            ("/a/.", "/a/"),
            ("", "/"),
        ] {
            assert_eq!(
                normalise(raw.as_bytes()).unwrap(),
                normal.as_bytes(),
                "{raw}"
            );
        }
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for bad in ["/%", "/%2", "/%zz", "/%00", "/%+1"] {
            assert!(normalise(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
