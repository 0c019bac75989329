//! The deploy state machine.

mod names;

pub use names::{AppName, BootId, Generation, NameError, ReleaseId, SlotName, Time};
