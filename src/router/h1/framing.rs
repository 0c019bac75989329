//! Where a body ends, from the head alone (RFC 9112 section 6).

use super::Refusal;
use super::fields::{Fields, Known};
use super::tokens::{decimal, is_token, members};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Whatever comes until the connection ends; only in a response.
    UntilClose,
}

/// What the head says of its body's length, without the rules that depend on method and status.
///
/// # Errors
/// Anything that two readers could understand differently.
pub fn declared(fields: &Fields, buffer: &[u8], version: u8) -> Result<Option<Framing>, Refusal> {
    let mut length = None;
    for value in fields.values(buffer, Known::ContentLength) {
        let number = decimal(value).ok_or(Refusal::bad("Content-Length is not a number"))?;
        if length.is_some_and(|before| before != number) {
            return Err(Refusal::bad(
                "Content-Length is given twice with different values",
            ));
        }
        length = Some(number);
    }
    let mut codings = fields.values(buffer, Known::TransferEncoding);
    let Some(coding) = codings.next() else {
        return Ok(length.map(Framing::Length));
    };
    if length.is_some() {
        return Err(Refusal::bad("both Content-Length and Transfer-Encoding"));
    }
    if version == 0 {
        return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
    }
    if codings.next().is_some() {
        return Err(Refusal::bad("Transfer-Encoding is given twice"));
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        Ok(Some(Framing::Chunked))
    } else {
        Err(unsupported(coding))
    }
}

/// 501 for a list of honest codings that end with `chunked` or have none, 400 for anything else.
fn unsupported(coding: &[u8]) -> Refusal {
    let count = members(coding).count();
    let honest = members(coding)
        .enumerate()
        .all(|(i, m)| is_token(m) && (i + 1 == count || !m.eq_ignore_ascii_case(b"chunked")));
    if honest {
        Refusal {
            status: 501,
            reason: "a transfer coding other than chunked",
        }
    } else {
        Refusal::bad("Transfer-Encoding is malformed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(head: &str, version: u8) -> Result<Option<Framing>, u16> {
        let buffer = format!("{head}\r\n\r\n");
        let mut fields = Fields::default();
        fields
            .parse(buffer.as_bytes(), 0, buffer.len(), 100)
            .unwrap();
        declared(&fields, buffer.as_bytes(), version).map_err(|r| r.status)
    }

    #[test]
    fn honest_framing_is_understood() {
        assert_eq!(of("Host: a", 1), Ok(None));
        assert_eq!(of("Content-Length: 5", 1), Ok(Some(Framing::Length(5))));
        assert_eq!(
            of("Content-Length: 5\r\ncontent-length:5", 1),
            Ok(Some(Framing::Length(5)))
        );
        assert_eq!(
            of("Transfer-Encoding: Chunked", 1),
            Ok(Some(Framing::Chunked))
        );
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for value in [
            "",
            "+5",
            "-5",
            "5 5",
            "5, 5",
            "5,5",
            "0x5",
            "5_0",
            "99999999999999999999",
            "five",
            "5;",
        ] {
            assert_eq!(
                of(&format!("Content-Length: {value}"), 1),
                Err(400),
                "{value:?}"
            );
        }
        assert_eq!(of("Content-Length: 5\r\nContent-Length: 6", 1), Err(400));
        assert_eq!(
            of("Content-Length: 5\r\nTransfer-Encoding: chunked", 1),
            Err(400)
        );
        assert_eq!(of("Transfer-Encoding: chunked", 0), Err(400));
    }

    #[test]
    fn codings_other_than_one_chunked_are_refused_by_kind() {
        for (value, status) in [
            ("gzip", 501),
            ("gzip, chunked", 501),
            ("identity", 501),
            ("xchunked", 501),
            ("chunked, chunked", 400),
            ("chunked, gzip", 400),
            ("\"chunked\"", 400),
            ("chunked;a=b", 400),
            ("", 400),
            (", chunked", 400),
            ("chunked,", 400),
            ("chun ked", 400),
        ] {
            assert_eq!(
                of(&format!("Transfer-Encoding: {value}"), 1),
                Err(status),
                "{value:?}"
            );
        }
        assert_eq!(
            of(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                1
            ),
            Err(400)
        );
        assert_eq!(
            of("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 1),
            Err(400)
        );
    }
}
