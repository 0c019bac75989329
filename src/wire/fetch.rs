//! What slotd and the fetcher of an app's remote say to each other, on a unix socket of their own.
//!
//! ```text
//! slotd   ► one line: an Order as JSON; then one line for each list of contents, a Lacking as JSON: which of them it has not
//! fetcher ► lines, each a Word as JSON: the commit that was meant; then for each part of it, those of its submodules first: what Git LFS
//!           keeps of its files, in lists, then the contents that slotd lacks of them, then its pack; or, at any line, why there is no
//!           more. What is sent follows its line in pieces
//! piece   = its length (4 bytes, big endian), then that many bytes; the last one is empty
//! ```
//! slotd closes its side when it has all, or wants no more; the fetcher ends then, and whatever it has started with it.
//!
//! **Invariant:** whatever a fetcher sends, a line or a piece takes no more memory than its limit.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::release::{Content, Lacking};

/// So many contents are put in one list, so that it and its answer are no longer than a line may be.
pub const LIST: usize = 256;

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The remote, as slotd knows it; a unit of an older file has another.
    pub remote: String,
    /// A branch, a tag or a whole commit; none: what the remote's HEAD names.
    pub reference: Option<String>,
    /// The commits that slotd has whole, 40 hexadecimal digits each.
    pub have: Vec<String>,
}

/// What the fetcher says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// What was asked for is this commit.
    Named {
        /// 40 hexadecimal digits.
        commit: String,
        /// What it was called: `main` for a HEAD on that branch.
        reference: Option<String>,
    },
    /// These are needed next, one for each file; slotd says which it lacks.
    Needed {
        /// At most [`LIST`].
        contents: Vec<Content>,
        /// The part has no other list.
        is_last: bool,
    },
    /// This content follows.
    Content(Content),
    /// The pack of this commit follows.
    Part {
        /// 40 hexadecimal digits.
        commit: String,
    },
    /// There is no more.
    Failed {
        /// Why, and what to do.
        said: String,
    },
}

impl Word {
    /// Reads one.
    ///
    /// # Errors
    /// The other side is gone, or says something else.
    pub fn read(from: &mut impl BufRead) -> io::Result<Self> {
        super::read_line(from)
    }

    /// Writes it.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        write_line(to, self)
    }
}

/// Reads slotd's answer to [`Word::Needed`].
///
/// # Errors
/// The other side is gone, or says something else.
pub fn read_answer(from: &mut impl BufRead) -> io::Result<Lacking> {
    super::read_line(from)
}

/// Writes what slotd says: an [`Order`], a [`Lacking`].
///
/// # Errors
/// The other side is gone.
pub fn write_line(to: &mut impl Write, said: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// A pack, or a content, that comes in pieces. What was not read of it stays where it is.
#[derive(Debug)]
pub struct FromPieces<R> {
    from: R,
    /// Of this piece.
    left: u32,
    ended: bool,
}

impl<R: Read> FromPieces<R> {
    /// What follows a [`Word::Part`] or a [`Word::Content`].
    pub fn of(from: R) -> Self {
        Self {
            from,
            left: 0,
            ended: false,
        }
    }
}

impl<R: Read> Read for FromPieces<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            self.from.read_exact(&mut length)?;
            self.left = u32::from_be_bytes(length);
            self.ended = self.left == 0;
            if self.ended {
                return Ok(0);
            }
        }
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= u32::try_from(count).unwrap_or(self.left);
        Ok(count)
    }
}

/// Sends a pack or a content in pieces, but for the last, empty one.
///
/// # Errors
/// It cannot be read to its end, or the other side is gone.
pub fn send_pieces(mut sent: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match sent.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let length = u32::try_from(count).map_err(io::Error::other)?;
        to.write_all(&length.to_be_bytes())?;
        to.write_all(&buffer[..count])?;
    }
}

/// Ends what was sent in pieces.
///
/// # Errors
/// The other side is gone.
pub fn end_pieces(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 4])?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_packs_come_as_they_were_sent() {
        let part = Word::Part {
            commit: "1".repeat(40),
        };
        let (long, mut sent) = (vec![7; 200_000], Vec::new());
        for pack in [&long[..], &[]] {
            part.write(&mut sent).unwrap();
            send_pieces(pack, &mut sent).unwrap();
            end_pieces(&mut sent).unwrap();
        }
        let mut from = &sent[..];
        for pack in [&long[..], &[]] {
            assert_eq!(Word::read(&mut from).unwrap(), part);
            let mut came = Vec::new();
            FromPieces::of(&mut from).read_to_end(&mut came).unwrap();
            assert!(came == pack);
        }
        assert!(Word::read(&mut from).is_err());
    }

    #[test]
    fn what_is_torn_does_not_end_well() {
        let mut sent = Vec::new();
        send_pieces(&b"pack"[..], &mut sent).unwrap();
        end_pieces(&mut sent).unwrap();
        for length in 0..sent.len() {
            let mut came = Vec::new();
            let read = FromPieces::of(&sent[..length]).read_to_end(&mut came);
            let error = read.unwrap_err().kind();
            assert_eq!(error, io::ErrorKind::UnexpectedEof, "{length}");
        }
        let endless = [b'x'; 100_000];
        assert!(Word::read(&mut &endless[..]).is_err());
        assert!(Word::read(&mut &b"{\"named\":{}}\n"[..]).is_err());
    }
}
