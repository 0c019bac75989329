//! Header and trailer fields: splitting lines into names and values, and knowing the names that matter.
//!
//! **Invariant:** a name is a token directly followed by its colon; a line is one field (no folding).

use super::tokens::{TOKEN, find, is, is_token, members, trim_end, trim_start};
use super::{Refusal, Span};

/// The fields that a router treats in some special way, by their names.
#[allow(missing_docs, reason = "each variant is the name of its field")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Accept,
    Connection,
    ContentLength,
    ContentType,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyConnection,
    /// What only the router is to see.
    SlotPreview,
    Te,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    /// Any other `X-Forwarded-…`, and `X-Real-IP`: what only a proxy says of a client.
    XForwardedOther,
    XRequestId,
    /// An underscore stands for a hyphen of a protected name: `X_Forwarded_For`. Many servers
    /// (CGI, WSGI) take the two for the same, so it would slip past what is overwritten.
    Alias,
    Other,
}

/// How the names begin of fields that only a proxy writes.
const FORWARDED: &[u8] = b"X-Forwarded-";

impl Known {
    /// What is known about `name`, whatever its case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // By length and first letter it is one of them or none.
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        let known = match (name.len(), first) {
            (2, b't') if is(name, b"TE") => Self::Te,
            (3, b'v') if is(name, b"Via") => Self::Via,
            (4, b'h') if is(name, b"Host") => Self::Host,
            (4, b'd') if is(name, b"Date") => Self::Date,
            (6, b'a') if is(name, b"Accept") => Self::Accept,
            (6, b'e') if is(name, b"Expect") => Self::Expect,
            (7, b'u') if is(name, b"Upgrade") => Self::Upgrade,
            (9, b'f') if is(name, b"Forwarded") => Self::Forwarded,
            (9, b'x') if is(name, b"X-Real-IP") => Self::XForwardedOther,
            (10, b'c') if is(name, b"Connection") => Self::Connection,
            (10, b'k') if is(name, b"Keep-Alive") => Self::KeepAlive,
            (12, b'c') if is(name, b"Content-Type") => Self::ContentType,
            (12, b'x') if is(name, b"X-Request-Id") => Self::XRequestId,
            (12, b's') if is(name, b"Slot-Preview") => Self::SlotPreview,
            (14, b'c') if is(name, b"Content-Length") => Self::ContentLength,
            (14, b'h') if is(name, b"HTTP2-Settings") => Self::Http2Settings,
            (15, b'x') if is(name, b"X-Forwarded-For") => Self::XForwardedFor,
            (16, b'x') if is(name, b"X-Forwarded-Host") => Self::XForwardedHost,
            (16, b'p') if is(name, b"Proxy-Connection") => Self::ProxyConnection,
            (17, b'x') if is(name, b"X-Forwarded-Proto") => Self::XForwardedProto,
            (17, b't') if is(name, b"Transfer-Encoding") => Self::TransferEncoding,
            (13.., b'x') if is(&name[..FORWARDED.len()], FORWARDED) => Self::XForwardedOther,
            _ => Self::Other,
        };
        if known == Self::Other && name.contains(&b'_') {
            Self::unmasked(name)
        } else {
            known
        }
    }

    fn unmasked(name: &[u8]) -> Self {
        let hyphens: Vec<u8> = name
            .iter()
            .map(|b| if *b == b'_' { b'-' } else { *b })
            .collect();
        if Self::of(&hyphens).is_protected() {
            Self::Alias
        } else {
            Self::Other
        }
    }

    /// True if it is known by a part of the name at most, whatever the rest is.
    fn leaves_open(self) -> bool {
        matches!(self, Self::Other | Self::Alias | Self::XForwardedOther)
    }

    /// Its place in a set of those that are there.
    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// True for fields that `Connection` cannot nominate away and a trailer cannot bring: those that
    /// frame or route a message, and those in which the router tells the upstream about the client.
    #[must_use]
    pub fn is_protected(self) -> bool {
        matches!(
            self,
            Self::ContentLength
                | Self::TransferEncoding
                | Self::Host
                | Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedProto
                | Self::XForwardedOther
                | Self::XRequestId
                | Self::SlotPreview
                | Self::Via
        )
    }

    /// True for fields that speak of one connection only (RFC 9110 section 7.6.1).
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }
}

/// One field of a head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name as it was written.
    pub name: Span,
    /// The value without white space at its ends.
    pub value: Span,
    /// The whole line with its CR LF.
    pub line: Span,
    /// What the name means to a router.
    pub known: Known,
}

