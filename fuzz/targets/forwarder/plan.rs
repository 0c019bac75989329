//! What an input stands for: what the client sends, what the upstream answers, and how both are cut.
//!
//! Three bytes say how; behind them are the client's bytes, then any number of answers, each begun by one of the bytes of [`Then`].
//! Requests for which no answer is left get one that is as it should be.

/// What a request gets for which the input has no answer.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the upstream does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// `\x1c`: waits for the next request.
    Stay,
    /// `\x1d`: says that nothing more comes.
    End,
    /// `\x1e`: closes by reset.
    Reset,
    /// `\x1f`: speaks without being asked.
    Speak,
}

impl Then {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            b'\x1c' => Self::Stay,
            b'\x1d' => Self::End,
            b'\x1e' => Self::Reset,
            b'\x1f' => Self::Speak,
            _ => return None,
        })
    }
}

/// What the upstream has to say to a request.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub bytes: &'a [u8],
    pub then: Then,
}

/// An input.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    pub asked: &'a [u8],
    pub said: Vec<Said<'a>>,
    /// The client says that it was all as soon as it has sent it, and not only when it has its answers.
    pub half_closes: bool,
    /// The client sends no request before it has the answer to the last one.
    pub in_turn: bool,
    /// The upstream answers a request as soon as it has seen some of it.
    pub is_eager: bool,
    cuts: [(usize, u8); 2],
}

impl<'a> Plan<'a> {
    pub fn of(data: &'a [u8]) -> Self {
        let (how, bytes) = data.split_at(data.len().min(3));
        let how = |n: usize| how.get(n).copied().unwrap_or_default();
        let mut parts = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.iter().rposition(|b| Then::of(*b).is_some()) {
            if let Some(then) = Then::of(rest[at]) {
                let bytes = &rest[at + 1..];
                parts.push(Said { bytes, then });
            }
            rest = &rest[..at];
        }
        parts.reverse();
        Self {
            asked: rest,
            said: parts,
            half_closes: how(0) & 1 != 0,
            in_turn: how(0) & 2 != 0,
            is_eager: how(0) & 4 != 0,
            cuts: [
                (usize::from(how(0) >> 3 & 3), how(1)),
                (usize::from(how(0) >> 5 & 3), how(2)),
            ],
        }
    }

    /// The answer to the request that is the `number`th to get one.
    pub fn answer(&self, number: usize) -> Said<'a> {
        let ok = Said {
            bytes: OK,
            then: Then::Stay,
        };
        self.said.get(number).copied().unwrap_or(ok)
    }

    /// Where the client's bytes are cut: up to three places, anywhere in them.
    pub fn client_cuts(&self) -> Vec<usize> {
        places(self.cuts[0], self.asked.len())
    }

    /// Where an answer of this length is cut.
    pub fn upstream_cuts(&self, length: usize) -> Vec<usize> {
        places(self.cuts[1], length)
    }
}

fn places((count, seed): (usize, u8), length: usize) -> Vec<usize> {
    let place = |n: usize| (usize::from(seed) * (2 * n + 1) + 85 * n) % 256 * length / 256;
    let mut places: Vec<_> = (0..count).map(place).collect();
    places.sort_unstable();
    places.dedup();
    places.retain(|place| *place > 0);
    places
}
