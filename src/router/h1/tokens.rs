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

/// Where the first control character is, which may be a tab. Every byte of every head goes through here.
#[must_use]
pub fn find_control(bytes: &[u8]) -> Option<usize> {
    let below = |word: u64| word.wrapping_sub(ONES * 0x20) & !word;
    let hits = |word| below(word) | zero(word ^ (ONES * 0x7f));
    first(bytes, hits, is_control)
}

/// Where `byte` is first, in something that is short as a rule: there [`memchr::memchr`], which is made for
/// long ones, takes longer to begin than this takes to end.
#[must_use]
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let wanted = ONES * u64::from(byte);
    first(bytes, |word| zero(word ^ wanted), |b| b == byte)
}

/// A one in each byte.
const ONES: u64 = u64::MAX / 0xff;

/// The lowest of its bytes' highest bits that is set is that of the first byte that is zero.
fn zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

/// Where the first byte is that `is` wanted, eight at a time: of the highest bits of a word's bytes, the lowest that
/// `hits` leaves set must be that of the first such byte.
#[inline(always)]
fn first(bytes: &[u8], hits: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = bytes.as_chunks();
    for (number, word) in words.iter().enumerate() {
        let hits = hits(u64::from_le_bytes(*word)) & (ONES * 0x80);
        if hits != 0 {
            return Some(number * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|b| is(*b))?;
    Some(words.len() * 8 + found)
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20) | (byte == 0x7f)
}

/// True if `bytes` are `text` in any case. It is quickest if they are `text` exactly.
#[inline]
#[must_use]
pub fn is(bytes: &[u8], text: &[u8]) -> bool {
    bytes == text || bytes.eq_ignore_ascii_case(text)
}

/// `bytes` without spaces and tabs at its start.
#[must_use]
pub fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// `bytes` without spaces and tabs at its end.
#[must_use]
pub fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `bytes` without spaces and tabs at its ends.
#[must_use]
pub fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
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
    fn the_first_of_several_is_found_wherever_it_is() {
        for byte in 0..=u8::MAX {
            let other = if byte == b'a' { b'b' } else { b'a' };
            for at in 0..20 {
                // What is next to it, also beside what is almost it, must not be taken for it.
                let near = [byte.wrapping_add(1), byte ^ 0x80, byte];
                let bytes = [&vec![other; at][..], &[byte], &near, &[other; 9]].concat();
                assert_eq!(find(byte, &bytes), Some(at), "{byte} at {at}");
                let plain = bytes.iter().position(|b| is_control(*b));
                assert_eq!(find_control(&bytes), plain, "{byte} at {at}");
            }
            assert_eq!(find(byte, &[other; 17]), None);
        }
        assert_eq!(find_control("a b~\u{e9}\u{80}\u{ff} abc".as_bytes()), None);
    }

    #[test]
    fn control_characters_other_than_tab_are_not_clean() {
        assert!(is_clean(b"a\tb \xc3\xa9"));
        for bad in (0..0x20).chain([0x7f]).filter(|b| *b != b'\t') {
            assert!(!is_clean(&[b'a', bad, b'b']), "{bad}");
        }
    }
}