impl Field {
    /// Splits the line that `rest` begins with, at `at` in its buffer. It ends with the first CR, and the LF behind that.
    ///
    /// # Errors
    /// An empty or malformed name, space before the colon, a folded line.
    #[inline]
    pub fn parse(rest: &[u8], at: usize) -> Result<Self, Refusal> {
        let colon = find(b':', rest).ok_or_else(|| malformed(rest))?;
        let (name, rest_of_line) = rest.split_at(colon);
        let known = Known::of(name);
        // Who is known by the whole name has one that is a token. So this is of one line: none has a CR.
        if known.leaves_open() && !is_token(name) {
            return Err(malformed(rest));
        }
        let end = colon + find(b'\r', rest_of_line).ok_or_else(|| malformed(rest))?;
        let value = trim_start(&rest[colon + 1..end]);
        let start = at + end - value.len();
        Ok(Self {
            name: Span::new(at, at + colon),
            value: Span::new(start, start + trim_end(value).len()),
            line: Span::new(at, at + end + 2),
            known,
        })
    }

    /// True if the line reads `Name: value` exactly, and so can be passed on as it is.
    #[must_use]
    pub fn is_plain(&self, buffer: &[u8]) -> bool {
        self.value.start == self.name.end + 2
            && buffer[self.name.end as usize + 1] == b' '
            && self.value.end + 2 == self.line.end
    }
}

/// Why the line that `rest` begins with is no field.
#[cold]
fn malformed(rest: &[u8]) -> Refusal {
    let name = rest.iter().take_while(|b| TOKEN[usize::from(**b)]).count();
    Refusal::bad(match rest.get(name) {
        Some(b':') => "a field has no name",
        Some(b' ' | b'\t') if name == 0 => "a folded line, or white space before a field",
        Some(b' ' | b'\t') => "white space between a field's name and its colon",
        _ => "a field's name is not a token",
    })
}

/// The fields of one head, in a list that is kept for the next one.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    /// What is known of them, one bit each: most of what is asked for is not there.
    there: u32,
}

impl Fields {
    /// Splits the lines of `buffer` from `from` up to the empty line that ends at `end`.
    ///
    /// # Errors
    /// As for [`Field::parse`], or more than `most` fields.
    pub fn parse(
        &mut self,
        buffer: &[u8],
        from: usize,
        end: usize,
        most: usize,
    ) -> Result<(), Refusal> {
        self.list.clear();
        self.there = 0;
        let mut at = from;
        while at < end - 2 {
            if self.list.len() == most {
                return Err(Refusal {
                    status: 431,
                    reason: "too many header fields",
                });
            }
            let field = Field::parse(&buffer[at..end], at)?;
            self.there |= field.known.bit();
            self.list.push(field);
            at = field.line.end as usize;
        }
        Ok(())
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.list.iter()
    }

    /// True if there is one that is `known`.
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        self.there & known.bit() != 0
    }

    /// The values of the fields that are `known`, in their order.
    pub fn values<'b>(&self, buffer: &'b [u8], known: Known) -> impl Iterator<Item = &'b [u8]> {
        let list = match self.has(known) {
            true => self.list.as_slice(),
            false => &[],
        };
        list.iter()
            .filter(move |f| f.known == known)
            .map(|f| f.value.of(buffer))
    }

    /// True if a list field `known` has the member `wanted`, whatever its case.
    #[inline]
    #[must_use]
    pub fn lists(&self, buffer: &[u8], known: Known, wanted: &str) -> bool {
        let lists = |value| members(value).any(|m| is(m, wanted.as_bytes()));
        self.has(known) && self.values(buffer, known).any(lists)
    }
}

/// What the `Connection` fields of a head say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// Some other field is nominated, and must be looked for.
    pub nominates: bool,
}

impl Connection {
    /// Reads them; anything but tokens is ignored, as it can name nothing.
    #[must_use]
    pub fn of(fields: &Fields, buffer: &[u8]) -> Self {
        let mut said = Self::default();
        for value in fields.values(buffer, Known::Connection) {
            // Most say one thing.
            match find(b',', value) {
                None => said.says(value),
                Some(_) => members(value).for_each(|member| said.says(member)),
            }
        }
        said
    }

    fn says(&mut self, member: &[u8]) {
        match member {
            m if is(m, b"keep-alive") => self.keep_alive = true,
            m if is(m, b"close") => self.close = true,
            m if is(m, b"upgrade") => self.upgrade = true,
            [] => {}
            m => self.nominates |= !Known::of(m).is_hop_by_hop(),
        }
    }
}

