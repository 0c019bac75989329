//! The deployer: one task per app owns its state.

pub mod embedded;
pub mod units;
