//! Answers of the router's own: refusals, and what it says when a slot does not answer.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use super::h1::Refusal;
use super::h1::tokens::push_decimal;
use super::told::Limit;
use crate::wire::date::civil;

/// What the router says instead of a slot. The body is `{"error": "…"}`, and a `Proxy-Status` (RFC 9209) tells it from an app's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// One sentence.
    pub reason: &'static str,
    /// True if the client should try again soon (`Retry-After`).
    pub retry: bool,
    /// True if the connection can be used on: the request was sound and has no body left to read.
    pub keep: bool,
    /// The limit that was met, if the log is still to be told.
    pub limit: Option<Limit>,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            reason: refusal.reason,
            retry: false,
            keep: false,
            limit: Limit::of_status(refusal.status),
        }
    }
}

impl Answer {
    /// An answer to a sound request.
    pub const fn to_sound(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            retry: status == 503,
            keep: true,
            limit: None,
        }
    }

    /// This, because `limit` was met.
    pub const fn of_limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Appends it to `out`; without its body if `to_head`.
    pub fn write(self, out: &mut Vec<u8>, date: &Date, to_head: bool, close: bool) {
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(phrase(self.status).as_bytes());
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&date.now());
        out.extend_from_slice(b"\r\nProxy-Status: slot; error=");
        out.extend_from_slice(error_type(self.status).as_bytes());
        out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        // {"error":"…"} and a line feed.
        push_decimal(out, self.reason.len() as u64 + 13);
        if self.retry {
            out.extend_from_slice(b"\r\nRetry-After: 1");
        }
        if close {
            out.extend_from_slice(b"\r\nConnection: close");
        }
        out.extend_from_slice(b"\r\n\r\n");
        if !to_head {
            out.extend_from_slice(b"{\"error\":\"");
            out.extend_from_slice(self.reason.as_bytes());
            out.extend_from_slice(b"\"}\n");
        }
    }
}

/// What kind of error it is to the next intermediary, and to whoever asks whether it was the app that answered (RFC 9209, section 2.3).
fn error_type(status: u16) -> &'static str {
    match status {
        404 => "destination_not_found",
        502 | 503 => "destination_unavailable",
        504 => "http_response_timeout",
        508 => "proxy_loop_detected",
        _ => "http_request_error",
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

/// The date as HTTP writes it (RFC 9110 section 5.6.7), made once a second.
#[derive(Debug, Default)]
pub struct Date {
    made: Cell<Option<(u64, [u8; 29])>>,
}

impl Date {
    /// Now.
    pub fn now(&self) -> [u8; 29] {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        match self.made.get() {
            Some((made, text)) if made == seconds => text,
            _ => {
                let text = imf_fixdate(seconds);
                self.made.set(Some((seconds, text)));
                text
            }
        }
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(seconds: u64) -> [u8; 29] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let names = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        names[(days % 7) as usize],
        months[(month - 1) as usize],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    );
    text.as_bytes().try_into().unwrap_or([b' '; 29])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_http_writes_them() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        ] {
            assert_eq!(imf_fixdate(seconds), *text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_a_whole_message() {
        let mut out = Vec::new();
        Answer::to_sound(503, "later").write(&mut out, &Date::default(), false, true);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\nDate: "));
        assert!(head.ends_with(&format!(
            "Content-Length: {}\r\nRetry-After: 1\r\nConnection: close",
            body.len()
        )));
        assert_eq!(body, "{\"error\":\"later\"}\n");
    }
}
