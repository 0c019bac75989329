//! How long what is in flight at a slot may go on: `drain`, and `drain_requests`, `drain_streams`, `drain_tunnels`.

use std::time::Duration;

use crate::deploy::ByClass;

/// What an app's file says; no time at all is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// `drain`, for every class that has no key of its own.
    pub all: Duration,
    /// `drain_requests`.
    pub requests: Option<Duration>,
    /// `drain_streams`.
    pub streams: Option<Duration>,
    /// `drain_tunnels`.
    pub tunnels: Option<Duration>,
}

impl Drain {
    /// With another `drain`, for one deployment: what the file says of a class by itself stays, since whoever wrote that knows how long
    /// such a thing lasts.
    #[must_use]
    pub fn with(self, all: Duration) -> Self {
        Self { all, ..self }
    }

    /// What holds for each class.
    #[must_use]
    pub fn by_class(self) -> ByClass<Duration> {
        let of = |own: Option<Duration>| Some(own.unwrap_or(self.all)).filter(|it| !it.is_zero());
        ByClass {
            requests: of(self.requests),
            streams: of(self.streams),
            tunnels: of(self.tunnels),
        }
    }
}
