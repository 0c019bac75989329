//! Why a slot gave no answer, and what its client is told instead.

use super::super::answer::Answer;
use super::super::told::Limit;

/// How a slot failed to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Not one byte of the request was written.
    Unsent,
    /// The connection ended without a byte.
    Silent,
    /// It ended inside the answer's head.
    CutShort,
    /// What came is no answer.
    Malformed,
    /// It switched to a protocol that nobody asked for.
    Switched,
    /// It sent interim answers without end.
    Interim,
    /// Nothing came in time.
    Slow,
    /// It does not read the request.
    Stuck,
    /// It answered, but this process has no descriptors left to pass that on.
    NoPipe,
}

impl Failed {
    /// What the client is told.
    pub fn answer(self) -> Answer {
        match self {
            Self::Unsent => Answer::to_sound(
                502,
                "the app closed the connection before the request was sent",
            ),
            Self::Silent => {
                Answer::to_sound(502, "the app closed the connection before it answered")
            }
            Self::CutShort => Answer::to_sound(
                502,
                "the app closed the connection inside the head of its answer",
            ),
            Self::Malformed => Answer::to_sound(502, "the app's answer is malformed"),
            Self::Switched => {
                Answer::to_sound(502, "the app switched protocols without being asked")
            }
            Self::Interim => Answer::to_sound(502, "the app sent too many interim answers")
                .of_limit(Limit::Interim),
            Self::Slow => Answer::to_sound(504, "the app did not answer in time")
                .of_limit(Limit::ResponseTime),
            Self::NoPipe => Answer::to_sound(503, "the router has no descriptors left"),
            Self::Stuck => Answer::to_sound(504, "the app did not read the request in time")
                .of_limit(Limit::BodyStall),
        }
    }
}
