//! Memory for bytes under way, given back as soon as it is empty.
//!
//! **Invariant:** a connection that waits owns no buffer; thousands of idle ones share a few.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::owned::Memory;
use super::stream::Stream;

/// Enough for almost every head, and for a small body with it.
pub const SMALL: usize = 16 * 1024;
/// For bodies: large enough that system calls don't count, and a little less than the largest segment
/// of the loopback device (its MTU is 65,536): what is written at once from 64 KiB would leave as a
/// full segment and one of 53 bytes, and such a body costs half as much again.
pub const LARGE: usize = 60 * 1024;

/// Unused memory kept per thread: pieces of each size.
const KEPT: (usize, usize) = (32, 8);

/// Unused heads kept per thread, of which a busy one needs one for each request under way; and up to how many bytes they are kept.
const HEADS: (usize, usize) = (128, 8 * 1024);

/// A thread's unused memory.
#[derive(Debug, Default)]
pub struct Spare {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    heads: RefCell<Vec<Vec<u8>>>,
}

impl Spare {
    fn take(&self, size: usize) -> Box<[u8]> {
        let kept = match size {
            SMALL => self.small.borrow_mut().pop(),
            LARGE => self.large.borrow_mut().pop(),
            _ => None,
        };
        // Zeroed once, by calloc: pages that are never used cost nothing.
        kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, data: Box<[u8]>) {
        let (list, most) = match data.len() {
            SMALL => (&self.small, KEPT.0),
            LARGE => (&self.large, KEPT.1),
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < most {
            list.push(data);
        }
    }

    /// An empty list of bytes to write a head into.
    pub fn head(&self) -> Vec<u8> {
        self.heads
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(1024))
    }

    /// Gives it back.
    pub fn give_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS.0 && (1..=HEADS.1).contains(&head.capacity()) {
            head.clear();
            heads.push(head);
        }
    }
}

/// Bytes that were read and not yet used: `data[start..end]`.
#[derive(Debug, Default)]
pub struct Buffer {
    /// All of it is initialised, so that it can be read into without `unsafe`.
    data: Memory,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The unused bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// How many bytes of memory it owns.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// How many bytes are unused.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if it owns memory.
    pub fn is_allocated(&self) -> bool {
        !self.data.is_empty()
    }

    /// Forgets the first `count` unused bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room to read into, at least one byte, in a memory of at least `size` bytes.
    pub fn room(&mut self, size: usize, spare: &Spare) -> &mut [u8] {
        if self.data.is_empty() {
            self.data = Memory::new(spare.take(size));
        } else if self.data.len() < size || self.start == 0 && self.end == self.data.len() {
            let size = if self.data.len() < size {
                size
            } else {
                self.data.len() * 2
            };
            let mut larger = Memory::new(spare.take(size));
            larger[..self.len()].copy_from_slice(self.bytes());
            (self.end, self.start) = (self.len(), 0);
            spare.give(std::mem::replace(&mut self.data, larger).free());
        } else if self.end == self.data.len() {
            self.data.copy_within(self.start..self.end, 0);
            (self.end, self.start) = (self.len(), 0);
        }
        &mut self.data[self.end..]
    }

    /// `count` bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.data.len());
    }

    /// Reads what there is of `from`; 0 is its end. Memory, of at least `size` bytes, is taken only when
    /// there is something to read: whoever waits owns none.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        size: usize,
        spare: &Spare,
    ) -> Poll<io::Result<usize>> {
        loop {
            let readable = from.poll_readable(cx);
            if readable.is_pending() {
                self.release(spare);
            }
            match ready!(readable)?.read(self.room(size, spare)) {
                Ok(count) => {
                    self.filled(count);
                    return Poll::Ready(Ok(count));
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => {
                    self.release(spare);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    /// Keeps no more memory than its bytes need, for a connection that has to wait with them.
    pub fn shrink(&mut self, spare: &Spare) {
        if self.len() * 2 < self.data.len() {
            let exact = Memory::new(self.bytes().into());
            (self.end, self.start) = (self.len(), 0);
            spare.give(std::mem::replace(&mut self.data, exact).free());
        }
    }

    /// Gives its memory back if it holds nothing.
    pub fn release(&mut self, spare: &Spare) {
        if self.is_empty() && self.is_allocated() {
            spare.give(std::mem::take(&mut self.data).free());
            (self.start, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8], spare: &Spare) {
        for byte in bytes {
            buffer.room(4, spare)[0] = *byte;
            buffer.filled(1);
        }
    }

    #[test]
    fn bytes_stay_in_order_while_it_grows_and_moves() {
        let (mut buffer, spare) = (Buffer::default(), Spare::default());
        put(&mut buffer, b"abcd", &spare);
        buffer.consume(3);
        put(&mut buffer, b"efg", &spare);
        assert_eq!((buffer.bytes(), buffer.capacity()), (&b"defg"[..], 4));
        put(&mut buffer, b"hi", &spare);
        assert_eq!(buffer.bytes(), b"defghi");
        assert!(buffer.capacity() > 4);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let (mut buffer, spare) = (Buffer::default(), Spare::default());
        buffer.room(SMALL, &spare)[0] = 1;
        buffer.filled(1);
        buffer.release(&spare);
        assert!(buffer.is_allocated());
        buffer.consume(1);
        buffer.release(&spare);
        assert!(!buffer.is_allocated());
        assert_eq!(spare.small.borrow().len(), 1);
    }
}