/// True if `field` is not for the next hop: it is hop-by-hop itself or `Connection` nominates it.
#[must_use]
pub fn stays_here(field: &Field, fields: &Fields, buffer: &[u8], connection: Connection) -> bool {
    if field.known.is_hop_by_hop() || field.known == Known::Alias {
        return true;
    }
    connection.nominates && !field.known.is_protected() && {
        let name = field.name.of(buffer);
        fields
            .values(buffer, Known::Connection)
            .flat_map(members)
            .any(|m| m.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_token_a_colon_and_a_trimmed_value() {
        let buffer = b"__X-Name: \t a b \r\n";
        let field = Field::parse(&buffer[2..], 2).unwrap();
        assert_eq!(field.name.of(buffer), b"X-Name");
        assert_eq!(field.value.of(buffer), b"a b");
        assert!(!field.is_plain(buffer));
        let empty = b"X:\r\n";
        assert_eq!(Field::parse(empty, 0).unwrap().value.of(empty), b"");
        let plain = b"X: y\r\n";
        assert!(Field::parse(plain, 0).unwrap().is_plain(plain));
    }

    #[test]
    fn names_that_are_not_exactly_tokens_are_refused() {
        for bad in [
            ": x",
            "X : y",
            " X: y",
            "\tX: y",
            "X",
            "",
            "X\u{e9}: y",
            "(X): y",
            "X y: z",
            "X-Forwarded-(X): y",
            "X_Forwarded_ For: y",
            "Host\u{e9}: y",
        ] {
            // What is behind the line is not its business, though it has a colon.
            for behind in ["", "Host: a\r\n"] {
                let bytes = format!("{bad}\r\n{behind}");
                assert!(Field::parse(bytes.as_bytes(), 0).is_err(), "{bytes:?}");
            }
        }
    }

    #[test]
    fn every_known_name_is_known_in_any_case_and_no_other_is() {
        for (name, known) in [
            ("Accept", Known::Accept),
            ("Connection", Known::Connection),
            ("Content-Length", Known::ContentLength),
            ("Content-Type", Known::ContentType),
            ("Date", Known::Date),
            ("Expect", Known::Expect),
            ("Forwarded", Known::Forwarded),
            ("Host", Known::Host),
            ("HTTP2-Settings", Known::Http2Settings),
            ("Keep-Alive", Known::KeepAlive),
            ("Proxy-Connection", Known::ProxyConnection),
            ("Slot-Preview", Known::SlotPreview),
            ("TE", Known::Te),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("Upgrade", Known::Upgrade),
            ("Via", Known::Via),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("X-Forwarded-Host", Known::XForwardedHost),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("X-Forwarded-Port", Known::XForwardedOther),
            ("X-Real-IP", Known::XForwardedOther),
            ("X-Request-Id", Known::XRequestId),
        ] {
            let cases = [name.to_owned(), name.to_lowercase(), name.to_uppercase()];
            for case in cases {
                assert_eq!(Known::of(case.as_bytes()), known, "{case}");
            }
            for at in (0..name.len()).filter(|_| known != Known::XForwardedOther) {
                let mut other = name.as_bytes().to_vec();
                other[at] = b'~';
                let got = Known::of(&other);
                assert!(got == Known::Other || got == Known::XForwardedOther);
            }
        }
        assert_eq!(Known::of(b""), Known::Other);
    }

    #[test]
    fn what_connection_says_is_read_from_one_member_or_several() {
        let said = |lines: &str| {
            let buffer = format!("{lines}\r\n");
            let mut fields = Fields::default();
            fields.parse(buffer.as_bytes(), 0, buffer.len(), 9).unwrap();
            let said = Connection::of(&fields, buffer.as_bytes());
            (said.close, said.keep_alive, said.upgrade, said.nominates)
        };
        assert_eq!(said(""), (false, false, false, false));
        assert_eq!(said("Connection:\r\n"), (false, false, false, false));
        assert_eq!(said("Connection: Close\r\n"), (true, false, false, false));
        assert_eq!(
            said("Connection: keep-alive ,, Upgrade, TE\r\n"),
            (false, true, true, false)
        );
        assert_eq!(
            said("Connection: close\r\nconnection: X-Mine\r\n"),
            (true, false, false, true)
        );
    }

    #[test]
    fn an_underscore_does_not_disguise_a_protected_name() {
        assert_eq!(Known::of(b"x_forwarded-FOR"), Known::Alias);
        assert_eq!(Known::of(b"Content_Length"), Known::Alias);
        assert_eq!(Known::of(b"my_header"), Known::Other);
    }
}
