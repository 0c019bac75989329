//! What nobody can guess, and nothing else has.

use anyhow::Context;
use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes, at most 256.
///
/// # Errors
/// If the kernel has none to give.
pub(super) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    // As long as no signal comes, so few are given whole (getrandom(2)).
    let given =
        getrandom(&mut bytes, GetRandomFlags::empty()).context("cannot get random bytes")?;
    anyhow::ensure!(
        given == N,
        "the kernel gave too few random bytes; try again"
    );
    Ok(bytes)
}
