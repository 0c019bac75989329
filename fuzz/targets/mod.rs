//! What is fuzzed: each target panics if something is not as it must be.

mod chunks;
mod forwarder;
mod head;
mod reader;

/// A target.
pub type Target = Box<dyn FnMut(&[u8])>;

/// The names of all targets.
pub const NAMES: [&str; 3] = ["head", "chunks", "forwarder"];

/// The target of this name.
pub fn named(name: &str) -> Option<Target> {
    match name {
        "head" => Some(Box::new(head::run)),
        "chunks" => Some(Box::new(chunks::run)),
        "forwarder" => {
            let mut forwarder = forwarder::Forwarder::start();
            Some(Box::new(move |data| forwarder.run(data)))
        }
        _ => None,
    }
}

/// The first byte of the data and the rest; 0 of nothing.
fn split(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [first, rest @ ..] => (usize::from(*first), rest),
        [] => (0, data),
    }
}
