//! The chunked coding (RFC 9112 section 7.1), checked byte by byte and passed on in place.
//!
//! Chunk extensions are taken out, trailers that no trailer may bring as well; everything else keeps
//! its bytes.
//!
//! **Invariant:** the bytes of a size line or a trailer line are named for writing only when the whole
//! line is there and valid, so an upstream never sees the beginning of something malformed.

use super::body::{BodyError, Pieces};
use super::fields::{Field, Known};
use super::tokens::is_clean;

/// A size line: sixteen digits and its extensions; longer is refused.
const SIZE_LINE: usize = 1024;
/// Bytes of extensions in one body.
const EXTENSIONS: usize = 16 * 1024;
/// Bytes of the trailer section, and its fields.
const TRAILERS: (usize, usize) = (8 * 1024, 32);

/// Where a reader of chunks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Size,
    Data(u64),
    /// The CR LF after a chunk's data.
    DataEnd,
    Trailer,
    Nothing,
}

/// A chunked body that is being read.
#[derive(Clone, Debug)]
pub struct Chunked {
    expect: Expect,
    extensions: usize,
    trailer_bytes: usize,
    trailers: usize,
    /// Bytes of data that the size lines have announced so far, and may announce.
    announced: u64,
    most: u64,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            expect: Expect::Size,
            extensions: 0,
            trailer_bytes: 0,
            trailers: 0,
            announced: 0,
            most: u64::MAX,
        }
    }
}

impl Chunked {
    /// True after the empty line that ends the body.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// Refuses more than `most` bytes of data in all.
    pub fn allow(&mut self, most: u64) {
        self.most = most;
    }

    /// As [`Body::advance`](super::body::Body::advance); only data is passed on if `bare`.
    ///
    /// # Errors
    /// Malformed chunks.
    pub fn advance(
        &mut self,
        input: &[u8],
        at: usize,
        bare: bool,
        pieces: &mut Pieces,
    ) -> Result<usize, BodyError> {
        let mut done = 0;
        while !pieces.is_full() {
            let rest = &input[done..];
            let step = match self.expect {
                Expect::Size => self.size(rest, at + done, bare, pieces)?,
                Expect::Data(left) => self.data(rest, at + done, left, pieces),
                Expect::DataEnd => self.data_end(rest, at + done, bare, pieces)?,
                Expect::Trailer => self.trailer(rest, at + done, bare, pieces)?,
                Expect::Nothing => 0,
            };
            if step == 0 {
                break;
            }
            done += step;
        }
        Ok(done)
    }

    fn size(
        &mut self,
        rest: &[u8],
        at: usize,
        bare: bool,
        pieces: &mut Pieces,
    ) -> Result<usize, BodyError> {
        let digits = rest
            .iter()
            .position(|b| !b.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        if digits > 16 {
            return Err(BodyError::Malformed("a chunk size has too many digits"));
        }
        match rest.get(digits) {
            None => return Ok(0),
            Some(_) if digits == 0 => {
                return Err(BodyError::Malformed(
                    "a chunk size does not start with a digit",
                ));
            }
            Some(b'\r' | b';') => {}
            Some(_) => {
                return Err(BodyError::Malformed(
                    "a chunk size is followed by something else",
                ));
            }
        }
        let Some(end) = line(&rest[digits..], SIZE_LINE)?.map(|n| digits + n) else {
            return Ok(0);
        };
        self.extensions += end - 2 - digits;
        if self.extensions > EXTENSIONS {
            return Err(BodyError::Malformed("too many chunk extensions"));
        }
        let size = rest[..digits].iter().fold(0_u64, |n, b| {
            (n << 4) | u64::from(char::from(*b).to_digit(16).unwrap_or_default())
        });
        if size > i64::MAX as u64 {
            return Err(BodyError::Malformed("a chunk size overflows"));
        }
        self.announced = self.announced.saturating_add(size);
        if self.announced > self.most {
            return Err(BodyError::TooLarge);
        }
        if !bare {
            pieces.push(at..at + digits);
            pieces.push(at + end - 2..at + end);
        }
        self.expect = if size == 0 {
            Expect::Trailer
        } else {
            Expect::Data(size)
        };
        Ok(end)
    }

    fn data(&mut self, rest: &[u8], at: usize, left: u64, pieces: &mut Pieces) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        pieces.push(at..at + taken);
        let left = left - taken as u64;
        self.expect = if left == 0 {
            Expect::DataEnd
        } else {
            Expect::Data(left)
        };
        taken
    }

    fn data_end(
        &mut self,
        rest: &[u8],
        at: usize,
        bare: bool,
        pieces: &mut Pieces,
    ) -> Result<usize, BodyError> {
        match rest {
            [] | [b'\r'] => Ok(0),
            [b'\r', b'\n', ..] => {
                if !bare {
                    pieces.push(at..at + 2);
                }
                self.expect = Expect::Size;
                Ok(2)
            }
            _ => Err(BodyError::Malformed(
                "a chunk's data is not followed by CR LF",
            )),
        }
    }

