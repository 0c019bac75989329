//! Finding the end of a head in bytes that arrive in any pieces.
//!
//! **Invariant:** what a scan let through has CR LF and nothing else at the end of each line, and no
//! control character but tab anywhere: later stages rely on it and don't look again.
//!
//! **Invariant:** no byte is looked at more than twice, however the head was split.

use super::tokens::find_control;
use super::{Limits, Refusal, Span};

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// More bytes are needed.
    Partial,
    /// The head, from its first line to its empty line and with both.
    Whole(Span),
}

/// The progress of a search for the end of one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Where the head starts; 2 after an empty line that was skipped.
    start: usize,
    /// Where the line starts that is being searched.
    line: usize,
    /// Bytes before this one have been checked.
    checked: usize,
}

impl Scan {
    /// Looks at `bytes`, everything received so far of this head and perhaps of what follows it.
    ///
    /// One empty line before a request is skipped (RFC 9112 section 2.2) if `leading_line` allows it.
    ///
    /// # Errors
    /// A bare CR or LF, a control character, or more than [`Limits::head_bytes`].
    pub fn advance(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        leading_line: bool,
    ) -> Result<Scanned, Refusal> {
        // Only what fits is looked at, so that the verdict does not depend on how much came at once.
        let visible = &bytes[..bytes.len().min(limits.head_bytes)];
        // One search finds both where lines end and what must not be in them.
        while let Some(found) = find_control(&visible[self.checked..]) {
            let at = self.checked + found;
            match visible[at..] {
                [b'\t', ..] => {
                    self.checked = at + 1;
                    continue;
                }
                [b'\r', b'\n', ..] => {}
                // Its LF may still come.
                [b'\r'] => {
                    self.checked = at;
                    return self.partial(bytes, limits);
                }
                [b'\n', ..] => return Err(Refusal::bad("a line does not end with CR LF")),
                _ => return Err(Refusal::bad("a control character in the head")),
            }
            let empty = at == self.line;
            self.line = at + 2;
            self.checked = self.line;
            if !empty {
                continue;
            }
            if leading_line && at == 0 {
                self.start = self.line;
            } else if at == self.start {
                return Err(Refusal::bad("an empty line where a message should start"));
            } else {
                return Ok(Scanned::Whole(Span::new(self.start, self.line)));
            }
        }
        self.checked = visible.len();
        self.partial(bytes, limits)
    }

    /// The end is not there.
    fn partial(&self, bytes: &[u8], limits: &Limits) -> Result<Scanned, Refusal> {
        if bytes.len() < limits.head_bytes {
            Ok(Scanned::Partial)
        } else if self.line == self.start {
            Err(Refusal {
                status: 414,
                reason: "the request line is too long",
            })
        } else {
            Err(Refusal {
                status: 431,
                reason: "the head is too large",
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Scanned, Refusal> {
        Scan::default().advance(bytes, &Limits::default(), true)
    }

    /// The verdict when the bytes arrive one at a time.
    fn dribbled(bytes: &[u8]) -> Result<Scanned, Refusal> {
        let mut scan = Scan::default();
        for end in 0..=bytes.len() {
            match scan.advance(&bytes[..end], &Limits::default(), true) {
                Ok(Scanned::Partial) => {}
                verdict => return verdict,
            }
        }
        Ok(Scanned::Partial)
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\x00\n";
        assert_eq!(whole(head), Ok(Scanned::Whole(Span::new(0, 27))));
        assert_eq!(dribbled(head), whole(head));
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is() {
        for length in 0..80 {
            let head = format!("G\r\nA: {}\r\n\r\n", "a".repeat(length));
            let bytes = [head.as_bytes(), b"\r\r\n\r\n\x00"].concat();
            let end = Ok(Scanned::Whole(Span::new(0, head.len())));
            assert_eq!((whole(&bytes), dribbled(&bytes)), (end, end), "{length}");
        }
    }

    #[test]
    fn one_empty_line_before_a_request_is_skipped_and_a_second_is_not() {
        assert_eq!(
            whole(b"\r\nGET / HTTP/1.1\r\n\r\n"),
            Ok(Scanned::Whole(Span::new(2, 20)))
        );
        assert!(whole(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n").is_err());
        assert!(
            Scan::default()
                .advance(b"\r\nHTTP/1.1 200\r\n\r\n", &Limits::default(), false)
                .is_err()
        );
    }

    #[test]
    fn bare_line_ends_and_control_characters_are_refused_at_once_and_alike() {
        for bad in [
            &b"GET / HTTP/1.1\nHost: a\n\n"[..],
            b"\n",
            b"\r\r\n",
            b"a\rb",
            b"a\x00",
            b"a\x0b: b\r\n",
            b"\x16\x03\x01",
        ] {
            assert!(whole(bad).is_err(), "{bad:?}");
            assert_eq!(
                whole(bad).map_err(|r| r.status),
                dribbled(bad).map_err(|r| r.status),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_is_too_large_is_told_apart_by_its_line() {
        let limits = Limits {
            head_bytes: 64,
            ..Limits::default()
        };
        let line = [b'a'; 64];
        assert_eq!(
            Scan::default()
                .advance(&line, &limits, true)
                .map_err(|r| r.status),
            Err(414)
        );
        let mut fields = b"GET / HTTP/1.1\r\n".to_vec();
        fields.resize(64, b'a');
        assert_eq!(
            Scan::default()
                .advance(&fields, &limits, true)
                .map_err(|r| r.status),
            Err(431)
        );
    }
}
