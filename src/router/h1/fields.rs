//! Header and trailer fields: splitting lines into names and values, and knowing the names that matter.
//!
//! **Invariant:** a name is a token directly followed by its colon; a line is one field (no folding).

use super::tokens::{TOKEN, find, is, members, trim_end, trim_start};
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
        let known = match name.len() {
            2 if is(name, b"TE") => Self::Te,
            3 if is(name, b"Via") => Self::Via,
            4 if is(name, b"Host") => Self::Host,
            4 if is(name, b"Date") => Self::Date,
            6 if is(name, b"Accept") => Self::Accept,
            6 if is(name, b"Expect") => Self::Expect,
            7 if is(name, b"Upgrade") => Self::Upgrade,
            9 if is(name, b"Forwarded") => Self::Forwarded,
            10 if is(name, b"Connection") => Self::Connection,
            10 if is(name, b"Keep-Alive") => Self::KeepAlive,
            12 if is(name, b"Content-Type") => Self::ContentType,
            12 if is(name, b"X-Request-Id") => Self::XRequestId,
            12 if is(name, b"Slot-Preview") => Self::SlotPreview,
            14 if is(name, b"Content-Length") => Self::ContentLength,
            14 if is(name, b"HTTP2-Settings") => Self::Http2Settings,
            15 if is(name, b"X-Forwarded-For") => Self::XForwardedFor,
            16 if is(name, b"X-Forwarded-Host") => Self::XForwardedHost,
            17 if is(name, b"X-Forwarded-Proto") => Self::XForwardedProto,
            16 if is(name, b"Proxy-Connection") => Self::ProxyConnection,
            17 if is(name, b"Transfer-Encoding") => Self::TransferEncoding,
            9 if is(name, b"X-Real-IP") => Self::XForwardedOther,
            13.. if is(&name[..FORWARDED.len()], FORWARDED) => Self::XForwardedOther,
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
    /// Splits `line`, which starts at `at` in its buffer and ends with CR LF.
    ///
    /// # Errors
    /// An empty or malformed name, space before the colon, a folded line.
    #[inline]
    pub fn parse(line: &[u8], at: usize) -> Result<Self, Refusal> {
        let name = line
            .iter()
            .position(|b| !TOKEN[usize::from(*b)])
            .unwrap_or(line.len());
        match line.get(name) {
            Some(b':') if name > 0 => {}
            Some(b':') => return Err(Refusal::bad("a field has no name")),
            Some(b' ' | b'\t') if name == 0 => {
                return Err(Refusal::bad("a folded line, or white space before a field"));
            }
            Some(b' ' | b'\t') => {
                return Err(Refusal::bad(
                    "white space between a field's name and its colon",
                ));
            }
            _ => return Err(Refusal::bad("a field's name is not a token")),
        }
        let end = line.len() - 2;
        let value = trim_start(&line[name + 1..end]);
        let start = at + end - value.len();
        Ok(Self {
            name: Span::new(at, at + name),
            value: Span::new(start, start + trim_end(value).len()),
            line: Span::new(at, at + line.len()),
            known: Known::of(&line[..name]),
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
            let feed = find(b'\n', &buffer[at..end]).map_or(end, |n| at + n + 1);
            if self.list.len() == most {
                return Err(Refusal {
                    status: 431,
                    reason: "too many header fields",
                });
            }
            let field = Field::parse(&buffer[at..feed], at)?;
            self.there |= field.known.bit();
            self.list.push(field);
            at = feed;
        }
        Ok(())
    }

    /// All fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.list.iter()
    }

    /// The values of the fields that are `known`, in their order.
    pub fn values<'b>(&self, buffer: &'b [u8], known: Known) -> impl Iterator<Item = &'b [u8]> {
        let list = match self.there & known.bit() {
            0 => &[],
            _ => self.list.as_slice(),
        };
        list.iter()
            .filter(move |f| f.known == known)
            .map(|f| f.value.of(buffer))
    }

    /// True if a list field `known` has the member `wanted`, whatever its case.
    #[must_use]
    pub fn lists(&self, buffer: &[u8], known: Known, wanted: &str) -> bool {
        self.values(buffer, known)
            .flat_map(members)
            .any(|m| m.eq_ignore_ascii_case(wanted.as_bytes()))
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
        for member in fields.values(buffer, Known::Connection).flat_map(members) {
            match member {
                m if is(m, b"keep-alive") => said.keep_alive = true,
                m if is(m, b"close") => said.close = true,
                m if is(m, b"upgrade") => said.upgrade = true,
                [] => {}
                m => said.nominates |= !Known::of(m).is_hop_by_hop(),
            }
        }
        said
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
        ] {
            assert!(
                Field::parse(format!("{bad}\r\n").as_bytes(), 0).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn an_underscore_does_not_disguise_a_protected_name() {
        assert_eq!(Known::of(b"x_forwarded-FOR"), Known::Alias);
        assert_eq!(Known::of(b"Content_Length"), Known::Alias);
        assert_eq!(Known::of(b"my_header"), Known::Other);
    }
}
