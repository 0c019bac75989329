//! Mutation of inputs: takes one that is known, changes it a little, keeps it if it reached something new.
//!
//! **Invariant:** the same seed makes the same inputs.

use std::fs;
use std::path::Path;

/// What the grammars that are fuzzed consist of.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ": ",
    ",",
    ";",
    "=",
    "\"",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{e9}",
    "0",
    "1",
    "5",
    "a",
    "/",
    "//",
    "..",
    "%2e",
    "%2F",
    "%00",
    "?",
    "#",
    "*",
    "@",
    "[::1]",
    "GET ",
    "POST ",
    "HEAD ",
    "OPTIONS ",
    "CONNECT ",
    "GET / HTTP/1.1\r\n",
    "http://b:81",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 304 x\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "Host: a\r\n",
    "Host",
    "Content-Length: 5\r\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: ",
    "chunked",
    "gzip",
    "Connection: close\r\n",
    "Connection: ",
    "keep-alive",
    "upgrade",
    "Upgrade: websocket\r\n",
    "TE: trailers\r\n",
    "Expect: 100-continue\r\n",
    "X-Forwarded-For: 1\r\n",
    "X_Forwarded_For: 1\r\n",
    "Forwarded: for=x\r\n",
    "Via: 1.1 v\r\n",
    "Keep-Alive: timeout=1\r\n",
    "Content-Type: text/event-stream\r\n",
    "Accept: text/event-stream\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "ffffffffffffffff",
    "8000000000000000",
    "00",
    ";x=y\r\n",
    "hello",
    "X: y\r\n",
    "\u{1c}",
    "\u{1d}",
    "\u{1e}",
    "\u{1f}",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Inputs are no longer than this: everything fits into the buffers of sockets.
const LONGEST: usize = 4096;

/// A source of inputs.
pub struct Engine {
    corpus: Vec<Vec<u8>>,
    random: u64,
}

impl Engine {
    /// Starts from the files in `corpus`.
    pub fn new(corpus: &Path, seed: u64) -> Self {
        let mut files: Vec<_> = fs::read_dir(corpus)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        let read = files.iter().filter_map(|file| fs::read(file).ok());
        Self {
            corpus: read.chain([Vec::new()]).collect(),
            random: seed,
        }
    }

    /// What is known so far.
    pub fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// Another input.
    pub fn next(&mut self) -> Vec<u8> {
        let pick = self.below(self.corpus.len());
        let mut input = self.corpus[pick].clone();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    /// Mutates this one too from now on.
    pub fn keep(&mut self, input: Vec<u8>) {
        self.corpus.push(input);
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(9) {
            0 | 1 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            2 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..end.max(at), word.bytes());
            }
            3 if at < end => drop(input.drain(at..end)),
            4 if at < input.len() => input[at] ^= 1 << self.below(8),
            5 if at < input.len() => input[at] = self.below(256) as u8,
            6 if at < end => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            7 => {
                // The end of another one.
                let other = &self.corpus[self.random as usize % self.corpus.len()];
                let from = (self.random >> 32) as usize % (other.len() + 1);
                let rest = other[from..].to_vec();
                input.truncate(at);
                input.extend(rest);
            }
            _ => input.truncate(at),
        }
    }

    /// A number below `bound`, by splitmix64.
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}
