//! Spans of time as people write them: `30s`, `1m 30s`, `500ms`, `0`.

use std::time::Duration;

/// A span of at most a year, or nothing. Units as in systemd.time(7), a number before each; only zero needs none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after.trim_start();
    }
    let year = 365 * 86_400_000;
    (!text.is_empty() && total <= year).then(|| Duration::from_millis(total))
}

/// As systemd.time(7) reads it, in the largest unit that keeps it whole.
pub(crate) fn systemd(span: Duration) -> String {
    let millis = span.as_millis();
    if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_units() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1m 30s", 90_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_has_no_unit_or_no_number_is_no_span() {
        for text in [
            "",
            " ",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "5x",
            "400d",
            "99999999999999999999s",
            "1s,",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn systemd_gets_whole_seconds_where_it_can() {
        assert_eq!(systemd(Duration::from_secs(90)), "90s");
        assert_eq!(systemd(Duration::from_millis(1500)), "1500ms");
    }
}
