//! The bytes of a body inside a buffer: which may be passed on, and where they end.
//!
//! **Invariant:** nothing is copied; what is to be written is named as ranges of the buffer that was read.

use super::chunked::Chunked;
use super::framing::Framing;
use super::{Refusal, Span};
use std::ops::Range;

/// Why a body is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It does not follow its own framing, or ended before it.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its chunks add up to more than was allowed.
    #[error("the request's body is too large")]
    TooLarge,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Malformed(reason) => Self::bad(reason),
            BodyError::TooLarge => Self::TOO_LARGE,
        }
    }
}

/// How many ranges are collected before they are written; also the width of a vectored write.
pub const MOST_PIECES: usize = 8;

/// Ranges of a buffer to be written in this order.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    list: [Span; MOST_PIECES],
    count: u8,
}

impl Pieces {
    /// Adds a range; one that follows the last without a gap makes it longer.
    pub fn push(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let range = Span::new(range.start, range.end);
        let count = usize::from(self.count);
        if let Some(last) = self.list[..count].last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        self.list[count] = range;
        self.count += 1;
    }

    /// True if not every kind of step has room left: one step adds at most three ranges.
    #[must_use]
    pub fn is_full(&self) -> bool {
        usize::from(self.count) + 3 > MOST_PIECES
    }

    /// True if there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes the ranges are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().iter().map(|piece| piece.len()).sum()
    }

    /// The ranges in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Span] {
        &self.list[..usize::from(self.count)]
    }

    /// Takes `written` bytes off the front.
    pub fn advance(&mut self, mut written: usize) {
        let mut gone = 0;
        let list = &mut self.list[..usize::from(self.count)];
        for range in &mut *list {
            let step = written.min(range.len());
            range.start += step as u32;
            written -= step;
            if range.start < range.end {
                break;
            }
            gone += 1;
        }
        list.rotate_left(gone);
        self.count -= gone as u8;
    }
}

/// The rest of a body that is being passed on.
#[derive(Clone, Debug)]
pub enum Body {
    /// It has ended.
    Done,
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks; `bare` if only their data is passed on, to an HTTP/1.0 client.
    Chunked {
        /// Where in the chunks we are.
        chunked: Chunked,
        /// Data without its framing.
        bare: bool,
    },
    /// Everything until the connection ends.
    UntilClose,
}

impl Body {
    /// A body that begins.
    #[must_use]
    pub fn new(framing: Framing, bare: bool) -> Self {
        match framing {
            Framing::Empty => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked {
                chunked: Chunked::default(),
                bare,
            },
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Allows chunks no more than `most` bytes of data in all.
    pub fn allow(&mut self, most: u64) {
        if let Self::Chunked { chunked, .. } = self {
            chunked.allow(most);
        }
    }

    /// True once the last byte was seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Looks at `input`, which lies at `at` in its buffer, adds to `pieces` what may be written, and
    /// returns how many bytes are settled. The rest is either too little to judge or not of this body.
    ///
    /// # Errors
    /// Malformed chunks. What was added before stays valid.
    pub fn advance(
        &mut self,
        input: &[u8],
        at: usize,
        pieces: &mut Pieces,
    ) -> Result<usize, BodyError> {
        match self {
            Self::Done => Ok(0),
            Self::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                pieces.push(at..at + taken);
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Chunked { chunked, bare } => {
                let taken = chunked.advance(input, at, *bare, pieces)?;
                if chunked.is_done() {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::UntilClose => {
                pieces.push(at..at + input.len());
                Ok(input.len())
            }
        }
    }

    /// The sender has closed.
    ///
    /// # Errors
    /// The body was not at its end.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked { .. } => {
                Err(BodyError::Malformed("the connection ended inside the body"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_pieces_become_one_and_are_taken_from_the_front() {
        let mut pieces = Pieces::default();
        pieces.push(0..3);
        pieces.push(3..5);
        pieces.push(8..9);
        pieces.push(9..9);
        assert_eq!(pieces.as_slice(), [Span::new(0, 5), Span::new(8, 9)]);
        pieces.advance(2);
        assert_eq!(pieces.as_slice(), [Span::new(2, 5), Span::new(8, 9)]);
        pieces.advance(3);
        assert_eq!(pieces.as_slice(), [Span::new(8, 9)]);
        pieces.advance(1);
        assert!(pieces.is_empty());
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        let (mut body, mut pieces) = (Body::new(Framing::Length(3), false), Pieces::default());
        assert_eq!(body.advance(b"ab", 0, &mut pieces), Ok(2));
        assert!(body.clone().end_of_input().is_err());
        assert_eq!(body.advance(b"cGET", 2, &mut pieces), Ok(1));
        assert!(body.is_done() && body.end_of_input().is_ok());
        assert_eq!(pieces.as_slice(), [Span::new(0, 3)]);
    }
}
