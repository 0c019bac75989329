//! How an attempt ended.

use std::io;

use super::super::answer::Answer;
use super::super::h1::forward::Toward;
use super::super::h1::response::Response;
use super::Failed;

/// How an attempt ended, before [`Attempt::end`] has dealt with its connections.
#[derive(Debug)]
pub enum End {
    /// The slot failed to answer.
    Failed(Failed, Option<io::Error>),
    /// It was given up because of the client, which is to be told so if it is still there.
    Abandoned(Option<Answer>),
    /// The answer was passed back, so many bytes of body.
    Whole(Response, Toward, u64),
    /// A part of it was: the client must see that it is no more.
    Part(u16, u64),
    /// No more than a part of it came from the slot.
    Cut(u16, u64),
    /// It became a tunnel.
    Switched {
        /// Each side has ended; else one was lost.
        whole: bool,
        /// Bytes that were passed back.
        moved: u64,
    },
}

impl End {
    pub(super) fn failed(failed: Failed) -> Self {
        Self::Failed(failed, None)
    }
}
