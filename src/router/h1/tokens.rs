//! Character classes of RFC 9110 section 5.6 and the comparison of names.

/// True for the characters of a token (RFC 9110 section 5.6.2).
pub static TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// A table of the ASCII letters and digits, and of these characters.
pub const fn alphanumeric_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut other = 0;
    while other < others.len() {
        table[others[other] as usize] = true;
        other += 1;
    }
    table
}

/// True if `bytes` is one token.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// True if no control character but a tab is in `bytes`.
#[must_use]
pub fn is_clean(bytes: &[u8]) -> bool {
    !bytes
        .iter()
        .fold(false, |bad, b| bad | (is_control(*b) & (*b != b'\t')))
}

/// True if no control character is in `bytes` but tabs, LF, and CR directly before LF. Written as a fold
/// without a way out so that the compiler makes vector instructions of it: every byte of every head goes
/// through here.
#[must_use]
pub fn are_clean_lines(bytes: &[u8]) -> bool {
    let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
    let bad = pairs.fold(false, |bad, (b, next)| {
        let ends_a_line = (*b == b'\n') | ((*b == b'\r') & (*next == b'\n'));
        bad | (is_control(*b) & (*b != b'\t') & !ends_a_line)
    });
    !bad && bytes.last().is_none_or(|b| *b == b'\n' || is_clean(&[*b]))
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20) | (byte == 0x7f)
}

/// `bytes` without spaces and tabs at its ends.
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, trimmed; an empty member is given as an empty slice.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim)
}

/// A decimal number of 1 to 19 digits and nothing else.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        // Signed 64 bits are what most other readers keep a length in.
        value
            .checked_mul(10)?
            .checked_add(digit)
            .filter(|v| *v <= i64::MAX as u64)
    })
}

/// Appends `value` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_digits_only_and_do_not_overflow() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "+5",
            "-5",
            " 5",
            "5 ",
            "0x5",
            "5,5",
            "9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for value in [0, 7, 10, 1024, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn a_cr_is_clean_only_before_its_lf() {
        for clean in ["", "\n", "\r\n", "a\r\nb\tc\r\n\r\n", "a\nb"] {
            assert!(are_clean_lines(clean.as_bytes()), "{clean:?}");
        }
        for bad in ["\r", "a\rb", "a\r\r\n", "\r\n\r", "a\0", "\0\r\n", "\x7f"] {
            assert!(!are_clean_lines(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn control_characters_other_than_tab_are_not_clean() {
        assert!(is_clean(b"a\tb \xc3\xa9"));
        for bad in (0..0x20).chain([0x7f]).filter(|b| *b != b'\t') {
            assert!(!is_clean(&[b'a', bad, b'b']), "{bad}");
        }
    }
}