    fn trailer(
        &mut self,
        rest: &[u8],
        at: usize,
        bare: bool,
        pieces: &mut Pieces,
    ) -> Result<usize, BodyError> {
        let Some(end) = line(rest, TRAILERS.0)? else {
            return Ok(0);
        };
        if end == 2 {
            if !bare {
                pieces.push(at..at + 2);
            }
            self.expect = Expect::Nothing;
            return Ok(2);
        }
        self.trailer_bytes += end;
        self.trailers += 1;
        if self.trailer_bytes > TRAILERS.0 || self.trailers > TRAILERS.1 {
            return Err(BodyError::Malformed("too many trailers"));
        }
        let field = Field::parse(&rest[..end], 0)
            .map_err(|refusal| BodyError::Malformed(refusal.reason))?;
        // RFC 9110 section 6.5.1: what frames, routes or authenticates a message is no trailer.
        let forbidden = field.known.is_protected()
            || field.known.is_hop_by_hop()
            || field.known == Known::Alias;
        if !bare && !forbidden {
            pieces.push(at..at + end);
        }
        Ok(end)
    }
}

/// The length of the first line of `rest` with its CR LF, `None` while it is not complete.
fn line(rest: &[u8], most: usize) -> Result<Option<usize>, BodyError> {
    const BAD: BodyError =
        BodyError::Malformed("a line among the chunks has a control character or no CR LF");
    let visible = &rest[..rest.len().min(most)];
    let Some(feed) = memchr::memchr(b'\n', visible) else {
        if rest.len() >= most {
            return Err(BodyError::Malformed("a line among the chunks is too long"));
        }
        let tail = visible.strip_suffix(b"\r").unwrap_or(visible);
        return if is_clean(tail) { Ok(None) } else { Err(BAD) };
    };
    match visible[..feed].strip_suffix(b"\r") {
        Some(content) if is_clean(content) => Ok(Some(feed + 1)),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of `input` when it comes in steps of `step` bytes, and what was not consumed.
    fn pass(input: &[u8], step: usize, bare: bool) -> Result<(Vec<u8>, bool, usize), BodyError> {
        let (mut chunked, mut out, mut start) = (Chunked::default(), Vec::new(), 0);
        for end in (step..input.len()).step_by(step).chain([input.len()]) {
            loop {
                let mut pieces = Pieces::default();
                let done = chunked.advance(&input[start..end], start, bare, &mut pieces)?;
                pieces
                    .as_slice()
                    .iter()
                    .for_each(|r| out.extend_from_slice(r.of(input)));
                start += done;
                if done == 0 {
                    break;
                }
            }
        }
        Ok((out, chunked.is_done(), start))
    }

    fn agree(input: &str, bare: bool) -> Result<(String, bool, usize), BodyError> {
        let whole = pass(input.as_bytes(), input.len().max(1), bare);
        for step in 1..input.len().min(9) {
            assert_eq!(
                pass(input.as_bytes(), step, bare).is_ok(),
                whole.is_ok(),
                "{input:?} by {step}"
            );
            if whole.is_ok() {
                assert_eq!(
                    pass(input.as_bytes(), step, bare),
                    whole,
                    "{input:?} by {step}"
                );
            }
        }
        whole.map(|(out, done, used)| (String::from_utf8(out).unwrap(), done, used))
    }

    #[test]
    fn chunks_pass_unchanged_but_for_extensions_and_forbidden_trailers() {
        let input = "5;a=\"b\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\nContent-Length: 3\r\nhost: a\r\n\r\nGET";
        let (out, done, used) = agree(input, false).unwrap();
        assert_eq!(out, "5\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n");
        assert!(done);
        assert_eq!(used, input.len() - 3);
        assert_eq!(agree(input, true).unwrap().0, "hello0123456789");
    }

    #[test]
    fn many_small_chunks_fit_through_few_pieces() {
        let input = format!("{}0\r\n\r\n", "1;x\r\na\r\n".repeat(200));
        assert_eq!(
            agree(&input, false).unwrap().0,
            format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(200))
        );
    }

    #[test]
    fn malformed_chunks_are_refused_for_every_split() {
        for bad in [
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1_0\r\n",
            " 1\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "g\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "1\r\naX",
            "fffffffffffffffff\r\n",
            "ffffffffffffffff\r\n",
            "1;a\nb\r\na\r\n",
            "1;a\rb\r\na\r\n",
            "1;\x00\r\n",
            "1\r\r\n",
            "0\r\n: x\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "0\n\n",
            ";a\r\n",
        ] {
            assert!(agree(bad, false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_capped() {
        let long = format!("1;{}\r\na\r\n", "x".repeat(SIZE_LINE));
        assert!(agree(&long, false).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(20);
        assert!(agree(&many, false).is_err());
        assert!(agree(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(33)), false).is_err());
    }
}
